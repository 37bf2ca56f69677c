# SPDX-License-Identifier: Apache-2.0
"""Attention over dense and packed batches: each function is one native call."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from simdformer.functional.arrays import Float32, Output, float32, offsets
from simdformer.functional.call import AttentionCall, Window
from simdformer.functional.scores import Scoring

STAGES = {
    True: "softmax",
    "softmax": "softmax",
    "scores": "scaled",
    "capped": "capped",
    "biased": "biased",
}

ReturnWeights = bool | Literal["softmax", "scores", "capped", "biased"]
Result = Float32 | tuple[Float32, Float32]


def scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    softcap: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    return_weights: ReturnWeights = False,
    masked_row: str = "zero",
    out: Any = None,
) -> Result:
    """softmax(scale query key^T + attn_mask) value, as torch.nn.functional's function of this name.

    query is (..., heads, L, E), key (..., heads, S, E), value (..., heads, S, E_v), float32; leading
    dimensions broadcast, and may be missing. Strided views are read in place if their last dimension
    is contiguous. With enable_gqa, key and value may have fewer heads, a divisor of query's.

    attn_mask broadcasts to (..., heads, L, S): bool, where True takes part, or float32, which is
    added. is_causal lets query i see keys 0..i, as torch does; it excludes attn_mask.
    window_size = (left, right) lets query i see keys i - left .. i + right, -1 meaning no limit.
    softcap c turns scores s into c tanh(s / c), after scale, before masks. scale is 1 / sqrt(E)
    by default.

    A query without a key gives zeros, or NaN with masked_row="nan". What stands at a masked key,
    NaN included, has no effect.

    Returns (..., heads, L, E_v), written to out if given; with return_weights=True also the weights
    (..., heads, L, S); "scores", "capped" and "biased" return what they were before softmax instead:
    after scale, after softcap, and after masks.

    Raises TypeError for another dtype than float32, ValueError for shapes that do not fit.
    Source: Vaswani et al. 2017, equation 1.
    """
    if attn_mask is not None and is_causal:
        raise ValueError("attn_mask and is_causal exclude each other: give one of them")
    return attention(
        query,
        key,
        value,
        attn_mask=attn_mask,
        dropout_p=dropout_p,
        is_causal=is_causal,
        scale=scale,
        enable_gqa=enable_gqa,
        softcap=softcap,
        window_size=window_size,
        return_weights=return_weights,
        masked_row=masked_row,
        out=out,
    )


def attention(
    query: Any,
    key: Any,
    value: Any,
    *,
    score: str = "scaled_dot",
    scale: Any = None,
    weight: Any = None,
    query_weight: Any = None,
    key_weight: Any = None,
    bias: Any = None,
    exact: bool = False,
    attn_mask: Any = None,
    attn_bias: Any = None,
    relative_bias: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    alignment: str = "upper_left",
    softcap: float | None = None,
    enable_gqa: bool = False,
    return_weights: ReturnWeights = False,
    masked_row: str = "zero",
    out: Any = None,
) -> Result:
    """softmax(score(query, key)) value with one of six scores of a query q and a key k:

    "scaled_dot"  scale q.k, scale 1 / sqrt(E) by default (Vaswani et al. 2017)
    "dot"         scale q.k, scale 1 (Luong et al. 2015)
    "bilinear"    scale q^T weight k, weight (E_q, E_k) or (heads, E_q, E_k) (Luong's "general")
    "euclidean"   -scale |q - k|^2, scale 1 / sqrt(E) (Kim et al. 2021). exact=True sums the squared
                  differences themselves, for vectors so long and near each other that
                  2 q.k - |k|^2 loses the distance to rounding; it takes longer.
    "cosine"      scale q.k / (|q| |k|), scale 1; a zero vector's score is 0
    "additive"    scale weight . tanh(query_weight q + key_weight k + bias) (Bahdanau et al. 2015).
                  query_weight (A, E_q), key_weight (A, E_k), both or neither; weight (A,); each
                  may have a leading dimension of heads; bias (A,). weight is all ones by default.
                  Each tanh is within 2 ulp of 1, absolutely; with exact=True within 2 ulp of itself,
                  which takes some three times as long.

    scale may be an array (heads,). attn_bias is a float32 attn_mask beside another. relative_bias,
    (L + S - 1,) or (heads, L + S - 1), is added to every score: element j - i + L - 1 to query i and
    key j. alignment="lower_right" counts is_causal and window_size from the last query and the last
    key instead of the first; is_causal and attn_mask may be given together. All else, results and
    errors are as in scaled_dot_product_attention.
    """
    check_dropout(dropout_p)
    stage = weights_stage(return_weights)
    arrays = (
        float32("query", query, min_ndim=2),
        float32("key", key, min_ndim=2),
        float32("value", value, min_ndim=2),
    )
    call = AttentionCall(*arrays, enable_gqa=enable_gqa)
    scoring = Scoring(score, scale, weight, query_weight, key_weight, bias, exact)
    call.options.update(scoring.options(call, capped=softcap is not None))
    call.set_window(Window.of(is_causal, window_size, alignment))
    call.set_mask("attn_mask", attn_mask)
    call.set_mask("attn_bias", None if attn_bias is None else float32("attn_bias", attn_bias))
    call.set_relative_bias(relative_bias)
    call.set_softcap(softcap)
    call.set_masked_row(masked_row)
    output = Output(out, call.output_shape, *arrays)
    weights = None if stage is None else np.empty(call.weights_shape, np.float32)
    result = output.write(lambda array: call.run(array, weights, stage), call.rows_shape)
    return result if weights is None else (result, weights)


def check_dropout(dropout_p: float) -> None:
    if dropout_p != 0.0:
        raise ValueError(f"dropout_p must be 0.0, got {dropout_p}: there is no training here")


def weights_stage(return_weights: ReturnWeights) -> str | None:
    """What the kernel calls the weights that are asked for; None for none."""
    if not isinstance(return_weights, str):
        return STAGES[True] if return_weights else None
    if return_weights not in STAGES:
        raise ValueError(
            f"return_weights must be a bool or one of {[*STAGES][1:]}, got {return_weights!r}"
        )
    return STAGES[return_weights]


def varlen_attention(
    q: Any,
    k: Any,
    v: Any,
    cu_seqlens_q: Any,
    cu_seqlens_k: Any,
    max_seqlen_q: int | None = None,
    max_seqlen_k: int | None = None,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Any = None,
    return_attn_probs: bool = False,
    *,
    score: str = "scaled_dot",
    weight: Any = None,
    query_weight: Any = None,
    key_weight: Any = None,
    bias: Any = None,
    exact: bool = False,
    masked_row: str = "zero",
    out: Any = None,
) -> Result:
    """Attention within each sequence of packed batches, under flash-attn's varlen names.

    q is (total_q, heads, E), k (total_k, kv_heads, E), v (total_k, kv_heads, E_v), float32;
    sequence b owns rows cu_seqlens[b] to cu_seqlens[b + 1]. Sequences may be empty: a query without a
    key gives zeros. max_seqlen_* are checked if given. causal and window_size are aligned to the last
    query and key of a sequence. alibi_slopes (heads,) adds -slope |i + S - L - j|. score, its weights,
    exact and masked_row are those of `attention`; softmax_scale is its scale.

    Returns (total_q, heads, E_v); with return_attn_probs also (heads, total_q, longest key sequence),
    0 beyond a sequence's keys. A sequence has the bits of `attention` of it alone.

    Raises TypeError and ValueError as scaled_dot_product_attention, and ValueError for cu_seqlens
    that do not begin at 0, decrease, or end elsewhere than at total.
    Source: Dao et al., FlashAttention-2, 2023 (interface).
    """
    check_dropout(dropout_p)
    arrays = (float32("q", q, ndim=3), float32("k", k, ndim=3), float32("v", v, ndim=3))
    heads_first = [array.swapaxes(0, 1) for array in arrays]
    call = AttentionCall(*heads_first, enable_gqa=True, names=("q", "k", "v"))
    lengths_q = sequence_lengths("cu_seqlens_q", cu_seqlens_q, len(arrays[0]), max_seqlen_q)
    lengths_k = sequence_lengths("cu_seqlens_k", cu_seqlens_k, len(arrays[1]), max_seqlen_k)
    call.set_sequences(lengths_q, lengths_k)
    scoring = Scoring(score, softmax_scale, weight, query_weight, key_weight, bias, exact)
    call.options.update(scoring.options(call, capped=softcap > 0))
    call.set_window(Window.of(causal, window_size, "lower_right"))
    call.set_softcap(softcap or None)
    call.set_alibi(alibi_slopes)
    call.set_masked_row(masked_row)
    shape = (1, len(arrays[0]), call.heads, call.value_dim)
    output = Output(out, shape[1:], *arrays)
    weights: NDArray[Any] | None = None
    if return_attn_probs:
        longest = int(lengths_k.max(initial=0))
        weights = np.zeros((call.heads, len(arrays[0]), longest), np.float32)
    result = output.write(lambda array: call.run(array.swapaxes(1, 2), weights), shape)
    return result if weights is None else (result, weights)


def sequence_lengths(
    name: str, cu_seqlens: Any, total: int, max_seqlen: int | None
) -> NDArray[np.int64]:
    """The lengths of the sequences that the offsets delimit."""
    lengths = np.diff(offsets(name, cu_seqlens, total, f"rows of {name[-1]}"))
    longest = int(lengths.max(initial=0))
    if max_seqlen is not None and longest > max_seqlen:
        raise ValueError(
            f"max_seqlen_{name[-1]} is {max_seqlen}, {name} has a sequence of {longest}"
        )
    return lengths
