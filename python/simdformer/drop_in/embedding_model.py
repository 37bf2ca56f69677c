# SPDX-License-Identifier: Apache-2.0
"""The parts of SentenceTransformer other than loading and encoding: similarity, dimensions, and how texts are
processed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from simdformer.drop_in.settings import settings_files
from simdformer.drop_in.task_model import TaskModel
from simdformer.drop_in.text_model import joined
from simdformer.folder.token_heads import TokenHeads
from simdformer.text.inputs import checked_truncate_dim
from simdformer.text.model_output import OutputRequest, features
from simdformer.util import similarity
from simdformer.util.similarity import SIMILARITIES

# The number of vectors that are normalized at a time.
_ROWS = 4096


class EmbeddingModel(TaskModel):
    """A model that returns one vector per text."""

    _token_heads: TokenHeads
    SUPPORTED_SIMILARITY_FN_NAMES = tuple(SIMILARITIES)
    DEFAULT_SIMILARITY_FN_NAME = "cosine"
    _POSITIONAL = (
        "batch_size",
        "show_progress_bar",
        "output_value",
        "precision",
        "convert_to_numpy",
        "convert_to_tensor",
        "device",
        "normalize_embeddings",
        "truncate_dim",
        "pool",
        "chunk_size",
    )

    # --- similarity ---

    def similarity(self, embeddings1: ArrayLike, embeddings2: ArrayLike) -> Any:
        """Compare all embeddings1 with all embeddings2: (n, dim) or (dim,), and (m, dim) or (dim,).

        Returns: (n, m), float32 unless the embeddings are float64. Distances are negated. For torch tensors
        the result is a tensor.
        """
        return self._given(SIMILARITIES[self._similarity_fn_name][0](embeddings1, embeddings2))

    def similarity_pairwise(self, embeddings1: ArrayLike, embeddings2: ArrayLike) -> Any:
        """Compare embeddings1[i] with embeddings2[i], both (n, dim) or (dim,). Returns: (n,) or ()."""
        return self._given(SIMILARITIES[self._similarity_fn_name][1](embeddings1, embeddings2))

    # --- properties of the model ---

    def get_embedding_dimension(self) -> int:
        """The length of the vectors that `encode` returns."""
        full = self.pipeline.width
        return full if self.truncate_dim is None else min(full, self.truncate_dim)

    get_sentence_embedding_dimension = get_embedding_dimension

    @contextmanager
    def truncate_embeddings(self, truncate_dim: int | None) -> Iterator[None]:
        """Within this context, `encode` keeps `truncate_dim` dimensions (None: all)."""
        before = self.truncate_dim
        self.truncate_dim = checked_truncate_dim(truncate_dim, None)
        try:
            yield
        finally:
            self.truncate_dim = before

    truncate_sentence_embeddings = truncate_embeddings

    def compute(
        self,
        texts: list[str],
        *,
        output_value: str | None,
        prompt: str | None,
        normalize_embeddings: bool,
        truncate_dim: int | None,
        hidden_states: bool,
        task: str | None = None,
        returns: Mapping[str, bool] | None = None,
        bar: Any = None,
    ) -> Any:
        """Compute what `encode` returns, in this process, without checks of the arguments."""
        pipeline = self.pipeline.for_task(task)
        if output_value == "token_embeddings":
            return joined(pipeline.token_rows(self._prompted(texts, prompt, task)), bar)
        start = pipeline.pooling_start(prompt)
        if returns is not None:
            encoder, tokenizer = pipeline.encoder, pipeline.tokenizer
            heads = self._token_heads.bound(returns, encoder.hidden_size, tokenizer)
            prompted = self._prompted(texts, prompt, task)
            found = joined(pipeline.state_passes(prompted, heads, start), bar)
            for output in found:
                output["dense_vecs"] = output["dense_vecs"][:truncate_dim]
                if normalize_embeddings:
                    output["dense_vecs"] = similarity.normalize_embeddings(output["dense_vecs"])
            return found
        if output_value is None:
            request = OutputRequest(pipeline.encoder, hidden_states=hidden_states)
            passes = pipeline.output_passes(self._prompted(texts, prompt, task), request, start)
            length = pipeline.tokenizer.prompt_length(prompt) if prompt else None
            typed = pipeline.encoder.num_token_types > 1
            return [
                features(output.with_dim(truncate_dim), length, typed)
                for output in joined(passes, bar)
            ]
        if not texts:
            return np.asarray([])
        shape = (len(texts), min(pipeline.width, truncate_dim or pipeline.width))
        rows = self._prompted(texts, prompt, task)
        embeddings = pipeline.matrix(rows, shape, pooling_start=start, bar=bar)
        if normalize_embeddings:  # in groups of rows, because the squares need memory too
            for begin in range(0, len(texts), _ROWS):
                part = embeddings[begin : begin + _ROWS]
                part[:] = similarity.normalize_embeddings(part)
        return embeddings

    def _settings_files(self) -> dict[str, Any]:
        return settings_files(
            self,
            {
                "model_type": "SentenceTransformer",
                "similarity_fn_name": self.similarity_fn_name,
                "truncate_dim": self.truncate_dim,
            },
        )


def join(parts: list[Any]) -> Any:
    """Concatenate the results of several calls: arrays, or lists."""
    if isinstance(parts[0], list):
        return [result for part in parts for result in part]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
