# SPDX-License-Identifier: Apache-2.0
"""Positions as a bias of the scores for each head and distance."""

from __future__ import annotations

from typing import Any

from simdformer.functional import alibi_bias, t5_relative_bias
from simdformer.functional.arrays import positive_int
from simdformer.nn import initialization as init
from simdformer.nn.heads import Heads
from simdformer.nn.position import Position, check_num_heads
from simdformer.nn.projections import Projections


class ALiBi(Position):
    """-slope |j - i| added to the scores of query i and key j (Press et al. 2022)."""

    def __init__(
        self, num_heads: int, *, max_bias: float = 8.0, max_positions: int | None = None
    ) -> None:
        super().__init__(max_positions)
        self.num_heads = positive_int("num_heads", num_heads)
        self.max_bias = max_bias

    def check_heads(self, heads: Heads) -> None:
        """ValueError if the attention has another number of heads."""
        check_num_heads(self, self.num_heads, heads)

    def _tables(
        self,
        heads: Heads,
        projections: Projections,  # noqa: ARG002
        size: int,
    ) -> dict[str, Any]:
        bias = alibi_bias(self.num_heads, size, size, self.max_bias)
        return {"relative": bias[list(heads.kept)], "relative_center": size - 1}


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
        max_positions: int | None = None,
    ) -> None:
        super().__init__(max_positions)
        self.num_heads = positive_int("num_heads", num_heads)
        self.num_buckets = positive_int("num_buckets", num_buckets)
        self.max_distance = positive_int("max_distance", max_distance)
        self.bidirectional = bidirectional
        self._register("weight", init.normal(1.0, num_buckets, num_heads))

    def check_heads(self, heads: Heads) -> None:
        """ValueError if the attention has another number of heads."""
        check_num_heads(self, self.num_heads, heads)

    def _tables(
        self,
        heads: Heads,
        projections: Projections,  # noqa: ARG002
        size: int,
    ) -> dict[str, Any]:
        bias = t5_relative_bias(
            self.weight,
            size,
            size,
            bidirectional=self.bidirectional,
            max_distance=self.max_distance,
        )
        return {"relative": bias[list(heads.kept)], "relative_center": size - 1}
