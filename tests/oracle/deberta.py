"""The reference of the encoder of DeBERTa v2 and v3: float64 NumPy, one sequence at a time. `w` has the names
of transformers' DebertaV2Model. Tables, norms and projections that are missing in it are not used."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tests.oracle import ACTIVATIONS, f64, layer_norm, linear
from tests.oracle.positions import deberta_bucket
from tests.oracle.scores import attend, disentangled


class Definition(NamedTuple):
    """buckets: the number of buckets per side for distances up to reach; 0: each distance has its own. terms:
    of the scores in addition to content-to-content. shared: whether the table uses the projections of queries
    and keys."""

    num_layers: int
    num_heads: int
    eps: float
    activation: str
    buckets: int
    reach: int
    terms: tuple[str, ...]
    shared: bool


def encoder(input_ids, w, definition):
    """From ids to hidden states: (n,) -> (n, d). All tokens have type 0."""
    x = f64(w["embeddings.word_embeddings.weight"])[input_ids]
    position = w.get("embeddings.position_embeddings.weight")
    if position is not None:
        x = x + f64(position)[: len(x)]
    types = w.get("embeddings.token_type_embeddings.weight")
    if types is not None:
        x = x + f64(types)[0]
    x = _norm(x, w, "embeddings.LayerNorm", definition)
    for i in range(definition.num_layers):
        x = _layer(x, w, f"encoder.layer.{i}", definition)
    return x


def _layer(x, w, stem, definition):
    out = _dense(
        _attention(x, w, f"{stem}.attention.self", definition), w, f"{stem}.attention.output.dense"
    )
    x = _norm(x + out, w, f"{stem}.attention.output.LayerNorm", definition)
    hidden = ACTIVATIONS[definition.activation](_dense(x, w, f"{stem}.intermediate.dense"))
    return _norm(
        x + _dense(hidden, w, f"{stem}.output.dense"), w, f"{stem}.output.LayerNorm", definition
    )


def _attention(x, w, stem, definition):
    n, h = len(x), definition.num_heads

    def heads(rows, name):  # (.., d) -> (h, .., e)
        return _dense(rows, w, f"{stem}.{name}").reshape(len(rows), h, -1).swapaxes(0, 1)

    q, k, v = (heads(x, f"{name}_proj") for name in ("query", "key", "value"))
    table = w.get("encoder.rel_embeddings.weight")
    tables = [None, None]
    index = np.zeros((n, n), int)
    if table is not None:
        table, span = _norm(f64(table), w, "encoder.LayerNorm", definition), len(table) // 2
        own = "" if definition.shared else "pos_"
        named = (("c2p", "key"), ("p2c", "query"))
        tables = [
            heads(table, f"{own}{name}_proj") if term in definition.terms else None
            for term, name in named
        ]
        distance = [[_bucket(i - j, definition) for j in range(n)] for i in range(n)]
        index = np.clip(np.array(distance, int) + span, 0, 2 * span - 1)
    scores = disentangled(q, k, *tables, index, index)
    out, _ = attend(scores / np.sqrt(q.shape[-1] * (1 + len(definition.terms))), v)
    return out.swapaxes(0, 1).reshape(n, -1)


def _bucket(distance, definition):
    if not definition.buckets:
        return distance
    return deberta_bucket(distance, definition.buckets, definition.reach)


def _dense(x, w, name):
    return linear(x, w[f"{name}.weight"], w[f"{name}.bias"])


def _norm(x, w, name, definition):
    weight = w.get(f"{name}.weight")
    return x if weight is None else layer_norm(x, weight, w[f"{name}.bias"], definition.eps)
