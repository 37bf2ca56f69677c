# SPDX-License-Identifier: Apache-2.0
"""Keys and values of the tokens that a decoder has seen."""

from __future__ import annotations

from typing import Any

from simdformer import _core
from simdformer.functional.arrays import positive_int


class DecoderCache:
    """What a stack of layers keeps of earlier tokens, and of a memory, for batch_size sequences.

    A call with `cache=` adds its tokens; each sequence has its own length, so a batch may be ragged.
    The cache belongs to the stack that filled it first. One thread may use it at a time:
    RuntimeError otherwise.
    """

    def __init__(self, batch_size: int) -> None:
        self.batch_size = positive_int("batch_size", batch_size)
        self.self_cache = _core.KVCache(batch_size)
        self.cross_cache = _core.KVCache(batch_size)

    @property
    def lengths(self) -> list[int]:
        """Tokens seen of each sequence."""
        return self.self_cache.lengths()

    @property
    def max_length(self) -> int:
        """Tokens seen of the longest sequence."""
        return max(self.lengths)

    @property
    def max_memory_length(self) -> int:
        """Tokens of the longest memory, 0 before it is read."""
        return max(self.cross_cache.lengths())

    def select(self, indices: Any) -> None:
        """Sequence i becomes a copy of sequence indices[i]; there may be more or fewer than before.

        Copies share their data until one of them grows.
        """
        self.self_cache.select(indices)
        self.cross_cache.select(indices)
        self.batch_size = len(indices)


def check_cache(cache: Any) -> None:
    """TypeError for anything but a DecoderCache or None."""
    if cache is not None and not isinstance(cache, DecoderCache):
        raise TypeError(f"cache must be a DecoderCache or None, got {type(cache).__name__}")
