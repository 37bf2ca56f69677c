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

ROTATION_ORDER = 8
_TWO = np.array([[1, 1], [1, -1]])
_HADAMARD = np.kron(_TWO, np.kron(_TWO, _TWO))


def num_groups(cols: int) -> int:
    """The groups of columns that share a scale."""
    return -(-cols // s8_group())


class Int8Matrix(NamedTuple):
    """A matrix (rows, cols) in int8, as _core.quantize_weight makes it.

    values: int8 (rows, cols). scale: float32 (rows, groups of cols). outliers: int32, columns in ascending
    order; they are 0 in the matrix that `values` and `scale` represent. outlier_weight: float32 (rows, number
    of outliers). rotated: values are those of the rotated matrix, `rotated_groups(weight, 1 / 8)`.
    """

    values: Int8
    scale: Float32
    outliers: Int32
    outlier_weight: Float32
    rotated: bool = False

    @classmethod
    def joined(cls, parts: Sequence[Int8Matrix]) -> Int8Matrix:
        """Stack matrices with the same outliers, all rotated or none."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            np.concatenate([part.values for part in parts]),
            np.concatenate([part.scale for part in parts]),
            parts[0].outliers,
            np.concatenate([part.outlier_weight for part in parts]),
            parts[0].rotated,
        )

    def joins(self, other: Int8Matrix) -> bool:
        """Whether both can be joined."""
        return self.rotated == other.rotated and np.array_equal(self.outliers, other.outliers)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols)."""
        rows, cols = self.values.shape
        return rows, cols

    def rows(self, rows: Any) -> Int8Matrix:
        """The rows of an index."""
        return self._replace(
            values=self.values[rows],
            scale=self.scale[rows],
            outlier_weight=self.outlier_weight[rows],
        )

    def float32(self) -> Float32:
        """The dequantized matrix (rows, cols)."""
        wide = self.widened()
        wide[:, self.outliers] = self.outlier_weight
        return wide

    def linear(self, bias: Float32 | None) -> Linear:
        """The layer that computes with it."""
        return Linear.from_int8(
            self.values, self.scale, bias, self.outliers, self.outlier_weight, self.rotated
        )

    def widened(self) -> Float32:
        """The dequantized codes: float32 (rows, cols), without the weights of outliers."""
        wide: Float32 = self.values.astype(np.float32)
        for index, begin in enumerate(range(0, wide.shape[1], s8_group())):
            wide[:, begin : begin + s8_group()] *= self.scale[:, index, None]
        return rotated_groups(wide, 1) if self.rotated else wide


def unmixed(outliers: Int32, cols: int, rotated: bool) -> Int32:
    """The outlier columns whose codes must be 0: those that a rotation does not mix with others."""
    return outliers[outliers >= cols // s8_group() * s8_group()] if rotated else outliers


def rotated_groups(matrix: NDArray[Any], factor: float) -> NDArray[Any]:
    """Each whole group w of a row replaced by factor H w, with the Hadamard matrix H of order 8 between columns
    16 apart. H H is 8 times the identity."""
    rows, cols = matrix.shape
    whole = cols // s8_group() * s8_group()
    groups = matrix[:, :whole].reshape(rows, -1, ROTATION_ORDER, s8_group() // ROTATION_ORDER)
    rotated = (factor * _HADAMARD).astype(matrix.dtype) @ groups
    return np.concatenate([rotated.reshape(rows, whole), matrix[:, whole:]], axis=1)
