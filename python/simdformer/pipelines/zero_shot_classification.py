# SPDX-License-Identifier: Apache-2.0
"""Labels of texts by an entailment model that was not trained on these labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, ClassVar

import numpy as np

from simdformer.folder.loading import LoadedTask
from simdformer.folder.task_folder import SequenceFolder
from simdformer.functional import softmax
from simdformer.models.classification import label_names
from simdformer.pipelines.base import Float32, Pipeline
from simdformer.text.inputs import as_list
from simdformer.text.tokenizer import Pair, check_text
from simdformer.text.warning import warn_caller


class ZeroShotClassificationPipeline(Pipeline):
    """How well each candidate label fits a text: whether the text entails a sentence with the label."""

    task = "zero-shot-classification"
    ALWAYS_TRUNCATES = True
    OPENS = SequenceFolder
    ARGUMENTS: ClassVar[Mapping[str, Any]] = {
        "candidate_labels": None,
        "hypothesis_template": "This example is {}.",
        "multi_label": False,
    }

    def __call__(  # type: ignore[override]
        self, sequences: Any, candidate_labels: Any = None, **arguments: Any
    ) -> Any:
        """See `Pipeline`; candidate_labels may be given by position."""
        if candidate_labels is not None:
            arguments["candidate_labels"] = candidate_labels
        if {**self._arguments, **arguments}.get("candidate_labels") is None:
            raise ValueError("candidate_labels is required")
        return super().__call__(sequences, **arguments)

    def _adopt(self, loaded: LoadedTask) -> None:
        given = loaded.config.get("label2id")
        names = {str(name): i for i, name in enumerate(label_names(loaded.config))}
        labels = given if isinstance(given, Mapping) and given else names
        found = [i for name, i in labels.items() if str(name).lower().startswith("entail")]
        if not found:
            warn_caller(
                f"{self.name_or_path}: no label in config.json begins with 'entail'; the last one"
                f" is used as the entailment: {', '.join(names)}"
            )
        self._entailment = int(found[0]) if found else -1
        if not -1 <= self._entailment < len(names):
            raise ValueError(
                f"config.json: label2id gives the entailment the index {self._entailment}, but there"
                f" are {len(names)} labels"
            )

    def _check(self, settings: Any) -> None:
        template, labels = settings.hypothesis_template, settings.candidate_labels
        if labels is not None:
            settings.candidate_labels = labels = _label_list(labels)
        check_text(template, None, "hypothesis_template")
        try:
            settings.hypotheses = [template.format(label) for label in labels or ["label"]]
        except (IndexError, KeyError, ValueError) as error:
            raise ValueError(
                f"hypothesis_template {template!r} cannot be filled with a label: {error!r}"
            ) from error
        if settings.hypotheses[0] == template:
            raise ValueError(f"hypothesis_template {template!r} has no {{}} for the label")
        settings.tokenizer = self.pipeline.tokenizer.truncating(None, None, "only_first")

    def _results(self, items: list[Any], settings: Any, first: int) -> Iterator[Any]:
        texts = self._texts(items, first)
        for index, text in enumerate(texts, first):
            if not text:
                raise ValueError(f"inputs[{index}] is empty")
        pairs: Iterator[Pair] = ((text, h) for text in texts for h in settings.hypotheses)
        count = len(settings.hypotheses)
        rows = self._rows(pairs, settings.tokenizer, first, count)
        for text in texts:
            logits = np.stack(list(islice(rows, count)))
            scores = self._scores(logits, settings)
            order = np.argsort(scores, kind="stable")[::-1]
            yield {
                "sequence": text,
                "labels": [settings.candidate_labels[i] for i in order],
                "scores": scores[order].tolist(),
            }

    def _scores(self, logits: Float32, settings: Any) -> Float32:
        """The score of each label. logits: (candidate labels, classes of the model)."""
        entailment = self._entailment
        if settings.multi_label or len(logits) == 1:
            contradiction = -1 if entailment == 0 else 0
            return softmax(np.ascontiguousarray(logits[:, [contradiction, entailment]]))[:, 1]
        return softmax(np.ascontiguousarray(logits[:, entailment]))


def _label_list(labels: Any) -> list[str]:
    if isinstance(labels, str):
        found = [label.strip() for label in labels.split(",") if label.strip()]
    else:
        listed = as_list(labels)
        if listed is None:
            raise TypeError(f"candidate_labels must be str, got {type(labels).__name__}")
        found = [check_text(label, i, "candidate_labels") for i, label in enumerate(listed)]
    if not found:
        raise ValueError("candidate_labels has no label")
    return found
