"""Small BERT models with random weights: a checkpoint's dict of arrays, and the native layers of it.

The fork, thread and signal tests compute with it in their child processes too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simdformer import _core
from simdformer.checkpoint.precision import FLOAT32


@dataclass(frozen=True)
class Config:
    """Sizes that no vector width divides."""

    vocab_size: int = 61
    max_positions: int = 130
    hidden_size: int = 20
    num_heads: int = 5
    num_layers: int = 2
    intermediate_size: int = 37
    activation: str = "gelu"
    eps: float = 1e-12


MINILM = Config(30522, 512, 384, 12, 6, 1536)


def random_weights(config=Config(), seed=0):
    """Every tensor of a Hugging Face BERT checkpoint, by its name there."""
    rng = np.random.default_rng(seed)
    d, f = config.hidden_size, config.intermediate_size

    def array(*shape, scale):
        return (rng.standard_normal(shape) * scale).astype(np.float32)

    def dense(name, out_features, in_features):
        return {
            f"{name}.weight": array(out_features, in_features, scale=in_features**-0.5),
            f"{name}.bias": array(out_features, scale=0.1),
        }

    def norm(name):
        return {f"{name}.weight": 1 + array(d, scale=0.1), f"{name}.bias": array(d, scale=0.1)}

    w = {
        "embeddings.word_embeddings.weight": array(config.vocab_size, d, scale=0.5),
        "embeddings.position_embeddings.weight": array(config.max_positions, d, scale=0.5),
        "embeddings.token_type_embeddings.weight": array(2, d, scale=0.5),
        **norm("embeddings.LayerNorm"),
    }
    for i in range(config.num_layers):
        layer = f"encoder.layer.{i}"
        for name in ("query", "key", "value"):
            w |= dense(f"{layer}.attention.self.{name}", d, d)
        w |= dense(f"{layer}.attention.output.dense", d, d)
        w |= norm(f"{layer}.attention.output.LayerNorm")
        w |= dense(f"{layer}.intermediate.dense", f, d)
        w |= dense(f"{layer}.output.dense", d, f)
        w |= norm(f"{layer}.output.LayerNorm")
    return w


@dataclass(frozen=True)
class ArrayMatrix:
    """precision.Matrix of an array."""

    name: str
    array: np.ndarray
    tensors: tuple[str, ...] = ()

    def float32(self):
        return self.array


def native_layer(config, w, prefix, precision, relative_bias=None):
    def linear(name):
        full = f"{prefix}.{name}"
        return precision.linear(ArrayMatrix(full, w[f"{full}.weight"]), w[f"{full}.bias"])

    def norm(name):
        weight, bias = w[f"{prefix}.{name}.weight"], w[f"{prefix}.{name}.bias"]
        return _core.LayerNorm(weight, bias, eps=config.eps)

    def joined(kind):
        names = [f"{prefix}.attention.self.{name}.{kind}" for name in ("query", "key", "value")]
        return np.concatenate([w[name] for name in names])

    return _core.PostNormLayer(
        _core.SelfAttention(
            precision.linear(ArrayMatrix(f"{prefix}.qkv", joined("weight")), joined("bias")),
            linear("attention.output.dense"),
            num_heads=config.num_heads,
            relative_bias=relative_bias,
        ),
        norm("attention.output.LayerNorm"),
        _core.FeedForward(
            linear("intermediate.dense"), linear("output.dense"), activation=config.activation
        ),
        norm("output.LayerNorm"),
    )


def native_embeddings(config, w, precision=FLOAT32):
    name = "embeddings.{}_embeddings.weight".format
    norm = _core.LayerNorm(
        w["embeddings.LayerNorm.weight"], w["embeddings.LayerNorm.bias"], eps=config.eps
    )
    word = precision.table(ArrayMatrix("embeddings.word_embeddings", w[name("word")]))
    return _core.Embeddings(word, w[name("position")], w[name("token_type")], norm)


def native_encoder(config=Config(), w=None, precision=FLOAT32, relative_bias=None):
    w = random_weights(config) if w is None else w
    layers = [
        native_layer(config, w, f"encoder.layer.{i}", precision, relative_bias)
        for i in range(config.num_layers)
    ]
    return _core.Encoder(native_embeddings(config, w, precision), layers)


def random_batch(lengths, vocab_size=61, seed=0):
    """input_ids (total_tokens,) and cu_seqlens (batch + 1,) of sequences of these lengths."""
    rng = np.random.default_rng(seed)
    cu_seqlens = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return rng.integers(0, vocab_size, cu_seqlens[-1]).astype(np.int32), cu_seqlens
