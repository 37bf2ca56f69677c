"""The reference of attention: masks, biases, the five scores; float64 NumPy, as oracle/__init__.py.

    L  queries      S  keys      E  head_dim      A  units of the additive score

Leading dimensions (batch, heads, ...) broadcast everywhere.
"""

from __future__ import annotations

import math

import numpy as np

from tests.oracle import f64


def scaled_dot(q, k, scale=None):
    """Vaswani et al. 2017, equation 1."""
    q, k = f64(q), f64(k)  # (.., L, E), (.., S, E)
    scale = 1.0 / math.sqrt(q.shape[-1]) if scale is None else scale
    return scale * (q @ k.swapaxes(-1, -2))  # -> (.., L, S)


def dot(q, k, scale=1.0):
    return scaled_dot(q, k, scale)


def bilinear(q, k, weight, scale=1.0):
    """q^T W k, Luong et al. 2015's "general"."""
    return scale * (f64(q) @ f64(weight) @ f64(k).swapaxes(-1, -2))


def euclidean(q, k, scale=None):
    """-scale |q - k|^2, computed from the differences."""
    q, k = f64(q), f64(k)
    scale = 1.0 / math.sqrt(q.shape[-1]) if scale is None else scale
    difference = q[..., :, None, :] - k[..., None, :, :]  # -> (.., L, S, E)
    return -scale * (difference**2).sum(axis=-1)


def cosine(q, k, scale=1.0, eps=1e-12):
    """scale cos(q, k); 0 for a zero vector."""

    def unit(x):
        x = f64(x)
        return x / np.maximum(np.sqrt((x**2).sum(axis=-1, keepdims=True)), eps)

    return scale * (unit(q) @ unit(k).swapaxes(-1, -2))


def additive(q, k, weight=None, query_weight=None, key_weight=None, bias=0.0, scale=1.0):
    """w . tanh(W_q q + W_k k + b), Bahdanau et al. 2015."""
    q, k = f64(q), f64(k)
    if query_weight is not None:
        q = q @ f64(query_weight).swapaxes(-1, -2)  # (.., L, E) -> (.., L, A)
        k = k @ f64(key_weight).swapaxes(-1, -2)
    weight = np.ones(q.shape[-1]) if weight is None else f64(weight)
    hidden = np.tanh(q[..., :, None, :] + k[..., None, :, :] + f64(bias))  # -> (.., L, S, A)
    return scale * (hidden * weight[..., None, None, :]).sum(axis=-1)


def softcap(scores, cap):
    return scores if cap is None else cap * np.tanh(scores / cap)


def window(num_queries, num_keys, left=-1, right=-1, lower_right=False):
    """True where query i sees key j because of left and right; -1 is no limit."""
    i, j = np.arange(num_queries)[:, None], np.arange(num_keys)[None]
    distance = j - i - (num_keys - num_queries if lower_right else 0)
    return (distance >= (-np.inf if left < 0 else -left)) & (
        distance <= (np.inf if right < 0 else right)
    )


def causal(num_queries, num_keys, lower_right=False):
    return window(num_queries, num_keys, right=0, lower_right=lower_right)


def relative_matrix(bias, num_queries, num_keys):
    """bias (.., L + S - 1) by distance -> (.., L, S)."""
    i, j = np.arange(num_queries)[:, None], np.arange(num_keys)[None]
    return f64(bias)[..., j - i + num_queries - 1]


def masked_softmax(scores, keep=None, masked_value=0.0):
    """Softmax over the kept keys; a row without keys is masked_value. Returns weights (.., L, S)."""
    keep = np.broadcast_to(True if keep is None else keep, scores.shape)
    keep = keep & ~np.isneginf(scores)
    safe = np.where(keep, scores, -np.inf)
    top = safe.max(axis=-1, keepdims=True, initial=-np.inf)
    e = np.where(keep, np.exp(np.where(keep, scores - np.where(np.isneginf(top), 0, top), 0)), 0)
    total = e.sum(axis=-1, keepdims=True)
    return np.where(total > 0, e / np.where(total > 0, total, 1), masked_value)


def attend(scores, v, keep=None, masked_value=0.0):
    """Weights and output of scores (.., L, S) over values (.., S, E_v)."""
    weights = masked_softmax(scores, keep, masked_value)
    v = np.where((weights != 0).any(axis=-2)[..., None], f64(v), 0)  # a masked value may be NaN
    return weights @ v, weights


def repeat_heads(x, num_heads):
    """Grouped-query attention: key head h // (H_q / H_kv) for query head h."""
    return np.repeat(x, num_heads // x.shape[-3], axis=-3)


# Relative positions that depend on content. `index` (L, S) selects rows of the table (R, E).


def relative_scores(q, table, index):
    return np.take_along_axis(
        f64(q) @ f64(table).swapaxes(-1, -2),
        np.broadcast_to(index, (*np.shape(q)[:-2], *np.shape(index))),
        axis=-1,
    )


def clipped_distances(num_queries, num_keys, reach):
    """clip(j - i, -reach, reach) + reach: Shaw et al. 2018."""
    i, j = np.arange(num_queries)[:, None], np.arange(num_keys)[None]
    return np.clip(j - i, -reach, reach) + reach


def shaw_attention(q, k, v, keys, values=None, scale=None, keep=None):
    """Shaw et al. 2018, equations 3 and 4, tables (2 reach + 1, E)."""
    scale = 1.0 / math.sqrt(q.shape[-1]) if scale is None else scale
    index = clipped_distances(q.shape[-2], k.shape[-2], (keys.shape[-2] - 1) // 2)
    scores = scale * (dot(q, k) + relative_scores(q, keys, index))
    out, weights = attend(scores, v, keep)
    if values is not None:
        out = out + (weights[..., None] * f64(values)[index]).sum(axis=-2)
    return out, weights


def transformer_xl(q, k, u, v, positions):
    """(q + u).k + (q + v).R_(i-j), Dai et al. 2019; positions[h, d + S - 1] is for i - j = d."""
    num_queries, num_keys = q.shape[-2], k.shape[-2]
    i, j = np.arange(num_queries)[:, None] + num_keys - num_queries, np.arange(num_keys)[None]
    qu, qv = f64(q) + f64(u)[:, None, :], f64(q) + f64(v)[:, None, :]
    return dot(qu, k) + relative_scores(qv, positions, i - j + num_keys - 1)


def disentangled(q, k, position_keys, position_queries, c2p_index, p2c_index):
    """DeBERTa (He et al. 2021), equation 4, before its scale: c2c + c2p + p2c."""
    scores = dot(q, k)
    if position_keys is not None:
        scores = scores + relative_scores(q, position_keys, c2p_index)
    if position_queries is not None:
        scores = scores + relative_scores(k, position_queries, p2c_index.T).swapaxes(-1, -2)
    return scores
