# SPDX-License-Identifier: Apache-2.0
"""Labels of texts and of pairs of texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from simdformer.folder.loading import LoadedTask
from simdformer.folder.task_folder import SequenceFolder
from simdformer.functional import softmax
from simdformer.functional.activations import activate
from simdformer.functional.arrays import positive_int
from simdformer.models.classification import label_names
from simdformer.pipelines.base import TOKENIZING, Float32, Pipeline
from simdformer.text.inputs import check_known
from simdformer.text.tokenizer import Pair, check_text

FUNCTIONS = ("sigmoid", "softmax", "none")


class TextClassificationPipeline(Pipeline):
    """The labels of a text, or of a pair given as a dict of "text" and "text_pair"."""

    task = "text-classification"
    OPENS = SequenceFolder
    # Without top_k a result is the best label instead of a list.
    ARGUMENTS: ClassVar[Mapping[str, Any]] = {"top_k": 1, "function_to_apply": None, **TOKENIZING}

    def __call__(self, inputs: Any, **arguments: Any) -> Any:
        """See `Pipeline`. As in transformers a str without top_k gives a list of one result."""
        result = super().__call__(inputs, **arguments)
        return [result] if isinstance(inputs, str) and "top_k" not in arguments else result

    def _adopt(self, loaded: LoadedTask) -> None:
        self._labels = label_names(loaded.config)
        problem = loaded.config.get("problem_type")
        if problem == "regression":
            self._function = "none"
        elif problem == "multi_label_classification" or len(self._labels) == 1:
            self._function = "sigmoid"
        else:
            self._function = "softmax"

    def _is_single(self, inputs: object) -> bool:
        return isinstance(inputs, (str, dict))

    def _check(self, settings: Any) -> None:
        if settings.top_k is not None:
            positive_int("top_k", settings.top_k)
        function = settings.function_to_apply
        function = self._function if function is None else getattr(function, "value", function)
        settings.function = str(function).lower()
        check_known("function_to_apply", settings.function, FUNCTIONS)
        settings.tokenizer = self._tokenizer(settings)

    def _results(self, items: list[Any], settings: Any, first: int) -> Iterator[Any]:
        texts = [_text(item, f"inputs[{index}]") for index, item in enumerate(items, first)]
        for logits in self._rows(texts, settings.tokenizer, first):
            yield self._result(_applied(logits, settings.function), settings)

    def _result(self, scores: Float32, settings: Any) -> Any:
        order = np.argsort(-scores, kind="stable")[: settings.top_k]
        found = [{"label": self._labels[i], "score": float(scores[i])} for i in order]
        return found if "top_k" in settings.given else found[0]


def _applied(logits: Float32, function: str) -> Float32:
    if function == "none":
        return logits
    return softmax(logits) if function == "softmax" else activate("sigmoid", logits, None)


def _text(item: Any, name: str) -> str | Pair:
    """A text or a pair of an input."""
    if isinstance(item, str):
        return check_text(item, None, name)
    if isinstance(item, Mapping):
        if unknown := item.keys() - {"text", "text_pair"}:
            raise ValueError(
                f"{name} must have text and text_pair, got {sorted(map(str, unknown))}"
            )
        text = check_text(item.get("text"), None, f"{name}['text']")
        pair = item.get("text_pair")
        return text if pair is None else (text, check_text(pair, None, f"{name}['text_pair']"))
    if isinstance(item, list) and len(item) == 1 and isinstance(item[0], list):
        item = item[0]  # the older form of a pair
        if len(item) == 2:
            return check_text(item[0], 0, name), check_text(item[1], 1, name)
    raise TypeError(
        f'{name} must be a str, or {{"text": ..., "text_pair": ...}} for a pair,'
        f" got {type(item).__name__}"
    )
