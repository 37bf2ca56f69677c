# SPDX-License-Identifier: Apache-2.0
"""The query, key and value projections of an attention: their rows in its parameters, and how they are
packed. Projections with the same input are joined to one matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from simdformer import _core
from simdformer.checkpoint.int8_matrix import Int8Matrix
from simdformer.nn.heads import Heads
from simdformer.nn.parameters import (
    Float32,
    Matrix,
    Value,
    compute_type_of,
    float32_of,
    join,
    kept_value,
    leave_to,
    to_pack,
    value_of,
)

# The names of an attention's weights: joined, or separate if keys or values have other sizes.
JOINED = "in_proj_weight"
APART = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
BIAS = "in_proj_bias"

# The groups of queries (0), keys (1) and values (2) that have the same input.
FORMS = {
    "apart": ((0,), (1,), (2,)),
    "cross": ((0,), (1, 2)),
    "self": ((0, 1, 2),),
}
Groups: TypeAlias = list[list[_core.Linear]]


class Packed(NamedTuple):
    """groups: for each group of projections with the same input, its layers, side by side. linears: for each
    parameter, the layers that together contain its rows."""

    groups: Groups
    linears: Mapping[str, tuple[_core.Linear, ...]]


class Projections:
    """The current projections of one attention.

    places: the values of the parameters' places, by name. tie_qk: keys use the projection of queries.
    """

    def __init__(self, places: Mapping[str, Any], heads: Heads, *, tie_qk: bool) -> None:
        self.tie_qk = tie_qk
        self._places = places
        self._joined = places.get(JOINED) is not None
        self._cuts = (0, heads.query_dim, heads.query_dim + heads.key_dim, None)

    def inputs(self) -> tuple[object, ...]:
        """The objects from which the projections are made."""
        places = (self._places.get(name) for name in (JOINED, *APART, BIAS))
        return (*places, *self._cuts, self.tie_qk)

    def query(self) -> Matrix:
        """The projection of queries in float32."""
        return self._in_float32(0)

    def key(self) -> Matrix:
        """The projection of keys in float32."""
        return self._in_float32(0 if self.tie_qk else 1)

    def pack(self, form: str, bilinear: Float32 | None = None) -> Packed:
        """Pack all projections in the groups of FORMS. Afterwards only the packed form has their numbers,
        except those that are kept.

        bilinear: matrices to multiply into the query projection.
        """
        parts = list(self._parts(to_pack))
        folded = bilinear is not None and not is_identity(bilinear)
        if bilinear is not None and folded:
            parts[0] = self._with_bilinear(parts[0], bilinear)
        members = FORMS["apart" if self.tie_qk else form]
        groups = [_pack_group([parts[i] for i in group]) for group in members]
        linears = self._linears(groups, members, [part.weight.shape[0] for part in parts])
        for name, (packed, rows) in linears.items():
            if not folded:
                leave_to(self._places[name], packed, rows)
        if self.tie_qk:  # the rows for keys are packed but not used
            (query,), _, (value,) = groups
            groups = [[query, query, value]] if form == "self" else [[query], [query], [value]]
        return Packed(groups, {name: packed for name, (packed, _) in linears.items()})

    def _linears(
        self, groups: Groups, members: tuple[tuple[int, ...], ...], sizes: list[int]
    ) -> dict[str, tuple[tuple[_core.Linear, ...], Any]]:
        """For each parameter, the layers that contain its rows, and the index of these rows; None for all."""
        if self._joined:
            return {JOINED: (tuple(linear for group in groups for linear in group), None)}
        result: dict[str, tuple[tuple[_core.Linear, ...], Any]] = {}
        for group, indices in zip(groups, members, strict=True):
            begin = 0
            for place, i in enumerate(indices):
                if len(group) == len(indices):
                    result[APART[i]] = ((group[place],), None)
                else:
                    result[APART[i]] = ((group[0],), slice(begin, begin + sizes[i]))
                begin += sizes[i]
        return result

    def _with_bilinear(self, query: Matrix, bilinear: Float32) -> Matrix:
        if query.compute_type == "int8":
            raise ValueError("bilinear_weight of an attention in int8 must be identity matrices")
        for index in range(3):
            kept_value(self._place(index))  # kept, because the packed form has other numbers
        return fold_bilinear(bilinear, query)

    def folded(self, bilinear: Float32) -> dict[str, Float32]:
        """The new values of parameters after multiplying the matrices of a bilinear score into the query
        projection."""
        weight, bias, _ = fold_bilinear(bilinear, self.query())
        name = JOINED if self._joined else APART[0]
        new = {name: np.concatenate([weight, value_of(self._places[name])[len(weight) :]])}
        if bias is not None:
            new[BIAS] = np.concatenate([bias, kept_value(self._places[BIAS])[len(bias) :]])
        return new

    def _in_float32(self, index: int) -> Matrix:
        part = list(self._parts(value_of))[index]
        return part._replace(weight=float32_of(part.weight))

    def _parts(self, read: Callable[[Any], Value]) -> Iterator[Matrix]:
        """The matrices of queries, keys and values."""
        bias = kept_value(self._places[BIAS])
        joined = read(self._places[JOINED]) if self._joined else None
        for index in range(3):
            rows = slice(self._cuts[index], self._cuts[index + 1])
            cut = None if bias is None else bias[rows]
            place = self._place(index)
            if joined is None:
                weight = read(place)
            else:
                weight = joined.rows(rows) if isinstance(joined, Int8Matrix) else joined[rows]
            yield Matrix(weight, cut, compute_type_of(place))

    def _place(self, index: int) -> Any:
        return self._places[JOINED if self._joined else APART[index]]


def _pack_group(parts: list[Matrix]) -> list[_core.Linear]:
    joined = join(parts)
    return [part.pack() for part in parts] if joined is None else [joined.pack()]


def is_identity(bilinear: Float32) -> bool:
    """Whether the matrices of a bilinear score are identities."""
    return bool((bilinear == np.eye(bilinear.shape[-1], dtype=np.float32)).all())


def fold_bilinear(bilinear: Float32, query: Matrix) -> Matrix:
    """Multiply W (heads, head_dim, head_dim) into the query projection, in float64: q^T W k = (W^T q)^T k."""
    w = bilinear.astype(np.float64)
    count, head_dim = w.shape[:2]
    own = float32_of(query.weight)
    rows = own.astype(np.float64).reshape(count, head_dim, -1)
    folded = np.einsum("hij,hie->hje", w, rows).reshape(own.shape).astype(np.float32)
    if query.bias is None:
        return query._replace(weight=folded)
    bias = query.bias.astype(np.float64).reshape(count, head_dim)
    cut = np.einsum("hij,hi->hj", w, bias).reshape(-1).astype(np.float32)
    return query._replace(weight=folded, bias=cut)
