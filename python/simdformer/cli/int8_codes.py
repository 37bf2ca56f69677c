# SPDX-License-Identifier: Apache-2.0
"""Vectors as int8 codes, and the ranges of their dimensions."""

from __future__ import annotations

import io
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from simdformer.cli.errors import CliError, say
from simdformer.util import quantize_embeddings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from simdformer.cli.embedding import Chunk
    from simdformer.cli.output import AtomicFile

# The ranges come from the vectors of the first texts, which are in memory until then.
_CALIBRATION_TEXTS = 10_000
_FEW_TEXTS = 100


class Int8Codes:
    """Replace vectors by the codes of `quantize_embeddings`.

    Attributes:
      ranges: float32 (2, dim), the smallest and largest values of the first texts. Values outside are
        clipped. Available after the first chunk.
    """

    def __init__(self, dim: int) -> None:
        self.ranges: NDArray[np.float32] = np.zeros((2, dim), np.float32)

    def __call__(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        """Yield the chunks with codes instead, int8 (len(records), dim)."""
        first: list[Chunk] = []
        num_texts = 0
        for chunk in chunks:
            first.append(chunk)
            num_texts += len(chunk.records)
            if num_texts >= _CALIBRATION_TEXTS:
                break
        if not first:
            return
        rows = np.concatenate([chunk.embeddings for chunk in first])[:_CALIBRATION_TEXTS]
        if len(rows) < 2:
            raise CliError(
                "--dtype int8 needs at least two texts: it uses the range of their values"
            )
        if len(rows) < _FEW_TEXTS:
            say(
                f"warning: the ranges of int8 are those of {len(rows)} texts; they are more stable from more"
            )
        self.ranges = np.stack((rows.min(axis=0), rows.max(axis=0)))
        for chunk in chain(first, chunks):
            codes = quantize_embeddings(chunk.embeddings, "int8", ranges=self.ranges)
            yield chunk._replace(embeddings=codes)

    def save(self, file: AtomicFile) -> None:
        """Write the ranges as .npy to the disk. CliError if that fails."""
        content = io.BytesIO()
        np.save(content, self.ranges)
        file.write(content.getvalue())
        file.sync()
