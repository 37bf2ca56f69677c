# SPDX-License-Identifier: Apache-2.0
"""Activations as modules, and the values accepted as an activation."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from simdformer import _core
from simdformer.functional.activations import activate
from simdformer.functional.arrays import one_of
from simdformer.nn.module import Float32, Module

# Packages whose functions and classes are recognized by name, from the module or the repr of a built-in.
_KNOWN = re.compile(r"(<\w+ ')?(simdformer|torch|transformers)\b")


class _Activation(Module):
    """An elementwise function."""

    kernel: ClassVar[str]

    def __init__(self, inplace: bool = False) -> None:  # noqa: ARG002  (torch's; inputs are not changed)
        super().__init__()

    @property
    def name(self) -> str:
        """The name of this activation in a layer's `activation` argument."""
        return self.kernel

    def forward(self, input: Any) -> Float32:
        """Apply the activation elementwise.

        Parameters
        ----------
        input
            float32 array of any shape.

        Returns
        -------
        float32 array
            The shape of input.
        """
        return activate(self.name, input, None)


class ReLU(_Activation):
    """max(0, x) elementwise, as torch.nn.ReLU.

    Parameters
    ----------
    inplace
        Accepted without effect: inputs are not changed.

    Examples
    --------
    >>> from simdformer import nn
    >>> nn.ReLU()(np.float32([-1, 2]))
    array([0., 2.], dtype=float32)
    """

    kernel = "relu"


class SiLU(_Activation):
    """x sigmoid(x) elementwise, as torch.nn.SiLU.

    Parameters
    ----------
    inplace
        Accepted without effect: inputs are not changed.

    Examples
    --------
    >>> from simdformer import nn
    >>> nn.SiLU()(np.float32([0, 1])).round(3)
    array([0.   , 0.731], dtype=float32)
    """

    kernel = "silu"


class Sigmoid(_Activation):
    """1 / (1 + exp(-x)) elementwise, as torch.nn.Sigmoid.

    Parameters
    ----------
    inplace
        Accepted without effect: inputs are not changed.

    Examples
    --------
    >>> from simdformer import nn
    >>> nn.Sigmoid()(np.float32([0, 1])).round(3)
    array([0.5  , 0.731], dtype=float32)
    """

    kernel = "sigmoid"


class Tanh(_Activation):
    """tanh(x) elementwise, as torch.nn.Tanh.

    Parameters
    ----------
    inplace
        Accepted without effect: inputs are not changed.

    Examples
    --------
    >>> from simdformer import nn
    >>> nn.Tanh()(np.float32([0, 1])).round(3)
    array([0.   , 0.762], dtype=float32)
    """

    kernel = "tanh"


class GELU(_Activation):
    """x Phi(x) elementwise, as torch.nn.GELU (Hendrycks and Gimpel 2016).

    Parameters
    ----------
    approximate
        "none" for the erf form, "tanh" for the approximation with tanh.

    Examples
    --------
    >>> from simdformer import nn
    >>> nn.GELU()(np.float32([0, 1])).round(3)
    array([0.   , 0.841], dtype=float32)
    """

    kernel = "gelu"

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = one_of("approximate", approximate, ("none", "tanh"))

    @property
    def name(self) -> str:
        """The name for a layer's `activation` argument."""
        return _with_option(self.kernel, self.approximate)


def activation_name(activation: Any, gated: tuple[str, ...] = ()) -> str:
    """The name of an activation given by name, or as a function or module of this library or torch, which is
    recognized by its name and not called. ValueError lists the known names."""
    known = [*_core.activations(), *(gated if isinstance(activation, str) else ())]
    name: Any = activation
    if not isinstance(activation, str):
        function = getattr(activation, "func", activation)  # the function in a functools.partial
        options = dict(getattr(activation, "keywords", {}))
        owner = function if hasattr(function, "__name__") else type(function)
        module = owner.__module__ or str(getattr(owner, "__self__", ""))
        if _KNOWN.match(module):
            approximate = getattr(function, "approximate", options.pop("approximate", "none"))
            name = _with_option(owner.__name__.lower(), approximate) if not options else None
    if not isinstance(name, str) or name not in known:
        listed = ", ".join([*_core.activations(), *gated])
        raise ValueError(f"unknown activation {activation!r}; known: {listed}")
    return name


def _with_option(name: str, approximate: object) -> str:
    return name if approximate == "none" else f"{name}_{approximate}"
