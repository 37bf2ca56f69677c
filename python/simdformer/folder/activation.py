# SPDX-License-Identifier: Apache-2.0
"""Activations of dense modules and of a cross-encoder's logits, as functions of arrays.

They are named by the path of a class of torch.nn. The path is looked up in a table and never imported;
formulas and default options are those of PyTorch's documentation. Activations that have a kernel run in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simdformer.functional.activations import activate
from simdformer.functional.rows import softmax
from simdformer.models.activations import TORCH_CLASSES

Float32 = NDArray[np.float32]
Function = Callable[[Float32], Any]

# torch.nn.SELU's constants (Klambauer et al. 2017, arXiv:1706.02515).
_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def _elu(x: Float32) -> Any:
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def _selu(x: Float32) -> Any:
    negative = np.float32(_SELU_ALPHA) * np.expm1(np.minimum(x, 0))
    return np.float32(_SELU_SCALE) * np.where(x > 0, x, negative)


def _softplus(x: Float32) -> Any:
    return np.logaddexp(np.float32(0), x)


def _hard_sigmoid(x: Float32) -> Any:
    return np.clip(x + 3, 0, 6) / np.float32(6)


def _glu(x: Float32) -> Any:
    if x.shape[-1] % 2:
        raise ValueError(f"GLU needs an even number of features, got {x.shape[-1]}")
    first, second = np.split(x, 2, axis=-1)
    return first * activate("sigmoid", np.ascontiguousarray(second), None)


def _log_softmax(x: Float32) -> Any:
    shifted = x - x.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def leaky_relu(slope: float) -> Function:
    """x where x is positive, slope * x elsewhere."""
    return lambda x: np.where(x >= 0, x, np.float32(slope) * x)


# By the name of the class, with its default options and in eval mode.
_FUNCTIONS: dict[str, Function] = {
    "CELU": _elu,
    "ELU": _elu,
    "GLU": _glu,
    "Hardshrink": lambda x: np.where(np.abs(x) > 0.5, x, 0 * x),
    "Hardsigmoid": _hard_sigmoid,
    "Hardswish": lambda x: x * _hard_sigmoid(x),
    "Hardtanh": lambda x: np.clip(x, -1, 1),
    "LeakyReLU": leaky_relu(0.01),
    "LogSigmoid": lambda x: -_softplus(-x),
    "LogSoftmax": _log_softmax,
    "Mish": lambda x: x * np.tanh(_softplus(x)),
    "PReLU": leaky_relu(0.25),
    "RReLU": leaky_relu((1 / 8 + 1 / 3) / 2),
    "ReLU6": lambda x: np.clip(x, 0, 6),
    "SELU": _selu,
    "Softmax": softmax,
    "Softmin": lambda x: softmax(-x),
    "Softplus": _softplus,
    "Softshrink": lambda x: x - np.clip(x, -0.5, 0.5),
    "Softsign": lambda x: x / (1 + np.abs(x)),
    "Tanhshrink": lambda x: x - activate("tanh", x, None),
}
NAMES = tuple(sorted({*TORCH_CLASSES, *_FUNCTIONS}))
# These combine the features of a row. torch.nn's combine the texts of a batch of token vectors.
MIXING = frozenset({"LogSoftmax", "Softmax", "Softmin"})


def class_name(path: object, field: str) -> str | None:
    """The name of the class of torch.nn in a path such as "torch.nn.modules.activation.Tanh"; None for other
    packages.

    Errors: ValueError naming the field and listing the known classes.
    """
    if not isinstance(path, str):
        raise ValueError(f"{field} must be the path of a class, got {path!r}")  # noqa: TRY004  (a file is wrong)
    if not path.startswith("torch."):
        return None
    name = path.rpartition(".")[2]
    if not path.startswith("torch.nn.") or name not in NAMES:
        raise ValueError(f"unknown {field} {path!r}; known of torch.nn: {', '.join(NAMES)}")
    return name


def kernel_or_function(name: str) -> str | Function:
    """The kernel of a class of torch.nn, or a NumPy function if there is none."""
    return TORCH_CLASSES[name] if name in TORCH_CLASSES else _FUNCTIONS[name]


@dataclass(frozen=True)
class TorchActivation:
    """A class of torch.nn as a function of arrays. The result for an element does not depend on its position.

    name: of the class.
    """

    name: str

    @property
    def torch_class(self) -> str:
        """The path of the class as a folder stores it."""
        module = {"Identity": "linear", "Dropout": "dropout", "AlphaDropout": "dropout"}
        return f"torch.nn.modules.{module.get(self.name, 'activation')}.{self.name}"

    @property
    def kernel(self) -> str | None:
        """The kernel that computes it, if there is one."""
        return TORCH_CLASSES.get(self.name)

    def __call__(self, x: Float32) -> Any:
        chosen = kernel_or_function(self.name)
        if chosen == "identity":
            return x
        with np.errstate(all="ignore"):
            return activate(chosen, x, None) if isinstance(chosen, str) else chosen(x)


def activation_function(activation_fn: object) -> Function:
    """The function for a given activation. A module of torch.nn without options is recognized by its
    class."""
    if isinstance(activation_fn, str):
        name = class_name(activation_fn, "activation_fn")
        if name is None:
            raise ValueError(f"activation_fn must be a class of torch.nn, got {activation_fn!r}")
        return TorchActivation(name)
    kind = type(activation_fn)
    from_torch = kind.__module__.startswith("torch.nn.")
    # the repr of a module shows its options, as in GELU(approximate='tanh')
    shown = repr(activation_fn).removesuffix("(approximate='none')").removesuffix("()")
    if from_torch and shown in TORCH_CLASSES:
        return TorchActivation(shown)
    if not callable(activation_fn):
        raise TypeError(
            f"activation_fn must be a name of torch.nn or a function, got {kind.__name__}"
        )
    if from_torch:
        return _module(activation_fn)
    function: Function = activation_fn
    return function


def _module(module: Callable[[Any], Any]) -> Function:
    """A torch.nn.Module as a function of arrays."""
    torch = import_module("torch")
    return lambda x: module(torch.from_numpy(x)).detach().numpy()
