# SPDX-License-Identifier: Apache-2.0
"""Encoders whose input is token ids: embeddings, layers, a last norm. What a model folder is loaded as."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simdformer import _core
from simdformer.functional.arrays import id_vector, offsets, positive_int
from simdformer.nn import packing
from simdformer.nn.cache import DecoderCache, check_cache
from simdformer.nn.compute_types import Sample, sample_ids, sample_offsets
from simdformer.nn.containers import ModuleList
from simdformer.nn.encoder import TransformerEncoderLayer
from simdformer.nn.linear import Embedding, Linear
from simdformer.nn.module import Float32, Module
from simdformer.nn.norms import LayerNorm
from simdformer.nn.parameters import Matrix, Stored, leave_to, to_pack


class TextEmbeddings(Module):
    """projection(norm(word[id] + position[i] + token_type[type])) for token i of a sequence, as BERT's.

    embedding_dim: features of the tables. max_positions: rows of the table of positions,
    type_vocab_size: of token types; None for no such table. norm: a LayerNorm or None. projection: a
    Linear to the layers' features, or None. padding_idx: positions are counted as RoBERTa's: the first is
    padding_idx + 1, and a token whose id is padding_idx stands at padding_idx and is not counted.
    word_scale: what a loader multiplied the table of words by, as Gemma does at each call: a head that is
    tied to the table would lack that.
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_dim: int,
        max_positions: int | None = None,
        type_vocab_size: int | None = None,
        norm: LayerNorm | None = None,
        padding_idx: int | None = None,
        projection: Linear | None = None,
        word_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.word_scale = word_scale
        self.embedding_dim = positive_int("embedding_dim", embedding_dim)
        self.padding_idx = padding_idx
        self.word_embeddings = Embedding(vocab_size, embedding_dim)
        self.position_embeddings = _table(max_positions, embedding_dim)
        self.token_type_embeddings = _table(type_vocab_size, embedding_dim)
        self.norm = norm
        self.projection = projection
        # Whether the table of words is packed as a layer that gives logits, and rows are looked up there.
        self.is_tied = False

    @property
    def hidden_size(self) -> int:
        """Features of a token's row."""
        return self.embedding_dim if self.projection is None else self.projection.out_features

    @property
    def max_positions(self) -> int | None:
        """The longest sequence that the table of positions serves; None for no table."""
        if self.position_embeddings is None:
            return None
        first = 0 if self.padding_idx is None else self.padding_idx + 1
        return self.position_embeddings.num_embeddings - first

    @property
    def num_token_types(self) -> int:
        """Rows of the table of token types, 0 for no table."""
        table = self.token_type_embeddings
        return 0 if table is None else table.num_embeddings

    def _pack(self) -> _core.Embeddings:
        tables = (self.word_embeddings, self.position_embeddings, self.token_type_embeddings)
        slots = [None if table is None else table.place("weight") for table in tables]
        position, token_type = map(to_pack, slots[1:])
        native = _core.Embeddings(
            self.head() if self.is_tied else to_pack(slots[0]),
            position,
            token_type,
            None if self.norm is None else self.norm.layer_norm(),
            padding_idx=self.padding_idx,
            projection=None if self.projection is None else self.projection.native(),
        )
        views: tuple[Callable[[], Any] | None, ...] = (
            None if self.is_tied else native.word,
            native.position,
            native.token_type,
        )
        for slot, view in zip(slots, views, strict=True):
            if isinstance(slot, Stored) and view is not None:
                slot.moved(view)
        return native

    def head(self) -> _core.Linear:
        """The table of words as a layer in float32 that gives logits."""
        slot = self.word_embeddings.place("weight")

        def pack() -> _core.Linear:
            packed = Matrix(to_pack(slot), None, "float32").pack()
            leave_to(slot, (packed,))
            return packed

        with packing.lock():
            return self._kept.get("head", (slot,), pack)


def _source(input_ids: Any, cu_seqlens: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Ids and offsets, checked but for the ids' range."""
    ids = id_vector("input_ids", input_ids)
    return ids, offsets("cu_seqlens", cu_seqlens, len(ids), "ids of input_ids")


def _table(rows: int | None, features: int) -> Embedding | None:
    return None if rows is None else Embedding(rows, features)


class TextEncoder(Module):
    """Token ids through embeddings, layers and a last norm: one native call.

    embeddings: a TextEmbeddings. layers: TransformerEncoderLayers, of which each may be of another
    make; they may share a position. norm: a last norm, or None.
    """

    def __init__(
        self,
        embeddings: TextEmbeddings,
        layers: Sequence[TransformerEncoderLayer],
        norm: Module | None = None,
    ) -> None:
        super().__init__()
        for layer in layers:
            if not isinstance(layer, TransformerEncoderLayer):
                raise TypeError(
                    f"TextEncoder takes TransformerEncoderLayers, got {type(layer).__name__}"
                )
            if layer.d_model != embeddings.hidden_size:
                raise ValueError(
                    f"layers must have d_model {embeddings.hidden_size}, the embeddings' features,"
                    f" got {layer.d_model}"
                )
        self.embeddings = embeddings
        self.layers = ModuleList(list(layers))
        self.norm = norm

    @property
    def max_positions(self) -> int:
        """The longest sequence that is served, 0 for any."""
        limits = [self.embeddings.max_positions, *(x.self_attn.max_positions for x in self.layers)]
        return min((limit for limit in limits if limit is not None), default=0)

    @property
    def hidden_size(self) -> int:
        """Features of a token's row."""
        return int(self.embeddings.hidden_size)

    @property
    def vocab_size(self) -> int:
        """Token ids that there are."""
        return int(self.embeddings.word_embeddings.num_embeddings)

    @property
    def num_token_types(self) -> int:
        """Token types that there are, 0 if the embeddings have no table of them."""
        return int(self.embeddings.num_token_types)

    def _pack(self) -> _core.TransformerStack:
        return _core.TransformerStack(
            [layer.native() for layer in self.layers],
            None if self.norm is None else self.norm.native(),
            self.embeddings.native(),
        )

    def sample(self) -> Sample:
        """What it is quantised with if no sample is given."""
        cu_seqlens = sample_offsets(self.max_positions)
        return Sample((sample_ids(self.vocab_size, int(cu_seqlens[-1])), cu_seqlens), {})

    def forward(
        self,
        input_ids: Any,
        cu_seqlens: Any,
        token_type_ids: Any = None,
        *,
        cache: DecoderCache | None = None,
        num_threads: int = 0,
    ) -> Float32:
        """Hidden states of packed sequences.

        input_ids: integers (total,). cu_seqlens: integers (batch + 1,), offsets of the sequences.
        token_type_ids: integers (total,), None for all 0. cache: keys and values of the tokens before
        these, to which theirs are added; attention is then causal.
        Returns: float32 (total, hidden_size).
        Errors: IndexError for ids out of range, ValueError for a sequence that is longer than
        max_positions.
        """
        ids, cu = _source(input_ids, cu_seqlens)
        return self._run(
            (ids, cu),
            (len(ids), self.hidden_size),
            cache,
            token_type_ids=token_type_ids,
            num_threads=num_threads,
        )

    def logits(
        self,
        lm_head: _core.Linear,
        input_ids: Any,
        cu_seqlens: Any,
        *,
        cache: DecoderCache,
        last_only: bool = False,
        num_threads: int = 0,
    ) -> Float32:
        """A head's output for each token, or for each sequence's last one, in the same native call.

        The arguments are forward's. Returns: float32 (total or batch, features of lm_head).
        """
        ids, cu = _source(input_ids, cu_seqlens)
        rows = len(cu) - 1 if last_only else len(ids)
        return self._run(
            (ids, cu),
            (rows, lm_head.out_features),
            cache,
            lm_head=lm_head,
            last_only=last_only,
            num_threads=num_threads,
        )

    def _run(
        self,
        source: tuple[NDArray[Any], NDArray[Any]],
        shape: tuple[int, int],
        cache: DecoderCache | None,
        **options: Any,
    ) -> Float32:
        """One native call. shape: of its output."""
        input_ids, cu = source
        check_cache(cache)
        longest = int(np.diff(cu).max(initial=0))
        if cache is not None:
            longest += cache.max_length
            options.update(masks=_core.Masks(causal=True), self_cache=cache.self_cache)
        positions = [layer.self_attn.positions(longest) for layer in self.layers]
        if any(given is not None for given in positions):
            options["positions"] = positions
        out = np.empty(shape, np.float32)
        self.native().forward(input_ids, cu, out, **options)
        return out
