"""The reference: every formula of the library in float64 NumPy, one short function each.

It is written to be compared with the papers, not to be fast. It never imports simdformer, so that both are
independent. Shapes are given in comments; an arrow precedes the shape of the result.

    n  tokens      d  hidden_size     h  num_heads     e  head_dim = d / h     f  intermediate size

Nothing is padded: a batch is its concatenated sequences, and `cu_seqlens` (batch + 1,) gives their limits.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def f64(x):
    return np.asarray(x, dtype=np.float64)


# Linear algebra and normalization


def linear(x, weight, bias=None):
    """y = x W^T + b. The weight is stored as (out, in), as in torch.nn.Linear."""
    y = f64(x) @ f64(weight).T  # (n, in) @ (in, out) -> (n, out)
    return y if bias is None else y + f64(bias)


def layer_norm(x, weight, bias=None, eps=1e-5):
    """Ba, Kiros, Hinton 2016: biased variance, eps inside the root."""
    x = f64(x)  # (n, d)
    centered = x - x.mean(axis=-1, keepdims=True)
    variance = (centered**2).mean(axis=-1, keepdims=True)  # -> (n, 1)
    y = centered / np.sqrt(variance + eps) * f64(weight)
    return y if bias is None else y + f64(bias)


def l2_normalize(x, eps=1e-12):
    """x / max(||x||, eps), as torch.nn.functional.normalize: a zero row stays zero."""
    x = f64(x)  # (n, d)
    return x / np.maximum(np.sqrt((x**2).sum(axis=-1, keepdims=True)), eps)


# Activations, elementwise


def identity(x):
    return f64(x)


def relu(x):
    return np.maximum(f64(x), 0.0)


def gelu(x):
    """x Phi(x), Hendrycks and Gimpel 2016. Computed with erfc, because 1 + erf cancels for negative x."""
    x = f64(x)
    return 0.5 * x * _erfc(-x / math.sqrt(2.0))


def gelu_tanh(x):
    """The tanh form of GELU: "gelu_new", "gelu_pytorch_tanh". It differs from the erf form by up to
    4.7e-4."""
    x = f64(x)
    inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)
    return x * sigmoid(2.0 * inner)  # 0.5 (1 + tanh u) = sigmoid(2u), without cancellation


def sigmoid(x):
    x = f64(x)
    e = np.exp(-np.abs(x))  # in [0, 1], so it cannot overflow
    return np.where(x >= 0, 1.0, e) / (1.0 + e)


def silu(x):
    """x sigmoid(x), also called swish."""
    return f64(x) * sigmoid(x)


def quick_gelu(x):
    """x sigmoid(1.702 x), the GELU of CLIP."""
    return f64(x) * sigmoid(1.702 * f64(x))


def tanh(x):
    return np.tanh(f64(x))


ACTIVATIONS = {
    "identity": identity,
    "relu": relu,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "silu": silu,
    "quick_gelu": quick_gelu,
    "tanh": tanh,
    "sigmoid": sigmoid,
}


# Attention


def softmax(x):
    x = f64(x)  # (n, keys)
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def attention(q, k, v, softmax_scale=None, bias=0.0):
    """One head, Vaswani et al. 2017, equation 1: softmax(q k^T / sqrt(e) + bias) v."""
    q, k, v = f64(q), f64(k), f64(v)  # (queries, e), (keys, e), (keys, e_v)
    if softmax_scale is None:
        softmax_scale = 1.0 / math.sqrt(q.shape[-1])
    scores = q @ k.T * softmax_scale + bias  # -> (queries, keys)
    return softmax(scores) @ v  # -> (queries, e_v)


def multi_head_attention(q, k, v, cu_seqlens, num_heads, softmax_scale=None, bias=None):
    """Each head of each sequence separately: tokens see only their own sequence. bias(length), (num_heads,
    length, length), is added to a sequence's scores."""
    q, k, v = f64(q), f64(k), f64(v)  # (n, d) each
    out = np.zeros_like(q)
    for tokens in sequences(cu_seqlens):
        added = np.zeros(num_heads) if bias is None else bias(len(tokens))
        for h, head in enumerate(np.split(np.arange(q.shape[1]), num_heads)):  # columns (e,)
            at = np.ix_(tokens, head)
            out[at] = attention(q[at], k[at], v[at], softmax_scale, added[h])
    return out  # (n, d)


def sequences(cu_seqlens):
    """The token indices of each sequence."""
    return [np.arange(a, b) for a, b in pairwise(cu_seqlens)]


# Embeddings


def embedding_sum(word, position, token_type, input_ids, position_ids, token_type_ids):
    """word[i] + position[p] + token_type[t]; tables that are None are left out."""
    x = f64(word)[input_ids]  # (vocab, d)[n] -> (n, d)
    if position is not None:
        x = x + f64(position)[position_ids]
    if token_type is not None:
        x = (
            x
            + f64(token_type)[
                np.zeros_like(input_ids) if token_type_ids is None else token_type_ids
            ]
        )
    return x


def position_ids(cu_seqlens):
    """0, 1, 2, ... in each sequence."""
    starts = np.repeat(cu_seqlens[:-1], np.diff(cu_seqlens))  # (n,)
    return np.arange(cu_seqlens[-1]) - starts


# Pooling: (tokens, d) of one sequence -> (d,). `start` excludes a prompt's tokens. As in
# sentence-transformers, the weights of "weightedmean" are still counted from the first token.


def pool(mode, x, start=0):
    x = f64(x)
    position = np.arange(1, len(x) + 1)[:, None][start:]  # (n, 1), from one
    x = x[start:]
    if mode == "cls":
        return x[0]
    if mode == "lasttoken":
        return x[-1]
    if mode == "max":
        return x.max(axis=0)
    if mode == "mean":
        return x.sum(axis=0) / len(x)
    if mode == "mean_sqrt_len_tokens":
        return x.sum(axis=0) / math.sqrt(len(x))
    if mode == "weightedmean":
        return (x * position).sum(axis=0) / position.sum()
    raise ValueError(mode)


def fold(kind, x, bias=0.0, start=None):
    """A fold over rows, column by column: the largest, or a sum of logarithms, from start on."""
    x = f64(x) + f64(bias)
    if kind == "max":
        return x.max(axis=0, initial=-np.inf) if start is None else np.maximum(x.max(axis=0), start)
    x = np.log1p(np.maximum(x, 0))
    x = np.log1p(x) if kind == "sum_log1p_twice" else x
    return x.sum(axis=0) + (0 if start is None else f64(start))


def splade(logits, cu_seqlens, sums=False, logarithms=1):
    """One row over the vocabulary per sequence (Formal et al. 2021)."""
    x = np.maximum(f64(logits), 0)
    for _ in range(logarithms):
        x = np.log1p(x)
    rows = [x[part] for part in sequences(cu_seqlens)]
    return np.stack([r.sum(0) if sums else r.max(0, initial=0) for r in rows])


def max_sim(queries, documents, mean=False):
    """Late interaction (Khattab and Zaharia 2020) of lists of token vectors: (queries, documents)."""

    def score(q, d):
        largest = (f64(q) @ f64(d).T).max(axis=1)
        return largest.mean() if mean else largest.sum()

    return np.array([[score(q, d) for d in documents] for q in queries])


def pool_sequences(modes, x, cu_seqlens, start=0):
    """Each sequence pooled in every mode, with concatenated results: -> (batch, len(modes) * d)."""
    rows = [[pool(mode, x[tokens], start) for mode in modes] for tokens in sequences(cu_seqlens)]
    return np.array([np.concatenate(row) for row in rows])


# BERT (Devlin et al. 2018). `w` maps the names of a Hugging Face checkpoint to arrays.


def bert_layer(x, w, prefix, cu_seqlens, num_heads, activation="gelu", eps=1e-12, bias=None):
    """Post-norm encoder layer: x = LN(x + attention(x)); x = LN(x + feed_forward(x))."""

    def dense(name, x):
        return linear(x, w[f"{prefix}.{name}.weight"], w.get(f"{prefix}.{name}.bias"))

    def norm(name, x):
        return layer_norm(x, w[f"{prefix}.{name}.weight"], w.get(f"{prefix}.{name}.bias"), eps)

    q = dense("attention.self.query", x)  # (n, d) -> (n, d)
    k = dense("attention.self.key", x)
    v = dense("attention.self.value", x)
    a = multi_head_attention(q, k, v, cu_seqlens, num_heads, bias=bias)  # -> (n, d)
    x = norm("attention.output.LayerNorm", x + dense("attention.output.dense", a))

    hidden = ACTIVATIONS[activation](dense("intermediate.dense", x))  # (n, d) -> (n, f)
    return norm("output.LayerNorm", x + dense("output.dense", hidden))  # -> (n, d)


def bert_embeddings(input_ids, w, cu_seqlens, token_type_ids=None, eps=1e-12, positions=None):
    name = "embeddings.{}_embeddings.weight".format
    x = embedding_sum(
        w[name("word")],
        w.get(name("position")),
        w.get(name("token_type")),
        input_ids,
        position_ids(cu_seqlens) if positions is None else positions,
        token_type_ids,
    )  # (n,) -> (n, d)
    norm = "embeddings.LayerNorm"
    return layer_norm(x, w[f"{norm}.weight"], w.get(f"{norm}.bias"), eps)


def bert(
    input_ids,
    w,
    cu_seqlens,
    num_layers,
    num_heads,
    token_type_ids=None,
    activation="gelu",
    eps=1e-12,
    positions=None,
    bias=None,
):
    """From ids to the last layer's hidden states: (n,) -> (n, d). positions (n,): if not 0, 1, ..."""
    x = bert_embeddings(input_ids, w, cu_seqlens, token_type_ids, eps, positions)
    if "embeddings_project.weight" in w:  # for ELECTRA
        x = linear(x, w["embeddings_project.weight"], w["embeddings_project.bias"])
    for i in range(num_layers):
        x = bert_layer(x, w, f"encoder.layer.{i}", cu_seqlens, num_heads, activation, eps, bias)
    return x
