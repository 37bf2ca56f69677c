# SPDX-License-Identifier: Apache-2.0
"""All measurements of one text, or of two texts and their similarity, as a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simdformer import SentenceTransformer
from simdformer.explain.attribution import pair_similarity, weigh_by_norm
from simdformer.explain.embedded import EmbeddedText
from simdformer.explain.faithfulness import Erasure
from simdformer.explain.figures import Bars, Figure, Heads, scaled, strongest
from simdformer.explain.heads import head_turns, similarity, similarity_changes
from simdformer.explain.measures import attention_entropy, attention_patterns, attention_rollout
from simdformer.explain.report import Report, Section, model_facts

Array = NDArray[Any]

_PATTERNS = {
    "previous": "weight on the previous token",
    "next": "weight on the next token",
    "self": "weight on the token itself",
    "first": "weight on the first token",
    "last": "weight on the last token",
    "same_token": "weight on the same token elsewhere",
}
_TAPS: dict[str, Any] = {"output_attentions": True, "output_hidden_states": True}


def explain_texts(
    model: SentenceTransformer,
    text: str,
    text2: str | None = None,
    *,
    prompt_name: str | None = None,
    prompt_name2: str | None = None,
) -> Report:
    """Measure what a text's embedding, or the similarity of two texts, depends on.

    Parameters
    ----------
    model
        A SentenceTransformer.
    text
        A text.
    text2
        None, or a text to compare with.
    prompt_name, prompt_name2
        The prompts before text and text2; see `encode`.

    Returns
    -------
    Report
        `to_html()` returns a page, `to_json()` its numbers. Notebooks display it.

    Raises
    ------
    TypeError, ValueError
        If model is not a SentenceTransformer, a text is not a str, or its attention weights take more
        than a gigabyte.

    Examples
    --------
    >>> model = SentenceTransformer("all-MiniLM-L6-v2")
    >>> report = explain_texts(model, "A cat.", "A kitten.")
    >>> [section.title for section in report.sections]
    ['Similarity', 'Tokens', 'Heads']
    """
    first = EmbeddedText.of(model, text, prompt_name, "text", **_TAPS)
    facts = model_facts(model) | {"Text": text}
    if text2 is None:
        sections = [_tokens((first,)), _heads((first,))]
        return Report(_title(text), facts, sections)
    second = EmbeddedText.of(model, text2, prompt_name2, "text2", **_TAPS)
    sections = [
        _similarity(first, second),
        _tokens((first, second)),
        _heads((first, second)),
    ]
    return Report(f"{_title(text)} and {_title(text2)}", facts | {"Second text": text2}, sections)


def attributions(text: EmbeddedText) -> dict[str, Array]:
    """Attributions of the text's tokens (n,) from one pass, by name."""
    output = text.output
    attentions = np.array(output.attentions)
    return {
        "norm of the last hidden state": np.linalg.norm(output.last_hidden_state, axis=1),
        "attention received, last layer": attentions[-1].mean(axis=(0, 1)),
        "attention received, all layers": np.mean(attentions, axis=(0, 1, 2)),
        "norm-weighted attention, last layer": weigh_by_norm(text, -1).sum(axis=(0, 1)),
        "rollout": attention_rollout(attentions).mean(axis=0),
    }


def _title(text: str) -> str:
    return f"“{text}”" if len(text) <= 60 else f"“{text[:59]}…”"


def _similarity(first: EmbeddedText, second: EmbeddedText) -> Section:
    model = first.model
    value = float(similarity(model, first.embedding, second.embedding))
    name = model.similarity_fn_name.capitalize()
    paragraphs = [f"{name} of the two texts: {np.float32(value):.4f}."]
    try:
        pairs = pair_similarity(first, second)
    except ValueError as error:
        paragraphs.append(f"No contributions of token pairs: {error}.")
        return Section("Similarity", paragraphs, [])
    figure = scaled(
        "Share of each pair of tokens",
        ("second text", second.output.tokens),
        ("text", first.output.tokens),
        pairs,
        f"The sum over the pairs is the cosine: {np.float32(pairs.sum()):.4f}. This is exact for mean pooling.",
    )
    return Section("Similarity", paragraphs, [figure])


def _tokens(texts: tuple[EmbeddedText, ...]) -> Section:
    subject = "the similarity" if len(texts) == 2 else "the embedding"
    unit = "loss of similarity" if len(texts) == 2 else "1 - cosine"
    paragraph = (
        f"Leave-one-out measures the contribution of each token to {subject}: the {unit} without it. The"
        " other series need only one pass. The rank correlation of each with leave-one-out shows how far"
        " it can replace it; its 95% interval and that of random orders are given."
    )
    figures: list[Figure] = []
    for i, text in enumerate(texts):
        if not len(text):
            continue
        others = [other.embedding for j, other in enumerate(texts) if j != i]
        erasure = Erasure(text, others[0] if others else None)
        series: dict[str, Array] = {"leave-one-out": erasure.leave_one_out}
        facts: dict[str, Mapping[str, Any]] = {}
        for name, attribution in attributions(text).items():
            series[name] = attribution
            found = erasure.test(attribution)
            facts[name] = {
                "Rank correlation with leave-one-out": found.spearman,
                "95% interval": found.interval,
                "of random orders": found.random_interval,
                "Loss without the highest tokens": found.comprehensiveness,
                "the same of random orders": found.random_comprehensiveness,
                "Loss with the highest tokens alone": found.sufficiency,
                "that of random orders": found.random_sufficiency,
            }
        title = f"Tokens of the {('text', 'second text')[i]}"
        figures.append(Bars(title, unit, "token", text.output.tokens, series, facts))
    return Section("Tokens", [paragraph], figures)


def _heads(texts: tuple[EmbeddedText, ...]) -> Section:
    paragraph = (
        "Importance is 1 - cosine of the embedding with the head's output set to zero. Entropy is"
        " divided by ln n: 1 is uniform, 0 is one key per query. Attention weights show where a head"
        " reads, not what effect it has; for that see importance."
    )
    change = similarity_changes(*texts) if len(texts) == 2 else None
    figures = [_head_figure(text, change, i) for i, text in enumerate(texts) if len(text)]
    return Section("Heads", [paragraph], figures)


def _head_figure(text: EmbeddedText, change: Array | None, number: int) -> Heads:
    output = text.output
    maps = [layer for layer in output.attentions or () if layer is not None]
    patterns = attention_patterns(maps, output.input_ids)
    measures: dict[str, Array] = {"entropy / ln n": attention_entropy(maps, normalize=True)}
    measures["importance"] = head_turns(text)
    if change is not None:
        measures["change of the similarity without the head"] = change
    measures |= {name: patterns[key] for key, name in _PATTERNS.items()}
    return Heads(
        f"Heads on the {('text', 'second text')[number]}",
        output.tokens,
        measures,
        maps,
        list(strongest(maps, output.tokens)),
    )
