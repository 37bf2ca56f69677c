"""A SparseEncoder's folder: a tiny masked language model with SpladePooling."""

from __future__ import annotations

import numpy as np

from tests.support.bert_weights import random_weights
from tests.support.model_fixtures import TINY, config_json, write_model

KINDS = {
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "SpladePooling": "sentence_transformers.sparse_encoder.modules.splade_pooling.SpladePooling",
}


def masked_weights():
    """The weights of BERT and of its head."""
    rng, size = np.random.default_rng(3), TINY.hidden_size
    stem = "cls.predictions"
    head = {
        f"{stem}.transform.dense.weight": rng.standard_normal((size, size)),
        f"{stem}.transform.dense.bias": rng.standard_normal(size),
        f"{stem}.transform.LayerNorm.weight": 1 + rng.standard_normal(size) / 4,
        f"{stem}.transform.LayerNorm.bias": rng.standard_normal(size),
        f"{stem}.bias": rng.standard_normal(TINY.vocab_size),
    }
    encoder = {f"bert.{name}": tensor for name, tensor in random_weights().items()}
    return encoder | {name: tensor.astype(np.float32) for name, tensor in head.items()}


def write_sparse(folder, files=None, **pooling):
    config = {"model_type": "SparseEncoder", "similarity_fn_name": "dot"}
    return write_model(
        folder,
        weights=masked_weights(),
        kinds=("Transformer", "SpladePooling"),
        types=KINDS,
        files={
            "config.json": config_json(architectures=["BertForMaskedLM"]),
            "config_sentence_transformers.json": config,
            "1_SpladePooling/config.json": {"pooling_strategy": "max", **pooling},
            **(files or {}),
        },
    )
