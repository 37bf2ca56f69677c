# SPDX-License-Identifier: Apache-2.0
"""Smaller embeddings for storage and search: the five precisions of sentence-transformers."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")

Array = NDArray[Any]

# The extremes of fewer embeddings say little about those of other calls.
_FEW_EMBEDDINGS = 100


def quantize_embeddings(
    embeddings: ArrayLike,
    precision: str,
    ranges: ArrayLike | None = None,
    calibration_embeddings: ArrayLike | None = None,
) -> Any:
    """Convert embeddings to another precision.

    Parameters
    ----------
    embeddings
        Floating-point (n, dim) or (dim,), or a list of matrices (n_i, dim) that share the ranges.
    precision
        "float32": unchanged. "int8", "uint8": 255 equal steps between the least and the greatest value
        of each dimension. "binary", "ubinary": one bit per dimension, 1 where the value is above 0,
        packed into bytes.
    ranges
        float32 (2, dim), the least and greatest values for "int8" and "uint8".
    calibration_embeddings
        Floating-point (m, dim) to take the ranges from; `embeddings` by default.

    Returns
    -------
    array, or list of arrays
        (n, dim) float32, int8 or uint8; (n, ceil(dim / 8)) uint8 for "ubinary", int8 for "binary".
        int8 values are the uint8 values - 128.

    Raises
    ------
    ValueError
        If precision is unknown, embeddings are not floating point, or, for "int8" and "uint8", there
        is one embedding without ranges, or NaN or infinite values.

    Warns
    -----
    UserWarning
        If the ranges come from fewer than 100 embeddings.

    Examples
    --------
    >>> from simdformer import quantize_embeddings
    >>> quantize_embeddings(np.float32([[0.5, -0.1] * 4]), "ubinary")
    array([[170]], dtype=uint8)
    """
    check_precision(precision)
    if isinstance(embeddings, list) and embeddings and np.ndim(embeddings[0]) == 2:
        ends = np.cumsum([len(matrix) for matrix in embeddings])
        rows = np.concatenate(embeddings)
        codes = quantize_embeddings(rows, precision, ranges, calibration_embeddings)
        return np.split(codes, ends[:-1])
    embeddings = np.asarray(embeddings)
    if embeddings.ndim == 2 and not len(embeddings):  # there are no rows to compute ranges from
        ranges = np.zeros((2, embeddings.shape[1]))
    if embeddings.dtype.kind != "f":
        raise ValueError(f"embeddings must be floating point, got {embeddings.dtype}")
    if precision == "float32":
        return np.asarray(embeddings, dtype=np.float32)
    if precision in ("binary", "ubinary"):
        bits: Array = np.packbits(embeddings > 0, axis=-1)
        return bits if precision == "ubinary" else (bits ^ 0x80).view(np.int8)
    if ranges is None:
        source = (
            embeddings if calibration_embeddings is None else np.asarray(calibration_embeddings)
        )
        ranges = value_ranges(source, precision)
    least, greatest = np.asarray(ranges, dtype=np.float32)
    if not (np.isfinite(embeddings).all() and np.isfinite(least + greatest).all()):
        raise ValueError(
            f"precision={precision!r} needs finite embeddings and ranges, got NaN or inf"
        )
    steps = (greatest - least) / 255
    steps = np.where(steps == 0, 1, steps)
    codes = np.clip(np.floor((embeddings - least) / steps), 0, 255).astype(np.uint8)
    return codes if precision == "uint8" else (codes ^ 0x80).view(np.int8)


def value_ranges(embeddings: Array, precision: str) -> Array:
    """Each dimension's least and greatest value. embeddings: (n, dim), n >= 2. Returns: (2, dim)."""
    if embeddings.ndim == 1 or len(embeddings) < 2:
        raise ValueError(
            f"precision={precision!r} needs the range of each dimension, which one embedding does"
            " not have; use quantize_embeddings with ranges or calibration_embeddings"
        )
    if len(embeddings) < _FEW_EMBEDDINGS:
        warnings.warn(
            f"{precision} ranges are computed from {len(embeddings)} embeddings; they are more"
            " stable from more, or given as ranges or calibration_embeddings",
            stacklevel=3,
        )
    return np.stack((embeddings.min(axis=0), embeddings.max(axis=0)))


def check_precision(precision: str | None, output_value: str | None = "") -> str:
    """The precision, "float32" for None. ValueError unless it is known and possible for the output: dicts
    (output_value=None) are float32."""
    if precision is None:
        return "float32"
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; known: {', '.join(PRECISIONS)}")
    if output_value is None and precision != "float32":
        raise ValueError(f"precision must be 'float32' with output_value=None, got {precision!r}")
    return precision
