# SPDX-License-Identifier: Apache-2.0
"""Embeddings of token ids."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simdformer import _core
from simdformer.checkpoint.folder import widen_bfloat16
from simdformer.checkpoint.int8_matrix import Int8Matrix
from simdformer.functional.arrays import id_vector, offsets, positive_int
from simdformer.nn import packing
from simdformer.nn.linear import Embedding, Linear
from simdformer.nn.module import Module
from simdformer.nn.norms import LayerNorm
from simdformer.nn.parameters import (
    Matrix,
    Stored,
    Value,
    compute_type_of,
    in_type,
    leave_to,
    to_pack,
    value_of,
)


class TextEmbeddings(Module):
    """Embeddings of tokens: projection(norm(word[id] + position[i] + token_type[type])), as in BERT.

    Parameters
    ----------
    vocab_size, embedding_dim
        Shape of the table of words.
    max_positions, type_vocab_size
        Rows of the tables of positions and token types; None for no such table.
    norm
        A LayerNorm or None.
    padding_idx
        Count positions as RoBERTa does: the first is padding_idx + 1, and a token with id padding_idx
        has position padding_idx and is not counted.
    projection
        Linear to the features of the layers, or None.
    word_scale
        The factor by which the loader multiplied the table of words, as Gemma does in each call. A head
        that is tied to the table must not include it.

    Examples
    --------
    >>> from simdformer import nn
    >>> nn.TextEmbeddings(10, 8, max_positions=16).hidden_size
    8
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
        # Whether the word embeddings are packed as the layer of a head, and rows are read from there.
        self.is_tied = False

    @property
    def hidden_size(self) -> int:
        """Features of a token's row."""
        return self.embedding_dim if self.projection is None else self.projection.out_features

    @property
    def max_positions(self) -> int | None:
        """Length of the longest sequence that the table of positions allows; None if there is no table."""
        if self.position_embeddings is None:
            return None
        first = 0 if self.padding_idx is None else self.padding_idx + 1
        return self.position_embeddings.num_embeddings - first

    @property
    def num_token_types(self) -> int:
        """Rows of the table of token types; 0 if there is no table."""
        table = self.token_type_embeddings
        return 0 if table is None else table.num_embeddings

    def round_words(self) -> None:
        """Round the table of words to bfloat16, also in memory. A table that a head uses stays as it is."""
        if not self.is_tied:
            place = self.word_embeddings.place("weight")
            self.word_embeddings.put("weight", in_type(place, "bfloat16"))

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
            bfloat16=compute_type_of(slots[0]) == "bfloat16",
        )
        views: tuple[Callable[[], Any] | None, ...] = (
            None if self.is_tied else partial(_words, native),
            native.position,
            native.token_type,
        )
        for slot, view in zip(slots, views, strict=True):
            if isinstance(slot, Stored) and view is not None:
                slot.moved(view)
        return native

    def head(self) -> _core.Linear:
        """The word embeddings as a layer in float32 that computes logits."""
        slot = self.word_embeddings.place("weight")

        def pack() -> _core.Linear:
            packed = Matrix(value_of(slot), None, "float32").pack()
            leave_to(slot, (packed,))
            return packed

        with packing.lock():
            return self._kept.get("head", (slot,), pack)


def source(input_ids: Any, cu_seqlens: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Check ids and offsets; the range of ids is checked later."""
    ids = id_vector("input_ids", input_ids)
    return ids, offsets("cu_seqlens", cu_seqlens, len(ids), "ids of input_ids")


def _words(native: _core.Embeddings) -> Value:
    """The packed table of words: float32, or an Int8Matrix."""
    words: Any = native.word()
    if isinstance(words, tuple):
        values, scale = words
        no_outliers = np.empty(0, np.int32), np.empty((len(values), 0), np.float32)
        return Int8Matrix(values, scale, *no_outliers)
    return words if words.dtype == np.float32 else widen_bfloat16(words)


def _table(rows: int | None, features: int) -> Embedding | None:
    return None if rows is None else Embedding(rows, features)
