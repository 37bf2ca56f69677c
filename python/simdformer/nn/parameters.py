# SPDX-License-Identifier: Apache-2.0
"""The values that the place of a parameter can have.

None      the module was built without the parameter
an array  read-only
Empty     a shape without numbers, to be loaded (initialization.deferred)
Stored    numbers that are read on demand: from a checkpoint, or, after packing, from the packed form
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from simdformer import _core
from simdformer.checkpoint.int8_matrix import Int8Matrix
from simdformer.functional.arrays import array_of

Float32: TypeAlias = NDArray[np.float32]
Value: TypeAlias = "NDArray[Any] | Int8Matrix"

__all__ = ["Stored"]  # the public name; the others are for this package

COMPUTE_TYPES = ("float32", "bfloat16", "int8")
_FLOATS = ("float16", "bfloat16", "float32", "float64")


class Deferred:
    """A parameter that is not an array. compute_type: that of the packed matrix."""

    def __init__(self, shape: Sequence[int], compute_type: str = "float32") -> None:
        self.shape = tuple(shape)
        self.compute_type = compute_type

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the numbers: float32, or int8 for codes."""
        return np.dtype(np.int8 if self.compute_type == "int8" else np.float32)

    def array(self) -> Value:
        """The numbers: float32, or an Int8Matrix if compute_type is "int8"."""
        raise NotImplementedError

    def in_type(self, compute_type: str) -> Deferred:
        """The same numbers for packing in another type, float32 or bfloat16."""
        raise NotImplementedError


class Empty(Deferred):
    """A shape without numbers; they are loaded later."""

    def array(self) -> Value:
        """Always ValueError, because there are no numbers."""
        raise ValueError("a parameter was built without values; load a state_dict first")

    def in_type(self, compute_type: str) -> Empty:
        """The same shape with another compute type."""
        return Empty(self.shape, compute_type)


class Stored(Deferred):
    """A parameter whose numbers are read when they are packed, such as from a file.

    After packing, `read` is not called again: reading the parameter unpacks it. Copies of a module share it.

    Parameters
    ----------
    shape
        The shape of the parameter.
    read
        Returns the numbers: float32 of this shape, or the Int8Matrix of another module's state.
    compute_type
        The type in which the numbers are packed: "float32", "bfloat16" or "int8".

    Examples
    --------
    >>> from simdformer import nn
    >>> from simdformer.nn.parameters import Stored
    >>> layer = nn.Linear(2, 3, bias=False)
    >>> loaded = layer.load_state_dict({"weight": Stored((3, 2), lambda: np.ones((3, 2), np.float32))})
    >>> layer(np.ones((1, 2), np.float32))
    array([[2., 2., 2.]], dtype=float32)
    """

    def __init__(
        self, shape: Sequence[int], read: Callable[[], Value], compute_type: str = "float32"
    ) -> None:
        super().__init__(shape, compute_type)
        self._read = read
        self._kept = False
        self.is_packed = False

    @classmethod
    def of(cls, value: Value, compute_type: str) -> Stored:
        """A place with known numbers that are still to be packed."""
        return cls(value.shape, lambda: value, compute_type)

    def array(self) -> Value:
        """Return the numbers with which the layer computes.

        They are read or unpacked each time unless they are kept.
        """
        value: Value = self.to_pack()
        if self.compute_type == "bfloat16" and not self.is_packed:
            return read_only(_core.Linear.in_bfloat16(float32_of(value)).weight())
        return value

    def to_pack(self) -> Any:
        """The numbers to pack. Packing rounds them."""
        value = self._read()
        if value.shape != self.shape:
            raise ValueError(f"a tensor of shape {self.shape} was read with shape {value.shape}")
        return value if isinstance(value, Int8Matrix) else read_only(value)

    def keep(self) -> Value:
        """Return the numbers, which stay in memory from now on."""
        value = self.array()
        if not self._kept:
            self._read, self._kept = lambda: value, True
        return value

    def moved(self, read: Callable[[], Value]) -> None:
        """From now on the numbers come from a packed form, by `read`."""
        if not self._kept:
            self._read, self.is_packed = read, True

    def leave_to(self, linears: Sequence[_core.Linear], rows: Any = None) -> None:
        """From now on the numbers come from the stacked rows of these layers.

        rows: the index of its own rows, None for all.
        """
        self.moved(lambda: unpacked(linears, rows))

    def in_type(self, compute_type: str) -> Stored:
        """The same numbers, to be read and packed again in another type."""
        return Stored(self.shape, self.array, compute_type)

    def __reduce__(self) -> tuple[Any, ...]:
        return Stored.of, (self.array(), self.compute_type)


class StoredTable(Stored):
    """A table of embeddings. It may be in int8 in memory; its numbers are always float32."""

    def array(self) -> Value:
        """The numbers, dequantized from int8."""
        value = self.to_pack()
        return value.widened() if isinstance(value, Int8Matrix) else value

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredTable.of, (self.to_pack(), self.compute_type)


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """The same array, made read-only."""
    array.flags.writeable = False
    return array


def shape_of(value: Any) -> tuple[int, ...]:
    """The shape of a place's numbers or of a given value. Numbers are not read."""
    known = isinstance(value, (Deferred, Int8Matrix))
    return tuple(value.shape if known else np.shape(value))


def value_of(slot: Any) -> Any:
    """The numbers in a parameter's place; None if it has none."""
    return slot.array() if isinstance(slot, Deferred) else slot


def to_pack(slot: Any) -> Any:
    """The numbers of a matrix's place to pack."""
    return slot.to_pack() if isinstance(slot, Stored) else value_of(slot)


def kept_value(slot: Any) -> Any:
    """The numbers in a parameter's place, which stay in memory from now on."""
    return slot.keep() if isinstance(slot, Stored) else value_of(slot)


def compute_type_of(slot: Any) -> str:
    """The compute type in which a matrix is packed."""
    return slot.compute_type if isinstance(slot, Deferred) else "float32"


def in_type(slot: Any, compute_type: str) -> Any:
    """The place of a matrix with another compute type, float32 or bfloat16."""
    return (
        slot.in_type(compute_type) if isinstance(slot, Deferred) else Stored.of(slot, compute_type)
    )


def indexed(slot: Any, index: Any) -> Any:
    """A part of a parameter's numbers, with the same compute type. Not for int8."""
    part = read_only(np.ascontiguousarray(value_of(slot)[index]))
    compute_type = compute_type_of(slot)
    return part if compute_type == "float32" else Stored.of(part, compute_type)


def leave_to(slot: Any, linears: Sequence[_core.Linear], rows: Any = None) -> None:
    """From now on the numbers of a stored parameter come from these layers. Arrays stay as they are."""
    if isinstance(slot, Stored):
        slot.leave_to(linears, rows)


def float32_of(value: Value) -> Float32:
    """A matrix in float32; an Int8Matrix is dequantized."""
    return value.float32() if isinstance(value, Int8Matrix) else value


class Matrix(NamedTuple):
    """A matrix to pack: weight (out_features, in_features), bias (out_features) or None."""

    weight: Value
    bias: Float32 | None
    compute_type: str

    def pack(self) -> _core.Linear:
        """The packed layer."""
        if isinstance(self.weight, Int8Matrix):
            return self.weight.linear(self.bias)
        bfloat16 = self.compute_type == "bfloat16"
        make = _core.Linear.in_bfloat16 if bfloat16 else _core.Linear
        return make(np.ascontiguousarray(self.weight), self.bias)


def join(matrices: Sequence[Matrix]) -> Matrix | None:
    """Stack matrices; None if their types or outliers differ."""
    first = matrices[0]
    if len(matrices) == 1:
        return first
    if any(matrix.compute_type != first.compute_type for matrix in matrices):
        return None
    bias = None
    if any(matrix.bias is not None for matrix in matrices):
        biases = [_zeros(m) if m.bias is None else m.bias for m in matrices]
        bias = np.concatenate(biases)
    weights = [matrix.weight for matrix in matrices]
    codes = [weight for weight in weights if isinstance(weight, Int8Matrix)]
    if not codes:
        return Matrix(np.concatenate(cast("list[Float32]", weights)), bias, first.compute_type)
    if not all(part.joins(codes[0]) for part in codes):
        return None
    return Matrix(Int8Matrix.joined(codes), bias, first.compute_type)


def _zeros(matrix: Matrix) -> Float32:
    return np.zeros(matrix.weight.shape[0], np.float32)


def unpacked(linears: Sequence[_core.Linear], rows: Any = None) -> Value:
    """The stacked weights of layers, or some of their rows."""
    if linears[0].compute_type == "int8":
        whole = Int8Matrix.joined([Int8Matrix(*linear.int8()) for linear in linears])
        return whole if rows is None else whole.rows(rows)
    weights = [linear.weight() for linear in linears]
    weight = weights[0] if len(weights) == 1 else np.concatenate(weights)
    return weight if rows is None else weight[rows]


def as_slot(name: str, value: Any, old: Any, *, is_matrix: bool) -> Any:
    """The checked and copied value for the place of a parameter whose present value is `old`.

    is_matrix: whether an Int8Matrix is allowed. Errors: TypeError and ValueError naming the parameter.
    """
    new: Any = value
    if isinstance(value, Int8Matrix):
        if not is_matrix:
            raise TypeError(f"{name} must be an array of floats, got an Int8Matrix")
        new = Stored.of(value, "int8")
    elif not isinstance(value, Deferred):
        new = _as_array(name, value, old.dtype)
    if shape_of(new) != shape_of(old):
        raise ValueError(f"{name} must have shape {shape_of(old)}, got {shape_of(new)}")
    given, wanted = compute_type_of(new), compute_type_of(old)
    if wanted == "int8" and given != "int8":
        raise ValueError(
            f"{name} is in int8: give an Int8Matrix, or load floats into a module in float32 and call"
            " to_compute_type"
        )
    if wanted == "bfloat16" and given == "float32":
        return in_type(new, wanted)
    return new


def _as_array(name: str, value: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    if str(getattr(value, "dtype", "")) == "torch.bfloat16":  # a dtype that NumPy lacks
        value = value.float()
    array = array_of(name, value)
    if array.dtype.name not in _FLOATS and not np.issubdtype(dtype, np.integer):
        raise TypeError(f"{name} must be an array of floats, got {array.dtype}")
    wanted = np.float32 if dtype == np.int8 else dtype
    return read_only(np.array(array, dtype=wanted, order="C"))
