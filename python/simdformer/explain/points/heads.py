# SPDX-License-Identifier: Apache-2.0
"""Points 1 and 2: why there are several heads, and why queries and keys have separate weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simdformer import ModelOutput
from simdformer.explain.embedded import EmbeddedText, cosine
from simdformer.explain.figures import Heads, Lines, strongest
from simdformer.explain.heads import head_turns
from simdformer.explain.measures import attention_entropy, attention_patterns
from simdformer.explain.points.study import Array, Study, embeddings, maps_of, mean_over
from simdformer.explain.report import Section
from simdformer.nn import TransformerEncoderLayer


def several_heads(study: Study) -> Section:
    """Measure entropy, patterns and importance of every head."""
    output = study.output
    maps = maps_of(output)
    patterns = attention_patterns(maps, output.input_ids)
    importance = head_turns(EmbeddedText.of(study.model, study.text))
    measures: dict[str, Array] = {
        "entropy / ln n": attention_entropy(maps, normalize=True),
        "importance": importance,
        **{f"weight on {name.replace('_', ' ')}": values for name, values in patterns.items()},
    }
    first = mean_over([attention_patterns(maps_of(each))["first"] for each in study.outputs])
    best = np.unravel_index(importance.argmax(), importance.shape)
    previous = patterns["previous"]
    likely = np.unravel_index(np.nanargmax(previous), previous.shape)
    return Section(
        "1. Several heads",
        [
            (
                "The article: heads form subspaces that attend to different aspects of the input. Together"
                " they are an ensemble, like the kernels of a CNN."
            ),
            (
                f"Measured on “{study.text}”: the heads' entropies / ln n are between"
                f" {measures['entropy / ln n'].min():.3f} and {measures['entropy / ln n'].max():.3f}. Head"
                f" {_name(likely)} gives {np.nanmax(previous):.4f} of its weight to the previous token."
                f" So heads differ, but not all are important. Without head {_name(best)}, the embedding"
                f" changes by 1 - cosine = {importance.max():.4f}; the median of all heads is"
                f" {np.median(importance):.4f}. On {len(study.texts)} texts, {(first > 0.5).sum()} of"
                f" {first.size} heads give more than half of their weight to the first token."
            ),
        ],
        [
            Heads(
                "Heads",
                output.tokens,
                measures,
                maps,
                list(strongest(maps, output.tokens)),
            )
        ],
    )


def queries_and_keys(study: Study) -> Section:
    """Compare the model with a copy that projects keys with the weights of queries."""

    def tie(layer: TransformerEncoderLayer) -> None:
        layer.self_attn.tie_qk = True

    outputs = study.run(study.changed(tie), study.texts)
    to_itself = {
        "separate": _attention_to_itself(study.outputs),
        "tied": _attention_to_itself(outputs),
    }
    asymmetry = _asymmetry(study)
    turned = cosine(embeddings(study.outputs), embeddings(outputs)).mean()
    layers = list(range(study.num_layers))
    return Section(
        "2. Separate weights for queries and keys",
        [
            (
                "The article: the product of queries and keys is a similarity. With separate matrices the"
                " model is more expressive."
            ),
            (
                f"Measured on {len(study.texts)} texts, with keys projected by the matrix of queries: the"
                f" attention of a token to itself rises from {to_itself['separate'].mean():.2f} to"
                f" {to_itself['tied'].mean():.2f}, and scores become symmetric (their asymmetry falls from"
                f" {asymmetry.mean():.2f} to 0). The cosine to the original embeddings is"
                f" {float(turned):.2f}. This holds for a model trained with two matrices; a model trained"
                " with one matrix may be better."
            ),
        ],
        [
            Lines("Attention of a token to itself", "layer", "mean weight", layers, to_itself),
            Lines(
                "Asymmetry of the scores",
                "layer",
                "|S - S^T| / |S|",
                layers,
                {"separate": asymmetry, "tied": np.zeros(len(layers))},
                note="Mean over heads and texts of Frobenius norms. A random matrix has 1.41.",
            ),
        ],
    )


def _attention_to_itself(outputs: Sequence[ModelOutput]) -> Array:
    return mean_over([attention_patterns(maps_of(each))["self"].mean(axis=1) for each in outputs])


def _asymmetry(study: Study) -> Array:
    rows = []
    for output in study.outputs:
        layers = []
        for layer in range(study.num_layers):
            scores = [head.query @ head.key.T for head in study.heads(output, layer)]
            layers.append(np.mean([np.linalg.norm(s - s.T) / np.linalg.norm(s) for s in scores]))
        rows.append(layers)
    return mean_over(rows)


def _name(place: tuple[np.intp, ...]) -> str:
    return f"({', '.join(str(int(i)) for i in place)})"
