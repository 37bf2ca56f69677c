# SPDX-License-Identifier: Apache-2.0
"""Relative positions as biases by distance: ALiBi and T5."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simdformer.functional.arrays import Float32, array_of, float32, positive_int

Index = NDArray[np.int32]


def alibi_slopes(num_heads: int, max_bias: float = 8.0) -> Float32:
    """Return the ALiBi slope of each head.

    The slopes are 2^(-max_bias h / num_heads) for h = 1 to num_heads if that is a power of two.
    Otherwise they are those of P, the largest power of two below, then every other one of 2 P.

    Parameters
    ----------
    num_heads
        How many heads there are.
    max_bias
        Sets the smallest slope, 2^-max_bias.

    Returns
    -------
    float32 (num_heads,)
        The slopes.

    Raises
    ------
    TypeError, ValueError
        If num_heads is not a positive integer.

    References
    ----------
    Press et al. 2022, Train Short, Test Long.

    Examples
    --------
    >>> from simdformer.functional import alibi_slopes
    >>> alibi_slopes(2)
    array([0.0625    , 0.00390625], dtype=float32)
    """
    num_heads = positive_int("num_heads", num_heads)

    def geometric(heads: int) -> NDArray[np.float64]:
        return np.asarray(2.0 ** (-max_bias * np.arange(1, heads + 1) / heads), np.float64)

    power = 1 << (num_heads.bit_length() - 1)
    extra = geometric(2 * power)[0::2][: num_heads - power]
    return np.concatenate([geometric(power), extra]).astype(np.float32)


def alibi_bias(
    num_heads: int, query_length: int, key_length: int, max_bias: float = 8.0
) -> Float32:
    """Return ``-slope |distance|`` for each head and distance, as relative_bias of `attention`.

    Parameters
    ----------
    num_heads, max_bias
        See `alibi_slopes`.
    query_length, key_length
        L and S. The last query and the last key are at distance 0.

    Returns
    -------
    float32 (num_heads, query_length + key_length - 1)
        The bias.

    Raises
    ------
    TypeError, ValueError
        If num_heads is not a positive integer, or a length is negative.

    References
    ----------
    Press et al. 2022, Train Short, Test Long.

    Examples
    --------
    >>> from simdformer.functional import alibi_bias, relative_bias_matrix
    >>> relative_bias_matrix(alibi_bias(1, 2, 2, max_bias=1.0), 2, 2)[0]
    array([[-0. , -0.5],
           [-0.5, -0. ]], dtype=float32)
    """
    distance = distances(query_length, key_length) - (key_length - query_length)
    return -alibi_slopes(num_heads, max_bias)[:, None] * np.abs(distance).astype(np.float32)


def t5_bucket(
    relative_position: Any,
    *,
    bidirectional: bool = True,
    num_buckets: int = 32,
    max_distance: int = 128,
) -> Index:
    """Return the T5 bucket of each relative position (key position minus query position).

    Parameters
    ----------
    relative_position
        Integers of any shape.
    bidirectional
        Use half of the buckets for keys before the query and half for keys after it. Otherwise all
        are for keys before the query.
    num_buckets
        Number of buckets. In each direction half of them are for single distances, half for distances
        in logarithmic steps up to max_distance.
    max_distance
        Larger distances are in the last bucket.

    Returns
    -------
    integers
        The shape of relative_position.

    Raises
    ------
    TypeError, ValueError
        If relative_position is not integers, or the two numbers do not match.

    References
    ----------
    Raffel et al. 2020, Exploring the Limits of Transfer Learning.

    Examples
    --------
    >>> from simdformer.functional import t5_bucket
    >>> t5_bucket([-200, -1, 0, 1, 200]).tolist()
    [15, 1, 0, 17, 31]
    """
    given = array_of("relative_position", relative_position)
    if given.dtype.kind not in "iu":
        raise TypeError(f"relative_position must be integers, got {given.dtype}")
    relative = given.astype(np.int64)
    start = np.zeros_like(relative)
    if bidirectional:
        num_buckets //= 2
        start = np.where(relative > 0, num_buckets, 0)
        n = np.abs(relative)
    else:
        n = np.maximum(-relative, 0)
    exact = num_buckets // 2
    if exact < 1 or max_distance <= exact:
        raise ValueError(f"num_buckets {num_buckets} and max_distance {max_distance} do not match")
    steps = np.log(np.maximum(n, 1) / exact) / math.log(max_distance / exact)
    far = exact + (steps * (num_buckets - exact)).astype(np.int64)
    return (start + np.where(n < exact, n, np.minimum(far, num_buckets - 1))).astype(np.int32)


def t5_relative_bias(
    table: Any,
    query_length: int,
    key_length: int,
    *,
    bidirectional: bool = True,
    max_distance: int = 128,
    offset: int = 0,
) -> Float32:
    """Return the T5 bias of each head and distance, as relative_bias of `attention`.

    Parameters
    ----------
    table
        float32 (num_buckets, heads), as T5 stores it.
    query_length, key_length
        L and S.
    bidirectional, max_distance
        See `t5_bucket`.
    offset
        Position of the first query, for decoding.

    Returns
    -------
    float32 (heads, query_length + key_length - 1)
        The bias.

    Raises
    ------
    TypeError, ValueError
        If the dtype is not float32, or a shape or length is not valid.

    References
    ----------
    Raffel et al. 2020, Exploring the Limits of Transfer Learning.

    Examples
    --------
    >>> from simdformer.functional import t5_relative_bias
    >>> t5_relative_bias(np.ones((32, 4), dtype=np.float32), 3, 5).shape
    (4, 7)
    """
    rows = float32("table", table, ndim=2)
    buckets = t5_bucket(
        distances(query_length, key_length) - offset,
        bidirectional=bidirectional,
        num_buckets=len(rows),
        max_distance=max_distance,
    )
    return np.ascontiguousarray(rows[buckets].T)


def relative_bias_matrix(bias: Any, query_length: int, key_length: int) -> Float32:
    """Expand a relative_bias to the full matrix of queries and keys.

    Parameters
    ----------
    bias
        float32 array (..., query_length + key_length - 1).
    query_length, key_length
        L and S.

    Returns
    -------
    float32 (..., query_length, key_length)
        Element (i, j) is bias[..., j - i + query_length - 1].

    Raises
    ------
    TypeError, ValueError
        If the dtype is not float32, or bias has another length.

    Examples
    --------
    >>> from simdformer.functional import relative_bias_matrix
    >>> relative_bias_matrix(np.float32([1, 2, 3]), 2, 2)
    array([[2., 3.],
           [1., 2.]], dtype=float32)
    """
    array = float32("bias", bias, min_ndim=1)
    size = max(query_length + key_length - 1, 0)
    if array.shape[-1] != size:
        raise ValueError(f"bias must have {size} distances, got shape {array.shape}")
    i, j = np.arange(query_length)[:, None], np.arange(key_length)[None]
    return array[..., j - i + query_length - 1]


def distances(query_length: int, key_length: int) -> NDArray[np.int64]:
    """j - i from the smallest to the largest: the index of a relative_bias."""
    if query_length < 0 or key_length < 0:
        raise ValueError(f"lengths must be >= 0, got {query_length} and {key_length}")
    return np.arange(1 - query_length, max(key_length, 1 - query_length), dtype=np.int64)


def distances_matrix(query_length: int, key_length: int) -> NDArray[np.int64]:
    return np.arange(key_length, dtype=np.int64)[None] - np.arange(query_length)[:, None]
