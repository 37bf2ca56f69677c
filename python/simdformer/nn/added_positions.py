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
        """Return the encodings of positions.

        Parameters
        ----------
        positions
            Array of any shape: integers for a table, which must be rows of it.

        Returns
        -------
        float32 (..., embedding_dim)
            The encodings.

        Raises
        ------
        IndexError
            If a position is not a row of the table.
        """
        raise NotImplementedError

    def forward(
        self, x: Any, *, positions: Any = None, cu_seqlens: Any = None, offset: Any = 0
    ) -> Float32:
        """Add the encoding of its positions to x.

        Parameters
        ----------
        x
            float32 (L, N, E), (N, L, E) if batch_first, (L, E), or packed (total, E) with cu_seqlens.
        positions
            Array that broadcasts to x.shape[:-1]; by default 0, 1, ... in each sequence.
        cu_seqlens
            Integers (batch + 1,), offsets of the sequences in a packed x.
        offset
            Added to the positions: a number, or one per sequence.

        Returns
        -------
        float32 array
            The shape of x.
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
    """Add sines and cosines of the positions to embeddings.

    It has no parameters and no longest length.

    Parameters
    ----------
    embedding_dim
        Features of an embedding.
    batch_first
        Whether inputs are (N, L, E) instead of (L, N, E).
    base, freq, layout, scale
        See `simdformer.functional.sinusoidal_position_encoding`.
    first
        The first position.

    References
    ----------
    Vaswani et al. 2017, Attention Is All You Need, section 3.5.

    Examples
    --------
    >>> from simdformer import nn
    >>> nn.SinusoidalPositionalEncoding(8)(np.zeros((5, 8), dtype=np.float32)).shape
    (5, 8)
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
        """Return the encodings of positions.

        Parameters
        ----------
        positions
            Numbers of any shape.

        Returns
        -------
        float32 (..., embedding_dim)
            The encodings.
        """
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
    """Add rows of a learned table to embeddings.

    Parameters
    ----------
    num_embeddings, embedding_dim
        Shape of the table.
    batch_first
        Whether inputs are (N, L, E) instead of (L, N, E).
    offset
        The row of position 0: 2 in BART, padding_idx + 1 in RoBERTa.

    Attributes
    ----------
    weight
        float32 (num_embeddings, embedding_dim).

    Examples
    --------
    >>> from simdformer import nn
    >>> nn.LearnedPositionalEmbedding(16, 8)(np.zeros((5, 8), dtype=np.float32)).shape
    (5, 8)
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
        """Return the rows of positions.

        Parameters
        ----------
        positions
            Integers of any shape.

        Returns
        -------
        float32 (..., embedding_dim)
            The rows.

        Raises
        ------
        IndexError
            If a position plus offset is not a row of the table.
        """
        return look_up("positions", np.asarray(positions) + self.offset, self.weight)
