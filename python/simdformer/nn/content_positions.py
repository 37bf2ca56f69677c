# SPDX-License-Identifier: Apache-2.0
"""Relative positions that depend on content: embeddings of distances combined with queries and keys."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from simdformer import _core
from simdformer.functional.arrays import positive_int
from simdformer.functional.positions import sinusoidal_position_encoding
from simdformer.functional.relative import deberta_bucket
from simdformer.nn import initialization as init
from simdformer.nn.heads import Heads
from simdformer.nn.linear import Linear
from simdformer.nn.module import Float32
from simdformer.nn.norms import LayerNorm
from simdformer.nn.parameters import float32_of, shape_of
from simdformer.nn.position import Position, check_embed_dim, check_num_heads
from simdformer.nn.projections import Projections


class _ContentPosition(Position):
    """Positions with scores that are products of queries, keys and embeddings of distances."""

    def check_heads(self, heads: Heads) -> None:
        """ValueError unless the score is a product of queries and keys."""
        if heads.score not in ("scaled_dot", "dot"):
            raise ValueError(
                f"{type(self).__name__} needs score 'scaled_dot' or 'dot', got {heads.score!r}"
            )


class ShawRelativePosition(_ContentPosition):
    """Learned embeddings of clipped distances, added to keys and values.

    The score is scale q_i . (k_j + keys[c]), the output sum_j w_ij (v_j + values[c]), with
    c = clip(j - i, -max_left, max_right) + max_left.

    Parameters
    ----------
    head_dim
        Features of a head.
    max_left, max_right
        The largest distances before and after the query; max_right is max_left by default.
    values
        False: add them to keys only, as wav2vec2-bert does.

    Attributes
    ----------
    keys, values
        float32 (max_left + max_right + 1, head_dim), shared by all heads.

    References
    ----------
    Shaw, Uszkoreit and Vaswani 2018, Self-Attention with Relative Position Representations.

    Examples
    --------
    >>> from simdformer import nn
    >>> attention = nn.MultiheadAttention(8, 2, position=nn.ShawRelativePosition(4, max_left=3))
    >>> attention.position.keys.shape
    (7, 4)
    """

    def __init__(
        self, head_dim: int, max_left: int, max_right: int | None = None, *, values: bool = True
    ) -> None:
        super().__init__()
        self.head_dim = positive_int("head_dim", head_dim)
        self.max_left = positive_int("max_left", max_left)
        self.max_right = max_left if max_right is None else positive_int("max_right", max_right)
        rows = self.max_left + self.max_right + 1
        self._register("keys", init.xavier_uniform(rows, head_dim))
        self._register("values", init.xavier_uniform(rows, head_dim) if values else None)

    def check_heads(self, heads: Heads) -> None:
        """ValueError if head_dim or the score does not match."""
        super().check_heads(heads)
        if heads.head_dim != self.head_dim:
            raise ValueError(
                f"ShawRelativePosition has head_dim {self.head_dim}, the attention has"
                f" {heads.head_dim}"
            )

    def _tables(
        self,
        heads: Heads,  # noqa: ARG002
        projections: Projections,  # noqa: ARG002
        size: int,
    ) -> dict[str, Any]:
        clipped = np.clip(_distances(size), -self.max_left, self.max_right)
        values = None if self.values is None else np.ascontiguousarray(self.values.T)[None]
        return _embeddings(
            clipped + self.max_left, size, query_table=self.keys[None], value_table=values
        )


class TransformerXLRelativePosition(_ContentPosition):
    """Projected sinusoids of distances and two biases of the queries.

    The score is scale ((q_i + content_bias) . k_j + (q_i + position_bias) . r), where r is the head's
    part of projection(PE(i - j)). PE is the sinusoidal encoding with all sines before all cosines.

    Parameters
    ----------
    embed_dim, num_heads
        Sizes of the attention.
    base
        Base of the frequencies.

    Attributes
    ----------
    content_bias, position_bias
        float32 (num_heads, head_dim), u and v of the paper.
    projection
        Linear with weight (embed_dim, embed_dim).

    References
    ----------
    Dai et al. 2019, Transformer-XL; Yang et al. 2019, XLNet.

    Examples
    --------
    >>> from simdformer import nn
    >>> attention = nn.MultiheadAttention(8, 2, position=nn.TransformerXLRelativePosition(8, 2))
    >>> attention.position.content_bias.shape
    (2, 4)
    """

    def __init__(self, embed_dim: int, num_heads: int, *, base: float = 10000.0) -> None:
        super().__init__()
        self.embed_dim = positive_int("embed_dim", embed_dim)
        self.num_heads = positive_int("num_heads", num_heads)
        self.base = base
        head_dim = embed_dim // num_heads
        self._register("content_bias", init.normal(0.02, num_heads, head_dim))
        self._register("position_bias", init.normal(0.02, num_heads, head_dim))
        self.projection = Linear(embed_dim, embed_dim, bias=False)

    def check_heads(self, heads: Heads) -> None:
        """ValueError if sizes or the score do not match."""
        super().check_heads(heads)
        check_num_heads(self, self.num_heads, heads)
        check_embed_dim(self, self.embed_dim, heads)

    def _tables(
        self,
        heads: Heads,
        projections: Projections,  # noqa: ARG002
        size: int,
    ) -> dict[str, Any]:
        distances = _distances(size)
        encoded = sinusoidal_position_encoding(
            -distances, self.embed_dim, base=self.base, layout="concat"
        )
        kept = list(heads.kept)
        return _embeddings(
            distances + size - 1,
            size,
            query_table=_per_head(encoded, self.projection.weight, None, self.num_heads)[kept],
            content_bias=np.ascontiguousarray(self.content_bias[kept]),
            position_bias=np.ascontiguousarray(self.position_bias[kept]),
        )


# The names of the table's own projections, used unless share_att_key, and the terms that need them.
_OWN = {"pos_key_proj": "c2p", "pos_query_proj": "p2c"}


class DisentangledRelativePosition(_ContentPosition):
    """Content-to-position and position-to-content scores, as in DeBERTa.

    The score is scale (q_i . k_j + q_i . K(weight[r]) + k_j . Q(weight[r])) with scale
    1 / sqrt(terms E). r is the row of the distance i - j; see
    `simdformer.functional.deberta_attention`.

    Parameters
    ----------
    embed_dim, num_heads
        Sizes of the attention.
    max_relative_positions, position_buckets
        See `simdformer.functional.deberta_attention`.
    pos_att_type
        Which terms are added: "c2p" (the second), "p2c" (the third, not possible with a cache).
    share_att_key
        K and Q are the projections of the attention, as in DeBERTa v2 and v3. Otherwise they are the
        parameters pos_key_proj and pos_query_proj.
    norm
        A LayerNorm of the table, as in DeBERTa v2, or None.
    max_positions
        The longest sequence, for which tables are made once. None: any length.

    Attributes
    ----------
    weight
        float32 (2 span, embed_dim), where span is position_buckets or max_relative_positions.

    References
    ----------
    He et al. 2021, DeBERTa.

    Examples
    --------
    >>> from simdformer import nn
    >>> position = nn.DisentangledRelativePosition(8, 2, max_relative_positions=4)
    >>> nn.MultiheadAttention(8, 2, position=position).position.weight.shape
    (8, 8)
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        max_relative_positions: int = 512,
        position_buckets: int = 0,
        pos_att_type: Collection[str] = ("c2p", "p2c"),
        share_att_key: bool = True,
        norm: LayerNorm | None = None,
        max_positions: int | None = None,
    ) -> None:
        super().__init__(max_positions)
        if not pos_att_type or not set(pos_att_type) <= {"c2p", "p2c"}:
            raise ValueError(
                f"pos_att_type must contain only 'c2p' and 'p2c', got {pos_att_type!r}"
            )
        self.embed_dim = positive_int("embed_dim", embed_dim)
        self.num_heads = positive_int("num_heads", num_heads)
        self.max_relative_positions = positive_int("max_relative_positions", max_relative_positions)
        self.position_buckets = max(position_buckets, 0)
        self.pos_att_type = tuple(pos_att_type)
        self.share_att_key = share_att_key
        self._bucket(np.zeros(1, np.int64))
        self._register("weight", init.normal(0.02, 2 * self._span, embed_dim))
        self.norm = norm
        if not share_att_key:
            for name, term in _OWN.items():
                if term in self.pos_att_type:
                    setattr(self, name, Linear(embed_dim, embed_dim))

    def check_heads(self, heads: Heads) -> None:
        """ValueError if sizes or the score do not match."""
        super().check_heads(heads)
        check_num_heads(self, self.num_heads, heads)
        check_embed_dim(self, self.embed_dim, heads)
        rows = shape_of(self._parameters["weight"])[0]
        if rows != 2 * self._span:
            raise ValueError(f"weight has {rows} rows, 2 * {self._span} are needed")
        for name, term in _OWN.items():
            if not self.share_att_key and term in self.pos_att_type and not hasattr(self, name):
                raise ValueError(f"share_att_key=False needs {name}, which does not exist")
        if self.share_att_key and heads.kdim != self.embed_dim:
            raise ValueError(f"share_att_key needs keys of embed_dim features, got {heads.kdim}")

    @property
    def _span(self) -> int:
        return self.position_buckets or self.max_relative_positions

    @property
    def terms(self) -> int:
        """The content-to-content term and those of pos_att_type."""
        return 1 + len(self.pos_att_type)

    def _inputs(self, heads: Heads, projections: Projections) -> tuple[object, ...]:
        shared = (*projections.inputs(), projections.tie_qk) if self.share_att_key else ()
        return (*heads.kept, *shared)

    def _tables(self, heads: Heads, projections: Projections, size: int) -> dict[str, Any]:
        rows = np.clip(self._bucket(-_distances(size)) + self._span, 0, 2 * self._span - 1)
        tables: dict[str, Any] = {}
        if "c2p" in self.pos_att_type:
            tables["query_table"] = self._projected(heads, projections, "key")
        if "p2c" in self.pos_att_type:
            tables["key_table"] = self._projected(heads, projections, "query")
        return _embeddings(rows, size, **tables)

    def _bucket(self, distances: Any) -> Any:
        if not self.position_buckets:
            return distances
        return deberta_bucket(distances, self.position_buckets, self.max_relative_positions)

    def _projected(self, heads: Heads, projections: Projections, kind: str) -> Float32:
        """The table projected to the heads' keys or queries, (num_heads, 2 span, head_dim)."""
        rows = self.weight if self.norm is None else self.norm(self.weight)
        if not self.share_att_key:
            own = getattr(self, f"pos_{kind}_proj")
            table = _per_head(rows, own.weight, own.bias, self.num_heads)
            return np.ascontiguousarray(table[list(heads.kept)])
        shared = projections.query() if kind == "query" else projections.key()
        count = heads.num_heads if kind == "query" else heads.num_kv_heads
        table = _per_head(rows, float32_of(shared.weight), shared.bias, count)
        return np.repeat(table, heads.num_heads // count, axis=0)


def _distances(length: int) -> Any:
    """All distances j - i of positions below length."""
    return np.arange(1 - length, length, dtype=np.int64)


def _embeddings(rows: Any, length: int, **tables: Any) -> dict[str, Any]:
    """The tables for a native call: rows (2 length - 1) for the distances from 1 - length on."""
    native = _core.RelativeEmbeddings(rows=rows.astype(np.int32), center=length - 1, **tables)
    return {"embeddings": native}


def _per_head(rows: Float32, weight: Float32, bias: Float32 | None, num_heads: int) -> Float32:
    """rows weight^T + bias for each head, (num_heads, len(rows), head_dim), computed in float64."""
    projected = rows.astype(np.float64) @ weight.astype(np.float64).T
    if bias is not None:
        projected += bias
    heads = projected.reshape(len(rows), num_heads, -1).swapaxes(0, 1)
    return np.ascontiguousarray(heads, np.float32)
