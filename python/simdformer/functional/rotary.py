# SPDX-License-Identifier: Apache-2.0
"""Rotary positions. Angles are float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from simdformer import _core
from simdformer.functional.arrays import (
    Float32,
    Output,
    as_rank4,
    float32,
)
from simdformer.functional.positions import Float64, as_positions, finite
from simdformer.functional.rope_scaling import scaled_frequencies


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
    """Rotate each pair of columns of input by its position times the frequency of the pair.

    Parameters
    ----------
    input
        float32 array (..., L, E).
    positions
        (L,), (batch, L) for an input (batch, heads, L, E), or any shape that broadcasts to
        input.shape[:-1]. 0 to L - 1 by default.
    base
        Base of the frequencies.
    interleaved
        Pairs are columns (2 j, 2 j + 1), as in GPT-J, not (j, j + rotary_dim / 2), as in Llama.
    rotary_dim
        How many leading columns are rotated; E by default.
    scaling
        A Hugging Face rope_scaling dictionary; see `rotary_frequencies`. "dynamic" and "longrope"
        depend on the largest position of this call.
    offset
        Added to each position.
    out
        Where the result is written.

    Returns
    -------
    float32 array
        The shape of input.

    Raises
    ------
    TypeError, ValueError
        If the dtype is not float32, or rotary_dim is odd or too large.

    References
    ----------
    Su et al. 2021, RoFormer.

    Examples
    --------
    >>> from simdformer.functional import rotary_embedding
    >>> rotary_embedding(np.float32([[1, 0], [1, 0]])).round(3)
    array([[1.   , 0.   ],
           [0.54 , 0.841]], dtype=float32)
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
    """Rotate each pair of columns of input by given cosines and sines.

    Parameters
    ----------
    input
        float32 array (..., L, E), E >= 2 pairs.
    cos, sin
        float32 arrays (L, pairs), (batch, L, pairs), or any shape whose leading dimensions broadcast
        to input.shape[:-1].
    interleaved, out
        See `rotary_embedding`.

    Returns
    -------
    float32 array
        The shape of input.

    Raises
    ------
    TypeError, ValueError
        If a dtype is not float32, or shapes do not match.

    Examples
    --------
    >>> from simdformer.functional import apply_rotary_embedding
    >>> apply_rotary_embedding(np.float32([[1, 0]]), np.float32([[0]]), np.float32([[1]]))
    array([[0., 1.]], dtype=float32)
    """
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
    """Return the frequency of each rotated pair, and the factor of cosines and sines.

    Without scaling the frequencies are base^(-2 j / rotary_dim) and the factor is 1.

    Parameters
    ----------
    rotary_dim
        How many columns are rotated.
    base
        Base of the frequencies.
    scaling
        A dictionary with the parameter names of Hugging Face configurations. rope_type is "default",
        "linear" (divide by factor), "dynamic" (NTK: a larger base once seq_len exceeds
        original_max_position_embeddings), "ntk" (a larger base at any length), "yarn" (Peng et al.
        2023), "llama3" (Dubey et al. 2024) or "longrope" (Ding et al. 2024).
        partial_rotary_factor is the share of rotary_dim that is rotated.
    seq_len
        The length of the sequence, for "dynamic" and "longrope".

    Returns
    -------
    frequencies : float64 (pairs,)
        One per pair of columns.
    factor : float
        What cosines and sines are multiplied by.

    Raises
    ------
    ValueError
        If a parameter of scaling is missing or unknown.

    Examples
    --------
    >>> from simdformer.functional import rotary_frequencies
    >>> rotary_frequencies(4, scaling={"rope_type": "linear", "factor": 2.0})
    (array([0.5  , 0.005]), 1.0)
    """
    return scaled_frequencies(rotary_dim, base, scaling, seq_len)
