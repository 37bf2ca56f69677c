# SPDX-License-Identifier: Apache-2.0
"""One native attention call: its operands as (batch, heads, rows, cols), and its options."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simdformer import _core
from simdformer.functional.arrays import (
    Float32,
    as_rank4,
    float32,
    mask_of,
    one_of,
    with_dense_rows,
)

MASKED_ROWS = ("zero", "nan")
UNBOUNDED = 1 << 40  # beyond every distance between a query and a key


@dataclass(frozen=True)
class Window:
    """Query i sees keys j with -left <= j - i <= right, None for no limit."""

    left: int | None
    right: int | None
    lower_right: bool  # i and j are counted from the last query and key

    @classmethod
    def of(cls, is_causal: bool, window_size: tuple[int, int], alignment: str) -> Window:
        one_of("alignment", alignment, ("upper_left", "lower_right"))
        if len(window_size) != 2 or any(int(size) != size or size < -1 for size in window_size):
            raise ValueError(
                f"window_size must be (left, right), each >= 0 or -1 for no limit, got {window_size}"
            )
        left, right = (None if size < 0 else int(size) for size in window_size)
        if is_causal:
            right = 0
        return cls(left, right, alignment == "lower_right")


class AttentionCall:
    """The shapes of one call and the arguments of the native function."""

    def __init__(
        self,
        query: Float32,
        key: Float32,
        value: Float32,
        *,
        enable_gqa: bool,
        names: tuple[str, str, str] = ("query", "key", "value"),
    ) -> None:
        self.options: dict[str, Any] = {}
        if key.shape[-2] != value.shape[-2]:
            raise ValueError(
                f"{names[1]} has {key.shape[-2]} rows, {names[2]} has {value.shape[-2]}: "
                f"shapes {key.shape} and {value.shape}"
            )
        if query.shape[-1] == 0 or key.shape[-1] == 0:
            raise ValueError(f"{names[0]} and {names[1]} must have columns, got {query.shape}")
        self.lead, key_lead = leading_shapes(names, query, key, value, enable_gqa)
        self.num_queries, self.num_keys = query.shape[-2], key.shape[-2]
        self.query_dim, self.key_dim, self.value_dim = (
            query.shape[-1],
            key.shape[-1],
            value.shape[-1],
        )
        self.query = rank4(query, self.lead)
        self.key = rank4(key, key_lead)
        self.value = rank4(value, key_lead)
        self.batches, self.heads = self.query.shape[:2]
        self.spans = np.zeros((self.batches, 7), np.int64)
        self.spans[:, 1] = self.num_queries
        self.spans[:, 3] = self.num_keys

    @property
    def default_scale(self) -> float:
        return 1.0 / math.sqrt(self.query_dim)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (*self.lead, self.num_queries, self.value_dim)

    @property
    def weights_shape(self) -> tuple[int, ...]:
        return (*self.lead, self.num_queries, self.num_keys)

    def set_sequences(self, lengths_q: NDArray[np.int64], lengths_k: NDArray[np.int64]) -> None:
        """Set the lengths of the concatenated sequences."""
        if len(lengths_q) != len(lengths_k):
            raise ValueError(
                f"cu_seqlens_q has {len(lengths_q)} sequences, cu_seqlens_k has {len(lengths_k)}"
            )
        self.spans = np.zeros((len(lengths_q), 7), np.int64)
        self.spans[:, 0] = np.cumsum(lengths_q) - lengths_q
        self.spans[:, 1] = lengths_q
        self.spans[:, 2] = np.cumsum(lengths_k) - lengths_k
        self.spans[:, 3] = lengths_k

    def set_window(self, window: Window) -> None:
        spans = self.spans
        shift = spans[:, 3] - spans[:, 1] if window.lower_right else 0
        spans[:, 4] = -UNBOUNDED if window.left is None else shift - window.left
        spans[:, 5] = UNBOUNDED if window.right is None else shift + window.right

    def set_mask(self, name: str, attn_mask: Any) -> None:
        if attn_mask is None:
            return
        mask = mask_of(name, attn_mask)
        kind = "mask" if mask.dtype == np.bool_ else "bias"
        mask = mask[None] if mask.ndim == 1 else mask
        target = "key" if mask.ndim >= 2 and mask.shape[-2] == 1 else "pair"
        rows = 1 if target == "key" else self.num_queries
        try:
            if mask.ndim < 2 or mask.shape[-1] != self.num_keys:
                mask = np.broadcast_to(mask, (*mask.shape[:-2], rows, self.num_keys))
            full = np.broadcast_to(mask, (*self.lead, rows, self.num_keys))
        except ValueError:
            raise ValueError(
                f"{name} of shape {mask.shape} does not broadcast to {self.weights_shape}"
            ) from None
        term = rank4(full, self.lead)
        earlier = self.options.get(f"{target}_{kind}")
        self.options[f"{target}_{kind}"] = term if earlier is None else earlier + term

    def set_relative_bias(self, relative_bias: Any) -> None:
        if relative_bias is None:
            return
        bias = float32("relative_bias", relative_bias)
        distances = max(self.num_queries + self.num_keys - 1, 0)
        if bias.shape not in ((distances,), (self.heads, distances)):
            raise ValueError(
                f"relative_bias must have shape ({distances},) or ({self.heads}, {distances}), "
                f"got {bias.shape}"
            )
        self.set_distances(bias, max(self.num_queries - 1, 0))

    def set_distances(self, bias: Float32, zero: int) -> None:
        """Set a bias (distances,) or (heads, distances); the distance at index `zero` is 0."""
        bias = with_dense_rows(bias if bias.ndim == 2 else bias[None])
        self.options["relative_bias"] = bias[None, :, None, :]
        self.options["relative_zero"] = zero

    def set_alibi(self, alibi_slopes: Any) -> None:
        """Add -slope |distance|; the last query and the last key are at distance 0."""
        if alibi_slopes is None:
            return
        slopes = float32("alibi_slopes", alibi_slopes, ndim=1)
        if slopes.shape != (self.heads,):
            raise ValueError(f"alibi_slopes must have shape ({self.heads},), got {slopes.shape}")
        reach = int(self.spans[:, [1, 3]].max(initial=1))
        distances = np.abs(np.arange(-reach, reach + 1, dtype=np.float32))
        self.spans[:, 6] = self.spans[:, 3] - self.spans[:, 1]
        self.set_distances(-slopes[:, None] * distances, reach)

    def set_softcap(self, softcap: float | None) -> None:
        if softcap is None:
            return
        if not softcap > 0:
            raise ValueError(f"softcap must be positive, got {softcap}")
        self.options["softcap"] = float(softcap)

    def set_masked_row(self, masked_row: str) -> None:
        nan = one_of("masked_row", masked_row, MASKED_ROWS) == "nan"
        self.options["masked_value"] = float("nan") if nan else 0.0

    def set_scale(self, scale: Any, factor: float = 1.0) -> None:
        """Set the scale, a number or one per head; the kernel's scale is factor times it."""
        if isinstance(scale, float):
            self.options["softmax_scale"] = factor * scale
            return
        value = np.asarray(scale, np.float32) * np.float32(factor)
        if value.ndim == 0:
            self.options["softmax_scale"] = float(value)
        elif value.shape == (self.heads,):
            self.options["head_scales"] = value
        else:
            raise ValueError(
                f"scale must be a number or have shape ({self.heads},), got {value.shape}"
            )

    @property
    def rows_shape(self) -> tuple[int, int, int, int]:
        return self.batches, self.heads, self.query.shape[2], self.value_dim

    def run(
        self, out: Float32, weights: Float32 | None = None, stage: str | None = "softmax"
    ) -> None:
        """Write out, of rows_shape, and weights."""
        if out.size == 0 and (weights is None or weights.size == 0):
            return
        if weights is not None:
            self.options["weights"] = weights.reshape(*self.rows_shape[:3], weights.shape[-1])
            self.options["weights_stage"] = stage
        _core.attention(self.query, self.key, self.value, out, self.spans, **self.options)


def rank4(array: NDArray[Any], lead: tuple[int, ...]) -> NDArray[Any]:
    """The array broadcast to the leading shape, as (batch, heads, rows, cols) with dense rows."""
    if array.shape[:-2] != lead:
        array = np.broadcast_to(array, (*lead, *array.shape[-2:]))
    return as_rank4(array)


def leading_shapes(
    names: tuple[str, str, str], query: Float32, key: Float32, value: Float32, enable_gqa: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The leading shape of query and output, and that of key and value."""
    leads = [array.shape[:-2] for array in (query, key, value)]
    if leads[0] == leads[1] == leads[2]:
        return leads[0], leads[0]
    try:
        if enable_gqa and all(leads):
            heads = [lead[-1] for lead in leads]
            if heads[1] == heads[2] and heads[1] > 0 and heads[0] % heads[1] == 0:
                batch = np.broadcast_shapes(*(lead[:-1] for lead in leads))
                return (*batch, heads[0]), (*batch, heads[1])
        lead = np.broadcast_shapes(*leads)
    except ValueError:
        lead = None
    if lead is None or (enable_gqa and all(leads) and lead[-1:] != leads[0][-1:]):
        shapes = ", ".join(
            f"{n} {a.shape}" for n, a in zip(names, (query, key, value), strict=True)
        )
        raise ValueError(f"leading dimensions do not match: {shapes}, enable_gqa={enable_gqa}")
    return lead, lead
