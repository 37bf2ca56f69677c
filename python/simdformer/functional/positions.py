# SPDX-License-Identifier: Apache-2.0
"""Absolute positions: sinusoids, their shift matrices and rotary embeddings. Angles are float64."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from simdformer import _core
from simdformer.functional.arrays import (
    Float32,
    Output,
    array_of,
    number,
    one_of,
)

Float64: TypeAlias = NDArray[np.float64]

FREQUENCIES = ("paper", "t2t")
LAYOUTS = ("interleaved", "concat")


def sinusoidal_position_encoding(
    positions: Any,
    dim: int,
    *,
    base: float = 10000.0,
    freq: str = "paper",
    layout: str = "interleaved",
    offset: float = 0,
    scale: float = 1.0,
    pad_index: int | None = None,
    out: Any = None,
) -> Float32:
    """Compute scale sin(p w_i) and scale cos(p w_i) for each position p and frequency w_i.

    Parameters
    ----------
    positions
        A number n for positions 0 to n - 1, or an array of any shape: whole, fractional or negative.
    dim
        Length of an encoding.
    base
        Base of the frequencies.
    freq
        "paper": w_i = base^(-2 i / dim). "t2t" (tensor2tensor): w_i = base^(-i / (dim / 2 - 1)).
    layout
        "interleaved": sine and cosine of each frequency side by side. "concat": all sines, then all
        cosines. If dim is odd, the last column is a sine ("interleaved") or zero ("concat").
    offset
        Added to each position.
    scale
        Factor of the result.
    pad_index
        Rows of positions equal to it, before offset is added, are zero.
    out
        Where the result is written.

    Returns
    -------
    float32 (..., dim)
        The encodings.

    Raises
    ------
    ValueError
        If dim is below 1, or a name is unknown.

    References
    ----------
    Vaswani et al. 2017, Attention Is All You Need, section 3.5.

    Examples
    --------
    >>> from simdformer.functional import sinusoidal_position_encoding
    >>> sinusoidal_position_encoding(2, 4).round(3)
    array([[0.   , 1.   , 0.   , 1.   ],
           [0.841, 0.54 , 0.01 , 1.   ]], dtype=float32)
    """
    given = as_positions(positions)
    places = np.ascontiguousarray((given + finite("offset", offset)).reshape(-1))
    weights = frequencies(dim, base, freq, layout)
    output = Output(out, (*given.shape, dim))

    def fill(array: Float32) -> None:
        rows = array.reshape(len(places), dim)
        half, pairs = len(weights), dim // 2
        if layout == "interleaved":
            spare = np.empty((len(places), 1), np.float32)
            sines, cosines = rows[:, 0::2], rows[:, 1::2]
            _core.sin_cos(places, weights[:pairs], scale, sines[:, :pairs], cosines)
            if dim % 2:
                _core.sin_cos(places, weights[pairs:], scale, sines[:, pairs:], spare)
        else:
            _core.sin_cos(places, weights, scale, rows[:, :half], rows[:, half : 2 * half])
            rows[:, 2 * half :] = 0
        if pad_index is not None:
            rows[given.reshape(-1) == pad_index] = 0

    return output.write(fill, (1, 1, len(places), dim))


def relative_position_matrix(
    k: float,
    dim: int,
    *,
    base: float = 10000.0,
    freq: str = "paper",
    layout: str = "interleaved",
) -> Float64:
    """Return the matrix M_k with PE(p + k) = M_k PE(p) for every position p.

    PE is `sinusoidal_position_encoding` with the same arguments. M_k rotates each pair (sin, cos) by
    k w_i.

    Parameters
    ----------
    k
        The distance.
    dim, base, freq, layout
        See `sinusoidal_position_encoding`.

    Returns
    -------
    float64 (dim, dim)
        M_k.

    Raises
    ------
    ValueError
        If dim is odd: the last sine then has no cosine.

    References
    ----------
    Vaswani et al. 2017, Attention Is All You Need, section 3.5.

    Examples
    --------
    >>> from simdformer.functional import relative_position_matrix, sinusoidal_position_encoding
    >>> code = sinusoidal_position_encoding(10, 8)
    >>> np.allclose(relative_position_matrix(3, 8) @ code[2], code[5], atol=1e-6)
    True
    """
    if dim % 2:
        raise ValueError(f"dim must be even, got {dim}: the last sine has no cosine")
    angles = k * frequencies(dim, base, freq, layout)
    half = dim // 2
    i = np.arange(half)
    s, c = (2 * i, 2 * i + 1) if layout == "interleaved" else (i, half + i)
    matrix = np.zeros((dim, dim))
    matrix[s, s] = matrix[c, c] = np.cos(angles)
    matrix[s, c] = np.sin(angles)
    matrix[c, s] = -np.sin(angles)
    return matrix


def frequencies(dim: int, base: float, freq: str, layout: str) -> Float64:
    """The frequencies w_i of the sines: ceil(dim / 2) if interleaved, floor if concatenated."""
    one_of("freq", freq, FREQUENCIES)
    one_of("layout", layout, LAYOUTS)
    if dim < 1:
        raise ValueError(f"dim must be positive, got {dim}")
    if not base > 0:
        raise ValueError(f"base must be positive, got {base}")
    count = (dim + 1) // 2 if layout == "interleaved" else dim // 2
    i = np.arange(count, dtype=np.float64)
    exponent = 2 * i / dim if freq == "paper" else i / max(dim // 2 - 1, 1)
    return np.asarray(np.exp(-exponent * math.log(base)), np.float64)


def finite(name: str, value: object) -> float:
    """A finite number, as a float."""
    if not math.isfinite(number(name, value)):
        raise ValueError(f"{name} must be finite, got {value!r}")
    return number(name, value)


def as_positions(positions: Any) -> Float64:
    array = array_of("positions", positions)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"positions must be numbers, got {array.dtype}")
    if not np.isfinite(array).all():
        raise ValueError("positions must be finite")
    if array.ndim == 0:
        if array < 0 or array != int(array):
            raise ValueError(f"positions must be an array or a whole number >= 0, got {positions}")
        return np.arange(int(array), dtype=np.float64)
    return array.astype(np.float64)
