# SPDX-License-Identifier: Apache-2.0
"""Converts the callers' layouts and masks to the arguments of a native call.

A native call takes sequences: a 3-D view (sequence, row, feature) with their lengths, or packed rows with
offsets. Up to here masks have torch.nn's polarity (True = ignore); native masks have the opposite one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simdformer import _core
from simdformer.functional.arrays import mask_of, offsets
from simdformer.nn.module import Float32, float_input

Int32 = NDArray[np.int32]
Bool = NDArray[np.bool_]
_MASKS = "bool (True = ignore) or float32"


class Sequences(NamedTuple):
    """Rows of sequences. view: (N, L, E) with any strides, or packed (total, E)."""

    view: Float32
    cu_seqlens: Int32
    batched: bool  # False: one sequence without a batch dimension
    batch_first: bool

    @property
    def packed(self) -> bool:
        return self.view.ndim == 2

    @property
    def batch(self) -> int:
        return len(self.cu_seqlens) - 1

    @property
    def length(self) -> int:
        """The length of masks: the padded length, or that of the longest sequence."""
        if self.packed:
            return int(np.diff(self.cu_seqlens).max(initial=0))
        return int(self.view.shape[1])

    def with_lengths(self, lengths: Int32) -> Sequences:
        """Keep only the first lengths[s] rows of each sequence."""
        return self._replace(cu_seqlens=cumulative(lengths))

    def empty_output(self, features: int) -> tuple[Float32, Float32]:
        """An array with the layout of the input, and a view of it for the native call."""
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
    """Offsets of concatenated sequences: 0, then the cumulative sum of the lengths."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)


def sequences(
    name: str,
    x: Any,
    features: int,
    batch_first: bool,
    cu_seqlens: Any = None,
    cu_name: str = "cu_seqlens",
) -> Sequences:
    """Check an input of any layout.

    float32 (N, L, E) or (L, N, E) depending on batch_first, (L, E), or packed (total, E) with cu_seqlens.
    name, cu_name: the arguments' names in error messages.
    """
    array = float_input(name, x, features)
    if cu_seqlens is not None:
        if array.ndim != 2:
            raise ValueError(
                f"{name} must have shape (total_tokens, {features}) with {cu_name},"
                f" got {array.shape}"
            )
        cu = offsets(cu_name, cu_seqlens, len(array), f"rows of {name}")
        return Sequences(array, cu.astype(np.int32), True, batch_first)
    if array.ndim == 2:
        return Sequences(array[None], cumulative([len(array)]), False, batch_first)
    if array.ndim != 3:
        raise ValueError(f"{name} must have 2 or 3 dimensions, got shape {array.shape}")
    view = array if batch_first else array.transpose(1, 0, 2)
    return Sequences(view, cumulative(np.full(len(view), view.shape[1])), True, batch_first)


class KeyPadding(NamedTuple):
    """A key_padding_mask. lengths: set if it only removes the ends of sequences; else keep is set."""

    lengths: Int32 | None = None
    keep: Bool | None = None  # (N, S)
    bias: Float32 | None = None  # (N, S)
    leaves_some_out: bool = False


def key_padding(name: str, mask: Any, keys: Sequences) -> KeyPadding:
    """Convert a mask: bool (N, S), True = ignore, or float32 (N, S), added to the scores. Unbatched: (S,)."""
    if mask is None:
        return KeyPadding()
    array = mask_of(name, mask, _MASKS)
    if not keys.batched and array.ndim == 1:
        array = array[None]
    shape = (keys.batch, keys.length)
    if keys.packed:
        raise ValueError(f"{name} must be None with cu_seqlens, which give the lengths")
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
            return KeyPadding(lengths.astype(np.int32), leaves_some_out=bool(ignore.any()))
    return KeyPadding(None, ~ignore, bias, bool(ignore.any()))


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
    """An attn_mask: causal, or an array of kept pairs or of added numbers that broadcasts to (N, H, L, S)."""

    causal: bool = False
    keep: Bool | None = None
    bias: Float32 | None = None


def attention_pairs(
    name: str, mask: Any, queries: Sequences, keys: Sequences, num_heads: int
) -> Pairs:
    """Convert a mask: bool (True = ignore) or float32 (added), (L, S) or (N * num_heads, L, S)."""
    if mask is None:
        return Pairs()
    array = mask_of(name, mask, _MASKS)
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
    return Pairs(bias=array)


class AppendedKeys(NamedTuple):
    """The keys that an attention appends: num_added keys after the first lengths[s] keys of each sequence."""

    lengths: Int32
    num_added: int

    def masks(self, padding: KeyPadding, pairs: Pairs, plane: tuple[int, int]) -> _core.Masks:
        """All masks, with columns for the appended keys, which every query sees. plane: (L, S) if it is
        causal."""
        keep = pairs.keep
        if pairs.causal:
            keep = np.tri(*plane, dtype=np.bool_)[None, None]
        return native_masks(
            KeyPadding(keep=self._columns(padding.keep, True), bias=self._columns(padding.bias, 0)),
            Pairs(keep=self._columns(keep, True), bias=self._columns(pairs.bias, 0)),
        )

    def _columns(self, array: NDArray[Any] | None, value: Any) -> NDArray[Any] | None:
        """An array (N or 1, ..., S) extended to (N, ..., S + num_added)."""
        if array is None:
            return None
        batch, size = len(self.lengths), array.shape[-1]
        wide = np.full((batch, *array.shape[1:-1], size + self.num_added), value, array.dtype)
        for out, one, length in zip(
            wide, np.broadcast_to(array, (batch, *array.shape[1:])), self.lengths, strict=True
        ):
            out[..., :length] = one[..., :length]
        return wide

    def move_last(self, weights: Float32) -> None:
        """Move the weights of the appended keys, in (N, H, L, S + num_added), to the last columns, as torch
        does."""
        for one, length in zip(weights, self.lengths, strict=True):
            appended = one[..., length : length + self.num_added].copy()
            one[..., length:] = 0.0
            one[..., one.shape[-1] - self.num_added :] = appended


def appended_keys(padding: KeyPadding, keys: Sequences, num_added: int) -> AppendedKeys:
    """Appended keys come after the last key that is not padding."""
    lengths = np.diff(keys.cu_seqlens) if padding.lengths is None else padding.lengths
    if padding.keep is not None:
        last = keys.length - padding.keep[:, ::-1].argmax(axis=1)
        lengths = np.where(padding.keep.any(axis=1), last, 0)
    return AppendedKeys(lengths.astype(np.int32), num_added)


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


def native_masks(padding: KeyPadding, pairs: Pairs) -> _core.Masks:
    """The masks of a native call: four dimensions, True = keep."""
    return _core.Masks(
        causal=pairs.causal,
        key_mask=None if padding.keep is None else padding.keep[:, None, None],
        key_bias=None if padding.bias is None else padding.bias[:, None, None],
        pair_mask=pairs.keep,
        pair_bias=pairs.bias,
    )


def check_hint(hint: str, is_causal: object, name: str, mask: Any) -> None:
    """Check torch's is_causal, a hint about a mask, which must then be given."""
    if is_causal and mask is None:
        raise ValueError(f"{hint} is a hint about {name}, which is None")
