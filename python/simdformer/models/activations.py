# SPDX-License-Identifier: Apache-2.0
"""The one place where the names of activations in model files meet the kernels' names."""

from __future__ import annotations

from collections.abc import Mapping

# config.json's hidden_act (transformers' ACT2FN) -> kernel. "gelu" is the exact erf form there.
_HIDDEN_ACT = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "linear": "identity",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}

# The activation of a Dense module or of a classifier's logits: the class in torch.nn -> kernel.
_TORCH_CLASS = {
    "GELU": "gelu",
    "Identity": "identity",
    "ReLU": "relu",
    "Sigmoid": "sigmoid",
    "SiLU": "silu",
    "Tanh": "tanh",
}


def from_hidden_act(name: object, field: str = "hidden_act") -> str:
    """The kernel for a hidden_act of config.json, or what an architecture calls it; ValueError lists
    the known ones."""
    return _look_up(_HIDDEN_ACT, name, name, field)


def from_torch_class(path: object, field: str = "activation_function") -> str:
    """The kernel for a class path such as "torch.nn.modules.activation.Tanh".

    The class is looked up by name, never imported. ValueError names `field` and lists the known ones.
    """
    known = isinstance(path, str) and path.startswith("torch.nn.")
    return _look_up(_TORCH_CLASS, str(path).rpartition(".")[2] if known else None, path, field)


def to_torch_class(kernel: str) -> str:
    """The class path that stands for a kernel."""
    name = next(name for name, known in _TORCH_CLASS.items() if known == kernel)
    module = "linear" if name == "Identity" else "activation"
    return f"torch.nn.modules.{module}.{name}"


def _look_up(table: Mapping[str, str], key: object, given: object, field: str) -> str:
    if not isinstance(key, str) or key not in table:
        raise ValueError(f"unknown {field} {given!r}; known: {', '.join(sorted(table))}")
    return table[key]
