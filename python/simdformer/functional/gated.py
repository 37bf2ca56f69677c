# SPDX-License-Identifier: Apache-2.0
"""Gated activations: one half of the features times the activation of the other."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from simdformer import _core
from simdformer.functional.arrays import (
    Float32,
    Output,
    as_rank4,
    float32,
    one_of,
    with_dense_rows,
)


def glu(input: Any, dim: int = -1, *, gate: str = "second", out: Any = None) -> Float32:
    """Compute a sigmoid(b) of the halves a and b of input along dim.

    Parameters
    ----------
    input
        float32 array with an even size along dim.
    dim
        The dimension that is split.
    gate
        Which half passes through the activation: "second", as in torch, or "first".
    out
        Where the result is written.

    Returns
    -------
    float32 array
        The shape of input with half the size along dim.

    Raises
    ------
    TypeError, ValueError
        If the dtype is not float32, dim does not exist or its size is odd, or gate is unknown.

    References
    ----------
    Dauphin et al. 2017, Language Modeling with Gated Convolutional Networks.

    Examples
    --------
    >>> from simdformer.functional import glu
    >>> glu(np.float32([1, 1])).round(3)
    array([0.731], dtype=float32)
    """
    return gated("sigmoid", input, dim, gate, out)


def geglu(input: Any, dim: int = -1, *, gate: str = "second", out: Any = None) -> Float32:
    """Compute a gelu(b) of the halves a and b of input along dim.

    Parameters
    ----------
    input, dim, gate, out
        See `glu`.

    Returns
    -------
    float32 array
        The shape of input with half the size along dim.

    References
    ----------
    Shazeer 2020, GLU Variants Improve Transformer.

    Examples
    --------
    >>> from simdformer.functional import geglu
    >>> geglu(np.float32([1, 1])).round(3)
    array([0.841], dtype=float32)
    """
    return gated("gelu", input, dim, gate, out)


def swiglu(input: Any, dim: int = -1, *, gate: str = "second", out: Any = None) -> Float32:
    """Compute a silu(b) of the halves a and b of input along dim.

    Parameters
    ----------
    input, dim, gate, out
        See `glu`.

    Returns
    -------
    float32 array
        The shape of input with half the size along dim.

    References
    ----------
    Shazeer 2020, GLU Variants Improve Transformer.

    Examples
    --------
    >>> from simdformer.functional import swiglu
    >>> swiglu(np.float32([1, 1])).round(3)
    array([0.731], dtype=float32)
    """
    return gated("silu", input, dim, gate, out)


def reglu(input: Any, dim: int = -1, *, gate: str = "second", out: Any = None) -> Float32:
    """Compute a relu(b) of the halves a and b of input along dim.

    Parameters
    ----------
    input, dim, gate, out
        See `glu`.

    Returns
    -------
    float32 array
        The shape of input with half the size along dim.

    References
    ----------
    Shazeer 2020, GLU Variants Improve Transformer.

    Examples
    --------
    >>> from simdformer.functional import reglu
    >>> reglu(np.float32([1, 1])).round(3)
    array([1.], dtype=float32)
    """
    return gated("relu", input, dim, gate, out)


def gated(name: str, input: Any, dim: int, gate: str, out: Any) -> Float32:
    x = float32("input", input, min_ndim=1)
    one_of("gate", gate, ("first", "second"))
    if not -x.ndim <= dim < x.ndim:
        raise ValueError(f"dim {dim} is not one of shape {x.shape}")
    moved: NDArray[Any] = x.swapaxes(dim, -1)
    size = moved.shape[-1]
    if size % 2:
        raise ValueError(f"input must have an even size along dim {dim}, got {size}")
    halves = [with_dense_rows(moved[..., : size // 2]), with_dense_rows(moved[..., size // 2 :])]
    gates, values = halves if gate == "first" else halves[::-1]
    shape = (*moved.shape[:-1], size // 2)
    target = None if out is None else float32("out", out).swapaxes(dim, -1)
    output = Output(target, shape, x)
    result = output.write(lambda array: _core.gated(name, as_rank4(gates), as_rank4(values), array))
    swapped: Float32 = result.swapaxes(dim, -1)
    return swapped
