# SPDX-License-Identifier: Apache-2.0
"""Attention over dense and packed batches. Each function makes one native call."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from simdformer.functional.arrays import Float32, Output, float32
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
    """Compute softmax(scale query key^T + attn_mask) value.

    Same as torch.nn.functional.scaled_dot_product_attention, with further options. Strided views are
    read without a copy if their last dimension is contiguous.

    Parameters
    ----------
    query, key, value
        float32 arrays (..., heads, L, E), (..., heads, S, E) and (..., heads, S, E_v). Leading
        dimensions broadcast and may be missing.
    attn_mask
        Broadcasts to (..., heads, L, S). bool: True takes part. float32: added to the scores.
    dropout_p
        Must be 0: there is no training.
    is_causal
        Query i sees keys 0 to i, as in torch. Cannot be combined with attn_mask.
    scale
        Factor of the scores; 1 / sqrt(E) by default.
    enable_gqa
        Allow key and value to have fewer heads, a divisor of query's.
    softcap
        Replace a score s by c tanh(s / c), after scale and before masks.
    window_size
        (left, right): query i sees keys i - left to i + right. -1 means no limit.
    return_weights
        True also returns the attention weights. "scores", "capped" or "biased" return the values
        before softmax instead: after scale, after softcap, or after masks.
    masked_row
        A query without a key gives zeros ("zero") or NaN ("nan").
    out
        Where the output is written.

    Returns
    -------
    float32 (..., heads, L, E_v)
        The output. Values at masked keys, NaN included, have no effect on it.
    float32 (..., heads, L, S)
        The weights, if return_weights is set.

    Raises
    ------
    TypeError, ValueError
        If a dtype is not float32, or shapes do not match.

    References
    ----------
    Vaswani et al. 2017, Attention Is All You Need, equation 1.

    Examples
    --------
    >>> from simdformer.functional import scaled_dot_product_attention
    >>> x = np.ones((2, 5, 8), dtype=np.float32)  # 2 heads, 5 tokens
    >>> output, weights = scaled_dot_product_attention(x, x, x, is_causal=True, return_weights=True)
    >>> output.shape, weights[0, 1].tolist()
    ((2, 5, 8), [0.5, 0.5, 0.0, 0.0, 0.0])
    """
    if attn_mask is not None and is_causal:
        raise ValueError("attn_mask and is_causal are mutually exclusive: pass one of them")
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
    """Compute softmax(score(query, key)) value for one of six scores of a query q and a key k.

    ============ ====================================== ==================================
    score        formula                                source
    ============ ====================================== ==================================
    scaled_dot   scale q.k, scale 1 / sqrt(E)           Vaswani et al. 2017
    dot          scale q.k, scale 1                     Luong et al. 2015
    bilinear     scale q^T weight k, scale 1            Luong et al. 2015, "general"
    euclidean    ``-scale |q - k|^2``, 1 / sqrt(E)      Kim et al. 2021
    cosine       ``scale q.k / (|q| |k|)``, scale 1     0 for a zero vector
    additive     scale weight . tanh(query_weight q +   Bahdanau et al. 2015
                 key_weight k + bias), scale 1
    ============ ====================================== ==================================

    Parameters
    ----------
    query, key, value, attn_mask, dropout_p, enable_gqa, softcap, return_weights, masked_row, out
        See `scaled_dot_product_attention`.
    score
        One of the names in the table.
    scale
        A number, or an array (heads,).
    weight
        "bilinear": (E_q, E_k) or (heads, E_q, E_k). "additive": (A,) or (heads, A), ones by default.
    query_weight, key_weight
        "additive": (A, E_q) and (A, E_k), or with a leading dimension of heads. Both or neither.
    bias
        "additive": (A,) or (heads, A).
    exact
        "euclidean": sum the squared differences themselves, for vectors so long and close to each
        other that ``2 q.k - |k|^2`` loses the distance to rounding. "additive": each tanh has a relative
        error of 2 ulp, not an absolute one; about three times slower.
    attn_bias
        A float32 mask in addition to attn_mask.
    relative_bias
        (L + S - 1,) or (heads, L + S - 1): element j - i + L - 1 is added to the score of query i and
        key j.
    is_causal, window_size
        See `scaled_dot_product_attention`; is_causal and attn_mask may be given together.
    alignment
        "upper_left" counts both from the first query and key, "lower_right" from the last ones.

    Returns
    -------
    float32 (..., heads, L, E_v)
        The output; with return_weights also the weights, float32 (..., heads, L, S).

    Raises
    ------
    TypeError, ValueError
        See `scaled_dot_product_attention`; also for weights that the score does not take.

    Examples
    --------
    >>> from simdformer.functional import attention
    >>> x = np.eye(3, dtype=np.float32)[None]
    >>> output = attention(x, x, x, score="cosine", scale=10.0)
    >>> output.shape, round(float(output[0, 0, 0]), 3)
    ((1, 3, 3), 1.0)
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
        raise ValueError(f"dropout_p must be 0.0, got {dropout_p}: there is no training")


def weights_stage(return_weights: ReturnWeights) -> str | None:
    """The kernel's name of the requested weights; None if there are none."""
    if not isinstance(return_weights, str):
        return STAGES[True] if return_weights else None
    if return_weights not in STAGES:
        raise ValueError(
            f"return_weights must be a bool or one of {[*STAGES][1:]}, got {return_weights!r}"
        )
    return STAGES[return_weights]
