# SPDX-License-Identifier: Apache-2.0
"""Normalisation of rows: LayerNorm, RMSNorm, and BatchNorm by its running statistics."""

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
        """input: float32 (..., *normalized_shape). Returns: the same shape."""
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

    Ba, Kiros and Hinton 2016; the variance is the biased one, eps stands inside the root.
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
        """What embeddings take."""
        size = int(np.prod(self.normalized_shape))
        weight = np.ones(size, np.float32) if self.weight is None else self.weight.reshape(size)
        bias = None if self.bias is None else self.bias.reshape(size)
        return _core.LayerNorm(weight, bias, eps=self.eps)

    def _pack(self) -> _core.Norm:
        return _core.Norm.layer(self.layer_norm())


class RMSNorm(_RowNorm):
    """x / sqrt(mean(x^2) + eps) * weight over the last dimensions, as torch.nn.RMSNorm.

    Zhang and Sennrich 2019. eps=None is float32's epsilon, 1.19e-7, as in torch.
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
    """(x - running_mean) / sqrt(running_var + eps) * weight + bias for each feature, as
    torch.nn.BatchNorm1d in eval mode (Ioffe and Szegedy 2015). There is no training mode: momentum
    is accepted and not used.
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
        """input: float32 (N, num_features) or (N, num_features, L). Returns: the same shape."""
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


class Identity(Module):
    """Its input, as torch.nn.Identity: in place of a norm, a layer without it."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def forward(self, input: Any) -> Any:
        """input: anything."""
        return input

    def _pack(self) -> None:
        return None


class Dropout(Identity):
    """Its input, as torch.nn.Dropout in eval mode."""

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:  # noqa: ARG002
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"p must be in [0, 1], got {p}")
        self.p = p


def make_norm(kind: str, size: int, eps: float, bias: bool) -> Module:
    """The norm that `norm=` of a Transformer layer names."""
    if kind == "layer":
        return LayerNorm(size, eps=eps, bias=bias)
    if kind == "rms":
        return RMSNorm(size, eps=eps)
    if kind == "batch":
        return BatchNorm1d(size, eps=eps)
    raise ValueError(f"unknown norm {kind!r}; known: layer, rms, batch")
