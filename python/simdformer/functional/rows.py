# SPDX-License-Identifier: Apache-2.0
"""Linear, embedding, softmax and activations."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simdformer import _core
from simdformer.functional.arrays import (
    Float32,
    Output,
    array_of,
    as_rank4,
    check_lookup,
    float32,
    number,
    one_of,
    vector,
    with_dense_rows,
)

# Short rows of a dense array are worked on in longer ones.
CHUNK = 4096
SHORT = 512


def softmax(input: Any, dim: int = -1, *, out: Any = None) -> Float32:
    """exp(input) / sum(exp(input)) along dim, less the largest element first. float32, any shape.

    Raises TypeError for another dtype, ValueError for a dim that the array does not have. A row that
    is all -inf gives NaN, as in torch.nn.functional.softmax.
    """
    x = float32("input", input, min_ndim=1)
    if not -x.ndim <= dim < x.ndim:
        raise ValueError(f"dim {dim} is not one of shape {x.shape}")
    moved = x.swapaxes(dim, -1)
    target = None if out is None else float32("out", out)
    if target is not None and target.shape != x.shape:
        raise ValueError(f"out must have shape {x.shape}, got {target.shape}")
    output = Output(None if target is None else target.swapaxes(dim, -1), moved.shape, moved)
    result = output.write(lambda array: _core.softmax(as_rank4(moved), array))
    return result.swapaxes(dim, -1) if target is None else target


def linear(input: Any, weight: Any, bias: Any = None, *, out: Any = None) -> Float32:
    """input weight^T + bias: (..., in) -> (..., out), weight (out, in), bias (out,), float32.

    The weight is packed at every call; simdformer.nn.Linear packs it once.
    Raises TypeError for another dtype, ValueError for shapes that do not fit.
    """
    x = float32("input", input, min_ndim=1)
    w = float32("weight", weight, ndim=2)
    if x.shape[-1] != w.shape[1]:
        raise ValueError(f"input has {x.shape[-1]} columns, weight has shape {w.shape}")
    if 0 in w.shape:
        raise ValueError(f"weight is empty, its shape is {w.shape}")
    b = None if bias is None else vector("bias", bias, w.shape[0])
    output = Output(out, (*x.shape[:-1], w.shape[0]), x, w, *([] if b is None else [b]))
    rows = np.ascontiguousarray(x).reshape(-1, w.shape[1])
    return output.write(
        lambda array: _core.linear(rows, w, b, array), (1, 1, len(rows), w.shape[0])
    )


def log_softmax(input: Any, dim: int = -1, *, out: Any = None) -> Float32:
    """log(softmax(input)) along dim: input - max - log(sum(exp(input - max))). float32, any shape.

    Errors and rows that are all -inf as of softmax. Absolute error: 2^-22 beside the rounding of the
    differences.
    """
    weights = softmax(input, dim)
    x = array_of("input", input)
    if weights.size == 0:
        return Output(out, x.shape, x).write(lambda _: None)
    with np.errstate(invalid="ignore"):  # rows that are all -inf
        # The largest weight is 1 / sum(exp(input - max)).
        logs = np.log(weights.max(axis=dim, keepdims=True))
        result: Float32 = np.subtract(x, x.max(axis=dim, keepdims=True), out=weights)
        result += logs
    return result if out is None else copied(result, out)


def normalize(
    input: Any, p: float = 2.0, dim: int = 1, eps: float = 1e-12, *, out: Any = None
) -> Float32:
    """input / max(|input|_p, eps) along dim, as torch.nn.functional.normalize. float32, any shape.

    The norm is taken in float64. Raises TypeError for another dtype, ValueError for a dim that the
    array does not have.
    """
    x = float32("input", input, min_ndim=1)
    if not -x.ndim <= dim < x.ndim:
        raise ValueError(f"dim {dim} is not one of shape {x.shape}")
    norm = np.linalg.norm(x.astype(np.float64), ord=number("p", p), axis=dim, keepdims=True)
    result: Float32 = (x / np.maximum(norm, number("eps", eps))).astype(np.float32)
    return result if out is None else copied(result, out)


def copied(result: Float32, out: Any) -> Float32:
    """The caller's array with the result in it."""
    return Output(out, result.shape, result).write(
        lambda array: np.copyto(array, result), result.shape
    )


def embedding(
    input: Any,
    weight: Any,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,  # noqa: ARG001
    scale_grad_by_freq: bool = False,  # noqa: ARG001
    sparse: bool = False,  # noqa: ARG001
    *,
    out: Any = None,
) -> Float32:
    """weight[input]: integer ids of any shape, weight (rows, dim) float32 -> (*input.shape, dim).

    padding_idx, norm_type, scale_grad_by_freq and sparse, of torch, are for training: the row of
    padding_idx is looked up like any other. max_norm must be None.
    Raises IndexError for an id outside the table, TypeError for ids that are no integers.
    """
    ids = array_of("input", input)
    if ids.dtype.kind not in "iu":
        raise TypeError(f"input must hold integers, got {ids.dtype}")
    table = float32("weight", weight, ndim=2)
    check_lookup(len(table), padding_idx, max_norm)
    output = Output(out, (*ids.shape, table.shape[1]), table)
    flat = ids.ravel()
    return output.write(
        lambda array: _core.embedding(table, flat, array), (1, 1, flat.size, table.shape[1])
    )


def relu(input: Any, *, out: Any = None) -> Float32:
    """max(0, x), elementwise; float32 of any shape."""
    return activate("relu", input, out)


def gelu(input: Any, approximate: str = "none", *, out: Any = None) -> Float32:
    """x Phi(x), elementwise; with approximate="tanh" its tanh form. Hendrycks and Gimpel 2016."""
    one_of("approximate", approximate, ("none", "tanh"))
    return activate("gelu" if approximate == "none" else "gelu_tanh", input, out)


def silu(input: Any, *, out: Any = None) -> Float32:
    """x sigmoid(x), elementwise; also called swish."""
    return activate("silu", input, out)


def quick_gelu(input: Any, *, out: Any = None) -> Float32:
    """x sigmoid(1.702 x), elementwise: CLIP's GELU."""
    return activate("quick_gelu", input, out)


def sigmoid(input: Any, *, out: Any = None) -> Float32:
    """1 / (1 + exp(-x)), elementwise."""
    return activate("sigmoid", input, out)


def tanh(input: Any, *, out: Any = None) -> Float32:
    """tanh(x), elementwise, within 2 ulp."""
    return activate("tanh", input, out)


def activate(name: str, input: Any, out: Any) -> Float32:
    x = float32("input", input)
    output = Output(out, x.shape, x)
    short = x.ndim > 0 and x.shape[-1] < SHORT
    if not (short and x.flags.c_contiguous and output.array.flags.c_contiguous):
        return output.write(lambda array: _core.activate(name, as_rank4(x), array))

    def in_chunks(array: Float32) -> None:
        flat_x, flat_y = x.reshape(-1), array.reshape(-1)
        whole = flat_x.size // CHUNK * CHUNK
        for part, cols in ((slice(0, whole), CHUNK), (slice(whole, None), flat_x.size - whole)):
            if cols > 0:
                rows = (1, 1, -1, cols)
                _core.activate(name, flat_x[part].reshape(rows), flat_y[part].reshape(rows))

    return output.write(in_chunks, (1, 1, 1, x.size))


def glu(input: Any, dim: int = -1, *, gate: str = "second", out: Any = None) -> Float32:
    """a sigmoid(b) of the halves a, b of input along dim (Dauphin et al. 2017).

    gate says which half is passed through the activation: "second", as torch.nn.functional.glu, or
    "first". Raises ValueError if dim's size is odd.
    """
    return gated("sigmoid", input, dim, gate, out)


def geglu(input: Any, dim: int = -1, *, gate: str = "second", out: Any = None) -> Float32:
    """a gelu(b) of the halves of input; gate="first" for gelu(a) b. Shazeer 2020."""
    return gated("gelu", input, dim, gate, out)


def swiglu(input: Any, dim: int = -1, *, gate: str = "second", out: Any = None) -> Float32:
    """a silu(b) of the halves of input; gate="first" for silu(a) b. Shazeer 2020."""
    return gated("silu", input, dim, gate, out)


def reglu(input: Any, dim: int = -1, *, gate: str = "second", out: Any = None) -> Float32:
    """a relu(b) of the halves of input; gate="first" for relu(a) b. Shazeer 2020."""
    return gated("relu", input, dim, gate, out)


def gated(name: str, input: Any, dim: int, gate: str, out: Any) -> Float32:
    x = float32("input", input, min_ndim=1)
    one_of("gate", gate, ("first", "second"))
    if not -x.ndim <= dim < x.ndim:
        raise ValueError(f"dim {dim} is not one of shape {x.shape}")
    moved: NDArray[Any] = x.swapaxes(dim, -1)
    size = moved.shape[-1]
    if size % 2:
        raise ValueError(f"input must have an even size along dim {dim}, got {size}")
    halves = [with_dense_rows(moved[..., : size // 2]), with_dense_rows(moved[..., size // 2 :])]
    gates, values = halves if gate == "first" else halves[::-1]
    shape = (*moved.shape[:-1], size // 2)
    target = None if out is None else float32("out", out).swapaxes(dim, -1)
    output = Output(target, shape, x)
    result = output.write(lambda array: _core.gated(name, as_rank4(gates), as_rank4(values), array))
    swapped: Float32 = result.swapaxes(dim, -1)
    return swapped
