# SPDX-License-Identifier: Apache-2.0
"""The parts of an attention that do not depend on a call: options, positions, packed forms."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from simdformer import _core
from simdformer.nn import initialization as init
from simdformer.nn import options as given
from simdformer.nn import packing
from simdformer.nn.compute_types import Sample, sample_offsets, sample_rows
from simdformer.nn.heads import Heads
from simdformer.nn.linear import Linear
from simdformer.nn.module import Float32, Module, PackedMatrix
from simdformer.nn.parameters import Empty
from simdformer.nn.position import Position
from simdformer.nn.projections import APART, JOINED, Packed, Projections, is_identity


class PackedAttention(Module):
    """The packed forms of a MultiheadAttention. The attributes are documented there."""

    matrix_names = (JOINED, *APART)

    embed_dim: int
    kdim: int
    batch_first: bool
    vdim: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    score: str
    scale: float | None
    softcap: float
    tie_qk: bool
    masked_row: str
    add_zero_attn: bool
    q_norm: Module | None
    k_norm: Module | None
    position: Position | None
    out_proj: Linear
    _num_built: int
    _kept_heads: tuple[int, ...]

    @property
    def window_size(self) -> tuple[int, int]:
        """(left, right): the window of keys that a query sees. To change it, set another pair."""
        pair: tuple[int, int] = self._window_size
        return pair

    @window_size.setter
    def window_size(self, value: tuple[int, int]) -> None:
        self._window_size: Any = tuple(value)

    @property
    def heads(self) -> Heads:
        """The current heads as one value."""
        return Heads(
            embed_dim=self.embed_dim,
            kdim=self.kdim,
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,
            head_dim=self.head_dim,
            score=self.score,
            num_built=self._num_built,
            kept=self._kept_heads,
        )

    def _check_options(self) -> None:
        """ValueError for invalid options and combinations."""
        heads = self.heads
        given.check_heads(heads, tie_qk=self.tie_qk)
        given.check_rows(self.masked_row, self.window_size)
        if self.position is not None:
            self.position.check_heads(heads)
        if (self.q_norm is None) != (self.k_norm is None):
            raise ValueError("q_norm and k_norm must both be norms or both be None")
        for norm in (self.q_norm, self.k_norm):
            if norm is not None:
                given.check_qk_norm(heads, norm)
        if self.has("logit_scale"):
            given.check_logit_scale(heads, self.scale)

    @property
    def num_extra_keys(self) -> int:
        """Keys that add_bias_kv and add_zero_attn append to each sequence."""
        return int(self.has("bias_k")) + int(self.add_zero_attn)

    def _projections(self) -> Projections:
        return Projections(self._parameters, self.heads, tie_qk=self.tie_qk)

    def _pack(self) -> _core.MultiheadAttention:
        return self._pack_as("apart")

    def packed_as(self, form: str) -> _core.MultiheadAttention:
        """The packed form for a layer. Projections with the same input are joined to one matrix.

        form: "self" if queries, keys and values have the same input, "cross" if keys and values have.
        """
        native: _core.MultiheadAttention = self._packed(form, lambda: self._pack_as(form))
        return native

    def _pack_as(self, form: str) -> _core.MultiheadAttention:
        self._check_options()
        groups = self._packed_projections(form).groups
        return _core.MultiheadAttention(
            groups, self.out_proj.native(), **self._native_options(), position=self._own_positions()
        )

    def _packed_projections(self, form: str) -> Packed:
        """The packed projections of queries, keys and values. They are kept when other options change."""
        parts = self._projections()
        bilinear: Float32 | None = None
        if self.score == "bilinear":
            if not self.has("bilinear_weight"):
                raise ValueError("score 'bilinear' needs bilinear_weight, which does not exist")
            bilinear = self._value("bilinear_weight")
        inputs = (*parts.inputs(), bilinear)
        return self._kept.get(f"{form} rows", inputs, lambda: parts.pack(form, bilinear))

    def set_apart(self) -> None:
        """Replace in_proj_weight by q_proj_weight, k_proj_weight and v_proj_weight without values.

        This is for loading matrices with different compute types, or different outliers in int8.
        """
        rows = (self.heads.query_dim, self.heads.key_dim, self.heads.key_dim)
        with packing.lock():
            self._register(JOINED, None)
            for name, size in zip(APART, rows, strict=True):
                self._register(name, Empty((size, self.embed_dim)))

    def packed_matrices(self, form: str = "apart") -> Iterator[PackedMatrix]:
        """The projections packed for a form, and out_proj."""
        for name, linears in self._packed_projections(form).linears.items():
            yield PackedMatrix(self, name, linears)
        yield from self.out_proj.packed_matrices()

    def set_type(self, name: str, compute_type: str, outliers: Any = None) -> None:
        """Change the compute type of a projection.

        The matrices of a bilinear score are first multiplied into the query projection.
        """
        bilinear = self._value("bilinear_weight") if self.score == "bilinear" else None
        if bilinear is not None and not is_identity(bilinear):
            with packing.lock():
                for key, value in self._projections().folded(bilinear).items():
                    setattr(self, key, value)
                self._register("bilinear_weight", init.identities(*bilinear.shape[:2]))
        super().set_type(name, compute_type, outliers)

    def sample(self) -> Sample:
        """The default sample for quantization."""
        cu = sample_offsets(self.max_positions)
        sizes = (self.embed_dim, self.kdim, self.vdim)
        rows = [sample_rows(size, cu, seed) for seed, size in enumerate(sizes)]
        own = self.kdim == self.vdim == self.embed_dim
        return Sample((rows[0],) * 3 if own else tuple(rows), {"cu_seqlens": cu})

    def _call_with(self, sample: Sample) -> None:
        args = sample.args * 3 if len(sample.args) == 1 else sample.args
        super()._call_with(Sample(args, sample.options))

    def _native_options(self) -> dict[str, Any]:
        """Keyword arguments of _core.MultiheadAttention."""
        terms = 1 if self.position is None else self.position.terms
        options: dict[str, Any] = {
            "num_heads": self.num_heads,
            "num_kv_heads": self.num_kv_heads,
            "softcap": self.softcap,
            "masked_value": float("nan") if self.masked_row == "nan" else 0.0,
            "normalize": self.score == "cosine",
            "key_norm_bias": self.score == "euclidean",
            "add_zero_attn": self.add_zero_attn,
            "window": self.window_size,
            **given.native_scales(self.heads, self.scale, self.logit_scale, terms),
        }
        if self.q_norm is not None and self.k_norm is not None:
            options["query_norm"] = self.q_norm.native()
            options["key_norm"] = self.k_norm.native()
        if self.score == "additive":
            options.update(score="additive", additive_weight=self.additive_weight)
        if self.bias_k is not None:
            options.update(bias_k=self.bias_k.reshape(-1), bias_v=self.bias_v.reshape(-1))
        return options

    @property
    def max_positions(self) -> int | None:
        """The maximum length of a sequence for its positions; None if there is none."""
        return None if self.position is None else self.position.max_positions

    def _own_positions(self) -> _core.Positions | None:
        """The positions, if a maximum length is known, so that they are made once."""
        position = self.position
        if position is None or position.max_positions is None:
            return None
        return position.positions(self.heads, self._projections(), position.max_positions)

    def positions(self, length: int) -> _core.Positions | None:
        """The positions for a call with positions below `length`; None if the packed form contains them."""
        position = self.position
        if position is None or position.max_positions is not None:
            return None
        length = max(length, 1)
        native: _core.Positions
        mark, size, native = self._checked.get("positions", (None, 0, None))
        if not position.serves(size, length):
            size = position.size_for(length)
        elif mark is packing.mark():
            return native
        mark = packing.mark()
        native = position.positions(self.heads, self._projections(), size)
        self._checked["positions"] = (mark, size, native)
        return native
