"""The common parts of the tiny models of all architectures: sizes, texts, and folders."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from tokenizers import Tokenizer

from tests.support.bert_weights import Config
from tests.support.model_fixtures import write_model

TINY = Config()
WIDE = Config(hidden_size=160, num_heads=5, intermediate_size=320)
# The third is truncated, the fifth has one token without special ones, the last contains <pad>.
TEXTS = [
    "a cab",
    "deed",
    "the quick brown fox jumps over the lazy dog " * 9,
    "",
    "z",
    "fed <pad> bed <pad> <pad> ebb",
]


@dataclass(frozen=True, kw_only=True)
class Architecture(ABC):
    """One architecture with random weights.

    Weights have the oracle's names; `names` replaces them by the architecture's own.
    prefix, heads: of tensors of its task models, and of tensors that are ignored.
    buffers: names of tensors that are not weights.
    first_norm: the oracle's name of the first norm's weight.
    eps_field, size_fields: the fields of config.json for the norms' epsilon, if there is one, and for the
    numbers of layers, heads and features.
    tokenizer_class: if it differs from that of the model type.
    """

    model_type: str
    prefix: str
    heads: tuple[str, ...]
    names: tuple[tuple[str, str], ...] = ()
    buffers: tuple[str, ...] = ()
    first_norm: str
    tokenizer: Callable
    tokenizer_class: str | None = None
    pad_token: str = "[PAD]"
    eps: float = 1e-12
    eps_field: str | None = "layer_norm_eps"
    size_fields: tuple[str, str, str] = ("num_hidden_layers", "num_attention_heads", "hidden_size")

    @property
    @abstractmethod
    def max_positions(self):
        """The maximum length of a text for the tiny model."""

    @abstractmethod
    def fields(self, config=TINY, **changes):
        """config.json."""

    @abstractmethod
    def weights(self, config=TINY):
        """The tensors, by the oracle's names."""

    @abstractmethod
    def states(self, text, config=TINY, limit=100):
        """The oracle's token vectors of one text: float64 (tokens, hidden_size)."""

    def sized(self, config):
        """The config with the tokenizer's vocabulary size and the norms' epsilon."""
        return replace(config, vocab_size=self._tokenizer().get_vocab_size(), eps=self.eps)

    def num_parts(self, config):
        """The number of parts in int8: the word embeddings and, for each layer, the joined projections, their
        output, the input and the output of the feed-forward."""
        return 1 + 4 * self.sized(config).num_layers

    @property
    def pad_id(self):
        """The id of the padding token."""
        return self._tokenizer().token_to_id(self.pad_token)

    def renamed(self, weights):
        """With the architecture's own names; tensors of the same name are stacked."""
        renamed = {}
        for name, tensor in weights.items():
            own = name
            for old, new in self.names:
                own = own.replace(old, new)
            above = [renamed[own]] if own in renamed else []
            renamed[own] = np.concatenate([*above, tensor])
        return renamed

    def write(self, folder, config=TINY, *, weights=None, files=None, **options):
        """Write a folder with mean pooling and at most 100 tokens per text."""
        pooling = {"word_embedding_dimension": config.hidden_size, "pooling_mode_mean_tokens": True}
        definition = self.tokenizer()
        settings = {
            "model_max_length": 512,
            "pad_token": self.pad_token,
            "extra_special_tokens": [token["content"] for token in definition["added_tokens"]],
        }
        if self.tokenizer_class:
            settings["tokenizer_class"] = self.tokenizer_class
        contents = {
            "config.json": self.fields(config),
            "tokenizer.json": definition,
            "tokenizer_config.json": settings,
            "1_Pooling/config.json": pooling,
        }
        weights = self.renamed(self.weights(config)) if weights is None else weights
        return write_model(folder, weights=weights, files=contents | (files or {}), **options)

    def ids(self, text, limit=100):
        """The ids given by the tokenizers library itself."""
        tokenizer = self._tokenizer()
        tokenizer.no_padding()
        tokenizer.enable_truncation(limit)
        return np.array(tokenizer.encode(text).ids)

    def pooled(self, texts, **options):
        """Means of the states: float64 (texts, hidden_size)."""
        return np.array([self.states(text, **options).mean(axis=0) for text in texts])

    def _tokenizer(self):
        return Tokenizer.from_str(json.dumps(self.tokenizer()))
