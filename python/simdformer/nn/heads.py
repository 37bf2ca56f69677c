# SPDX-License-Identifier: Apache-2.0
"""The heads of an attention as one value, used by positions, options and pruning."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple


class Heads(NamedTuple):
    """The heads of one attention.

    num_built: their number before pruning. kept: the original indices of the remaining heads. score: how
    queries are compared with keys.
    """

    embed_dim: int
    kdim: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    score: str
    num_built: int
    kept: tuple[int, ...]

    @property
    def query_dim(self) -> int:
        """The number of features of all heads' queries together."""
        return self.num_heads * self.head_dim

    @property
    def key_dim(self) -> int:
        """The number of features of all heads' keys together."""
        return self.num_kv_heads * self.head_dim

    def without(self, gone: Collection[int]) -> Heads:
        """The remaining heads after removing those with these current indices.

        Errors: ValueError for indices out of range, for all heads, or with num_kv_heads.
        """
        if self.num_kv_heads != self.num_heads:
            raise ValueError("heads that share keys and values (num_kv_heads) cannot be pruned")
        numbers = sorted(set(gone))
        if any(not 0 <= h < self.num_heads for h in numbers) or len(numbers) == self.num_heads:
            raise ValueError(
                f"heads must be some, but not all, of 0 to {self.num_heads - 1}, got {numbers}"
            )
        kept = tuple(h for i, h in enumerate(self.kept) if i not in numbers)
        return self._replace(num_heads=len(kept), num_kv_heads=len(kept), kept=kept)
