# SPDX-License-Identifier: Apache-2.0
"""Normalization of rows (layer, RMS) and of columns (batch, power)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simdformer import _core
from simdformer.functional.arrays import Float32, Output, as_rank4, float32


def layer_norm(
    input: Any,
    normalized_shape: int | Sequence[int],
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *,
    out: Any = None,
) -> Float32:
    """Compute (x - mean) / sqrt(variance + eps) weight + bias over the last dimensions.

    The variance is biased and computed in two passes, so a mean that is large compared with the
    spread costs no accuracy.

    Parameters
    ----------
    input
        float32 array of any shape.
    normalized_shape
        The last dimensions of input.
    weight, bias
        float32 arrays of shape normalized_shape.
    eps
        Added to the variance.
    out
        Where the result is written.

    Returns
    -------
    float32 array
        The shape of input.

    Raises
    ------
    TypeError, ValueError
        If a dtype is not float32, or shapes do not match.

    References
    ----------
    Ba, Kiros and Hinton 2016, Layer Normalization.

    Examples
    --------
    >>> from simdformer.functional import layer_norm
    >>> layer_norm(np.float32([[1, 3], [10, 30]]), 2).round(3)
    array([[-1.,  1.],
           [-1.,  1.]], dtype=float32)
    """
    rows, shape, output = normalized_rows(input, normalized_shape, weight, bias, out)
    w = flat("weight", weight, shape)
    b = None if bias is None else flat("bias", bias, shape)
    return output.write(
        lambda array: _core.layer_norm(as_rank4(rows), w, b, check_eps(eps), array),
        (1, 1, *rows.shape),
    )


def rms_norm(
    input: Any,
    normalized_shape: int | Sequence[int],
    weight: Any = None,
    eps: float | None = None,
    *,
    out: Any = None,
) -> Float32:
    """Compute x / sqrt(mean(x^2) + eps) weight over the last dimensions.

    Parameters
    ----------
    input, normalized_shape, weight, out
        See `layer_norm`.
    eps
        Added to the mean square. None means 2^-23, as in torch.

    Returns
    -------
    float32 array
        The shape of input.

    Raises
    ------
    TypeError, ValueError
        See `layer_norm`.

    References
    ----------
    Zhang and Sennrich 2019, Root Mean Square Layer Normalization.

    Examples
    --------
    >>> from simdformer.functional import rms_norm
    >>> rms_norm(np.float32([[3, 3]]), 2).round(3)
    array([[1., 1.]], dtype=float32)
    """
    rows, shape, output = normalized_rows(input, normalized_shape, weight, None, out)
    w = flat("weight", weight, shape)
    value = float(np.finfo(np.float32).eps) if eps is None else check_eps(eps)
    return output.write(
        lambda array: _core.rms_norm(as_rank4(rows), w, value, array), (1, 1, *rows.shape)
    )


def check_eps(eps: float) -> float:
    if not eps >= 0:
        raise ValueError(f"eps must be >= 0, got {eps}")
    return float(eps)


def flat(name: str, value: Any, shape: tuple[int, ...]) -> Float32:
    """A weight of the normalized shape as a vector; ones if there is none."""
    if value is None:
        return np.ones(math.prod(shape), np.float32)
    array = float32(name, value)
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
    return np.ascontiguousarray(array).reshape(-1)


def normalized_rows(
    input: Any, normalized_shape: int | Sequence[int], weight: Any, bias: Any, out: Any
) -> tuple[NDArray[np.float32], tuple[int, ...], Output]:
    """input as (rows, size), the shape of a row, and an output of the input's shape."""
    x = float32("input", input, min_ndim=1)
    shape = (
        (int(normalized_shape),)
        if isinstance(normalized_shape, (int, np.integer))
        else tuple(normalized_shape)
    )
    if not shape or x.shape[-len(shape) :] != shape:
        raise ValueError(
            f"normalized_shape {shape} does not match the last dimensions of input's shape {x.shape}"
        )
    size = math.prod(shape)
    if size == 0:
        raise ValueError(f"normalized_shape must not be empty, got {shape}")
    others = [float32(n, a) for n, a in (("weight", weight), ("bias", bias)) if a is not None]
    output = Output(out, x.shape, x, *others)
    return x.reshape(-1, size), shape, output
