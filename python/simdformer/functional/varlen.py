# SPDX-License-Identifier: Apache-2.0
"""Attention over packed batches."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simdformer.functional.arrays import Output, float32, offsets
from simdformer.functional.attention import Result, check_dropout
from simdformer.functional.call import AttentionCall, Window
from simdformer.functional.scores import Scoring


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
    """Compute attention within each sequence of a packed batch.

    The names are those of flash-attn's varlen functions.

    Parameters
    ----------
    q, k, v
        float32 arrays (total_q, heads, E), (total_k, kv_heads, E) and (total_k, kv_heads, E_v).
    cu_seqlens_q, cu_seqlens_k
        Integers (batch + 1,): sequence b has rows cu_seqlens[b] to cu_seqlens[b + 1]. Sequences may be
        empty.
    max_seqlen_q, max_seqlen_k
        The longest lengths; checked if given.
    dropout_p
        Must be 0.
    softmax_scale
        The scale of `attention`.
    causal, window_size
        As in `attention`, aligned to the last query and key of each sequence.
    softcap
        As in `attention`; 0 for none.
    alibi_slopes
        (heads,): ``-slope |i + S - L - j|`` is added to the scores.
    return_attn_probs
        Also return the weights.
    score, weight, query_weight, key_weight, bias, exact, masked_row, out
        See `attention`.

    Returns
    -------
    float32 (total_q, heads, E_v)
        The output. Each sequence gives the same bits as `attention` of that sequence alone.
    float32 (heads, total_q, longest key sequence)
        The weights if return_attn_probs is set, 0 after the end of a sequence.

    Raises
    ------
    TypeError, ValueError
        See `attention`; also if cu_seqlens do not start at 0, decrease, or do not end at the total.

    References
    ----------
    Dao 2023, FlashAttention-2 (interface).

    Examples
    --------
    >>> from simdformer.functional import varlen_attention
    >>> x = np.ones((5, 2, 8), dtype=np.float32)  # 2 sequences: 3 and 2 tokens
    >>> varlen_attention(x, x, x, [0, 3, 5], [0, 3, 5]).shape
    (5, 2, 8)
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
    """The lengths of the sequences between the offsets."""
    lengths = np.diff(offsets(name, cu_seqlens, total, f"rows of {name[-1]}"))
    longest = int(lengths.max(initial=0))
    if max_seqlen is not None and longest > max_seqlen:
        raise ValueError(
            f"max_seqlen_{name[-1]} is {max_seqlen}, {name} has a sequence of {longest}"
        )
    return lengths
