# SPDX-License-Identifier: Apache-2.0
"""Positions: added to the embeddings, or inside an attention (`position=`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from simdformer import _core
from simdformer.arguments import positive_int
from simdformer.functional import (
    alibi_bias,
    rotary_frequencies,
    sinusoidal_position_encoding,
    t5_relative_bias,
)
from simdformer.nn import initialization as init
from simdformer.nn import layout
from simdformer.nn.linear import look_up
from simdformer.nn.module import Float32, Module

if TYPE_CHECKING:
    from simdformer.nn.attention import MultiheadAttention


class Position(Module):
    """Positions inside an attention: given to it as `position=`."""

    _kept: tuple[int, dict[str, Any]] | None = None

    def check_heads(self, num_heads: int, head_dim: int) -> None:
        """ValueError if an attention of these heads can't use it."""

    def _tables(self, length: int) -> dict[str, Any]:
        raise NotImplementedError

    def tables(self, length: int) -> dict[str, Any]:
        """Arguments of _core.Positions that serve positions below `length`."""
        if self._kept is None or self._kept[0] < length:
            # Powers of two: a decoder's steps do not make a table each.
            size = 1 << max(5, (length - 1).bit_length())
            object.__setattr__(self, "_kept", (size, self._tables(size)))
        assert self._kept is not None
        return self._kept[1]

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        object.__setattr__(self, "_kept", None)

    def _set_parameter(self, name: str, value: Any) -> None:
        super()._set_parameter(name, value)
        object.__setattr__(self, "_kept", None)


class RotaryEmbedding(Position):
    """Rotation of queries and keys by their positions (Su et al. 2021).

    dim: how many features of each head are rotated. base, interleaved, scaling: as of
    functional.rotary_embedding. With "dynamic" scaling the frequencies follow the longest sequence
    of the call, as in transformers, and a cache keeps what earlier calls rotated.
    """

    def __init__(
        self,
        dim: int,
        *,
        base: float = 10000.0,
        interleaved: bool = False,
        scaling: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.dim = positive_int("dim", dim)
        if dim % 2:
            raise ValueError(f"dim must be even, got {dim}")
        self.base = base
        self.interleaved = interleaved
        self.scaling = scaling
        self._dynamic = bool(scaling) and (scaling or {}).get("rope_type") == "dynamic"
        rotary_frequencies(dim, base=base, scaling=scaling, seq_len=1)

    def check_heads(self, num_heads: int, head_dim: int) -> None:  # noqa: ARG002
        """ValueError if a head has fewer features than are rotated."""
        if self.dim > head_dim:
            raise ValueError(f"RotaryEmbedding rotates {self.dim} features, heads have {head_dim}")

    def tables(self, length: int) -> dict[str, Any]:
        """Cosines and sines of positions below `length`."""
        return self._tables(length) if self._dynamic else super().tables(length)

    def _tables(self, length: int) -> dict[str, Any]:
        inv_freq, factor = rotary_frequencies(
            self.dim, base=self.base, scaling=self.scaling, seq_len=length
        )
        cos = np.empty((length, self.dim // 2), np.float32)
        sin = np.empty_like(cos)
        _core.sin_cos(np.arange(length, dtype=np.float64), inv_freq, factor, sin, cos)
        return {"cos": cos, "sin": sin, "interleaved": self.interleaved}


class ALiBi(Position):
    """-slope |j - i| added to the scores of query i and key j (Press et al. 2022)."""

    def __init__(self, num_heads: int, *, max_bias: float = 8.0) -> None:
        super().__init__()
        self.num_heads = positive_int("num_heads", num_heads)
        self.max_bias = max_bias

    def check_heads(self, num_heads: int, head_dim: int) -> None:  # noqa: ARG002
        """ValueError if the attention has another number of heads."""
        _check_num_heads(self, self.num_heads, num_heads)

    def _tables(self, length: int) -> dict[str, Any]:
        bias = alibi_bias(self.num_heads, length, length, self.max_bias)
        return {"relative": bias, "relative_center": length - 1}


class RelativePositionBias(Position):
    """A learned bias for each head and bucket of distances (Raffel et al. 2020; T5, MPNet).

    weight: (num_buckets, num_heads). bidirectional=False keeps all buckets for keys before the query.
    """

    def __init__(
        self,
        num_heads: int,
        *,
        num_buckets: int = 32,
        max_distance: int = 128,
        bidirectional: bool = True,
    ) -> None:
        super().__init__()
        self.num_heads = positive_int("num_heads", num_heads)
        self.max_distance = positive_int("max_distance", max_distance)
        self.bidirectional = bidirectional
        self._register(
            "weight", init.normal(1.0, positive_int("num_buckets", num_buckets), num_heads)
        )

    def check_heads(self, num_heads: int, head_dim: int) -> None:  # noqa: ARG002
        """ValueError if the attention has another number of heads."""
        _check_num_heads(self, self.num_heads, num_heads)

    def _tables(self, length: int) -> dict[str, Any]:
        bias = t5_relative_bias(
            self.weight,
            length,
            length,
            bidirectional=self.bidirectional,
            max_distance=self.max_distance,
        )
        return {"relative": bias, "relative_center": length - 1}


def position_arguments(attention: MultiheadAttention, length: int) -> _core.Positions:
    """The tables of one attention for one call, of the heads that are left in it."""
    if attention.position is None:
        return _core.Positions()
    tables = dict(attention.position.tables(max(length, 1)))
    if "relative" in tables and len(tables["relative"]) != attention.num_heads:
        tables["relative"] = np.ascontiguousarray(tables["relative"][attention._kept_heads])
    return _core.Positions(**tables)


def _check_num_heads(position: Position, own: int, given: int) -> None:
    if own != given:
        raise ValueError(f"{type(position).__name__} is of {own} heads, the attention has {given}")


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
        given = layout.sequences("x", x, self.embedding_dim, self.batch_first, cu_seqlens)
        if positions is None:
            shifts = np.broadcast_to(np.asarray(offset), (given.batch,))
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
            positions = np.asarray(positions) + offset
        out: Float32 = np.add(np.asarray(x), self.encode(positions))
        return out


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
        self._options = {"base": base, "freq": freq, "layout": layout, "offset": first}
        self._options["scale"] = scale
        self.encode(np.zeros(1))

    def encode(self, positions: Any) -> Float32:
        """positions: numbers of any shape. Returns: float32 (*positions.shape, embedding_dim)."""
        return sinusoidal_position_encoding(
            np.asarray(positions),
            self.embedding_dim,
            **self._options,  # type: ignore[arg-type]
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
        """positions: integers; with offset they must be rows of the table, else ValueError."""
        return look_up("positions", np.asarray(positions) + self.offset, self.weight)
