# SPDX-License-Identifier: Apache-2.0
"""Positions inside an attention (`position=`): by rotation, or by a bias for each distance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from simdformer import _core
from simdformer.arguments import positive_int
from simdformer.functional import alibi_bias, rotary_frequencies, t5_relative_bias
from simdformer.nn import initialization as init
from simdformer.nn.module import Module

if TYPE_CHECKING:
    from simdformer.nn.attention import MultiheadAttention


class _Kept(NamedTuple):
    """Tables of positions below size, and what they were made of."""

    size: int
    inputs: tuple[Any, ...]
    tables: dict[str, Any]


class Position(Module):
    """Positions inside an attention: given to it as `position=`."""

    # How many terms of one size the scores are sums of: their scale is 1 / sqrt(terms head_dim).
    terms = 1
    _kept: _Kept | None = None

    def check_attention(self, attention: MultiheadAttention) -> None:
        """ValueError if an attention of these heads, or of this score, can't use it."""

    def _tables(self, attention: MultiheadAttention, length: int) -> dict[str, Any]:
        raise NotImplementedError

    def _table_inputs(self, attention: MultiheadAttention) -> Iterator[Any]:  # noqa: ARG002
        """The objects that the tables are made of: with others, they are made anew."""
        yield from self._native_inputs()

    def tables(self, attention: MultiheadAttention, length: int) -> dict[str, Any]:
        """Arguments of _core.Positions that serve positions below `length`."""
        inputs = tuple(self._table_inputs(attention))
        kept = self._kept
        if kept is None or kept.size < length or not _same(kept.inputs, inputs):
            # Powers of two: a decoder's steps do not make a table each.
            size = 1 << max(5, (length - 1).bit_length())
            kept = _Kept(size, inputs, self._tables(attention, size))
            object.__setattr__(self, "_kept", kept)
        return kept.tables

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        object.__setattr__(self, "_kept", None)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_kept": None}


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

    def check_attention(self, attention: MultiheadAttention) -> None:
        """ValueError if a head has fewer features than are rotated."""
        if self.dim > attention.head_dim:
            raise ValueError(
                f"RotaryEmbedding rotates {self.dim} features, heads have {attention.head_dim}"
            )

    def tables(self, attention: MultiheadAttention, length: int) -> dict[str, Any]:
        """Cosines and sines of positions below `length`."""
        if self._dynamic:
            return self._tables(attention, length)
        return super().tables(attention, length)

    def _tables(
        self,
        attention: MultiheadAttention,  # noqa: ARG002
        length: int,
    ) -> dict[str, Any]:
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

    def check_attention(self, attention: MultiheadAttention) -> None:
        """ValueError if the attention has another number of heads."""
        check_num_heads(self, self.num_heads, attention)

    def _tables(
        self,
        attention: MultiheadAttention,  # noqa: ARG002
        length: int,
    ) -> dict[str, Any]:
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

    def check_attention(self, attention: MultiheadAttention) -> None:
        """ValueError if the attention has another number of heads."""
        check_num_heads(self, self.num_heads, attention)

    def _tables(
        self,
        attention: MultiheadAttention,  # noqa: ARG002
        length: int,
    ) -> dict[str, Any]:
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
    tables = dict(attention.position.tables(attention, max(length, 1)))
    if "relative" in tables and len(tables["relative"]) != attention.num_heads:
        tables["relative"] = np.ascontiguousarray(tables["relative"][attention._kept_heads])
    return _core.Positions(**tables)


def check_num_heads(position: Position, own: int, attention: MultiheadAttention) -> None:
    """ValueError unless the attention has the position's number of heads."""
    if own != attention.num_heads:
        raise ValueError(
            f"{type(position).__name__} is of {own} heads, the attention has {attention.num_heads}"
        )


def _same(old: tuple[Any, ...], new: tuple[Any, ...]) -> bool:
    return len(old) == len(new) and all(a is b for a, b in zip(old, new, strict=True))
