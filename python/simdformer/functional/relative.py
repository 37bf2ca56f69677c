# SPDX-License-Identifier: Apache-2.0
"""Relative positions: biases by distance (ALiBi, T5) and by content (Shaw, Transformer-XL, DeBERTa)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simdformer import _core
from simdformer.functional.arrays import Float32, array_of, as_rank4, float32, positive_int
from simdformer.functional.attention import Result, attention

Index = NDArray[np.int32]


def alibi_slopes(num_heads: int, max_bias: float = 8.0) -> Float32:
    """The slope of each head, (num_heads,): 2^(-max_bias h / num_heads) for h = 1 .. num_heads if
    that is a power of two P; else those of P, the largest below, and every other one of 2 P.
    Source: Press et al. 2022.
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
    """-slope |distance| (num_heads, query_length + key_length - 1), for attention's relative_bias;
    the last query and the last key are at distance 0."""
    distance = distances(query_length, key_length) - (key_length - query_length)
    return -alibi_slopes(num_heads, max_bias)[:, None] * np.abs(distance).astype(np.float32)


def t5_bucket(
    relative_position: Any,
    *,
    bidirectional: bool = True,
    num_buckets: int = 32,
    max_distance: int = 128,
) -> Index:
    """The bucket of each key position minus query position, as T5 counts them: half the buckets for
    keys behind the query if bidirectional; of each direction, half for single distances and half in
    logarithmic steps to max_distance. Source: Raffel et al. 2020.
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
        raise ValueError(f"num_buckets {num_buckets} and max_distance {max_distance} do not fit")
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
    """The bias of each head and distance, (heads, query_length + key_length - 1), for attention's
    relative_bias. table is (num_buckets, heads), as T5 stores it; offset is the first query's
    position, for decoding. Source: Raffel et al. 2020.
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
    """A relative_bias (..., query_length + key_length - 1) as the matrix it stands for:
    (..., query_length, key_length)."""
    array = float32("bias", bias, min_ndim=1)
    size = max(query_length + key_length - 1, 0)
    if array.shape[-1] != size:
        raise ValueError(f"bias must have {size} distances, got shape {array.shape}")
    i, j = np.arange(query_length)[:, None], np.arange(key_length)[None]
    return array[..., j - i + query_length - 1]


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
    """Attention with learned embeddings of clipped distances, added to keys and to values.

    Score: scale q_i . (k_j + relative_keys[c]), output: sum_j w_ij (v_j + relative_values[c]), with
    c = clip(j - i, -r, r) + r. relative_keys is (2 r + 1, E) or (heads, 2 r + 1, E), relative_values
    (2 r + 1, E_v) likewise. kwargs go to attention: masks, return_weights and so on, but not out.
    Source: Shaw, Uszkoreit, Vaswani 2018.
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
        raise ValueError(f"return_weights must be a bool with relative_values, got {wanted!r}")
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
    """Attention with the score scale ((q_i + content_bias) . k_j + (q_i + position_bias) . r_(i - j)).

    content_bias and position_bias are (heads, E), Transformer-XL's u and v. relative_keys is
    (2 S - 1, E) or (heads, 2 S - 1, E): row i - j + S - 1, where i counts from the first key on, so
    that the last query stands at the last key (keys before it are the memory). kwargs go to attention.
    Source: Dai et al. 2019.
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
    """DeBERTa's disentangled attention: content to content, plus content to position if position_keys
    is given, plus position to content if position_queries is given; scale 1 / sqrt(E terms).

    Both tables are (2 span, E) or (heads, 2 span, E), already projected; row b + span stands for the
    distance i - j of bucket b. With position_buckets the distances up to max_relative_positions fall
    into so many logarithmic buckets a side, else each is its own, clipped. kwargs go to attention.
    Source: He et al. 2021, and the indices of its published code.
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
    """Distances up to half the buckets as they are, then in logarithmic steps to max_position."""
    middle = buckets // 2
    if middle < 1 or max_position - 1 <= middle:
        raise ValueError(f"position_buckets {buckets} and max_position {max_position} do not fit")
    size = np.maximum(np.abs(distance), middle)
    steps = np.log(size / middle) / math.log((max_position - 1) / middle) * (middle - 1)
    far = np.sign(distance) * (middle + np.ceil(steps))
    return np.where(np.abs(distance) <= middle, distance, far).astype(np.int64)


def distances(query_length: int, key_length: int) -> NDArray[np.int64]:
    """j - i from the smallest to the largest: what a relative_bias is indexed by."""
    if query_length < 0 or key_length < 0:
        raise ValueError(f"lengths must be >= 0, got {query_length} and {key_length}")
    return np.arange(1 - query_length, max(key_length, 1 - query_length), dtype=np.int64)


def distances_matrix(query_length: int, key_length: int) -> NDArray[np.int64]:
    return np.arange(key_length, dtype=np.int64)[None] - np.arange(query_length)[:, None]


def clipped(query_length: int, key_length: int, rows: int) -> Index:
    reach = (rows - 1) // 2
    if rows != 2 * reach + 1:
        raise ValueError(f"a table of clipped distances has 2 r + 1 rows, got {rows}")
    index = np.clip(distances_matrix(query_length, key_length), -reach, reach) + reach
    return index.astype(np.int32)


def operands(query: Any, key: Any, value: Any) -> tuple[Float32, Float32, Float32]:
    """query, key and value of the same leading shape (..., heads)."""
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
