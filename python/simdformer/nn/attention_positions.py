# SPDX-License-Identifier: Apache-2.0
"""Positions inside an attention (`position=`): by rotation, or by a bias for each distance."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from simdformer import _core
from simdformer.functional import alibi_bias, rotary_frequencies, t5_relative_bias
from simdformer.functional.arrays import positive_int
from simdformer.nn import initialization as init
from simdformer.nn.module import Module

if TYPE_CHECKING:
    from simdformer.nn.attention import MultiheadAttention


class _Kept(NamedTuple):
    """What serves positions below size, and what it was made of."""

    size: int
    heads: tuple[int, ...]
    inputs: tuple[Any, ...]
    native: _core.Positions


class Position(Module):
    """Positions inside an attention: given to it as `position=`."""

    # How many terms of one size the scores are sums of: their scale is 1 / sqrt(terms head_dim).
    terms = 1
    _kept: _Kept | None = None

    def check_attention(self, attention: MultiheadAttention) -> None:
        """ValueError if an attention of these heads, or of this score, can't use it."""

    def _tables(self, attention: MultiheadAttention, length: int) -> dict[str, Any]:
        """Arguments of _core.Positions, of the heads that are left in the attention."""
        raise NotImplementedError

    def _table_inputs(self, attention: MultiheadAttention) -> tuple[Any, ...]:  # noqa: ARG002
        """The objects that the tables are made of: with others, they are made anew."""
        return tuple(self._parameters.values())

    def native(self, attention: MultiheadAttention, length: int) -> _core.Positions:
        """What a native call takes for positions below `length`."""
        heads, inputs = attention._kept_heads, self._table_inputs(attention)
        kept = self._kept
        if (
            kept is None
            or kept.size < length
            or kept.heads != heads
            or len(kept.inputs) != len(inputs)
            or not all(map(operator.is_, kept.inputs, inputs))
        ):
            # Powers of two: a decoder's steps do not make a table each.
            size = 1 << max(5, (length - 1).bit_length())
            tables = self._tables(attention, size)
            kept = _Kept(size, heads, inputs, _core.Positions(**tables))
            object.__setattr__(self, "_kept", kept)
        return kept.native

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

    def native(self, attention: MultiheadAttention, length: int) -> _core.Positions:
        """Cosines and sines of positions below `length`."""
        if self._dynamic:
            return _core.Positions(**self._tables(attention, length))
        return super().native(attention, length)

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

    def _tables(self, attention: MultiheadAttention, length: int) -> dict[str, Any]:
        bias = alibi_bias(self.num_heads, length, length, self.max_bias)
        return {"relative": bias[list(attention._kept_heads)], "relative_center": length - 1}


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

    def _tables(self, attention: MultiheadAttention, length: int) -> dict[str, Any]:
        bias = t5_relative_bias(
            self.weight,
            length,
            length,
            bidirectional=self.bidirectional,
            max_distance=self.max_distance,
        )
        return {"relative": bias[list(attention._kept_heads)], "relative_center": length - 1}


_NONE = _core.Positions()


def position_arguments(attention: MultiheadAttention, length: int) -> _core.Positions:
    """What a native call takes of one attention's positions."""
    if attention.position is None:
        return _NONE
    return attention.position.native(attention, max(length, 1))


def check_num_heads(position: Position, own: int, attention: MultiheadAttention) -> None:
    """ValueError unless the attention has the position's number of heads."""
    if own != attention.num_heads:
        raise ValueError(
            f"{type(position).__name__} is of {own} heads, the attention has {attention.num_heads}"
        )
