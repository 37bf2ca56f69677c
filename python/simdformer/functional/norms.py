# SPDX-License-Identifier: Apache-2.0
"""Normalisation of rows (layer, RMS) and of columns (batch, power)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simdformer import _core
from simdformer.functional.arrays import Float32, Output, as_rank4, float32, vector


def layer_norm(
    input: Any,
    normalized_shape: int | Sequence[int],
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *,
    out: Any = None,
) -> Float32:
    """(x - mean) / sqrt(variance + eps) weight + bias over the last dimensions, normalized_shape.

    float32 of any shape; weight and bias have normalized_shape. Biased variance in two passes: a mean
    that is large beside the spread costs no accuracy. Raises TypeError for another dtype, ValueError
    for shapes that do not fit. Source: Ba, Kiros, Hinton 2016.
    """
    rows, shape, output = normalised_rows(input, normalized_shape, weight, bias, out)
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
    """x / sqrt(mean(x^2) + eps) weight over the last dimensions, normalized_shape.

    eps=None means 2^-23, as in torch.nn.functional.rms_norm. Else as layer_norm.
    Source: Zhang and Sennrich 2019.
    """
    rows, shape, output = normalised_rows(input, normalized_shape, weight, None, out)
    w = flat("weight", weight, shape)
    value = float(np.finfo(np.float32).eps) if eps is None else check_eps(eps)
    return output.write(
        lambda array: _core.rms_norm(as_rank4(rows), w, value, array), (1, 1, *rows.shape)
    )


def batch_norm(
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    out: Any = None,
) -> Float32:
    """(x - mean) / sqrt(variance + eps) weight + bias for each channel of (N, C) or (N, C, L...).

    The statistics are the running ones, or with training=True those of this batch; the running ones,
    if given, are then moved towards them in place by momentum, with the unbiased variance, as torch
    does. For packed text pass (tokens, C). Source: Ioffe and Szegedy 2015.
    """
    x = float32("input", input, min_ndim=2)
    channels = x.shape[1]
    statistics = (
        running("running_mean", running_mean, channels),
        running("running_var", running_var, channels),
    )
    columns = as_columns(x)
    if training:
        if len(columns) < 2:
            raise ValueError(f"training needs more than one value a channel, got shape {x.shape}")
        mean, variance = _core.column_moments(columns)
        unbiased = variance * np.float32(len(columns) / (len(columns) - 1))
        for stored, value in zip(statistics, (mean, unbiased), strict=True):
            if stored is not None:
                stored[...] = stored + np.float32(momentum) * (value - stored)
    else:
        if statistics[0] is None or statistics[1] is None:
            raise ValueError("running_mean and running_var must be given unless training=True")
        mean, variance = statistics[0], statistics[1]
    return normalise_columns(x, columns, mean, variance, weight, bias, eps, out)


def power_norm(
    input: Any,
    running_phi: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    out: Any = None,
) -> Float32:
    """x / sqrt(phi + eps) weight + bias for each channel of (N, C) or (N, C, L...), phi the running
    mean of x^2: batch normalisation without its mean.

    With training=True phi is this batch's mean of x^2, and running_phi, if given, is moved towards it
    in place by momentum. Source: Shen et al. 2020, PowerNorm (forward pass).
    """
    x = float32("input", input, min_ndim=2)
    phi = running("running_phi", running_phi, x.shape[1])
    columns = as_columns(x)
    if training:
        if len(columns) == 0:
            raise ValueError(f"training needs at least one value a channel, got shape {x.shape}")
        mean, variance = _core.column_moments(columns)
        squares = variance + mean * mean
        if phi is not None:
            phi += np.float32(momentum) * (squares - phi)
        phi = squares
    elif phi is None:
        raise ValueError("running_phi must be given unless training=True")
    return normalise_columns(x, columns, np.zeros_like(phi), phi, weight, bias, eps, out)


def check_eps(eps: float) -> float:
    if not eps >= 0:
        raise ValueError(f"eps must be >= 0, got {eps}")
    return float(eps)


def flat(name: str, value: Any, shape: tuple[int, ...]) -> Float32:
    """A weight of the normalised shape as a vector; ones if there is none."""
    if value is None:
        return np.ones(math.prod(shape), np.float32)
    array = float32(name, value)
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
    return np.ascontiguousarray(array).reshape(-1)


def normalised_rows(
    input: Any, normalized_shape: int | Sequence[int], weight: Any, bias: Any, out: Any
) -> tuple[NDArray[np.float32], tuple[int, ...], Output]:
    """input as (rows, size), the shape of a row, and the output of the input's own shape."""
    x = float32("input", input, min_ndim=1)
    shape = (
        (int(normalized_shape),)
        if isinstance(normalized_shape, (int, np.integer))
        else tuple(normalized_shape)
    )
    if not shape or x.shape[-len(shape) :] != shape:
        raise ValueError(f"normalized_shape {shape} is not the end of input's shape {x.shape}")
    size = math.prod(shape)
    if size == 0:
        raise ValueError(f"normalized_shape must not be empty, got {shape}")
    others = [float32(n, a) for n, a in (("weight", weight), ("bias", bias)) if a is not None]
    output = Output(out, x.shape, x, *others)
    return x.reshape(-1, size), shape, output


def running(name: str, value: Any, channels: int) -> Float32 | None:
    """Running statistics, which training changes in place."""
    if value is None:
        return None
    array = float32(name, value)
    if array.shape != (channels,):
        raise ValueError(f"{name} must have shape ({channels},), got {array.shape}")
    return array


def as_columns(x: Float32) -> Float32:
    """(N, C, L...) as (values, C)."""
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)).reshape(-1, x.shape[1])


def normalise_columns(
    x: Float32,
    columns: Float32,
    mean: Float32,
    variance: Float32,
    weight: Any,
    bias: Any,
    eps: float,
    out: Any,
) -> Float32:
    channels = x.shape[1]
    scale = (1.0 / np.sqrt(variance.astype(np.float64) + check_eps(eps))).astype(np.float32)
    if weight is not None:
        scale = scale * vector("weight", weight, channels)
    shift = np.zeros(channels, np.float32) if bias is None else vector("bias", bias, channels)
    moved_shape = (x.shape[0], *x.shape[2:], channels)
    target = None
    if out is not None:
        target = float32("out", out)
        if target.shape != x.shape:
            raise ValueError(f"out must have shape {x.shape}, got {target.shape}")
        target = np.moveaxis(target, 1, -1)
    output = Output(target, moved_shape, x)
    center = np.ascontiguousarray(mean)
    result = output.write(
        lambda array: _core.norm_columns(as_rank4(columns), center, scale, shift, array),
        (1, 1, *columns.shape),
    )
    return np.moveaxis(result, -1, 1)
