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
    """Add ``-slope |j - i|`` to the score of query i and key j.

    Parameters
    ----------
    num_heads, max_bias
        See `simdformer.functional.alibi_slopes`.
    max_positions
        The longest sequence, for which tables are made once. None: any length.

    References
    ----------
    Press et al. 2022, Train Short, Test Long.

    Examples
    --------
    >>> from simdformer import nn
    >>> nn.MultiheadAttention(8, 2, position=nn.ALiBi(2)).position.max_bias
    8.0
    """

    def __init__(
        self, num_heads: int, *, max_bias: float = 8.0, max_positions: int | None = None
    ) -> None:
        super().__init__(max_positions)
        self.num_heads = positive_int("num_heads", num_heads)
        self.max_bias = max_bias

    def check_heads(self, heads: Heads) -> None:
        """ValueError if the number of heads differs from that of the attention."""
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
    """Add a learned bias per head and bucket of distances to the scores, as in T5 and MPNet.

    Parameters
    ----------
    num_heads
        Heads of the attention.
    num_buckets, max_distance, bidirectional
        See `simdformer.functional.t5_bucket`.
    max_positions
        The longest sequence, for which tables are made once. None: any length.

    Attributes
    ----------
    weight
        float32 (num_buckets, num_heads).

    References
    ----------
    Raffel et al. 2020, Exploring the Limits of Transfer Learning.

    Examples
    --------
    >>> from simdformer import nn
    >>> nn.MultiheadAttention(8, 2, position=nn.RelativePositionBias(2)).position.weight.shape
    (32, 2)
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
        """ValueError if the number of heads differs from that of the attention."""
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
