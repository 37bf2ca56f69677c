# SPDX-License-Identifier: Apache-2.0
"""Keys and values of the tokens that a decoder has processed."""

from __future__ import annotations

from typing import Any

from simdformer import _core
from simdformer.functional.arrays import positive_int


class DecoderCache:
    """Keys and values of earlier tokens, and of a memory, for batch_size sequences.

    A call with `cache` adds its tokens. Sequences may have different lengths. A cache belongs to the
    stack that used it first; only one thread may use it at a time.

    Parameters
    ----------
    batch_size
        Number of sequences.

    Raises
    ------
    RuntimeError
        In a call, if another thread uses the cache.

    Examples
    --------
    >>> from simdformer import nn
    >>> stack = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, batch_first=True), 2)
    >>> cache = nn.DecoderCache(1)
    >>> x = np.ones((1, 3, 8), dtype=np.float32)
    >>> _ = stack(x, cache=cache)
    >>> cache.lengths
    [3]
    """

    def __init__(self, batch_size: int) -> None:
        self.batch_size = positive_int("batch_size", batch_size)
        self.self_cache = _core.KVCache(batch_size)
        self.cross_cache = _core.KVCache(batch_size)

    @property
    def lengths(self) -> list[int]:
        """Number of tokens of each sequence."""
        return self.self_cache.lengths()

    @property
    def max_length(self) -> int:
        """Number of tokens of the longest sequence."""
        return max(self.lengths)

    @property
    def max_memory_length(self) -> int:
        """Number of tokens of the longest memory, 0 before a memory is read."""
        return max(self.cross_cache.lengths())

    def select(self, indices: Any) -> None:
        """Replace sequence i by a copy of sequence indices[i].

        Copies share their data until one of them grows.

        Parameters
        ----------
        indices
            Integers; there may be more or fewer than sequences.
        """
        self.self_cache.select(indices)
        self.cross_cache.select(indices)
        self.batch_size = len(indices)


def check_cache(cache: Any) -> None:
    """TypeError for anything but a DecoderCache or None."""
    if cache is not None and not isinstance(cache, DecoderCache):
        raise TypeError(f"cache must be a DecoderCache or None, got {type(cache).__name__}")
