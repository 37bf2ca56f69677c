# SPDX-License-Identifier: Apache-2.0
"""Compute types of matrices: float32, bfloat16 or int8, and quantization to int8.

The loss of int8 comes mostly from a few input columns with values many times larger than the others
(Dettmers et al. 2022, arXiv:2208.07339). These columns stay in float32. They are the same for any input,
so a sample is enough to find them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simdformer import _core
from simdformer.checkpoint.int8_matrix import Int8Matrix, Int32
from simdformer.nn.parameters import COMPUTE_TYPES, Float32, Stored, Value, float32_of

# Outliers are columns larger than this multiple of the median. At most this many are used; in narrow layers
# at most one column in 16. With always 8 of them the mean cosine was 0.99982 instead of 0.99981, and
# inference 3-5% slower (all-MiniLM-L6-v2). Rotated activations have fewer codes, so more columns are kept.
_OUTLIER_RATIO = 3.0
_ROTATED_OUTLIER_RATIO = 2.5
_NUM_OUTLIERS = 8

# The lengths of the sequences in the default sample.
SAMPLE_LENGTHS = (6, 10, 14, 18, 25, 40, 60, 100)


class Sample(NamedTuple):
    """The arguments of a module's call."""

    args: tuple[Any, ...]
    options: Mapping[str, Any]

    @classmethod
    def of(cls, given: Any) -> Sample:
        """A sample from one argument, a tuple of arguments, or a mapping of names to them."""
        if isinstance(given, Mapping):
            return cls((), given)
        return cls(given if isinstance(given, tuple) else (given,), {})


def check_compute_type(compute_type: str, present: Collection[str]) -> None:
    """ValueError for an unknown type, and for a change from int8, which cannot be undone."""
    if compute_type not in COMPUTE_TYPES:
        raise ValueError(
            f"unknown compute_type {compute_type!r}; known: {', '.join(COMPUTE_TYPES)}"
        )
    if "int8" in present and compute_type != "int8":
        raise ValueError(
            f"weights in int8 cannot be converted to {compute_type}: build a new module and load them"
        )


def outlier_columns(largest: Float32) -> Int32:
    """The indices of columns whose largest magnitude is far above the others', ascending."""
    count = min(_NUM_OUTLIERS, len(largest) // 16)
    candidates = np.argsort(-largest, kind="stable")[:count]
    ratio = _ROTATED_OUTLIER_RATIO if _core.s8_rotates() else _OUTLIER_RATIO
    far = largest[candidates] > ratio * np.median(largest)
    columns: Int32 = np.sort(candidates[far]).astype(np.int32)
    return columns


def quantized(weight: Float32, outliers: Int32, *, rotated: bool | None = None) -> Int8Matrix:
    """A matrix (rows, cols) in int8, with each weight rounded separately. ValueError if it is not finite.

    rotated: rotate groups of columns; None if that is faster at the active level."""
    if rotated is None:
        rotated = _core.s8_rotates()
    values, scale = _core.quantize_weight(weight, outliers, rotated)
    return Int8Matrix(values, scale, outliers, np.ascontiguousarray(weight[:, outliers]), rotated)


def quantized_place(name: str, value: Value, outliers: Int32) -> Stored:
    """The value for a matrix's place in int8. ValueError names the matrix."""
    weight = np.ascontiguousarray(float32_of(value))
    try:
        return Stored.of(quantized(weight, outliers), "int8")
    except ValueError as error:
        raise ValueError(f"{name} cannot be quantized: {error}") from error


class Recorder:
    """Records the inputs of layers in a `with` block. Calls must be on one thread."""

    def __init__(self, linears: Iterable[_core.Linear]) -> None:
        self._linears = {id(linear): linear for linear in linears}
        self._outliers: dict[int, Int32] = {}

    def __enter__(self) -> Recorder:  # noqa: PYI034  (Self is newer than Python 3.10)
        for linear in self._linears.values():
            linear.record_inputs()
        return self

    def __exit__(self, *_: object) -> None:
        for key, linear in self._linears.items():
            rows = linear.take_inputs()
            if len(rows):
                self._outliers[key] = outlier_columns(np.abs(rows).max(axis=0))

    def outliers(self, linears: Iterable[_core.Linear]) -> Int32:
        """The outlier columns of any of these layers, ascending; none without inputs."""
        found = [self._outliers[id(x)] for x in linears if id(x) in self._outliers]
        if not found:
            return np.empty(0, np.int32)
        columns: Int32 = np.unique(np.concatenate(found)).astype(np.int32)
        return columns


def sample_offsets(longest: int | None = None) -> NDArray[np.int32]:
    """cu_seqlens of the default sample. longest: the maximum length of a sequence."""
    lengths = [min(length, longest or length) for length in SAMPLE_LENGTHS]
    return np.cumsum([0, *lengths]).astype(np.int32)


def sample_rows(features: int, cu_seqlens: NDArray[np.int32], seed: int = 0) -> Float32:
    """The rows of the default sample: standard normal, always the same numbers."""
    shape = (int(cu_seqlens[-1]), features)
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def sample_ids(vocab_size: int, count: int) -> NDArray[np.int32]:
    """Ids from the whole vocabulary, always the same ones."""
    # Knuth's multiplicative hash (The Art of Computer Programming 3, section 6.4).
    hashes = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(2654435769)
    ids = (hashes % np.uint64(2**32)) * np.uint64(vocab_size) // np.uint64(2**32)
    sample: Int32 = ids.astype(np.int32)
    return sample
