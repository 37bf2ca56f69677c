# SPDX-License-Identifier: Apache-2.0
"""The query, key and value projections of an attention: which rows of its parameters they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from simdformer import _core
from simdformer.checkpoint.precision import Int8Matrix
from simdformer.nn.heads import Heads
from simdformer.nn.parameters import (
    Float32,
    Value,
    compute_type_of,
    float32_of,
    kept_value,
    leave_to,
    pack_matrix,
    to_pack,
    value_of,
)

# What an attention calls its weights: joined, or apart if keys or values have other sizes.
JOINED = "in_proj_weight"
APART = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
BIAS = "in_proj_bias"


class Projection(NamedTuple):
    """weight: (out_features, in_features). bias: (out_features), None for none."""

    weight: Value
    bias: Float32 | None


class Projections:
    """The projections of one attention, of its parameters as they are at the time.

    places: what the parameters' places hold, by name.
    """

    def __init__(self, places: Mapping[str, Any], heads: Heads, *, tie_qk: bool) -> None:
        self._places = places
        self.tie_qk = tie_qk
        self._cuts = (0, heads.query_dim, heads.query_dim + heads.key_dim, None)

    def inputs(self) -> tuple[object, ...]:
        """The objects that all of them are made of."""
        return (*(self._places.get(name) for name in (JOINED, *APART, BIAS)), *self._cuts)

    def parts(self) -> Iterator[Projection]:
        """Of the rows for queries, keys and values, one after another, to be packed."""
        joined = self._joined(to_pack)
        for index in range(3):
            yield self._part(index, to_pack, joined)

    def pack(self, bilinear: Float32 | None = None) -> tuple[_core.Linear, ...]:
        """Those of parts(), each in its place's compute type. The numbers are there alone from then
        on, if they were not at hand. bilinear: what goes into the queries' projection.
        """
        if bilinear is not None and not is_identity(bilinear):
            return self._pack_folded(bilinear)
        linears = tuple(
            pack_matrix(part.weight, part.bias, compute_type_of(self._place(i)))
            for i, part in enumerate(self.parts())
        )
        for name, packed in self.packed_in(linears).items():
            leave_to(self._places[name], packed)
        return linears

    def _pack_folded(self, bilinear: Float32) -> tuple[_core.Linear, ...]:
        if compute_type_of(self._place(0)) == "int8":
            raise ValueError("bilinear_weight of an attention in int8 must be identity matrices")
        for index in range(3):
            kept_value(self._place(index))  # the packed form has them no more
        query, *others = self.parts()
        return tuple(
            pack_matrix(part.weight, part.bias, compute_type_of(self._place(i)))
            for i, part in enumerate((fold_bilinear(bilinear, query), *others))
        )

    def folded(self, bilinear: Float32) -> dict[str, Float32]:
        """What parameters become when a bilinear score's matrices go into the queries' projection."""
        weight, bias = fold_bilinear(bilinear, self.query())
        name = JOINED if self._places.get(JOINED) is not None else APART[0]
        new = {name: np.concatenate([weight, value_of(self._places[name])[len(weight) :]])}
        if bias is not None:
            new[BIAS] = np.concatenate([bias, kept_value(self._places[BIAS])[len(bias) :]])
        return new

    def packed_in(self, linears: tuple[_core.Linear, ...]) -> dict[str, tuple[_core.Linear, ...]]:
        """The names of the parameters, with the packed parts that they are."""
        if self._places.get(JOINED) is not None:
            return {JOINED: linears}
        return {name: (linear,) for name, linear in zip(APART, linears, strict=True)}

    def _place(self, index: int) -> Any:
        joined = self._places.get(JOINED)
        return self._places[APART[index]] if joined is None else joined

    def query(self) -> Projection:
        """That of the queries, in float32."""
        return self._in_float32(0)

    def key(self) -> Projection:
        """That of the keys, in float32."""
        return self._in_float32(0 if self.tie_qk else 1)

    def _in_float32(self, index: int) -> Projection:
        weight, bias = self._part(index, value_of, self._joined(value_of))
        return Projection(float32_of(weight), bias)

    def _joined(self, read: Callable[[Any], Value]) -> Value | None:
        joined = self._places.get(JOINED)
        return None if joined is None else read(joined)

    def _part(self, index: int, read: Callable[[Any], Value], joined: Value | None) -> Projection:
        """joined: all of them, which are read once."""
        rows = slice(self._cuts[index], self._cuts[index + 1])
        bias = kept_value(self._places[BIAS])
        cut = None if bias is None else bias[rows]
        if joined is None:
            return Projection(read(self._places[APART[index]]), cut)
        part = joined.rows(rows) if isinstance(joined, Int8Matrix) else joined[rows]
        return Projection(part, cut)


def is_identity(bilinear: Float32) -> bool:
    """Whether a bilinear score is a product of queries and keys as they are."""
    return bool((bilinear == np.eye(bilinear.shape[-1], dtype=np.float32)).all())


def fold_bilinear(weight: Float32, query: Projection) -> Projection:
    """q^T W k = (W^T q)^T k: W (heads, head_dim, head_dim) goes into the query projection, once, in
    float64.
    """
    w = weight.astype(np.float64)
    count, head_dim = w.shape[:2]
    own = float32_of(query.weight)
    rows = own.astype(np.float64).reshape(count, head_dim, -1)
    folded = np.einsum("hij,hie->hje", w, rows).reshape(own.shape).astype(np.float32)
    if query.bias is None:
        return Projection(folded, None)
    bias = query.bias.astype(np.float64).reshape(count, head_dim)
    return Projection(folded, np.einsum("hij,hi->hj", w, bias).reshape(-1).astype(np.float32))
