# SPDX-License-Identifier: Apache-2.0
"""The sequences used to calibrate an encoder in int8 and to compare it with float32."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from simdformer import nn
from simdformer.checkpoint.int8_matrix import Int32


class Sample(NamedTuple):
    """Sequences of token ids: input_ids (total_tokens,), cu_seqlens (batch + 1,), and token_type_ids like
    input_ids, or None if all are 0."""

    input_ids: Int32
    cu_seqlens: Int32
    token_type_ids: Int32 | None = None

    def first(self, tokens: int) -> Sample:
        """The first sequences that together have at most this many tokens; at least one sequence."""
        count = max(1, int(np.searchsorted(self.cu_seqlens[1:], tokens, side="right")))
        return self.between(0, count)

    def pieces(self, tokens: int) -> Iterator[Sample]:
        """Split into samples of at most this many tokens. A longer sequence becomes a sample of its own."""
        rest = self
        while len(rest.cu_seqlens) > 1:
            piece = rest.first(tokens)
            yield piece
            rest = rest.between(len(piece.cu_seqlens) - 1, len(rest.cu_seqlens) - 1)

    def between(self, begin: int, end: int) -> Sample:
        """Sequences begin to end - 1."""
        cu_seqlens = self.cu_seqlens[begin : end + 1]
        tokens = slice(cu_seqlens[0], cu_seqlens[-1])
        types = None if self.token_type_ids is None else self.token_type_ids[tokens]
        return Sample(self.input_ids[tokens], cu_seqlens - cu_seqlens[0], types)


def vocabulary_sample(encoder: nn.TextEncoder) -> Sample:
    """Sequences of ids from the whole vocabulary, the same each time."""
    return Sample(*encoder.sample().args)
