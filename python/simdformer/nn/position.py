# SPDX-License-Identifier: Apache-2.0
"""Positions inside an attention: modules passed as `position`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from simdformer import _core
from simdformer.nn import packing
from simdformer.nn.heads import Heads
from simdformer.nn.module import Module, PackedMatrix
from simdformer.nn.projections import Projections


class Position(Module):
    """What positions of one kind are: given to an attention, or to several, as `position=`.

    max_positions: the longest sequence, for which what a call needs is made once; longer ones are
        refused. None: any length, tables grow as they are needed.
    """

    def __init__(self, max_positions: int | None = None) -> None:
        super().__init__()
        self.max_positions = max_positions

    @property
    def terms(self) -> int:
        """Number of terms of one size in the scores: their scale is 1 / sqrt(terms head_dim)."""
        return 1

    def _multiplying(self) -> Iterator[Module]:
        return iter(())  # tables are made of its matrices, in float64

    def packed_matrices(self) -> Iterator[PackedMatrix]:
        """None: it has tables."""
        return iter(())

    def check_heads(self, heads: Heads) -> None:
        """ValueError if an attention with these heads can't use it."""

    def size_for(self, length: int) -> int:
        """How many positions to make tables for that serve `length`."""
        # Powers of two: a decoder's steps do not make a table each.
        return int(1 << max(5, (length - 1).bit_length()))

    def serves(self, size: int, length: int) -> bool:
        """Whether tables for `size` positions are right for `length`."""
        return size >= length

    def positions(self, heads: Heads, projections: Projections, size: int) -> _core.Positions:
        """What a native call takes for positions below `size`."""

        def make() -> _core.Positions:
            self.check_heads(heads)
            return _core.Positions(**self._tables(heads, projections, size))

        with packing.lock():
            inputs = (size, *self._inputs(heads, projections), *self.shaping())
            return self._kept.get("positions", inputs, make)

    def _tables(self, heads: Heads, projections: Projections, size: int) -> dict[str, Any]:
        """Arguments of _core.Positions, of the heads that are left in the attention."""
        raise NotImplementedError

    def _inputs(self, heads: Heads, projections: Projections) -> tuple[object, ...]:  # noqa: ARG002
        """The objects of the attention that the tables are made of."""
        return heads.kept


def check_num_heads(position: Position, own: int, heads: Heads) -> None:
    """ValueError unless the attention was built with the position's number of heads."""
    if own != heads.num_built:
        raise ValueError(
            f"{type(position).__name__} is of {own} heads, the attention has {heads.num_built}"
        )


def check_embed_dim(position: Position, own: int, heads: Heads) -> None:
    """ValueError unless the attention has the position's embed_dim, which its heads share out."""
    name = type(position).__name__
    if own != heads.embed_dim:
        raise ValueError(f"{name} has embed_dim {own}, the attention has {heads.embed_dim}")
    if own != heads.num_built * heads.head_dim:
        raise ValueError(
            f"{name} needs heads of embed_dim / num_heads features, the attention's have"
            f" {heads.head_dim}"
        )
