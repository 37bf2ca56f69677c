# SPDX-License-Identifier: Apache-2.0
"""Linear maps, embeddings, softmax and activations."""

from __future__ import annotations

from typing import Any

import numpy as np

from simdformer import _core
from simdformer.functional.arrays import (
    Float32,
    Output,
    array_of,
    as_rank4,
    check_lookup,
    float32,
    number,
    vector,
)


def softmax(input: Any, dim: int = -1, *, out: Any = None) -> Float32:
    """Compute exp(input) / sum(exp(input)) along dim, after subtracting the largest element.

    Parameters
    ----------
    input
        float32 array of any shape.
    dim
        The dimension along which the result sums to 1.
    out
        Where the result is written.

    Returns
    -------
    float32 array
        The shape of input. A row of -inf only gives NaN, as in torch.

    Raises
    ------
    TypeError, ValueError
        If the dtype is not float32, or input has no such dim.

    Examples
    --------
    >>> from simdformer.functional import softmax
    >>> softmax(np.float32([[0, 0], [0, 100]])).round(2)
    array([[0.5, 0.5],
           [0. , 1. ]], dtype=float32)
    """
    x = float32("input", input, min_ndim=1)
    if not -x.ndim <= dim < x.ndim:
        raise ValueError(f"dim {dim} is not one of shape {x.shape}")
    moved = x.swapaxes(dim, -1)
    target = None if out is None else float32("out", out)
    if target is not None and target.shape != x.shape:
        raise ValueError(f"out must have shape {x.shape}, got {target.shape}")
    output = Output(None if target is None else target.swapaxes(dim, -1), moved.shape, moved)
    result = output.write(lambda array: _core.softmax(as_rank4(moved), array))
    return result.swapaxes(dim, -1) if target is None else target


def linear(input: Any, weight: Any, bias: Any = None, *, out: Any = None) -> Float32:
    """Compute input weight^T + bias.

    The weight is packed in every call; `simdformer.nn.Linear` packs it once.

    Parameters
    ----------
    input
        float32 array (..., in_features).
    weight
        float32 array (out_features, in_features).
    bias
        float32 array (out_features,).
    out
        Where the result is written.

    Returns
    -------
    float32 (..., out_features)
        The result.

    Raises
    ------
    TypeError, ValueError
        If a dtype is not float32, or shapes do not match.

    Examples
    --------
    >>> from simdformer.functional import linear
    >>> linear(np.float32([1, 2]), np.float32([[3, 4]]), np.float32([5]))
    array([16.], dtype=float32)
    """
    x = float32("input", input, min_ndim=1)
    w = float32("weight", weight, ndim=2)
    if x.shape[-1] != w.shape[1]:
        raise ValueError(f"input has {x.shape[-1]} columns, weight has shape {w.shape}")
    if 0 in w.shape:
        raise ValueError(f"weight is empty, its shape is {w.shape}")
    b = None if bias is None else vector("bias", bias, w.shape[0])
    output = Output(out, (*x.shape[:-1], w.shape[0]), x, w, *([] if b is None else [b]))
    rows = np.ascontiguousarray(x).reshape(-1, w.shape[1])
    return output.write(
        lambda array: _core.linear(rows, w, b, array), (1, 1, len(rows), w.shape[0])
    )


def log_softmax(input: Any, dim: int = -1, *, out: Any = None) -> Float32:
    """Compute log(softmax(input)) along dim as input - max - log(sum(exp(input - max))).

    The absolute error is at most 2^-22 in addition to the rounding of the differences.

    Parameters
    ----------
    input, dim, out
        See `softmax`.

    Returns
    -------
    float32 array
        The shape of input.

    Raises
    ------
    TypeError, ValueError
        See `softmax`.

    Examples
    --------
    >>> from simdformer.functional import log_softmax
    >>> log_softmax(np.float32([0, 0])).round(4)
    array([-0.6931, -0.6931], dtype=float32)
    """
    weights = softmax(input, dim)
    x = array_of("input", input)
    if weights.size == 0:
        return Output(out, x.shape, x).write(lambda _: None)
    with np.errstate(invalid="ignore"):  # rows that are all -inf
        # The largest weight is 1 / sum(exp(input - max)).
        logs = np.log(weights.max(axis=dim, keepdims=True))
        result: Float32 = np.subtract(x, x.max(axis=dim, keepdims=True), out=weights)
        result += logs
    return result if out is None else copied(result, out)


def normalize(
    input: Any, p: float = 2.0, dim: int = 1, eps: float = 1e-12, *, out: Any = None
) -> Float32:
    """Compute input / max(norm, eps) with the p-norm of input along dim.

    The norm is computed in float64.

    Parameters
    ----------
    input
        float32 array of any shape.
    p
        The exponent of the norm.
    dim
        The dimension that is normalized.
    eps
        The smallest divisor.
    out
        Where the result is written.

    Returns
    -------
    float32 array
        The shape of input.

    Raises
    ------
    TypeError, ValueError
        If the dtype is not float32, or input has no such dim.

    Examples
    --------
    >>> from simdformer.functional import normalize
    >>> normalize(np.float32([[3, 4]]))
    array([[0.6, 0.8]], dtype=float32)
    """
    x = float32("input", input, min_ndim=1)
    if not -x.ndim <= dim < x.ndim:
        raise ValueError(f"dim {dim} is not one of shape {x.shape}")
    norm = np.linalg.norm(x.astype(np.float64), ord=number("p", p), axis=dim, keepdims=True)
    result: Float32 = (x / np.maximum(norm, number("eps", eps))).astype(np.float32)
    return result if out is None else copied(result, out)


def copied(result: Float32, out: Any) -> Float32:
    """Copy the result into the caller's array."""
    return Output(out, result.shape, result).write(
        lambda array: np.copyto(array, result), result.shape
    )


def embedding(
    input: Any,
    weight: Any,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,  # noqa: ARG001
    scale_grad_by_freq: bool = False,  # noqa: ARG001
    sparse: bool = False,  # noqa: ARG001
    *,
    out: Any = None,
) -> Float32:
    """Return rows of weight by integer ids.

    Parameters
    ----------
    input
        Integers of any shape.
    weight
        float32 array (rows, dim).
    padding_idx, norm_type, scale_grad_by_freq, sparse
        torch's options for training, without effect: the row of padding_idx is looked up like any other.
    max_norm
        Must be None.
    out
        Where the result is written.

    Returns
    -------
    float32 (..., dim)
        The rows.

    Raises
    ------
    IndexError
        If an id is outside the table.
    TypeError, ValueError
        If ids are not integers, weight is not a float32 table, or max_norm is given.

    Examples
    --------
    >>> from simdformer.functional import embedding
    >>> embedding([1, 0], np.float32([[1, 2], [3, 4]]))
    array([[3., 4.],
           [1., 2.]], dtype=float32)
    """
    ids = array_of("input", input)
    if ids.dtype.kind not in "iu":
        raise TypeError(f"input must hold integers, got {ids.dtype}")
    table = float32("weight", weight, ndim=2)
    check_lookup(len(table), padding_idx, max_norm)
    output = Output(out, (*ids.shape, table.shape[1]), table)
    flat = ids.ravel()
    return output.write(
        lambda array: _core.embedding(table, flat, array), (1, 1, flat.size, table.shape[1])
    )
