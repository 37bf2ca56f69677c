# SPDX-License-Identifier: Apache-2.0
"""Normalization of columns: batch and power normalization."""

from __future__ import annotations

from typing import Any

import numpy as np

from simdformer import _core
from simdformer.functional.arrays import Float32, Output, as_rank4, float32, vector
from simdformer.functional.norms import check_eps


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
    """Compute (x - mean) / sqrt(variance + eps) weight + bias for each channel.

    Parameters
    ----------
    input
        float32 array (N, C) or (N, C, L...). Pass packed text as (tokens, C).
    running_mean, running_var
        float32 arrays (C,), used unless training is True.
    weight, bias
        float32 arrays (C,).
    training
        Use the statistics of this batch. Running statistics, if given, are updated in place by
        momentum, with the unbiased variance, as in torch.
    momentum
        The weight of this batch in the update.
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
        If a dtype is not float32, shapes do not match, or running statistics are missing.

    References
    ----------
    Ioffe and Szegedy 2015, Batch Normalization.

    Examples
    --------
    >>> from simdformer.functional import batch_norm
    >>> batch_norm(np.float32([[1, 2], [3, 6]]), None, None, training=True).round(2)
    array([[-1., -1.],
           [ 1.,  1.]], dtype=float32)
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
            raise ValueError(f"training needs more than one value per channel, got shape {x.shape}")
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
    """Compute x / sqrt(phi + eps) weight + bias for each channel, phi the running mean of x^2.

    This is batch normalization without the mean (forward pass only).

    Parameters
    ----------
    input, weight, bias, momentum, eps, out
        See `batch_norm`.
    running_phi
        float32 array (C,), the running mean of x^2.
    training
        Use the mean of x^2 of this batch. running_phi, if given, is updated in place by momentum.

    Returns
    -------
    float32 array
        The shape of input.

    Raises
    ------
    TypeError, ValueError
        See `batch_norm`.

    References
    ----------
    Shen et al. 2020, PowerNorm.

    Examples
    --------
    >>> from simdformer.functional import power_norm
    >>> power_norm(np.float32([[3, 4]]), np.float32([9, 16])).round(3)
    array([[1., 1.]], dtype=float32)
    """
    x = float32("input", input, min_ndim=2)
    phi = running("running_phi", running_phi, x.shape[1])
    columns = as_columns(x)
    if training:
        if len(columns) == 0:
            raise ValueError(f"training needs at least one value per channel, got shape {x.shape}")
        mean, variance = _core.column_moments(columns)
        squares = variance + mean * mean
        if phi is not None:
            phi += np.float32(momentum) * (squares - phi)
        phi = squares
    elif phi is None:
        raise ValueError("running_phi must be given unless training=True")
    return normalise_columns(x, columns, np.zeros_like(phi), phi, weight, bias, eps, out)


def running(name: str, value: Any, channels: int) -> Float32 | None:
    """Running statistics, which training updates in place."""
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
