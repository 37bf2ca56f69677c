"""The native layers of small BERT models with random weights.

The fork, thread and signal tests compute with it in their child processes too.
"""

from __future__ import annotations

import numpy as np

from simdformer import _core
from tests.support.bert_weights import MINILM, Config, random_weights

__all__ = [
    "MINILM",
    "Config",
    "native_embeddings",
    "native_encoder",
    "native_layer",
    "random_batch",
    "random_weights",
]


def self_attention(qkv, output, num_heads, position=None):
    """BERT's attention, with queries, keys and values in one matrix."""
    head_dim = np.float32(output.in_features // max(num_heads, 1))
    return _core.MultiheadAttention(
        [[qkv]],
        output,
        num_heads=num_heads,
        num_kv_heads=num_heads,
        softmax_scale=float(1 / np.sqrt(head_dim)),
        position=position,
    )


def post_norm_layer(attention, attention_norm, feed_forward, output_norm):
    norms = _core.Norm.layer(attention_norm), None, _core.Norm.layer(output_norm)
    return _core.TransformerLayer(attention, None, feed_forward, *norms)


def native_layer(config, w, prefix, position=None):
    def linear(name):
        full = f"{prefix}.{name}"
        return _core.Linear(w[f"{full}.weight"], w[f"{full}.bias"])

    def norm(name):
        weight, bias = w[f"{prefix}.{name}.weight"], w[f"{prefix}.{name}.bias"]
        return _core.LayerNorm(weight, bias, eps=config.eps)

    def joined(kind):
        names = [f"{prefix}.attention.self.{name}.{kind}" for name in ("query", "key", "value")]
        return np.concatenate([w[name] for name in names])

    return post_norm_layer(
        self_attention(
            _core.Linear(joined("weight"), joined("bias")),
            linear("attention.output.dense"),
            config.num_heads,
            position,
        ),
        norm("attention.output.LayerNorm"),
        _core.FeedForward(
            linear("intermediate.dense"), linear("output.dense"), activation=config.activation
        ),
        norm("output.LayerNorm"),
    )


def native_embeddings(config, w):
    name = "embeddings.{}_embeddings.weight".format
    norm = _core.LayerNorm(
        w["embeddings.LayerNorm.weight"], w["embeddings.LayerNorm.bias"], eps=config.eps
    )
    return _core.Embeddings(w[name("word")], w[name("position")], w[name("token_type")], norm)


_SMALL = Config()


def native_encoder(config=_SMALL, w=None, position=None):
    w = random_weights(config) if w is None else w
    layers = [
        native_layer(config, w, f"encoder.layer.{i}", position) for i in range(config.num_layers)
    ]
    return _core.TransformerStack(layers, embeddings=native_embeddings(config, w))


def random_batch(lengths, vocab_size=61, seed=0):
    """input_ids (total_tokens,) and cu_seqlens (batch + 1,) of sequences of these lengths."""
    rng = np.random.default_rng(seed)
    cu_seqlens = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return rng.integers(0, vocab_size, cu_seqlens[-1]).astype(np.int32), cu_seqlens
