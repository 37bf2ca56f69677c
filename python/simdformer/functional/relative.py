# SPDX-License-Identifier: Apache-2.0
"""Relative positions: biases by distance (ALiBi, T5) and by content (Shaw, Transformer-XL, DeBERTa)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simdformer import _core
from simdformer.functional.arrays import Float32, as_rank4, float32
from simdformer.functional.attention import Result, attention
from simdformer.functional.distance_bias import Index, distances_matrix


def shaw_attention(
    query: Any,
    key: Any,
    value: Any,
    relative_keys: Any,
    relative_values: Any = None,
    *,
    scale: float | None = None,
    **kwargs: Any,
) -> Result:
    """Compute attention with learned embeddings of clipped distances for keys and values.

    The score is scale q_i . (k_j + relative_keys[c]), the output sum_j w_ij (v_j + relative_values[c]),
    with c = clip(j - i, -r, r) + r.

    Parameters
    ----------
    query, key, value
        float32 arrays (..., heads, L, E), (..., heads, S, E) and (..., heads, S, E_v).
    relative_keys
        float32 (2 r + 1, E) or (heads, 2 r + 1, E).
    relative_values
        float32 (2 r + 1, E_v) or (heads, 2 r + 1, E_v), or None.
    scale
        Factor of the scores; 1 / sqrt(E) by default.
    **kwargs
        Arguments of `attention` such as masks and return_weights, but not out.

    Returns
    -------
    float32 (..., heads, L, E_v)
        The output; with return_weights also the weights.

    Raises
    ------
    TypeError, ValueError
        See `attention`.

    References
    ----------
    Shaw, Uszkoreit and Vaswani 2018, Self-Attention with Relative Position Representations.

    Examples
    --------
    >>> from simdformer.functional import shaw_attention
    >>> x = np.ones((2, 5, 8), dtype=np.float32)
    >>> shaw_attention(x, x, x, np.zeros((7, 8), dtype=np.float32)).shape
    (2, 5, 8)
    """
    q, k, v = operands(query, key, value)
    keys = tables("relative_keys", relative_keys, q.shape[-3], q.shape[-1])
    scale = 1.0 / math.sqrt(q.shape[-1]) if scale is None else scale
    bias = np.zeros((*q.shape[:-1], k.shape[-2]), np.float32)
    index = clipped(q.shape[-2], k.shape[-2], keys.shape[-2])
    _core.relative_scores(as_rank4(q), keys, index, scale, False, as_rank4(bias))
    if relative_values is None:
        return attention(q, k, v, scale=scale, attn_bias=bias, **kwargs)
    values = tables("relative_values", relative_values, q.shape[-3], v.shape[-1])
    wanted = kwargs.pop("return_weights", False)
    if wanted not in (False, True, "softmax"):
        raise ValueError(
            f"return_weights must be a bool if relative_values is given, got {wanted!r}"
        )
    result = attention(q, k, v, scale=scale, attn_bias=bias, return_weights=True, **kwargs)
    out, weights = result
    index = clipped(q.shape[-2], k.shape[-2], values.shape[-2])
    transposed = np.ascontiguousarray(values.swapaxes(1, 2))
    _core.relative_values(as_rank4(weights), transposed, index, as_rank4(out))
    return (out, weights) if wanted else out


def transformer_xl_attention(
    query: Any,
    key: Any,
    value: Any,
    content_bias: Any,
    position_bias: Any,
    relative_keys: Any,
    *,
    scale: float | None = None,
    **kwargs: Any,
) -> Result:
    """Compute attention with the relative positions of Transformer-XL.

    The score is scale ((q_i + content_bias) . k_j + (q_i + position_bias) . r_(i - j)).

    Parameters
    ----------
    query, key, value, scale, **kwargs
        See `shaw_attention`.
    content_bias, position_bias
        float32 (heads, E): u and v of the paper.
    relative_keys
        float32 (2 S - 1, E) or (heads, 2 S - 1, E). Row i - j + S - 1 is r_(i - j), where i counts
        from the first key: the last query is at the last key, and keys before the first query are the
        memory.

    Returns
    -------
    float32 (..., heads, L, E_v)
        The output; with return_weights also the weights.

    Raises
    ------
    TypeError, ValueError
        See `attention`.

    References
    ----------
    Dai et al. 2019, Transformer-XL.

    Examples
    --------
    >>> from simdformer.functional import transformer_xl_attention
    >>> x, u = np.ones((2, 5, 8), dtype=np.float32), np.zeros((2, 8), dtype=np.float32)
    >>> transformer_xl_attention(x, x, x, u, u, np.zeros((9, 8), dtype=np.float32)).shape
    (2, 5, 8)
    """
    q, k, v = operands(query, key, value)
    heads, dim = q.shape[-3], q.shape[-1]
    length, keys = q.shape[-2], k.shape[-2]
    scale = 1.0 / math.sqrt(dim) if scale is None else scale
    u, w = (
        float32(name, bias, ndim=2)[:, None, :]
        for name, bias in (("content_bias", content_bias), ("position_bias", position_bias))
    )
    table = tables("relative_keys", relative_keys, heads, dim)
    if table.shape[-2] != max(2 * keys - 1, 0):
        raise ValueError(f"relative_keys must have {2 * keys - 1} rows, got {table.shape[-2]}")
    index = (keys - 1 + keys - length - distances_matrix(length, keys)).astype(np.int32)
    bias = np.zeros((*q.shape[:-1], keys), np.float32)
    _core.relative_scores(as_rank4(q + w), table, index, scale, False, as_rank4(bias))
    return attention(q + u, k, v, scale=scale, attn_bias=bias, **kwargs)


def deberta_attention(
    query: Any,
    key: Any,
    value: Any,
    position_keys: Any = None,
    position_queries: Any = None,
    *,
    position_buckets: int = 0,
    max_relative_positions: int = 512,
    **kwargs: Any,
) -> Result:
    """Compute the disentangled attention of DeBERTa.

    The score is content to content, plus content to position if position_keys is given, plus position
    to content if position_queries is given. The scale is 1 / sqrt(E terms).

    Parameters
    ----------
    query, key, value, **kwargs
        See `shaw_attention`.
    position_keys, position_queries
        float32 (2 span, E) or (heads, 2 span, E), already projected. Row b + span is for distances
        i - j in bucket b.
    position_buckets
        Number of logarithmic buckets on each side for distances up to max_relative_positions. 0: each
        distance has its own row and is clipped.
    max_relative_positions
        The largest distance.

    Returns
    -------
    float32 (..., heads, L, E_v)
        The output; with return_weights also the weights.

    Raises
    ------
    TypeError, ValueError
        See `attention`.

    References
    ----------
    He et al. 2021, DeBERTa, and the indices of its published code.

    Examples
    --------
    >>> from simdformer.functional import deberta_attention
    >>> x, table = np.ones((2, 5, 8), dtype=np.float32), np.zeros((16, 8), dtype=np.float32)
    >>> deberta_attention(x, x, x, table, max_relative_positions=8).shape
    (2, 5, 8)
    """
    q, k, v = operands(query, key, value)
    given = [table for table in (position_keys, position_queries) if table is not None]
    scale = 1.0 / math.sqrt(q.shape[-1] * (1 + len(given)))
    bias = np.zeros((*q.shape[:-1], k.shape[-2]), np.float32)
    distance = -distances_matrix(q.shape[-2], k.shape[-2])
    if position_buckets > 0:
        distance = deberta_bucket(distance, position_buckets, max_relative_positions)

    def add(name: str, x: Float32, table: Any, by_columns: bool) -> None:
        rows = tables(name, table, q.shape[-3], q.shape[-1])
        span = rows.shape[-2] // 2
        index = np.clip(distance + span, 0, 2 * span - 1).astype(np.int32)
        index = np.ascontiguousarray(index.T if by_columns else index)
        _core.relative_scores(as_rank4(x), rows, index, scale, by_columns, as_rank4(bias))

    if position_keys is not None:
        add("position_keys", q, position_keys, False)
    if position_queries is not None:
        add("position_queries", k, position_queries, True)
    return attention(q, k, v, scale=scale, attn_bias=bias, **kwargs)


def deberta_bucket(distance: NDArray[Any], buckets: int, max_position: int) -> NDArray[np.int64]:
    """Keep distances up to half the buckets, then use logarithmic steps up to max_position.

    Computed in float32, as in the published code, because rounding decides where a bucket ends.
    """
    middle = buckets // 2
    if middle < 1 or max_position - 1 <= middle:
        raise ValueError(f"position_buckets {buckets} and max_position {max_position} do not match")
    size = np.maximum(np.abs(distance), middle)
    longest = np.log(np.float32((max_position - 1) / middle))
    steps = np.log((size / middle).astype(np.float32)) / longest * np.float32(middle - 1)
    far = np.sign(distance) * (middle + np.ceil(steps))
    return np.where(np.abs(distance) <= middle, distance, far).astype(np.int64)


def clipped(query_length: int, key_length: int, rows: int) -> Index:
    reach = (rows - 1) // 2
    if rows != 2 * reach + 1:
        raise ValueError(f"a table of clipped distances has 2 r + 1 rows, got {rows}")
    index = np.clip(distances_matrix(query_length, key_length), -reach, reach) + reach
    return index.astype(np.int32)


def operands(query: Any, key: Any, value: Any) -> tuple[Float32, Float32, Float32]:
    """query, key and value with the same leading shape (..., heads)."""
    q, k, v = (
        float32(name, array, min_ndim=3)
        for name, array in (("query", query), ("key", key), ("value", value))
    )
    if not q.shape[:-2] == k.shape[:-2] == v.shape[:-2] or q.shape[-1] != k.shape[-1]:
        raise ValueError(
            f"query {q.shape}, key {k.shape} and value {v.shape} must be (..., heads, rows, cols) "
            "with the same leading dimensions, query and key with the same columns"
        )
    return q, k, v


def tables(name: str, table: Any, heads: int, dim: int) -> Float32:
    """(heads or 1, rows, dim)."""
    array = float32(name, table, min_ndim=2)
    if array.ndim > 3 or array.shape[-1] != dim or array.shape[:-2] not in ((), (heads,)):
        raise ValueError(
            f"{name} must have shape (rows, {dim}) or ({heads}, rows, {dim}), got {array.shape}"
        )
    return np.ascontiguousarray(array if array.ndim == 3 else array[None])
