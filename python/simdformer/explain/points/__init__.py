# SPDX-License-Identifier: Apache-2.0
"""Eight points about the Transformer, often asked in interviews, measured on a loaded model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

from simdformer import SentenceTransformer
from simdformer.explain.embedded import check_model
from simdformer.explain.points import heads, positions, scores, sequence, stability
from simdformer.explain.points.study import Study, default_texts
from simdformer.explain.report import Report, Section, model_facts

_ARTICLE = "Transformer面试要点 (what interviews ask about the Transformer), 2021"
_POINTS: tuple[tuple[str, Callable[[Study], Section]], ...] = (
    ("1. Several heads", heads.several_heads),
    ("2. Separate weights for queries and keys", heads.queries_and_keys),
    ("3. Scaled scores", scores.scaling),
    ("4. Attention, CNN, RNN", sequence.sequence_layers),
    ("5. Five scores", scores.five_scores),
    ("6. Residual connections", stability.residual_connections),
    ("7. LayerNorm and BatchNorm", stability.layer_and_batch_norm),
    ("8. Positions", positions.positions),
)


def measure_points(model: SentenceTransformer, texts: Sequence[str] | None = None) -> Report:
    """Measure eight points of the Transformer on a model, and compare with what is commonly said of them.

    The points: several heads; separate queries and keys; scaled scores; attention, CNN and RNN; five
    scores; residual connections; LayerNorm and BatchNorm; positions. If a point does not apply to the
    layers of the model, the report says so.

    Parameters
    ----------
    model
        A SentenceTransformer.
    texts
        At least 33 texts to average over, read without a prompt; None for 64 English sentences.

    Returns
    -------
    Report
        Eight sections. Times differ between runs; everything else is reproducible.

    Raises
    ------
    TypeError, ValueError
        If model is not a SentenceTransformer, or there are too few texts.

    Examples
    --------
    >>> from simdformer import SentenceTransformer
    >>> report = measure_points(SentenceTransformer("all-MiniLM-L6-v2"))
    >>> report.sections[5].title
    '6. Residual connections'
    """
    check_model(model)
    given = default_texts() if texts is None else list(texts)
    if len(given) < 33:
        raise ValueError(f"texts must hold at least 33 texts, got {len(given)}")
    unprompted = copy.copy(model)
    unprompted.default_prompt_name = None
    study = Study(unprompted, given)
    sections = [_measured(title, point, study) for title, point in _POINTS]
    facts = model_facts(model) | {"Texts": len(given), "The article": _ARTICLE}
    return Report("Eight points of the Transformer, measured", facts, sections)


def _measured(title: str, point: Callable[[Study], Section], study: Study) -> Section:
    try:
        return point(study)
    except ValueError as error:
        return Section(title, [f"Not measured on this model: {error}."], [])
