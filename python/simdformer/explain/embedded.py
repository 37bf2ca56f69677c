# SPDX-License-Identifier: Apache-2.0
"""The vectors of a text without some of its tokens, and copies of models with changes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simdformer import SentenceTransformer
from simdformer.nn import TextEncoder
from simdformer.text.model_output import ModelOutput
from simdformer.text.tokenizer import Tokens

Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class EmbeddedText:
    """A text of n tokens (prompt included), its intermediate results and its embedding.

    pooling_start: the first token that pooling includes. is_special: bool (n,), tokens such as [CLS].
    embedding: float64 (dim,).
    """

    model: SentenceTransformer
    output: ModelOutput
    pooling_start: int
    is_special: NDArray[np.bool_]
    embedding: Float64

    @classmethod
    def of(
        cls,
        model: SentenceTransformer,
        text: str,
        prompt_name: str | None = None,
        argument: str = "text",
        **outputs: Any,
    ) -> EmbeddedText:
        """Embed a text. outputs: arguments of `model.outputs`. TypeError names the argument."""
        check_model(model)
        if not isinstance(text, str):
            raise TypeError(f"{argument} must be a str, got {type(text).__name__}")
        output = model.outputs(text, prompt_name=prompt_name, **outputs)
        special = np.isin(output.input_ids, list(model.pipeline.tokenizer.special_ids))
        start = model.pipeline.pooling_start(model.resolve_prompt(prompt_name=prompt_name))
        return cls(model, output, start, special, output.sentence_embedding.astype(np.float64))

    def __len__(self) -> int:
        return len(self.output.tokens)

    def embed_kept(self, kept: Sequence[NDArray[np.bool_]]) -> Float64:
        """The embeddings of the text with only some of its tokens.

        kept: bool (n,) each. Returns: float64 (len(kept), dim).
        """
        rows = np.zeros((len(kept), len(self.embedding)))
        starts = [int(mask[: self.pooling_start].sum()) for mask in kept]
        for start in set(starts):
            chosen = [i for i, each in enumerate(starts) if each == start]
            rows[chosen] = self._embed([kept[i] for i in chosen], start)
        return rows

    def embed_masked(self, head_masks: NDArray[np.float32]) -> Float64:
        """The embeddings of the text under head masks (k, num_layers, num_heads): float64 (k, dim)."""
        kept = [np.ones(len(self), bool)] * len(head_masks)
        return self._embed(kept, self.pooling_start, head_masks)

    def _embed(
        self,
        kept: Sequence[NDArray[np.bool_]],
        start: int,
        head_masks: NDArray[np.float32] | None = None,
    ) -> Float64:
        ids = [self.output.input_ids[mask].tolist() for mask in kept]
        types = [self.output.token_type_ids[mask].tolist() for mask in kept]
        rows = self.model.pipeline.rows_of_tokens(Tokens(ids, types, 0), start, head_masks)
        return rows[:, : len(self.embedding)].astype(np.float64)

    def embed_without_each(self) -> Float64:
        """The embeddings without the first token, without the second, ...: float64 (n, dim)."""
        return self.embed_kept(list(~np.eye(len(self), dtype=bool)))


def check_model(model: object) -> None:
    """TypeError for anything but a SentenceTransformer."""
    if not isinstance(model, SentenceTransformer):
        raise TypeError(f"model must be a SentenceTransformer, got {type(model).__name__}")


def cosine(a: Float64, b: Float64) -> Any:
    """Cosine along the last axis in float64; 0 for a zero vector."""
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.divide((a * b).sum(axis=-1), norms, out=np.zeros(np.shape(norms)), where=norms > 0)


def with_encoder(model: SentenceTransformer, encoder: TextEncoder) -> SentenceTransformer:
    """A copy of the model with another encoder."""
    variant = copy.copy(model)
    variant.encoder = encoder
    variant.pipeline = model.pipeline.with_encoder(encoder)
    return variant
