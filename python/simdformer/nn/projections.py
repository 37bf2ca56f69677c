# SPDX-License-Identifier: Apache-2.0
"""The query, key and value projections of an attention: which rows of its parameters they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from simdformer.nn.heads import Heads
from simdformer.nn.module import Float32

# What an attention calls its weights: joined, or apart if keys or values have other sizes.
JOINED = "in_proj_weight"
APART = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
BIAS = "in_proj_bias"


class Projection(NamedTuple):
    """weight: (out_features, in_features). bias: (out_features), None for none."""

    weight: Float32
    bias: Float32 | None


class Projections:
    """The projections of one attention, of its parameters as they are at the time."""

    def __init__(self, parameters: Mapping[str, Any], heads: Heads, *, tie_qk: bool) -> None:
        self._parameters = parameters
        self._tie_qk = tie_qk
        self._cuts = (0, heads.query_dim, heads.query_dim + heads.key_dim, None)

    def inputs(self) -> tuple[object, ...]:
        """The objects that all of them are made of."""
        names = (JOINED, *APART, BIAS)
        return (*(self._parameters.get(name) for name in names), *self._cuts, self._tie_qk)

    def query(self) -> Projection:
        """That of the queries."""
        return self._part(0)

    def key(self) -> Projection:
        """That of the keys."""
        return self._part(0 if self._tie_qk else 1)

    def value(self) -> Projection:
        """That of the values."""
        return self._part(2)

    def _part(self, index: int) -> Projection:
        rows = slice(self._cuts[index], self._cuts[index + 1])
        if JOINED in self._parameters:
            weight = self._parameters[JOINED][rows]
        else:
            weight = self._parameters[APART[index]]
        bias = self._parameters[BIAS]
        return Projection(np.ascontiguousarray(weight), None if bias is None else bias[rows])


def fold_bilinear(weight: Float32, query: Projection) -> Projection:
    """q^T W k = (W^T q)^T k: W (heads, head_dim, head_dim) goes into the query projection, once, in
    float64.
    """
    w = weight.astype(np.float64)
    count, head_dim = w.shape[:2]
    rows = query.weight.astype(np.float64).reshape(count, head_dim, -1)
    folded = np.einsum("hij,hie->hje", w, rows).reshape(query.weight.shape).astype(np.float32)
    if query.bias is None:
        return Projection(folded, None)
    bias = query.bias.astype(np.float64).reshape(count, head_dim)
    return Projection(folded, np.einsum("hij,hi->hj", w, bias).reshape(-1).astype(np.float32))
