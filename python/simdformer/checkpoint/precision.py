# SPDX-License-Identifier: Apache-2.0
"""How an architecture's weights become layers, which decides on their arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from simdformer._core import Linear, s8_group

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
Int8 = NDArray[np.int8]


def num_groups(cols: int) -> int:
    """The groups of columns that have a scale each."""
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
        """Matrices with the same outliers, below one another."""
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
        """Some rows, as an index says."""
        return Int8Matrix(
            self.values[rows], self.scale[rows], self.outliers, self.outlier_weight[rows]
        )

    def float32(self) -> Float32:
        """The matrix that it stands for, (rows, cols)."""
        wide = self.widened()
        wide[:, self.outliers] = self.outlier_weight
        return wide

    def linear(self, bias: Float32 | None) -> Linear:
        """The layer that computes with it."""
        return Linear.from_int8(self.values, self.scale, bias, self.outliers, self.outlier_weight)

    def widened(self) -> Float32:
        """What the codes stand for, outliers aside: float32 (rows, cols)."""
        scale = np.repeat(self.scale, s8_group(), axis=1)[:, : self.values.shape[1]]
        wide: Float32 = self.values * scale
        return wide


class Matrix(Protocol):
    """A matrix of a checkpoint, read when it is asked for.

    name: the checkpoint's, without ".weight".
    """

    @property
    def name(self) -> str: ...

    @property
    def tensors(self) -> list[str]:
        """The names of the tensors that hold it in float32."""
        ...

    def float32(self) -> Float32:
        """Its numbers: (rows, cols)."""
        ...

    def int8(self) -> Int8Matrix:
        """As a quantised checkpoint stores it."""
        ...


class Precision(Protocol):
    """Makes what an architecture is built of."""

    def linear(self, weight: Matrix, bias: Float32 | None) -> Linear:
        """weight: (out, in); bias: (out,), None for none."""
        ...

    def table(self, weight: Matrix) -> Float32:
        """The embeddings of the vocabulary, (vocab_size, hidden_size)."""
        ...


class Float32Precision:
    """The weights as they are."""

    def linear(self, weight: Matrix, bias: Float32 | None) -> Linear:
        """A float32 layer."""
        return Linear(weight.float32(), bias)

    def table(self, weight: Matrix) -> Float32:
        """The table itself."""
        return weight.float32()


class Bfloat16Precision(Float32Precision):
    """Linear weights rounded to bfloat16, to nearest; computed in float32. Tables as they are."""

    def linear(self, weight: Matrix, bias: Float32 | None) -> Linear:
        """A layer that takes half the memory."""
        return Linear.in_bfloat16(weight.float32(), bias)


FLOAT32 = Float32Precision()
BFLOAT16 = Bfloat16Precision()
