# SPDX-License-Identifier: Apache-2.0
"""The heads of an attention as a value, for positions, options and pruning."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple


class Heads(NamedTuple):
    """The heads of one attention.

    num_built: how many there were before any was pruned. kept: those that are left, by their first
    numbers. score: how they compare a query and a key.
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
        """Features of all heads' queries, side by side."""
        return self.num_heads * self.head_dim

    @property
    def key_dim(self) -> int:
        """Features of all heads' keys, side by side."""
        return self.num_kv_heads * self.head_dim

    def without(self, gone: Collection[int]) -> Heads:
        """The remaining heads without those with the given current numbers.

        ValueError for numbers out of range, for all heads, or with num_kv_heads.
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
