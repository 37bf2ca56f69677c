"""A small DeBERTa v2, listed in tiny_models.py."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tests.oracle import deberta
from tests.support.bert_weights import random_weights
from tests.support.model_fixtures import config_json, tokenizer_json
from tests.support.tiny_architecture import TINY, Architecture

NAMES = tuple((f".self.{name}.", f".self.{name}_proj.") for name in ("query", "key", "value"))
OWN = {"c2p": "pos_key_proj", "p2c": "pos_query_proj"}


@dataclass(frozen=True, kw_only=True)
class Deberta(Architecture):
    """buckets, reach, terms, shared: as in the oracle. norm: whether the table of distances is normalized.
    positions, num_token_types: tables of the embeddings."""

    buckets: int = 8
    reach: int = 0
    terms: tuple[str, ...] = ("c2p", "p2c")
    shared: bool = True
    norm: bool = True
    relative: bool = True
    positions: bool = False
    num_token_types: int = 0

    @property
    def max_positions(self):
        return TINY.max_positions

    def fields(self, config=TINY, **changes):
        fields = config_json(self.sized(config)) | {
            "model_type": self.model_type,
            "max_relative_positions": self.reach or -1,
            "norm_rel_ebd": "layer_norm" if self.norm else "none",
            "pos_att_type": "|".join(self.terms),
            "position_biased_input": self.positions,
            "position_buckets": self.buckets or -1,
            "relative_attention": self.relative,
            "share_att_key": self.shared,
            "type_vocab_size": self.num_token_types,
        }
        return {**fields, **changes}

    def weights(self, config=TINY):
        """The weights by transformers' names."""
        rng, config = np.random.default_rng(4), self.sized(config)
        d = config.hidden_size
        given = random_weights(config)
        weights = {_renamed(name): tensor for name, tensor in given.items()}
        types = "embeddings.token_type_embeddings.weight"
        weights[types] = weights[types][: self.num_token_types]
        if not self.num_token_types:
            del weights[types]
        if not self.positions:
            del weights["embeddings.position_embeddings.weight"]

        def array(*shape, scale):
            return (rng.standard_normal(shape) * scale).astype(np.float32)

        if not (self.relative and self.terms):
            return weights
        rows = 2 * (self.buckets or self.reach or config.max_positions)
        weights["encoder.rel_embeddings.weight"] = array(rows, d, scale=1.5)
        if self.norm:
            weights["encoder.LayerNorm.weight"] = 1 + array(d, scale=0.1)
            weights["encoder.LayerNorm.bias"] = array(d, scale=0.1)
        for i in range(0 if self.shared else config.num_layers):
            for term in self.terms:
                stem = f"encoder.layer.{i}.attention.self.{OWN[term]}"
                weights[f"{stem}.weight"] = array(d, d, scale=d**-0.5)
                weights[f"{stem}.bias"] = array(d, scale=0.1)
        return weights

    def states(self, text, config=TINY, limit=100):
        config = self.sized(config)
        definition = deberta.Definition(
            config.num_layers,
            config.num_heads,
            self.eps,
            config.activation,
            self.buckets,
            self.reach or config.max_positions,
            self.terms,
            self.shared,
        )
        return deberta.encoder(self.ids(text, limit), self.weights(config), definition)


def _renamed(name):
    for old, new in NAMES:
        name = name.replace(old, new)
    return name


DEBERTA_V2 = Deberta(
    model_type="deberta-v2",
    prefix="deberta.",
    heads=("lm_predictions.lm_head.bias", "pooler.dense.weight", "classifier.weight"),
    buffers=("embeddings.position_ids",),
    first_norm="embeddings.LayerNorm.weight",
    tokenizer=tokenizer_json,
    tokenizer_class="PreTrainedTokenizerFast",
    eps=1e-7,
)
# Options of v2 and its relatives.
DEBERTA_KINDS = {
    "distances apart": replace(DEBERTA_V2, buckets=0, reach=12),
    "projections of their own": replace(DEBERTA_V2, shared=False),
    "content to position": replace(DEBERTA_V2, terms=("c2p",), shared=False, norm=False),
    "position to content": replace(DEBERTA_V2, terms=("p2c",)),
    "tables of the embeddings": replace(DEBERTA_V2, positions=True, num_token_types=2),
    "no distances": replace(DEBERTA_V2, relative=False, positions=True),
}
