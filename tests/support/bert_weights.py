"""BERT models with random weights: sizes, and a checkpoint's dict of arrays. It never imports simdformer, so
that several builds can read the models."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Config:
    """Sizes that are not multiples of any vector width."""

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
    """All tensors of a Hugging Face BERT checkpoint, by name."""
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
