# SPDX-License-Identifier: Apache-2.0
"""A language model: token embedding, a stack of layers, and a projection to the vocabulary."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from simdformer import _core
from simdformer.functional.arrays import id_vector, offsets
from simdformer.nn import packing
from simdformer.nn.added_positions import LearnedPositionalEmbedding
from simdformer.nn.cache import DecoderCache, check_cache
from simdformer.nn.compute_types import (
    Sample,
    quantized,
    sample_ids,
    sample_offsets,
    sample_rows,
)
from simdformer.nn.decoder import TransformerDecoder
from simdformer.nn.encoder import TransformerEncoder
from simdformer.nn.linear import Embedding, Linear, look_up
from simdformer.nn.module import Float32, Module, PackedMatrix
from simdformer.nn.parameters import Matrix
from simdformer.nn.text_encoder import TextEncoder


class LanguageModel(Module):
    """Logits of the next token: lm_head(stack(scale * embedding[ids] + positions)).

    Use it with `simdformer.generation`.

    Parameters
    ----------
    embedding
        Embedding of the tokens, or a TextEncoder instead of embedding, stack, position and scale. The
        TextEncoder becomes the attribute `stack` and is used causally.
    stack
        A TransformerEncoder, used causally (a decoder without a memory, as in GPT), or a
        TransformerDecoder, which attends to a memory.
    position
        SinusoidalPositionalEncoding, LearnedPositionalEmbedding or None.
    lm_head
        Linear to the vocabulary. None ties it to the embedding (Press and Wolf 2017).
    scale
        Factor of the embeddings, sqrt(d_model) in Vaswani et al. 2017.

    Raises
    ------
    ValueError
        If sizes do not match, or stack, position or scale is given with a TextEncoder.

    Examples
    --------
    >>> from simdformer import nn
    >>> stack = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2), 2)
    >>> model = nn.LanguageModel(nn.Embedding(10, 8), stack)
    >>> model([1, 2, 3], [0, 3]).shape
    (3, 10)
    """

    def __init__(
        self,
        embedding: Embedding | TextEncoder,
        stack: TransformerEncoder | TransformerDecoder | None = None,
        *,
        position: Module | None = None,
        lm_head: Linear | None = None,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        if isinstance(embedding, TextEncoder):
            if stack is not None or position is not None or scale != 1.0:
                raise ValueError("stack, position and scale cannot be combined with a TextEncoder")
            if lm_head is None and embedding.embeddings.word_scale != 1:
                raise ValueError(
                    "the TextEncoder's word embeddings were multiplied by"
                    f" {embedding.embeddings.word_scale:g}, which a head must not include: pass lm_head"
                )
            d_model = embedding.hidden_size
        else:
            d_model = _d_model(embedding, stack)
            self.embedding = embedding
            self.position = position
        if lm_head is not None and lm_head.in_features != d_model:
            raise ValueError(f"lm_head takes {lm_head.in_features} features, the stack {d_model}")
        self.stack: Any = embedding if isinstance(embedding, TextEncoder) else stack
        self.lm_head = lm_head
        self.scale = scale
        self._head_outliers: Any = None
        self._set_head_type("float32")

    @property
    def vocab_size(self) -> int:
        """Number of tokens with logits."""
        head = self._table().num_embeddings if self.lm_head is None else self.lm_head.out_features
        return int(head)

    def _table(self) -> Embedding:
        """The embedding of tokens."""
        text_encoder = isinstance(self.stack, TextEncoder)
        table: Embedding = self.stack.embeddings.word_embeddings if text_encoder else self.embedding
        return table

    def _head(self) -> _core.Linear:
        """The packed layer that computes the logits."""
        if self.lm_head is not None:
            own: _core.Linear = self.lm_head.native()
            return own
        if self._shares_table():
            shared: _core.Linear = self.stack.embeddings.head()
            return shared
        place, outliers = self._table().place("weight"), self._head_outliers
        with packing.lock():
            return self._kept.get("head", (place, self._head_type, outliers), self._tied_head)

    def _shares_table(self) -> bool:
        """Whether the embedding and a tied head use one packed matrix."""
        tied = self.lm_head is None and isinstance(self.stack, TextEncoder)
        return tied and self._head_type == "float32"

    def _set_head_type(self, compute_type: str) -> None:
        self._head_type = compute_type  # compute type of a tied head
        if self.lm_head is None and isinstance(self.stack, TextEncoder):
            self.stack.embeddings.is_tied = self._shares_table()

    def _tied_head(self) -> _core.Linear:
        weight: Any = self._table().weight
        if self._head_outliers is not None:
            weight = quantized(weight, self._head_outliers)
        return Matrix(weight, None, self._head_type).pack()

    def _pack_all(self) -> None:
        super()._pack_all()
        self._head()

    def matrices(self) -> list[str]:
        """The tied head. It is a second packed form of the embedding's table."""
        return ["head"] if self.lm_head is None else []

    def type_of(self, name: str) -> str:  # noqa: ARG002
        """The compute type of the head. The embedding itself stays in float32."""
        return self._head_type

    def set_type(self, name: str, compute_type: str, outliers: Any = None) -> None:  # noqa: ARG002
        """Change the compute type of the head."""
        self._head_outliers = outliers
        self._set_head_type(compute_type)

    def packed_matrices(self) -> Iterator[PackedMatrix]:
        """The packed matrices of the stack and the head."""
        yield from super().packed_matrices()
        if self.lm_head is None:
            yield PackedMatrix(self, "head", (self._head(),))

    def sample(self) -> Sample:
        """The default sample for quantization."""
        if isinstance(self.stack, TextEncoder):
            return self.stack.sample()
        longest = None
        if isinstance(self.position, LearnedPositionalEmbedding):
            longest = self.position.num_embeddings - self.position.offset
        cu = sample_offsets(longest)
        options: dict[str, Any] = {}
        if isinstance(self.stack, TransformerDecoder):
            d_model = self.embedding.embedding_dim
            options = {"memory": sample_rows(d_model, cu), "memory_cu_seqlens": cu}
        return Sample((sample_ids(self._table().num_embeddings, int(cu[-1])), cu), options)

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
        """Compute the causal logits of packed sequences.

        Parameters
        ----------
        input_ids
            Integers (total,), the tokens that follow those in the cache.
        cu_seqlens
            Integers (batch + 1,), offsets of the sequences, none of them empty.
        memory, memory_cu_seqlens
            float32 (total, E) and the offsets of its sequences, for a TransformerDecoder. None once a cache
            holds the memory.
        cache
            Keys and values of earlier tokens.
        last_only
            Return the logits of the last token of each sequence only.
        num_threads
            Number of threads; 0 for the default.

        Returns
        -------
        float32 (total, vocab_size) or (batch, vocab_size)
            The logits.

        Raises
        ------
        IndexError
            If an id is out of range.
        """
        ids = id_vector("input_ids", input_ids)
        cu = offsets("cu_seqlens", cu_seqlens, len(ids), "ids of input_ids")
        if len(cu) < 2 or (np.diff(cu) < 1).any():
            raise ValueError(
                "cu_seqlens must describe at least one sequence, each of at least one id"
            )
        check_cache(cache)
        cache = DecoderCache(len(cu) - 1) if cache is None else cache
        if isinstance(self.stack, TextEncoder):
            if memory is not None:
                raise ValueError("memory must be None: a TextEncoder attends to none")
            self.stack.native()  # packs the table, which the head then shares
            return self.stack.logits(
                self._head(),
                ids,
                cu,
                cache=cache,
                last_only=last_only,
                num_threads=num_threads,
            )
        x = look_up("input_ids", ids, self.embedding.weight)
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


def _d_model(embedding: Embedding, stack: Any) -> int:
    if stack is None:
        raise ValueError("stack is required unless a TextEncoder replaces it")
    d_model: int = stack.layers[0].d_model
    if embedding.embedding_dim != d_model:
        raise ValueError(f"embedding has {embedding.embedding_dim} features, the stack {d_model}")
    return d_model
