# SPDX-License-Identifier: Apache-2.0
"""A stack of layers between a token embedding and a projection to the vocabulary."""

from __future__ import annotations

from typing import Any

import numpy as np

from simdformer import _core
from simdformer.nn import packing
from simdformer.nn.cache import DecoderCache
from simdformer.nn.decoder import TransformerDecoder
from simdformer.nn.encoder import TransformerEncoder
from simdformer.nn.linear import Embedding, Linear
from simdformer.nn.module import Float32, Module


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
        weight = self.embedding.weight
        with packing.lock():
            return self._kept.get("head", (weight,), lambda: _core.Linear(weight))

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
