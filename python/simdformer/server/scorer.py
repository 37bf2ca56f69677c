# SPDX-License-Identifier: Apache-2.0
"""The cross-encoders of the server: compute scores of pairs or single texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from simdformer.cross_encoder import CrossEncoder
from simdformer.functional import sigmoid, softmax
from simdformer.server.passes import Float32
from simdformer.server.served import check_lengths, size_read
from simdformer.text.tokenizer import Pair, num_characters


class Scoring(NamedTuple):
    """How pairs are read and scored. Pairs with equal scoring are computed together.

    raw: None for the scores of `predict`, True for the logits, False for their sigmoid, or softmax if there are
    several. side: the side on which texts are truncated, None for the model's own.
    """

    raw: bool | None = None
    side: str | None = None


class Scorer:
    """A CrossEncoder behind the queue. Items are pairs or single texts, prompt included."""

    def __init__(self, model: CrossEncoder) -> None:
        self.model = model
        self.pipeline = model.pipeline
        self.prompt = model.resolve_prompt() or ""

    def prompted(self, query: str, document: str) -> Pair | str:
        """The pair that is tokenized, with the prompt."""
        return self.pipeline.prompted_pair((query, document), self.prompt)

    def labels(self) -> list[str]:
        """The names of the scores."""
        names = getattr(self.model.config, "id2label", None) or {}
        return [str(names.get(str(i), f"LABEL_{i}")) for i in range(self.model.num_labels)]

    def check_lengths(self, items: Sequence[Pair | str], scoring: Scoring, param: str) -> None:
        """ApiError if an item is longer than the model's limit."""
        check_lengths(self.pipeline.tokenizer.truncating(scoring.side, None), items, param)

    def size(self, item: Pair | str) -> int:
        """The approximate number of characters of an item that the model reads."""
        return size_read(num_characters(item), self.model.max_seq_length)

    def run(self, items: Sequence[Any], group: Any) -> tuple[Float32, list[int]]:
        """The scores of each item, float32 (n, num_labels), and its number of tokens. group: a Scoring."""
        tokens = self.pipeline.tokenizer.truncating(group.side, None)(items)
        logits = self.pipeline.rows_of_tokens(tokens)
        if group.raw is None:
            scores = np.asarray(self.model.activation_fn(logits), np.float32)
        elif group.raw:
            scores = logits
        else:
            scores = sigmoid(logits) if self.model.num_labels == 1 else softmax(logits)
        return scores, [len(ids) for ids in tokens.input_ids]


class Reranker(Scorer):
    """A cross-encoder with one score per pair."""

    def __init__(self, model: CrossEncoder) -> None:
        """ValueError for a model with several scores."""
        if model.num_labels != 1:
            raise ValueError(
                f"{model.name_or_path} gives {model.num_labels} scores per pair; rerank needs a model with"
                " one"
            )
        super().__init__(model)
