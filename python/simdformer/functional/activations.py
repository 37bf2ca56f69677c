# SPDX-License-Identifier: Apache-2.0
"""Elementwise activations."""

from __future__ import annotations

from typing import Any

from simdformer import _core
from simdformer.functional.arrays import (
    Float32,
    Output,
    as_rank4,
    float32,
    one_of,
)

# Short rows of a dense array are joined to longer ones.
CHUNK = 4096


SHORT = 512


def relu(input: Any, *, out: Any = None) -> Float32:
    """Compute max(0, x) elementwise.

    Parameters
    ----------
    input
        float32 array of any shape.
    out
        Where the result is written.

    Returns
    -------
    float32 array
        The shape of input.

    Examples
    --------
    >>> from simdformer.functional import relu
    >>> relu(np.float32([-1, 2]))
    array([0., 2.], dtype=float32)
    """
    return activate("relu", input, out)


def gelu(input: Any, approximate: str = "none", *, out: Any = None) -> Float32:
    """Compute x Phi(x), Phi the normal distribution function, elementwise.

    Parameters
    ----------
    input, out
        See `relu`.
    approximate
        "none" for the erf form, "tanh" for the approximation with tanh.

    Returns
    -------
    float32 array
        The shape of input.

    Raises
    ------
    TypeError, ValueError
        If the dtype is not float32, or approximate is unknown.

    References
    ----------
    Hendrycks and Gimpel 2016, Gaussian Error Linear Units.

    Examples
    --------
    >>> from simdformer.functional import gelu
    >>> gelu(np.float32([0, 1])).round(3)
    array([0.   , 0.841], dtype=float32)
    """
    one_of("approximate", approximate, ("none", "tanh"))
    return activate("gelu" if approximate == "none" else "gelu_tanh", input, out)


def silu(input: Any, *, out: Any = None) -> Float32:
    """Compute x sigmoid(x), also called swish, elementwise.

    Parameters
    ----------
    input, out
        See `relu`.

    Returns
    -------
    float32 array
        The shape of input.

    Examples
    --------
    >>> from simdformer.functional import silu
    >>> silu(np.float32([0, 1])).round(3)
    array([0.   , 0.731], dtype=float32)
    """
    return activate("silu", input, out)


def quick_gelu(input: Any, *, out: Any = None) -> Float32:
    """Compute x sigmoid(1.702 x), the GELU of CLIP, elementwise.

    Parameters
    ----------
    input, out
        See `relu`.

    Returns
    -------
    float32 array
        The shape of input.

    Examples
    --------
    >>> from simdformer.functional import quick_gelu
    >>> quick_gelu(np.float32([0, 1])).round(3)
    array([0.   , 0.846], dtype=float32)
    """
    return activate("quick_gelu", input, out)


def sigmoid(input: Any, *, out: Any = None) -> Float32:
    """Compute 1 / (1 + exp(-x)) elementwise.

    Parameters
    ----------
    input, out
        See `relu`.

    Returns
    -------
    float32 array
        The shape of input.

    Examples
    --------
    >>> from simdformer.functional import sigmoid
    >>> sigmoid(np.float32([0, 1])).round(3)
    array([0.5  , 0.731], dtype=float32)
    """
    return activate("sigmoid", input, out)


def tanh(input: Any, *, out: Any = None) -> Float32:
    """Compute tanh(x) elementwise.

    Parameters
    ----------
    input, out
        See `relu`.

    Returns
    -------
    float32 array
        The shape of input. The error is at most 2 ulp.

    Examples
    --------
    >>> from simdformer.functional import tanh
    >>> tanh(np.float32([0, 1])).round(3)
    array([0.   , 0.762], dtype=float32)
    """
    return activate("tanh", input, out)


def activate(name: str, input: Any, out: Any) -> Float32:
    x = float32("input", input)
    output = Output(out, x.shape, x)
    short = x.ndim > 0 and x.shape[-1] < SHORT
    if not (short and x.flags.c_contiguous and output.array.flags.c_contiguous):
        return output.write(lambda array: _core.activate(name, as_rank4(x), array))

    def in_chunks(array: Float32) -> None:
        flat_x, flat_y = x.reshape(-1), array.reshape(-1)
        whole = flat_x.size // CHUNK * CHUNK
        for part, cols in ((slice(0, whole), CHUNK), (slice(whole, None), flat_x.size - whole)):
            if cols > 0:
                rows = (1, 1, -1, cols)
                _core.activate(name, flat_x[part].reshape(rows), flat_y[part].reshape(rows))

    return output.write(in_chunks, (1, 1, 1, x.size))
