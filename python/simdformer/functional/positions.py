# SPDX-License-Identifier: Apache-2.0
"""Absolute positions: sinusoids, their shift matrices, rotary embeddings. Angles are in float64."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from simdformer import _core
from simdformer.functional.arrays import (
    Float32,
    Output,
    array_of,
    as_rank4,
    float32,
    number,
    one_of,
)
from simdformer.functional.rope_scaling import scaled_frequencies

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
    """scale sin(p w_i) and scale cos(p w_i) for each position p and frequency w_i.

    positions is a number n for 0 .. n - 1, or an array of any shape, whole, fractional or negative;
    offset is added to each. Returns (*positions.shape, dim), float32.

    freq="paper": w_i = base^(-2 i / dim); "t2t": base^(-i / (dim / 2 - 1)), which ends at 1 / base.
    layout="interleaved": sin and cos of one frequency side by side; "concat": all sines, then all
    cosines. Of an odd dim the last column is a sine without its cosine if interleaved, else zeros.
    Rows of positions equal to pad_index, before the offset, are zeros.

    Raises ValueError for a dim below 1 or unknown names.
    Source: Vaswani et al. 2017, section 3.5; tensor2tensor for the second form.
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
    """The matrix M_k (dim, dim) with PE(p + k) = M_k PE(p) for every p, PE the sinusoidal encoding of
    the same arguments: a rotation of each pair (sin, cos) by k w_i. float64.

    Raises ValueError for an odd dim: its last sine has no cosine to rotate with.
    Source: Vaswani et al. 2017, section 3.5.
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
    """w_i of the sines: ceil(dim / 2) of them if interleaved, floor if concatenated."""
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


def rotary_embedding(
    input: Any,
    positions: Any = None,
    *,
    base: float = 10000.0,
    interleaved: bool = False,
    rotary_dim: int | None = None,
    scaling: Mapping[str, Any] | None = None,
    offset: float = 0,
    out: Any = None,
) -> Float32:
    """Rotates each pair of columns of input (..., L, E) by its position times the pair's frequency.

    Pairs are columns (j, j + rotary_dim / 2), as in Llama and GPT-NeoX, or (2 j, 2 j + 1) with
    interleaved=True, as in GPT-J. rotary_dim (E by default) is how many leading columns take part.
    positions is (L,), (batch, L) for an input (batch, heads, L, E), or any shape that broadcasts to
    input.shape[:-1]; by default 0 .. L - 1. offset is added.

    scaling is a Hugging Face rope_scaling dictionary: rope_type "default", "linear", "dynamic",
    "yarn", "llama3" or "longrope" with its parameters, and partial_rotary_factor, the share of
    rotary_dim that takes part; see rotary_frequencies. "dynamic" and "longrope" depend on the largest
    position of this call.

    Raises TypeError for another dtype than float32, ValueError for an odd or too large rotary_dim.
    Source: Su et al. 2021, RoFormer.
    """
    x = float32("input", input, min_ndim=2)
    rotary_dim = x.shape[-1] if rotary_dim is None else rotary_dim
    if rotary_dim < 0 or rotary_dim % 2 or rotary_dim > x.shape[-1]:
        raise ValueError(
            f"rotary_dim must be even and in [0, {x.shape[-1]}], got {rotary_dim}: input {x.shape}"
        )
    places = np.arange(x.shape[-2], dtype=np.float64) if positions is None else positions
    places = as_positions(places) + finite("offset", offset)
    length = int(places.max(initial=0)) + 1
    inv_freq, factor = rotary_frequencies(rotary_dim, base=base, scaling=scaling, seq_len=length)
    shape = (*places.shape, len(inv_freq))
    cos, sin = np.empty(shape, np.float32), np.empty(shape, np.float32)
    flat = (places.size, len(inv_freq))
    _core.sin_cos(places.reshape(-1), inv_freq, factor, sin.reshape(flat), cos.reshape(flat))
    return apply_rotary_embedding(x, cos, sin, interleaved=interleaved, out=out)


def apply_rotary_embedding(
    input: Any, cos: Any, sin: Any, *, interleaved: bool = False, out: Any = None
) -> Float32:
    """rotary_embedding by given cosines and sines (L, pairs), (batch, L, pairs), or any shape whose
    leading part broadcasts to input.shape[:-1]; input is (..., L, E) with E >= 2 pairs."""
    x = float32("input", input, min_ndim=2)
    tables = [float32("cos", cos, min_ndim=2), float32("sin", sin, min_ndim=2)]
    if tables[0].shape != tables[1].shape:
        raise ValueError(f"cos has shape {tables[0].shape}, sin has shape {tables[1].shape}")
    if tables[0].strides != tables[1].strides:
        tables = [np.ascontiguousarray(table) for table in tables]
    if 2 * tables[0].shape[-1] > x.shape[-1]:
        raise ValueError(f"cos has {tables[0].shape[-1]} columns, input has shape {x.shape}")
    by_batch = x.ndim == 4 and tables[0].ndim == 3 and len(tables[0]) in (1, len(x))
    views = [table[:, None] if by_batch else table for table in tables]
    target = (*x.shape[:-1], tables[0].shape[-1])
    try:
        c, s = (as_rank4(np.broadcast_to(view, target)) for view in views)
    except ValueError:
        raise ValueError(
            f"cos of shape {tables[0].shape} does not fit input of shape {x.shape}"
        ) from None
    output = Output(out, x.shape, x, *tables)
    return output.write(lambda array: _core.rotary(as_rank4(x), c, s, interleaved, array))


def rotary_frequencies(
    rotary_dim: int,
    *,
    base: float = 10000.0,
    scaling: Mapping[str, Any] | None = None,
    seq_len: int = 0,
) -> tuple[Float64, float]:
    """base^(-2 j / rotary_dim) of each pair, float64, after the scaling, and the factor of cos and sin.

    scaling["rope_type"]: "linear" divides by "factor"; "dynamic" (NTK) raises base once seq_len is
    beyond "original_max_position_embeddings"; "ntk" raises it by "factor" at any length; "yarn"
    (Peng et al. 2023) blends by wavelength; "llama3" (Dubey et al. 2024) scales long wavelengths only;
    "longrope" (Ding et al. 2024) divides each by a factor of its own, of "short_factor", or of
    "long_factor" once seq_len is beyond "original_max_position_embeddings".
    "partial_rotary_factor": of the pairs there are so many. Names of parameters are those of
    Hugging Face configurations; a missing or unknown one is a ValueError.
    """
    return scaled_frequencies(rotary_dim, base, scaling, seq_len)
