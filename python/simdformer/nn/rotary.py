# SPDX-License-Identifier: Apache-2.0
"""Positions that rotate queries and keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from simdformer import _core
from simdformer.functional import rotary_frequencies
from simdformer.functional.arrays import positive_int
from simdformer.functional.rope_scaling import LENGTH
from simdformer.nn.heads import Heads
from simdformer.nn.position import Position
from simdformer.nn.projections import Projections


class _Scaling(Mapping[str, Any]):
    """A mapping that cannot be changed, so that tables made from it stay valid."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(self._values)


class RotaryEmbedding(Position):
    """Rotate queries and keys by their positions.

    Parameters
    ----------
    dim
        How many features of each head are rotated.
    base, interleaved, scaling
        See `simdformer.functional.rotary_embedding`. With "dynamic" and "longrope" the frequencies
        depend on the longest sequence of the call, as in transformers; cached keys keep their rotation.
    max_positions
        The longest sequence, for which tables are made once. None: any length. Must be None for "dynamic"
        and "longrope".

    References
    ----------
    Su et al. 2021, RoFormer.

    Examples
    --------
    >>> from simdformer import nn
    >>> nn.MultiheadAttention(8, 2, position=nn.RotaryEmbedding(4)).position.dim
    4
    """

    def __init__(
        self,
        dim: int,
        *,
        base: float = 10000.0,
        interleaved: bool = False,
        scaling: Mapping[str, Any] | None = None,
        max_positions: int | None = None,
    ) -> None:
        super().__init__(max_positions)
        self.dim = positive_int("dim", dim)
        if dim % 2:
            raise ValueError(f"dim must be even, got {dim}")
        self.base = base
        self.interleaved = interleaved
        self.scaling = scaling
        rotary_frequencies(dim, base=base, scaling=scaling, seq_len=1)

    @property
    def scaling(self) -> Mapping[str, Any] | None:
        """The scaling of the frequencies. To change it, set another mapping."""
        return self._scaling

    @scaling.setter
    def scaling(self, value: Mapping[str, Any] | None) -> None:
        self._scaling = None if value is None else _Scaling(value)

    def check_heads(self, heads: Heads) -> None:
        """ValueError if a head has fewer features than are rotated."""
        if self.dim > heads.head_dim:
            raise ValueError(
                f"RotaryEmbedding rotates {self.dim} features, heads have {heads.head_dim}"
            )
        if self._kind in ("dynamic", "longrope") and self.max_positions is not None:
            raise ValueError(
                f"max_positions must be None with rope_type {self._kind!r}, which follows each call's"
                " longest sequence"
            )

    @property
    def _kind(self) -> Any:
        scaling = self.scaling or {}
        return scaling.get("rope_type", scaling.get("type"))

    def size_for(self, length: int) -> int:
        """The size of the tables. If frequencies depend on the length, tables are not made for longer ones."""
        if self._kind == "dynamic":
            return length
        size, first = super().size_for(length), self._short_length
        return size if first is None or length > first else min(size, first)

    def serves(self, size: int, length: int) -> bool:
        """Whether tables for `size` positions are valid for this length.

        With "dynamic" scaling they are valid only for their own length, with "longrope" on one side of the
        original length.
        """
        if self._kind == "dynamic":
            return size == length
        first = self._short_length
        return size >= length and (first is None or (size > first) == (length > first))

    @property
    def _short_length(self) -> int | None:
        """The maximum length for the short factors of "longrope"."""
        if self._kind != "longrope":
            return None
        return int((self.scaling or {})[LENGTH])

    def _inputs(self, heads: Heads, projections: Projections) -> tuple[object, ...]:  # noqa: ARG002
        return ()

    def _tables(
        self,
        heads: Heads,  # noqa: ARG002
        projections: Projections,  # noqa: ARG002
        size: int,
    ) -> dict[str, Any]:
        inv_freq, factor = rotary_frequencies(
            self.dim, base=self.base, scaling=self.scaling, seq_len=size
        )
        cos = np.empty((size, len(inv_freq)), np.float32)
        sin = np.empty_like(cos)
        _core.sin_cos(np.arange(size, dtype=np.float64), inv_freq, factor, sin, cos)
        return {"cos": cos, "sin": sin, "interleaved": self.interleaved}
