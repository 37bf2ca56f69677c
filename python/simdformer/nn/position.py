# SPDX-License-Identifier: Apache-2.0
"""The base class of positions in attention, the modules for the `position` argument."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from simdformer import _core
from simdformer.nn import packing
from simdformer.nn.heads import Heads
from simdformer.nn.module import Module, PackedMatrix
from simdformer.nn.projections import Projections


class Position(Module):
    """Base class of positions in attention. Several attentions may share one.

    max_positions: the maximum length of a sequence; tables are then made once. None: any length; tables
        grow when they are needed.
    """

    def __init__(self, max_positions: int | None = None) -> None:
        super().__init__()
        self.max_positions = max_positions

    @property
    def terms(self) -> int:
        """The number of terms of equal size in a score. The scale of scores is 1 / sqrt(terms head_dim)."""
        return 1

    def _multiplying(self) -> Iterator[Module]:
        return iter(())  # its matrices are only used to make tables, in float64

    def packed_matrices(self) -> Iterator[PackedMatrix]:
        """Yields nothing, because only tables are packed."""
        return iter(())

    def check_heads(self, heads: Heads) -> None:
        """ValueError if it does not fit an attention with these heads."""

    def size_for(self, length: int) -> int:
        """The size of the tables to make for this length."""
        # A power of two, so that a decoder does not make new tables at each step.
        return int(1 << max(5, (length - 1).bit_length()))

    def serves(self, size: int, length: int) -> bool:
        """Whether tables for `size` positions are valid for this length."""
        return size >= length

    def positions(self, heads: Heads, projections: Projections, size: int) -> _core.Positions:
        """The packed positions for a native call with positions below `size`."""

        def make() -> _core.Positions:
            self.check_heads(heads)
            return _core.Positions(**self._tables(heads, projections, size))

        with packing.lock():
            inputs = (size, *self._inputs(heads, projections), *self.shaping())
            return self._kept.get("positions", inputs, make)

    def _tables(self, heads: Heads, projections: Projections, size: int) -> dict[str, Any]:
        """The arguments of _core.Positions, for the remaining heads of the attention."""
        raise NotImplementedError

    def _inputs(self, heads: Heads, projections: Projections) -> tuple[object, ...]:  # noqa: ARG002
        """The objects of the attention from which tables are made."""
        return heads.kept


def check_num_heads(position: Position, own: int, heads: Heads) -> None:
    """ValueError if the number of heads differs from that of the attention before pruning."""
    if own != heads.num_built:
        raise ValueError(
            f"{type(position).__name__} is of {own} heads, the attention has {heads.num_built}"
        )


def check_embed_dim(position: Position, own: int, heads: Heads) -> None:
    """ValueError if embed_dim differs from that of the attention, or is not divided equally among its
    heads."""
    name = type(position).__name__
    if own != heads.embed_dim:
        raise ValueError(f"{name} has embed_dim {own}, the attention has {heads.embed_dim}")
    if own != heads.num_built * heads.head_dim:
        raise ValueError(
            f"{name} needs heads of embed_dim / num_heads features, the attention's have"
            f" {heads.head_dim}"
        )
