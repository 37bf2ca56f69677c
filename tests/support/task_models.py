"""Tiny BERTs with the heads of other tasks, as transformers saves them."""

from __future__ import annotations

import numpy as np
from safetensors.numpy import save_file

from tests.support.bert_weights import random_weights
from tests.support.model_fixtures import (
    TINY,
    VOCABULARY,
    config_json,
    tokenizer_json,
    write_files,
)

TAGS = ["O", "B-X", "I-X", "B-Y"]


def head_weights(rows, seed):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((rows, TINY.hidden_size)) * 0.5).astype(np.float32)


def tagger_weights():
    return {
        "classifier.weight": head_weights(len(TAGS), 4),
        "classifier.bias": np.float32([0, 0.1, 0, 0.2]),
    }


def masked_weights():
    stem = "cls.predictions"
    return {
        f"{stem}.transform.dense.weight": head_weights(TINY.hidden_size, 5),
        f"{stem}.transform.dense.bias": head_weights(1, 6)[0],
        f"{stem}.transform.LayerNorm.weight": 1 + 0.1 * head_weights(1, 7)[0],
        f"{stem}.transform.LayerNorm.bias": head_weights(1, 8)[0],
        f"{stem}.bias": np.linspace(-1, 1, len(VOCABULARY)).astype(np.float32),
    }


def write_tagger(folder, *, head=None, files=None):
    """A BertForTokenClassification; texts of at most 40 tokens. head: its tensors."""
    config = {
        "architectures": ["BertForTokenClassification"],
        "id2label": dict(enumerate(TAGS)),
    }
    return _write(folder, tagger_weights() if head is None else head, config, files)


def write_masked_model(folder, *, files=None):
    """A BertForMaskedLM; texts of at most 40 tokens."""
    return _write(folder, masked_weights(), {"architectures": ["BertForMaskedLM"]}, files)


def _write(folder, head, config, files):
    folder.mkdir(parents=True, exist_ok=True)
    encoder = {f"bert.{name}": tensor for name, tensor in random_weights().items()}
    save_file(encoder | head, folder / "model.safetensors")
    contents = {
        "config.json": config_json(**config),
        "tokenizer.json": tokenizer_json(),
        "tokenizer_config.json": {"model_max_length": 40, "mask_token": "[MASK]"},
    }
    write_files(folder, contents | (files or {}))
    return folder
