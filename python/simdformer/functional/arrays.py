# SPDX-License-Identifier: Apache-2.0
"""Input and output arrays of simdformer.functional: float32, copied only if necessary."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float32: TypeAlias = NDArray[np.float32]


def array_of(name: str, value: Any) -> NDArray[Any]:
    """A NumPy array that shares the value's memory: an ndarray, or an object with __array__ or __dlpack__
    (a CPU torch tensor has both)."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would be ignored: pass .filled(...)")
    if isinstance(value, np.ndarray):
        return np.asarray(value)
    if hasattr(value, "detach"):  # a torch parameter
        value = value.detach()
    try:
        if hasattr(value, "__array__") or isinstance(value, (list, tuple, int, float)):
            return np.asarray(value)
        if hasattr(value, "__dlpack__"):
            return np.asarray(np.from_dlpack(value))
    except (
        TypeError,
        ValueError,
        BufferError,
    ) as error:  # such as torch's bfloat16, or ragged lists
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(f"{name} cannot be read as an array: {error}") from error
    raise TypeError(f"{name} must be an array, got {type(value).__name__}")


def float32(name: str, value: Any, *, min_ndim: int = 0, ndim: int | None = None) -> Float32:
    """The value as a float32 array. Another dtype is an error: a silent cast would hide its cost
    and, for float64, the loss of precision."""
    array = array_of(name, value)
    if array.dtype != np.float32:
        raise TypeError(f"{name} must be float32, got {array.dtype}{hint_of(array)}")
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimensions, got shape {array.shape}")
    if array.ndim < min_ndim:
        raise ValueError(f"{name} must have at least {min_ndim} dimensions, got {array.shape}")
    return array


def hint_of(array: NDArray[Any]) -> str:
    """How to convert other floats to float32, for an error message."""
    if array.dtype.kind != "f":
        return ""
    return ": this library computes in float32; convert with .astype(numpy.float32)"


def mask_of(name: str, value: Any, what: str = "bool or float32") -> NDArray[Any]:
    """A bool or float32 mask with dense rows. TypeError for another dtype."""
    array = array_of(name, value)
    if array.dtype not in (np.bool_, np.float32):
        raise TypeError(f"{name} must be {what}, got {array.dtype}{hint_of(array)}")
    return with_dense_rows(array)


def offsets(name: str, cu_seqlens: Any, total: int, what: str) -> NDArray[np.int64]:
    """Checked cu_seqlens: they increase from 0 to the total of `what`."""
    array = array_of(name, cu_seqlens)
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise TypeError(f"{name} must be a vector of integers, got {array.dtype} {array.shape}")
    cu = array.astype(np.int64)
    if cu.size == 0 or cu[0] != 0 or cu[-1] != total or (np.diff(cu) < 0).any():
        rest = f"... ending at {cu[-1]}" if cu.size > 8 else ""
        raise ValueError(
            f"{name} must increase from 0 to the {total} {what}, got {cu[:8].tolist()}{rest}"
        )
    return cu


def vector(name: str, value: Any, size: int) -> Float32:
    """A contiguous float32 array of shape (size,)."""
    array = float32(name, value)
    if array.shape != (size,):
        raise ValueError(f"{name} must have shape ({size},), got {array.shape}")
    return np.ascontiguousarray(array)


def with_dense_rows(array: NDArray[Any]) -> NDArray[Any]:
    """The array if its last dimension is contiguous and its strides are not negative, else a copy."""
    if array.ndim == 0 or (array.flags.c_contiguous and array.flags.aligned):
        return array
    size = array.itemsize
    dense_last = array.shape[-1] <= 1 or array.strides[-1] == size
    plain = all(stride >= 0 and stride % size == 0 for stride in array.strides)
    return array if dense_last and plain and array.flags.aligned else np.ascontiguousarray(array)


def rank4_shape(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The (batch, heads, rows, cols) form of a shape of any rank."""
    lead, rows, cols = shape[:-2], shape[-2:-1], shape[-1:]
    return math.prod(lead[:-1]), math.prod(lead[-1:]), math.prod(rows), math.prod(cols)


def as_rank4(array: NDArray[Any]) -> NDArray[Any]:
    """The array as (batch, heads, rows, cols) with dense rows, copied only if it must be."""
    return with_dense_rows(array if array.ndim == 4 else array.reshape(rank4_shape(array.shape)))


class Output:
    """The array that a function writes: a new one or the caller's `out`."""

    def __init__(self, out: Any, shape: tuple[int, ...], *inputs: NDArray[Any]) -> None:
        self._out: Float32 | None = None
        if out is not None:
            self._out = float32("out", out)
            if self._out.shape != shape:
                raise ValueError(f"out must have shape {shape}, got {self._out.shape}")
            if not self._out.flags.writeable:
                raise ValueError("out is read-only")
        # Kernels write while they still read, so an out that may overlap an input is replaced by a temporary
        # array.
        direct = (
            self._out is not None
            and self._out.ndim > 0
            and with_dense_rows(self._out) is self._out
            and not any(np.may_share_memory(self._out, array) for array in inputs)
        )
        self.array: Float32
        if self._out is not None and direct:
            self.array = self._out
        else:
            self.array = np.empty(shape, np.float32)

    def write(
        self, native: Callable[[Float32], None], shape: tuple[int, int, int, int] | None = None
    ) -> Float32:
        """Call native with an array of the given shape of rank 4, and return the caller's result."""
        view = self.array.reshape(rank4_shape(self.array.shape) if shape is None else shape)
        native(view)
        if not np.may_share_memory(view, self.array):  # these strides allow no view of that shape
            self.array[...] = view.reshape(self.array.shape)
        if self._out is None or self._out is self.array:
            return self.array
        self._out[...] = self.array
        return self._out


def one_of(name: str, value: object, known: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"unknown {name} {value!r}; known: {', '.join(known)}")
    return value


def positive_int(name: str, value: object) -> int:
    """The value, which must be an int (or a NumPy one) of at least 1."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")
    return int(value)


def descending(scores: ArrayLike, most: int | None = None) -> list[int]:
    """The indices of the largest scores (n,), or of all, largest first. Of equal ones the earlier comes first."""
    order: list[int] = np.argsort(-np.asarray(scores), kind="stable")[:most].tolist()
    return order


def check_lookup(rows: int, padding_idx: Any, max_norm: Any) -> None:
    """Check torch's lookup arguments. ValueError for a row outside the table and for max_norm, which
    changes the table."""
    if padding_idx is not None and not -rows <= padding_idx < rows:
        raise ValueError(f"padding_idx must be within {rows} embeddings, got {padding_idx}")
    if max_norm is not None:
        raise ValueError(f"max_norm must be None, got {max_norm}: tables are not changed")


def number(name: str, value: object) -> float:
    """The value, a Python or NumPy number, as a float."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    return float(value)


def id_vector(name: str, ids: Any) -> NDArray[Any]:
    """Token ids. TypeError unless they are integers, ValueError unless they are a vector."""
    array = array_of(name, ids)
    if array.dtype.kind not in "iu" or (
        isinstance(ids, (list, tuple)) and any(isinstance(i, (bool, np.bool_)) for i in ids)
    ):
        raise TypeError(f"{name} must be integers, got {_kinds(ids, array)}")
    if array.ndim != 1:
        raise ValueError(
            f"{name} must be a vector of concatenated sequences, got shape {array.shape}"
        )
    return array


def _kinds(ids: Any, array: NDArray[Any]) -> str:
    if not isinstance(ids, (list, tuple)):
        return str(array.dtype)
    return ", ".join(sorted({type(i).__name__ for i in ids})) or "none"
