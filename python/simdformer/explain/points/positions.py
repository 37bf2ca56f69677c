# SPDX-License-Identifier: Apache-2.0
"""Point 8: sinusoidal positions, the model's own positions, and word order."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np

from simdformer import functional as F
from simdformer.explain.embedded import cosine, with_encoder
from simdformer.explain.figures import Figure, HeatMap, Lines, scaled
from simdformer.explain.points.study import Array, Study, embeddings
from simdformer.explain.report import Section

_POSITIONS, _DIM = 64, 64
_SHIFTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_ORDERS = ["The dog bit the man.", "The man bit the dog."]


def positions(study: Study) -> Section:
    """Show the table of sinusoids, its Gram matrix, the error of M_k, and the effect of word order."""
    table = _sinusoids(np.arange(_POSITIONS), _DIM)
    gram = table @ table.T
    errors, in_float32 = _shift_errors()
    article = (
        "The article: each position needs a unique, bounded and deterministic code in which distances do"
        " not depend on the length of the text. With sinusoids, relative positions are also linear maps."
        " Without positions, attention does not know the order of words."
    )
    measured = (
        f"Measured on {_POSITIONS} positions: the codes differ, are within [-1, 1], and have norm^2"
        f" = d / 2 = {gram[0, 0]:.4g}. Their products depend only on the distance, except for"
        f" {_apart(gram):.0e} of their energy. M_k PE(p) equals PE(p + k) within"
        f" {errors.max():.0e} for every p and k."
    )
    figures = _sinusoid_figures(table, {"float64": errors, "float32 table": in_float32})
    learned = study.model.encoder.embeddings.position_embeddings
    if learned is None:
        measured += " This model has no table of positions, because its attention adds them."
    else:
        padding = study.model.encoder.embeddings.padding_idx
        own = np.asarray(learned.weight, np.float64)[0 if padding is None else padding + 1 :]
        measured += _word_order(study, own)
        unit = own[:_POSITIONS] / np.linalg.norm(own[:_POSITIONS], axis=1, keepdims=True)
        figures.append(_gram("Cosines of the model's learned positions", unit))
    return Section("8. Positions", [article, measured], figures)


def _sinusoid_figures(table: Array, errors: Mapping[str, Array]) -> list[Figure]:
    places, features = ([str(i) for i in range(size)] for size in table.shape)
    title, note = "Sinusoidal position encoding", f"512 positions, {_DIM} features."
    formula = "Error of PE(p + k) = M_k PE(p)"
    logs = {"log_x": True, "log_y": True}
    return [
        HeatMap(title, "feature", "position", features, places, table, -1.0, 1.0, diverging=True),
        _gram("Products of sinusoidal positions", table),
        Lines(formula, "k", "largest error", _SHIFTS, errors, **logs, note=note),
    ]


def _word_order(study: Study, table: Array) -> str:
    """Show the structure of the model's table, and the effect of word order with and without positions."""
    gram = table[:_POSITIONS] @ table[:_POSITIONS].T
    with_order = cosine(*embeddings(study.run(study.model, _ORDERS)))
    encoder = copy.deepcopy(study.model.encoder)
    name = "position_embeddings.weight"
    one = np.broadcast_to(table[0], encoder.embeddings.state_dict()[name].shape)
    encoder.embeddings.load_state_dict({name: one.astype(np.float32)}, strict=False)
    without = cosine(*embeddings(study.run(with_encoder(study.model, encoder), _ORDERS)))
    return (
        f" For the model's learned table that part of the energy is {_apart(gram):.2f}. “{_ORDERS[0]}”"
        f" and “{_ORDERS[1]}” have a cosine of {float(with_order):.3f} with the table, and of"
        f" {float(without):.6f} with the same position for all tokens."
    )


def _sinusoids(places: Array, dim: int) -> Array:
    """The sinusoids of Vaswani et al. 2017, section 3.5, in float64: (positions, dim)."""
    angles = places[:, None] * 10000.0 ** (-np.arange(0, dim, 2) / dim)
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(len(places), dim)


def _shift_errors() -> tuple[Array, Array]:
    places = np.arange(512)
    table = _sinusoids(places, _DIM)
    stored = F.sinusoidal_position_encoding(places, _DIM).astype(np.float64)
    errors = []
    for k in _SHIFTS:
        matrix = F.relative_position_matrix(k, _DIM)
        shifted = F.sinusoidal_position_encoding(places + k, _DIM)
        errors.append(
            [
                np.abs(table @ matrix.T - _sinusoids(places + k, _DIM)).max(),
                np.abs(stored @ matrix.T - shifted).max(),
            ]
        )
    both = np.array(errors)
    return both[:, 0], both[:, 1]


def _gram(title: str, table: Array) -> HeatMap:
    gram = table @ table.T
    ticks = [str(i) for i in range(len(table))]
    return scaled(title, ("position", ticks), ("position", ticks), gram)


def _apart(gram: Array) -> float:
    """The fraction of energy outside the means of the diagonals. It is 0 if entries depend only on the
    distance."""
    n = len(gram)
    diagonals = [np.diagonal(gram, k) for k in range(-n + 1, n)]
    return float(sum(((d - d.mean()) ** 2).sum() for d in diagonals) / (gram**2).sum())
