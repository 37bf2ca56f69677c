# SPDX-License-Identifier: Apache-2.0
"""Points 3 and 5: the scale of scores, and five kinds of scores on one head."""

from __future__ import annotations

import numpy as np

from simdformer import ModelOutput
from simdformer import functional as F
from simdformer.explain.figures import Figure, HeatMap, Lines, Table
from simdformer.explain.measures import attention_entropy
from simdformer.explain.points.study import Array, Head, Study, maps_of, mean_over
from simdformer.explain.report import Section

_DIMS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048)
_KEYS = 64


def scaling(study: Study) -> Section:
    """Compare softmax of scaled and unscaled scores, on the model's states and on random vectors."""
    by_layer = mean_over([_layers(study, output) for output in study.outputs])
    by_dim = np.array([_random(dim) for dim in _DIMS])
    layers = list(range(study.num_layers))
    figures: list[Figure] = []
    for i, (title, unit) in enumerate(_MEASURES):
        pair = {"scaled": by_layer[:, 0, i], "unscaled": by_layer[:, 1, i]}
        figures.append(Lines(f"{title}, by layer", "layer", unit, layers, pair))
    jacobian = {"scaled": by_dim[:, 0, 3], "unscaled": by_dim[:, 1, 3]}
    figures.append(
        Lines(
            "Jacobian of softmax, random vectors",
            "head dimension d",
            "mean Frobenius norm",
            _DIMS,
            jacobian,
            log_x=True,
            note=f"Queries and {_KEYS} keys of N(0, 1), mean over {_KEYS} queries and 16 draws.",
        )
    )
    most = int((by_layer[:, 1, 3] / by_layer[:, 0, 3]).argmin())
    was, now = by_layer[most]
    higher = [d for d, scaled, bare in zip(_DIMS, *jacobian.values(), strict=True) if bare > scaled]
    return Section(
        "3. Scaled scores",
        [
            (
                "The article: for large d, softmax saturates and its gradients become tiny. The factor"
                " 1 / sqrt(d) keeps the variance of scores at 1 and prevents this."
            ),
            (
                f"Measured on random vectors: this is true for large d only. Without the scale, the norm of"
                f" softmax's Jacobian is larger up to d = {max(higher, default=0)}, and falls to"
                f" {jacobian['unscaled'][-1]:.3f} at d = {_DIMS[-1]} ({jacobian['scaled'][-1]:.3f} with"
                f" the scale). Measured on the model's states for {len(study.texts)} texts: layer {most}"
                f" changes most. Without the scale its mean largest weight rises from {was[2]:.3f} to"
                f" {now[2]:.3f}, the share of rows with a weight above 0.99 from {was[4]:.1%} to"
                f" {now[4]:.0%}, and the Jacobian's norm changes from {was[3]:.3f} to {now[3]:.3f}. With"
                f" the scale, the standard deviation of the model's scores is {by_layer[:, 0, 0].min():.1f}"
                f" to {by_layer[:, 0, 0].max():.1f}, not 1."
            ),
        ],
        figures,
    )


_MEASURES = (
    ("Deviation of the scores", "standard deviation"),
    ("Entropy", "nats"),
    ("Largest weight", "mean over queries"),
    ("Jacobian of softmax", "mean Frobenius norm"),
    ("Rows with a weight above 0.99", "share of queries"),
)


def saturation(scores: Array) -> list[float]:
    """Standard deviation, entropy, largest weight, norm of the Jacobian and fraction of saturated rows."""
    weights = F.softmax(scores.astype(np.float32)).astype(np.float64)
    squares = (weights**2).sum(axis=-1)
    # the norm: |diag(p) - p p^T|^2
    norms = np.sqrt(np.maximum(squares - 2 * (weights**3).sum(axis=-1) + squares**2, 0))
    largest = weights.max(axis=-1)
    entropy = float(attention_entropy(weights).mean())
    saturated = float((largest > 0.99).mean())
    return [float(scores.std()), entropy, float(largest.mean()), float(norms.mean()), saturated]


def _layers(study: Study, output: ModelOutput) -> list[Array]:
    """For each layer (2, 5): the measures of scaled and unscaled scores, averaged over heads."""
    rows = []
    for layer in range(study.num_layers):
        heads = list(study.heads(output, layer))
        scores = [(head.query @ head.key.T, head.scale) for head in heads]
        rows.append(mean_over([[saturation(s * f), saturation(s)] for s, f in scores]))
    return rows


def _random(dim: int) -> Array:
    rng = np.random.default_rng(dim)
    queries, keys = rng.standard_normal((2, 16, _KEYS, dim))
    scores = queries @ keys.transpose(0, 2, 1)
    return np.array([saturation(scores * dim**-0.5), saturation(scores)])


def five_scores(study: Study) -> Section:
    """Show the maps of five kinds of scores for one head's queries and keys."""
    layer, number = _focused(study)
    head = list(study.heads(study.output, layer))[number]
    maps = _maps(head)
    scaled = maps["scaled dot product"]
    rows = []
    for name, weights in maps.items():
        variation = 0.5 * np.abs(weights - scaled).sum(axis=-1).mean()
        rows.append([name, float(attention_entropy(weights)), float(variation)])
    tokens = study.output.tokens
    figures: list[Figure] = [
        Table("Five scores on one head", ["score", "entropy, nats", "total variation"], rows)
    ]
    figures += [
        HeatMap(name.capitalize(), "key", "query", tokens, tokens, weights, 0.0, 1.0)
        for name, weights in maps.items()
    ]
    entropies = {row[0]: row[1] for row in rows}
    return Section(
        "5. Five scores",
        [
            (
                "The article lists five: an MLP (additive), bilinear, scaled dot product, Euclidean"
                " distance, cosine."
            ),
            (
                f"Measured on queries and keys of head ({layer}, {number}) for “{study.text}”: the entropy"
                f" is {entropies['scaled dot product']:.3f} nats with the score that the head was trained"
                f" with, {entropies['dot product']:.3f} without the scale,"
                f" {entropies['euclidean']:.3f} with distances, {entropies['cosine']:.3f} of"
                f" {np.log(len(tokens)):.3f} with a cosine of scale 1, which cannot focus. The bilinear"
                " score uses the product of both projections, so it is the head's own score. The additive"
                " score has weights of one, because the model has no weights for it."
            ),
        ],
        figures,
    )


def _focused(study: Study) -> tuple[int, int]:
    """The head of a layer at one third of the depth with entropy closest to 0.45 nats: it attends to several
    keys."""
    layer = study.num_layers // 3
    entropy = attention_entropy(maps_of(study.output)[layer])
    return layer, int(np.abs(entropy - 0.45).argmin())


def _maps(head: Head) -> dict[str, Array]:
    q, k, v = head.query, head.key, head.value
    eye = np.eye(q.shape[1], dtype=np.float32)
    options: dict[str, dict[str, object]] = {
        "scaled dot product": {"score": "scaled_dot", "scale": head.scale},
        "dot product": {"score": "dot"},
        "bilinear": {"score": "bilinear", "weight": eye * np.float32(head.scale)},
        "euclidean": {"score": "euclidean"},
        "cosine": {"score": "cosine"},
        "additive": {"score": "additive"},
    }
    result = {}
    for name, chosen in options.items():
        found = F.attention(q, k, v, return_weights=True, **chosen)  # type: ignore[arg-type]
        result[name] = np.asarray(found[1])
    return result
