# SPDX-License-Identifier: Apache-2.0
"""From the callers' layouts and masks to what a native call takes.

A native call sees sequences: a 3-D view (sequence, row, feature) with their lengths, or packed rows
with offsets. Masks keep torch.nn's polarity up to here (True = ignore) and are turned here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simdformer import _core
from simdformer.nn.module import Float32, float_input

Int32 = NDArray[np.int32]
Bool = NDArray[np.bool_]


class Sequences(NamedTuple):
    """Rows of sequences: `view` (N, L, E) of any strides, or packed (total, E)."""

    view: Float32
    cu_seqlens: Int32
    batched: bool  # False: one sequence came without a batch dimension
    batch_first: bool

    @property
    def packed(self) -> bool:
        return self.view.ndim == 2

    @property
    def batch(self) -> int:
        return len(self.cu_seqlens) - 1

    @property
    def length(self) -> int:
        """Rows that masks speak of: the padded length, or the longest sequence's."""
        if self.packed:
            return int(np.diff(self.cu_seqlens).max(initial=0))
        return int(self.view.shape[1])

    def with_lengths(self, lengths: Int32) -> Sequences:
        """The first lengths[s] rows of each sequence."""
        return self._replace(cu_seqlens=cumulative(lengths))

    def empty_output(self, features: int) -> tuple[Float32, Float32]:
        """An array laid out as the input, and the view of it that a native call fills."""
        if self.packed:
            out = np.empty((len(self.view), features), np.float32)
            return out, out
        n, length = self.view.shape[:2]
        if not self.batched:
            out = np.empty((length, features), np.float32)
            return out, out[None]
        if self.batch_first:
            out = np.empty((n, length, features), np.float32)
            return out, out
        out = np.empty((length, n, features), np.float32)
        return out, out.transpose(1, 0, 2)


def cumulative(lengths: Any) -> Int32:
    """Offsets of sequences laid end to end: 0, then the running sum of their lengths."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)


def sequences(
    name: str, x: Any, features: int, batch_first: bool, cu_seqlens: Any = None
) -> Sequences:
    """An input of any layout, checked.

    float32 (N, L, E) or (L, N, E) by batch_first, (L, E), or packed (total, E) with cu_seqlens.
    """
    array = float_input(name, x, features)
    if cu_seqlens is not None:
        if array.ndim != 2:
            raise ValueError(
                f"{name} must have shape (total_tokens, {features}) with cu_seqlens,"
                f" got {array.shape}"
            )
        return Sequences(array, _offsets(name, cu_seqlens, len(array)), True, batch_first)
    if array.ndim == 2:
        return Sequences(array[None], cumulative([len(array)]), False, batch_first)
    if array.ndim != 3:
        raise ValueError(f"{name} must have 2 or 3 dimensions, got shape {array.shape}")
    view = array if batch_first else array.transpose(1, 0, 2)
    return Sequences(view, cumulative(np.full(len(view), view.shape[1])), True, batch_first)


def _offsets(name: str, cu_seqlens: Any, total: int) -> Int32:
    cu = np.asarray(cu_seqlens)
    if cu.dtype.kind not in "iu" or cu.ndim != 1:
        raise TypeError(f"cu_seqlens must be a vector of integers, got {cu.dtype} {cu.shape}")
    if len(cu) == 0 or cu[0] != 0 or cu[-1] != total or (np.diff(cu.astype(np.int64)) < 0).any():
        raise ValueError(
            f"cu_seqlens must rise from 0 to the {total} rows of {name}, got {cu.tolist()}"
            if len(cu) <= 10
            else f"cu_seqlens must rise from 0 to the {total} rows of {name}"
        )
    return cu.astype(np.int32)


class KeyPadding(NamedTuple):
    """A key_padding_mask, split: lengths if it leaves each sequence's beginning and nothing else."""

    lengths: Int32 | None = None
    keep: Bool | None = None  # (N, S)
    bias: Float32 | None = None  # (N, S)


def key_padding(name: str, mask: Any, keys: Sequences) -> KeyPadding:
    """bool (N, S), True = ignore, or float32 (N, S), added to the scores; (S,) if unbatched."""
    if mask is None:
        return KeyPadding()
    array = _mask_array(name, mask)
    if not keys.batched and array.ndim == 1:
        array = array[None]
    shape = (keys.batch, keys.length)
    if keys.packed:
        raise ValueError(f"{name} must be None with cu_seqlens, which say the same")
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
    bias = None
    if array.dtype == np.float32:
        ignore = np.isneginf(array)
        bias = np.where(ignore, np.float32(0), array)
        if not bias.any():
            bias = None
    else:
        ignore = array
    if bias is None:
        lengths = (~ignore).sum(axis=1)
        if np.array_equal(ignore, np.arange(shape[1]) >= lengths[:, None]):
            return KeyPadding(lengths=lengths.astype(np.int32))
    return KeyPadding(keep=~ignore, bias=bias)


def _mask_array(name: str, mask: Any) -> NDArray[Any]:
    array = np.asarray(mask)
    if array.dtype not in (np.bool_, np.float32):
        raise TypeError(f"{name} must be bool (True = ignore) or float32, got {array.dtype}")
    return array


def is_causal(mask: NDArray[Any]) -> bool:
    """Whether a mask (L, S) hides exactly the keys j > i."""
    if mask.ndim != 2 or mask.shape[0] < 2 or mask.shape[1] < 2:
        return False
    hidden = True if mask.dtype == np.bool_ else -np.inf
    if mask[0, 0] == hidden or mask[0, 1] != hidden:
        return False
    visible = np.tri(*mask.shape, dtype=np.bool_)
    if mask.dtype == np.bool_:
        return np.array_equal(mask, ~visible)
    return bool(np.isneginf(mask[~visible]).all() and not mask[visible].any())


class Pairs(NamedTuple):
    """An attn_mask: causal, or what is kept or added, broadcast to (N, H, L, S)."""

    causal: bool = False
    keep: Bool | None = None
    bias: Float32 | None = None


def attention_pairs(
    name: str, mask: Any, queries: Sequences, keys: Sequences, num_heads: int
) -> Pairs:
    """bool (True = ignore) or float32 (added), (L, S) or (N * num_heads, L, S)."""
    if mask is None:
        return Pairs()
    array = _mask_array(name, mask)
    plane = (queries.length, keys.length)
    whole = (queries.batch * num_heads, *plane)
    if array.shape == plane:
        if is_causal(array):
            return Pairs(causal=True)
        array = array[None, None]
    elif array.shape == whole:
        array = array.reshape(queries.batch, num_heads, *plane)
    else:
        raise ValueError(f"{name} must have shape {plane} or {whole}, got {array.shape}")
    if array.dtype == np.bool_:
        return Pairs(keep=~array)
    return Pairs(bias=float_input(name, array))


def pad_columns(array: NDArray[Any] | None, count: int, value: Any) -> NDArray[Any] | None:
    """Columns for keys that an attention appends."""
    if array is None or count == 0:
        return array
    pad = np.full((*array.shape[:-1], count), value, array.dtype)
    return np.concatenate([array, pad], axis=-1)


def head_factors(head_mask: Any, batch: int, num_heads: int) -> Float32 | None:
    """head_mask float32 (H,) or (N, H) as (1 or N, H, 1, 1)."""
    if head_mask is None:
        return None
    array = float_input("head_mask", head_mask)
    if array.shape not in ((num_heads,), (batch, num_heads)):
        raise ValueError(
            f"head_mask must have shape ({num_heads},) or ({batch}, {num_heads}), got {array.shape}"
        )
    return np.ascontiguousarray(array).reshape(-1, num_heads, 1, 1)


def native_masks(padding: KeyPadding, pairs: Pairs, extra_keys: int = 0) -> _core.Masks:
    """All of it as the native call takes it: True = keep, four dimensions."""
    keep = pad_columns(padding.keep, extra_keys, True)
    bias = pad_columns(padding.bias, extra_keys, 0)
    return _core.Masks(
        causal=pairs.causal,
        key_mask=None if keep is None else keep[:, None, None],
        key_bias=None if bias is None else bias[:, None, None],
        pair_mask=pad_columns(pairs.keep, extra_keys, True),
        pair_bias=pad_columns(pairs.bias, extra_keys, 0),
    )
