# SPDX-License-Identifier: Apache-2.0
"""Linear maps and embedding tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from simdformer import _core
from simdformer.checkpoint.int8_matrix import Int8Matrix
from simdformer.functional.arrays import array_of, check_lookup, positive_int
from simdformer.nn import initialization as init
from simdformer.nn import packing
from simdformer.nn.compute_types import Sample, sample_offsets, sample_rows
from simdformer.nn.module import (
    Float32,
    Module,
    PackedMatrix,
    check_placement,
    float_input,
)
from simdformer.nn.parameters import Matrix, compute_type_of, indexed, join, leave_to, to_pack


class Linear(Module):
    """y = x W^T + b, as torch.nn.Linear.

    Parameters
    ----------
    in_features, out_features, bias
        As in torch.
    device, dtype
        None, the CPU and float32.

    Attributes
    ----------
    weight, bias
        float32 (out_features, in_features) and (out_features,).

    Examples
    --------
    >>> from simdformer import nn
    >>> nn.Linear(8, 4)(np.ones((3, 8), dtype=np.float32)).shape
    (3, 4)
    """

    matrix_names: ClassVar[tuple[str, ...]] = ("weight",)

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: object = None,
        dtype: object = None,
    ) -> None:
        super().__init__()
        check_placement(device, dtype)
        self.in_features = positive_int("in_features", in_features)
        self.out_features = positive_int("out_features", out_features)
        bound = 1.0 / float(np.sqrt(in_features))
        self._register("weight", init.uniform(bound, out_features, in_features))
        self._register("bias", init.uniform(bound, out_features) if bias else None)

    def _pack(self) -> _core.Linear:
        packed = self._matrix().pack()
        leave_to(self._parameters["weight"], (packed,))
        return packed

    def _matrix(self) -> Matrix:
        place = self._parameters["weight"]
        return Matrix(to_pack(place), self.bias, compute_type_of(place))

    def packed_matrices(self) -> Iterator[PackedMatrix]:
        """The matrix `weight`."""
        yield PackedMatrix(self, "weight", (self.native(),))

    def sample(self) -> Sample:
        """The default sample for quantization."""
        return Sample((sample_rows(self.in_features, sample_offsets()),), {})

    def keep_inputs(self, features: NDArray[np.int64]) -> None:
        """Remove all other input features permanently."""
        with packing.lock():
            self._place("weight", indexed(self._parameters["weight"], (slice(None), features)))
            self.in_features = len(features)

    def forward(self, input: Any, *, num_threads: int = 0) -> Float32:
        """Apply the linear map.

        Parameters
        ----------
        input
            float32 (..., in_features).
        num_threads
            Number of threads; 0 for the default.

        Returns
        -------
        float32 (..., out_features)
            The result.
        """
        x = float_input("input", input, self.in_features)
        rows = np.ascontiguousarray(x.reshape(-1, self.in_features))
        y = _core.linear_forward(self.native(), rows, num_threads=num_threads)
        return y.reshape(*x.shape[:-1], self.out_features)


def join_gate(gate: Linear, up: Linear) -> _core.Linear | None:
    """Gate and values joined to one matrix for FeedForward.joined; None if compute types, or the outliers of
    int8, differ."""
    first, second = gate._matrix(), up._matrix()
    if first.weight.shape != second.weight.shape:
        raise ValueError(
            f"linear_gate has shape {first.weight.shape}, linear1 {second.weight.shape}"
        )
    inner = first.weight.shape[0]
    order = np.array(_core.gated_rows(inner))
    joined = join([first, second, _zero_row(first)])  # order -1 selects the last row
    if joined is None:
        return None
    weight, bias, compute_type = joined
    rows = weight.rows(order) if isinstance(weight, Int8Matrix) else weight[order]
    packed = Matrix(rows, None if bias is None else bias[order], compute_type).pack()
    places = np.empty(2 * inner, np.int64)
    places[order[order >= 0]] = np.flatnonzero(order >= 0)
    leave_to(gate._parameters["weight"], (packed,), places[:inner])
    leave_to(up._parameters["weight"], (packed,), places[inner:])
    return packed


def _zero_row(like: Matrix) -> Matrix:
    """A row of zeros in the compute type of the given matrices."""
    weight = like.weight
    if isinstance(weight, Int8Matrix):
        one = weight.rows(slice(0, 1))
        none = one._replace(
            values=np.zeros_like(one.values),
            scale=np.zeros_like(one.scale),
            outlier_weight=np.zeros_like(one.outlier_weight),
        )
        return Matrix(none, None, like.compute_type)
    return Matrix(np.zeros((1, weight.shape[1]), np.float32), None, like.compute_type)


class Embedding(Module):
    """Rows of a table by integer ids, as torch.nn.Embedding.

    Parameters
    ----------
    num_embeddings, embedding_dim
        Shape of the table.
    padding_idx
        This row is initialized with zeros and looked up like any other.
    max_norm
        Must be None.
    norm_type, scale_grad_by_freq, sparse
        torch's options for training, without effect.
    device, dtype
        None, the CPU and float32.

    Attributes
    ----------
    weight
        float32 (num_embeddings, embedding_dim).

    Examples
    --------
    >>> from simdformer import nn
    >>> nn.Embedding(10, 4)([1, 2, 3]).shape
    (3, 4)
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,  # noqa: ARG002
        scale_grad_by_freq: bool = False,  # noqa: ARG002
        sparse: bool = False,  # noqa: ARG002
        device: object = None,
        dtype: object = None,
    ) -> None:
        super().__init__()
        check_placement(device, dtype)
        self.num_embeddings = positive_int("num_embeddings", num_embeddings)
        self.embedding_dim = positive_int("embedding_dim", embedding_dim)
        weight = init.normal(1.0, num_embeddings, embedding_dim)
        check_lookup(num_embeddings, padding_idx, max_norm)
        if padding_idx is not None and isinstance(weight, np.ndarray):
            weight[padding_idx] = 0.0
        self.padding_idx = padding_idx
        self._register("weight", weight)

    def forward(self, input: Any) -> Float32:
        """Return the rows of ids.

        Parameters
        ----------
        input
            Integers of any shape, in [0, num_embeddings).

        Returns
        -------
        float32 (..., embedding_dim)
            The rows.

        Raises
        ------
        TypeError, IndexError
            If ids are not integers, or out of range.
        """
        return look_up("input", input, self.weight)


def look_up(name: str, ids: Any, table: Float32) -> Float32:
    """Rows of a table by integer ids. The ids are checked."""
    array = array_of(name, ids)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got {array.dtype}")
    if array.size and not (array.min() >= 0 and array.max() < len(table)):
        raise IndexError(
            f"{name} must be in [0, {len(table)}), got values from {array.min()} to {array.max()}"
        )
    rows: Float32 = np.take(table, array, axis=0)
    return rows
