# SPDX-License-Identifier: Apache-2.0
"""Positions that are added to embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simdformer.functional import sinusoidal_position_encoding
from simdformer.functional.arrays import array_of, positive_int
from simdformer.nn import initialization as init
from simdformer.nn import layout
from simdformer.nn.linear import look_up
from simdformer.nn.module import Float32, Module, float_input


class _AddedPositions(Module):
    """Positions that are added to embeddings."""

    embedding_dim: int
    batch_first: bool

    def encode(self, positions: Any) -> Float32:
        """positions: an array of any shape. Returns: float32 (*positions.shape, embedding_dim)."""
        raise NotImplementedError

    def forward(
        self, x: Any, *, positions: Any = None, cu_seqlens: Any = None, offset: Any = 0
    ) -> Float32:
        """x plus the encoding of its positions.

        x: float32 (L, N, E), or (N, L, E) if batch_first, or (L, E), or packed (total, E) with
        cu_seqlens. positions: by default 0, 1, ... of each sequence; else an array that broadcasts to
        x.shape[:-1]. offset: added to positions, a number or, for a ragged cache, one a sequence.
        """
        x = float_input("x", x)
        given = layout.sequences("x", x, self.embedding_dim, self.batch_first, cu_seqlens)
        shift = _numbers("offset", offset)
        if positions is None:
            shifts = _spread("offset", shift, (given.batch,))
            if given.packed:
                lengths = np.diff(given.cu_seqlens)
                starts = given.cu_seqlens[:-1] - shifts
                positions = np.arange(len(given.view)) - np.repeat(starts, lengths)
            else:
                positions = np.arange(given.length)[None] + shifts[:, None]
                if not given.batched:
                    positions = positions[0]
                elif not given.batch_first:
                    positions = positions.T
        else:
            positions = _spread("positions", _numbers("positions", positions), x.shape[:-1]) + shift
        out: Float32 = np.add(x, self.encode(positions))
        return out


def _numbers(name: str, value: Any) -> NDArray[Any]:
    array = array_of(name, value)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be numbers, got {array.dtype}")
    return array


def _spread(name: str, array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    try:
        return np.broadcast_to(array, shape)
    except ValueError:
        raise ValueError(f"{name} of shape {array.shape} does not broadcast to {shape}") from None


class SinusoidalPositionalEncoding(_AddedPositions):
    """Sines and cosines (Vaswani et al. 2017, section 3.5) of any position, added to embeddings.

    freq, layout, base, scale, first: as freq, layout, base, scale and offset of
    functional.sinusoidal_position_encoding. No parameters, no longest length.
    """

    def __init__(
        self,
        embedding_dim: int,
        *,
        batch_first: bool = False,
        base: float = 10000.0,
        freq: str = "paper",
        layout: str = "interleaved",
        first: float = 0,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.embedding_dim = positive_int("embedding_dim", embedding_dim)
        self.batch_first = batch_first
        self.base = base
        self.freq = freq
        self.layout = layout
        self.first = first
        self.scale = scale
        self.encode(np.zeros(1))

    def encode(self, positions: Any) -> Float32:
        """positions: numbers of any shape. Returns: float32 (*positions.shape, embedding_dim)."""
        return sinusoidal_position_encoding(
            np.asarray(positions),
            self.embedding_dim,
            base=self.base,
            freq=self.freq,
            layout=self.layout,
            offset=self.first,
            scale=self.scale,
        )


class LearnedPositionalEmbedding(_AddedPositions):
    """A table of positions, added to embeddings. weight: (num_embeddings, embedding_dim).

    offset: the row of position 0; 2 in BART, padding_idx + 1 in RoBERTa.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        batch_first: bool = False,
        offset: int = 0,
    ) -> None:
        super().__init__()
        self.num_embeddings = positive_int("num_embeddings", num_embeddings)
        self.embedding_dim = positive_int("embedding_dim", embedding_dim)
        self.batch_first = batch_first
        self.offset = offset
        self._register("weight", init.normal(1.0, num_embeddings, embedding_dim))

    def encode(self, positions: Any) -> Float32:
        """positions: integers; with offset they must be rows of the table, else IndexError."""
        return look_up("positions", np.asarray(positions) + self.offset, self.weight)
