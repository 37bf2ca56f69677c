# SPDX-License-Identifier: Apache-2.0
"""A matrix in int8, as it is stored in files and modules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simdformer._core import Linear, s8_group

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
Int8 = NDArray[np.int8]


def num_groups(cols: int) -> int:
    """The groups of columns that share a scale."""
    return -(-cols // s8_group())


class Int8Matrix(NamedTuple):
    """A matrix (rows, cols) in int8, as _core.quantize_weight makes it.

    values: int8 (rows, cols), 0 in the columns `outliers`. scale: float32 (rows, groups of cols).
    outliers: int32, ascending. outlier_weight: float32 (rows, number of outliers).
    """

    values: Int8
    scale: Float32
    outliers: Int32
    outlier_weight: Float32

    @classmethod
    def joined(cls, parts: Sequence[Int8Matrix]) -> Int8Matrix:
        """Stack matrices with the same outliers."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            np.concatenate([part.values for part in parts]),
            np.concatenate([part.scale for part in parts]),
            parts[0].outliers,
            np.concatenate([part.outlier_weight for part in parts]),
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols)."""
        rows, cols = self.values.shape
        return rows, cols

    def rows(self, rows: Any) -> Int8Matrix:
        """The rows of an index."""
        return Int8Matrix(
            self.values[rows], self.scale[rows], self.outliers, self.outlier_weight[rows]
        )

    def float32(self) -> Float32:
        """The dequantized matrix (rows, cols)."""
        wide = self.widened()
        wide[:, self.outliers] = self.outlier_weight
        return wide

    def linear(self, bias: Float32 | None) -> Linear:
        """The layer that computes with it."""
        return Linear.from_int8(self.values, self.scale, bias, self.outliers, self.outlier_weight)

    def widened(self) -> Float32:
        """The dequantized codes without outliers: float32 (rows, cols)."""
        wide: Float32 = self.values.astype(np.float32)
        for index, begin in enumerate(range(0, wide.shape[1], s8_group())):
            wide[:, begin : begin + s8_group()] *= self.scale[:, index, None]
        return wide
