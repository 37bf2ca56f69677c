# SPDX-License-Identifier: Apache-2.0
"""A stack of layers between a token embedding and a projection to the vocabulary."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from simdformer import _core
from simdformer.nn import packing
from simdformer.nn.cache import DecoderCache
from simdformer.nn.compute_types import (
    Sample,
    quantized,
    sample_ids,
    sample_offsets,
    sample_rows,
)
from simdformer.nn.decoder import TransformerDecoder
from simdformer.nn.encoder import TransformerEncoder
from simdformer.nn.linear import Embedding, Linear
from simdformer.nn.module import Float32, Module, PackedMatrix
from simdformer.nn.parameters import Matrix


class LanguageModel(Module):
    """Logits of the next token: lm_head(stack(scale * embedding[ids] + positions)).

    stack: a TransformerEncoder, which is then used causally (a decoder without a memory, as GPT), or
    a TransformerDecoder, which attends to a memory. position: SinusoidalPositionalEncoding,
    LearnedPositionalEmbedding or None. lm_head: None ties it to the embedding (Press and Wolf 2017).
    scale: sqrt(d_model) in Vaswani et al. 2017. What `simdformer.generation` drives.
    """

    def __init__(
        self,
        embedding: Embedding,
        stack: TransformerEncoder | TransformerDecoder,
        *,
        position: Module | None = None,
        lm_head: Linear | None = None,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        d_model = stack.layers[0].d_model
        if embedding.embedding_dim != d_model:
            raise ValueError(
                f"embedding has {embedding.embedding_dim} features, the stack {d_model}"
            )
        if lm_head is not None and lm_head.in_features != d_model:
            raise ValueError(f"lm_head takes {lm_head.in_features} features, the stack {d_model}")
        self.embedding = embedding
        self.position = position
        self.stack = stack
        self.lm_head = lm_head
        self.scale = scale
        self._head_type = "float32"  # of a tied head
        self._head_outliers: Any = None

    @property
    def vocab_size(self) -> int:
        """Tokens that there are logits for."""
        head = self.embedding.num_embeddings if self.lm_head is None else self.lm_head.out_features
        return int(head)

    def _head(self) -> _core.Linear:
        """What gives the logits."""
        if self.lm_head is not None:
            own: _core.Linear = self.lm_head.native()
            return own
        weight, outliers = self.embedding.weight, self._head_outliers
        with packing.lock():
            return self._kept.get("head", (weight, self._head_type, outliers), self._tied_head)

    def _tied_head(self) -> _core.Linear:
        weight: Any = self.embedding.weight
        if self._head_outliers is not None:
            weight = quantized(weight, self._head_outliers)
        return Matrix(weight, None, self._head_type).pack()

    def _pack_all(self) -> None:
        super()._pack_all()
        self._head()

    def matrices(self) -> list[str]:
        """The tied head, which is the embedding's table, packed once more."""
        return ["head"] if self.lm_head is None else []

    def type_of(self, name: str) -> str:  # noqa: ARG002
        """The head's compute type; the embedding itself stays in float32."""
        return self._head_type

    def set_type(self, name: str, compute_type: str, outliers: Any = None) -> None:  # noqa: ARG002
        """Give the head another."""
        self._head_outliers = outliers
        self._head_type = compute_type

    def packed_matrices(self) -> Iterator[PackedMatrix]:
        """The stack's and the head."""
        yield from super().packed_matrices()
        if self.lm_head is None:
            yield PackedMatrix(self, "head", (self._head(),))

    def sample(self) -> Sample:
        """What it is quantised with if no sample is given."""
        cu_seqlens = sample_offsets()
        ids = sample_ids(self.embedding.num_embeddings, int(cu_seqlens[-1]))
        options: dict[str, Any] = {}
        if isinstance(self.stack, TransformerDecoder):
            d_model = self.embedding.embedding_dim
            options = {"memory": sample_rows(d_model), "memory_cu_seqlens": cu_seqlens}
        return Sample((ids, cu_seqlens), options)

    def forward(
        self,
        input_ids: Any,
        cu_seqlens: Any,
        *,
        memory: Any = None,
        memory_cu_seqlens: Any = None,
        cache: DecoderCache | None = None,
        last_only: bool = False,
        num_threads: int = 0,
    ) -> Float32:
        """Causal logits of packed sequences, none of them empty.

        input_ids: integers (total,), those that follow the cache's. memory: float32 (total, E) with
        memory_cu_seqlens, for a TransformerDecoder; None once a cache holds it.
        Returns: float32 (total, vocab_size), or with last_only those of each sequence's last token.
        """
        cu = np.asarray(cu_seqlens, np.int64)
        cache = DecoderCache(len(cu) - 1) if cache is None else cache
        x = self.embedding(input_ids)
        if self.scale != 1.0:
            x = np.multiply(x, np.float32(self.scale))
        if self.position is not None:
            x = self.position(x, cu_seqlens=cu, offset=np.array(cache.lengths))
        options: dict[str, Any] = {"cu_seqlens": cu, "cache": cache, "num_threads": num_threads}
        if isinstance(self.stack, TransformerDecoder):
            hidden = self.stack(x, memory, memory_cu_seqlens=memory_cu_seqlens, **options)
        else:
            hidden = self.stack(x, **options)
        if last_only:
            hidden = hidden[cu[1:] - 1]
        return _core.linear_forward(self._head(), hidden, num_threads=num_threads)
