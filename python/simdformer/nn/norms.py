# SPDX-License-Identifier: Apache-2.0
"""Normalization of rows: LayerNorm, RMSNorm, and BatchNorm with its running statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from simdformer import _core
from simdformer.functional.arrays import positive_int
from simdformer.nn import initialization as init
from simdformer.nn.module import Float32, Module, check_placement, float_input


class _RowNorm(Module):
    """A norm over the last dimensions, `normalized_shape`."""

    normalized_shape: tuple[int, ...]

    def forward(self, input: Any, *, num_threads: int = 0) -> Float32:
        """Normalize rows.

        Parameters
        ----------
        input
            float32 (..., *normalized_shape).
        num_threads
            Number of threads; 0 for the default.

        Returns
        -------
        float32 array
            The shape of input.
        """
        x = float_input("input", input)
        shape = self.normalized_shape
        if x.shape[x.ndim - len(shape) :] != shape:
            raise ValueError(f"input must end with the dimensions {shape}, got shape {x.shape}")
        rows = np.ascontiguousarray(x.reshape(-1, int(np.prod(shape))))
        y: Float32 = self.native().forward(rows, num_threads=num_threads)
        return y.reshape(x.shape)

    def _set_shape(self, normalized_shape: int | Sequence[int]) -> int:
        shape = (
            tuple(normalized_shape)
            if isinstance(normalized_shape, (tuple, list))
            else (normalized_shape,)
        )
        self.normalized_shape = tuple(positive_int("normalized_shape", n) for n in shape)
        return int(np.prod(self.normalized_shape))


class LayerNorm(_RowNorm):
    """(x - mean) / sqrt(var + eps) * weight + bias over the last dimensions, as torch.nn.LayerNorm.

    The variance is biased.

    Parameters
    ----------
    normalized_shape, eps, elementwise_affine, bias
        As in torch.
    device, dtype
        None, the CPU and float32.

    Attributes
    ----------
    weight, bias
        float32 arrays of shape normalized_shape, or None.

    References
    ----------
    Ba, Kiros and Hinton 2016, Layer Normalization.

    Examples
    --------
    >>> from simdformer import nn
    >>> nn.LayerNorm(2)(np.float32([[1, 3]])).round(3)
    array([[-1.,  1.]], dtype=float32)
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: object = None,
        dtype: object = None,
    ) -> None:
        super().__init__()
        check_placement(device, dtype)
        self._set_shape(normalized_shape)
        self.eps = eps
        shape = self.normalized_shape
        self._register("weight", init.ones(*shape) if elementwise_affine else None)
        self._register("bias", init.zeros(*shape) if elementwise_affine and bias else None)

    def layer_norm(self) -> _core.LayerNorm:
        """The packed norm, for embeddings."""
        size = int(np.prod(self.normalized_shape))
        weight = np.ones(size, np.float32) if self.weight is None else self.weight.reshape(size)
        bias = None if self.bias is None else self.bias.reshape(size)
        return _core.LayerNorm(weight, bias, eps=self.eps)

    def _pack(self) -> _core.Norm:
        return _core.Norm.layer(self.layer_norm())


class RMSNorm(_RowNorm):
    """x / sqrt(mean(x^2) + eps) * weight over the last dimensions, as torch.nn.RMSNorm.

    Parameters
    ----------
    normalized_shape, elementwise_affine
        As in torch.
    eps
        None means the epsilon of float32, 1.19e-7, as in torch.
    device, dtype
        None, the CPU and float32.

    Attributes
    ----------
    weight
        float32 array of shape normalized_shape, or None.

    References
    ----------
    Zhang and Sennrich 2019, Root Mean Square Layer Normalization.

    Examples
    --------
    >>> from simdformer import nn
    >>> nn.RMSNorm(2)(np.float32([[3, 3]])).round(3)
    array([[1., 1.]], dtype=float32)
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: object = None,
        dtype: object = None,
    ) -> None:
        super().__init__()
        check_placement(device, dtype)
        self._set_shape(normalized_shape)
        self.eps = eps
        shape = self.normalized_shape
        self._register("weight", init.ones(*shape) if elementwise_affine else None)

    def _pack(self) -> _core.Norm:
        size = int(np.prod(self.normalized_shape))
        weight = np.ones(size, np.float32) if self.weight is None else self.weight.reshape(size)
        eps = float(np.finfo(np.float32).eps) if self.eps is None else self.eps
        return _core.Norm.rms(weight, eps=eps)


class BatchNorm1d(Module):
    """Normalize each feature with running statistics, as torch.nn.BatchNorm1d in eval mode.

    Computes (x - running_mean) / sqrt(running_var + eps) * weight + bias.

    Parameters
    ----------
    num_features, eps, affine
        As in torch.
    momentum
        Accepted without effect: there is no training mode.
    track_running_stats
        Must be True.
    device, dtype
        None, the CPU and float32.

    Attributes
    ----------
    weight, bias, running_mean, running_var
        float32 (num_features,).

    References
    ----------
    Ioffe and Szegedy 2015, Batch Normalization.

    Examples
    --------
    >>> from simdformer import nn
    >>> nn.BatchNorm1d(2)(np.float32([[1, 3]])).round(3)
    array([[1., 3.]], dtype=float32)
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: object = None,
        dtype: object = None,
    ) -> None:
        super().__init__()
        check_placement(device, dtype)
        if not track_running_stats:
            raise ValueError(
                "track_running_stats must be True: without running statistics a text's result"
                " would depend on its batch (functional.batch_norm computes that)"
            )
        self.num_features = positive_int("num_features", num_features)
        self.eps = eps
        self.momentum = momentum
        self._register("weight", init.ones(num_features) if affine else None)
        self._register("bias", init.zeros(num_features) if affine else None)
        self._register("running_mean", init.zeros(num_features))
        self._register("running_var", init.ones(num_features))
        self._register("num_batches_tracked", np.array(0, np.int64))

    def _pack(self) -> _core.Norm:
        weight = np.ones(self.num_features, np.float32) if self.weight is None else self.weight
        bias = np.zeros(self.num_features, np.float32) if self.bias is None else self.bias
        return _core.Norm.batch(weight, bias, self.running_mean, self.running_var, eps=self.eps)

    def forward(self, input: Any, *, num_threads: int = 0) -> Float32:
        """Normalize features.

        Parameters
        ----------
        input
            float32 (N, num_features) or (N, num_features, L).
        num_threads
            Number of threads; 0 for the default.

        Returns
        -------
        float32 array
            The shape of input.
        """
        x = float_input("input", input)
        if x.ndim not in (2, 3) or x.shape[1] != self.num_features:
            raise ValueError(
                f"input must have shape (N, {self.num_features}) or (N, {self.num_features}, L),"
                f" got {x.shape}"
            )
        rows = np.moveaxis(x, 1, -1).reshape(-1, self.num_features)
        y = self.native().forward(np.ascontiguousarray(rows), num_threads=num_threads)
        if x.ndim == 2:
            result: Float32 = y
            return result
        moved = y.reshape(x.shape[0], x.shape[2], self.num_features)
        return np.ascontiguousarray(np.moveaxis(moved, -1, 1))


def make_norm(kind: str, size: int, eps: float, bias: bool) -> Module:
    """The norm for the `norm` argument of a Transformer layer."""
    if kind == "layer":
        return LayerNorm(size, eps=eps, bias=bias)
    if kind == "rms":
        return RMSNorm(size, eps=eps)
    if kind == "batch":
        return BatchNorm1d(size, eps=eps)
    raise ValueError(f"unknown norm {kind!r}; known: layer, rms, batch")
