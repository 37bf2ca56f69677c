# SPDX-License-Identifier: Apache-2.0
"""The parts shared by BERT and its relatives: fields of config.json, and post-norm layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from simdformer import nn
from simdformer.models.activations import from_hidden_act
from simdformer.models.config_fields import number_of, one_of, positive_float, positive_int
from simdformer.models.names import FieldNames
from simdformer.nn.position import Position

BERT_FIELDS = FieldNames()


@dataclass(frozen=True)
class PostNormConfig:
    """The fields of config.json that define the computation.

    type_vocab_size: None if there are no token types.
    """

    hidden_size: int
    inner_size: int
    num_layers: int
    num_heads: int
    vocab_size: int
    max_positions: int
    type_vocab_size: int | None
    activation: str
    eps: float

    @classmethod
    def from_dict(
        cls,
        config: Mapping[str, Any],
        *,
        fields: FieldNames = BERT_FIELDS,
        eps: float | None = None,
        type_vocab_size: int | None = None,
    ) -> PostNormConfig:
        """Read and check config.json. Errors: ValueError naming the field, its value and the allowed values.

        eps: of every norm; None to read it from config.json, with transformers' default. type_vocab_size: the
        default; None for an architecture without token types.
        """
        one_of(config, "position_embedding_type", ["absolute"], "absolute")
        one_of(config, "is_decoder", [False], False)
        one_of(config, "add_cross_attention", [False], False)
        hidden, inner, heads = (
            positive_int(config, name)
            for name in (fields.hidden_size, fields.inner_size, fields.num_heads)
        )
        layers = number_of(config, fields.num_layers)
        vocab_size = positive_int(config, "vocab_size")
        max_positions = positive_int(config, "max_position_embeddings")
        if type_vocab_size is not None:
            type_vocab_size = positive_int(config, "type_vocab_size", type_vocab_size)
        if hidden % heads:
            raise ValueError(
                f"config.json: {fields.hidden_size}={hidden} is not a multiple of"
                f" {fields.num_heads}={heads}"
            )
        return cls(
            hidden_size=hidden,
            inner_size=inner,
            num_layers=layers,
            num_heads=heads,
            vocab_size=vocab_size,
            max_positions=max_positions,
            type_vocab_size=type_vocab_size,
            activation=from_hidden_act(config.get(fields.activation, "gelu"), fields.activation),
            eps=positive_float(config, "layer_norm_eps", 1e-12) if eps is None else eps,
        )

    def encoder(
        self,
        *,
        padding_idx: int | None = None,
        position: Callable[[], Position | None] = lambda: None,
        with_positions: bool = True,
        embedding_dim: int | None = None,
        terms: int = 1,
        order: Sequence[int] = (),
    ) -> nn.TextEncoder:
        """Build the encoder.

        padding_idx: positions start after it, as in RoBERTa. position: makes the position of a layer.
        with_positions: whether the embeddings have a table of positions. embedding_dim: size of the
        embeddings if it may differ from the layers'. terms: the number of terms of a score, which its scale
        depends on.
        order: the index of the layer that runs at each step, if layers repeat; then the embeddings are
        projected.
        """
        if padding_idx is not None and self.max_positions <= padding_idx + 1:
            raise ValueError(
                f"config.json: max_position_embeddings={self.max_positions} leaves no position after"
                f" that of the padding token, {padding_idx}"
            )
        features = embedding_dim or self.hidden_size
        projected = features != self.hidden_size or bool(order)
        embeddings = nn.TextEmbeddings(
            self.vocab_size,
            features,
            max_positions=self.max_positions if with_positions else None,
            type_vocab_size=self.type_vocab_size,
            norm=nn.LayerNorm(features, eps=self.eps),
            padding_idx=padding_idx,
            projection=nn.Linear(features, self.hidden_size) if projected else None,
        )
        order = order or range(self.num_layers)
        layers = [self._layer(position(), terms) for _ in range(max(order) + 1)]
        return nn.TextEncoder(embeddings, [layers[i] for i in order])

    def _layer(self, position: Position | None, terms: int) -> nn.TransformerEncoderLayer:
        size = terms * (self.hidden_size // self.num_heads)
        return nn.TransformerEncoderLayer(
            self.hidden_size,
            self.num_heads,
            self.inner_size,
            activation=self.activation,
            layer_norm_eps=self.eps,
            scale=float(1 / np.sqrt(np.float32(size))),  # rounded to float32
            position=position,
        )
