# SPDX-License-Identifier: Apache-2.0
"""Hidden states of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from itertools import count
from typing import Any, ClassVar

from simdformer.folder.task_folder import TaskFolder
from simdformer.pipelines.base import TOKENIZING, Float32, Pipeline
from simdformer.text.inputs import check_known


class FeatureExtractionPipeline(Pipeline):
    """The last hidden state of each token of a text."""

    task = "feature-extraction"
    OPENS = TaskFolder
    ARGUMENTS: ClassVar[Mapping[str, Any]] = {
        **TOKENIZING,
        "tokenize_kwargs": None,
        "return_tensors": False,
    }

    def _check(self, settings: Any) -> None:
        tokenizing(settings, "tokenize_kwargs")
        form = settings.return_tensors
        if not isinstance(form, (bool, type(None))):
            check_known("return_tensors", form, ("np", "pt"))
        settings.tokenizer = self._tokenizer(settings)

    def _results(self, items: list[Any], settings: Any, first: int) -> Iterator[Any]:
        for tokens in self._tokenized(self._texts(items, first), settings.tokenizer, first):
            for rows in self._token_rows(tokens, count(first)):
                yield _converted(rows[None], settings.return_tensors)
            first += len(tokens.input_ids)


def tokenizing(settings: Any, name: str) -> None:
    """Add the tokenizer's arguments, which a dict may contain, to the others."""
    given = getattr(settings, name)
    if given is None:
        return
    if not isinstance(given, Mapping):
        raise TypeError(f"{name} must be a dict, got {type(given).__name__}")
    for argument, value in given.items():
        if argument not in TOKENIZING:
            raise ValueError(
                f"{name}[{argument!r}] is not supported; known: {', '.join(TOKENIZING)}"
            )
        if argument in settings.given:
            raise ValueError(f"{argument} is given twice: as an argument, and in {name}")
        setattr(settings, argument, value)


def _converted(rows: Float32, form: Any) -> Any:
    """(1, tokens, hidden_size) as a list, an array or a torch.Tensor."""
    if not form:
        return rows.tolist()
    return rows if form == "np" else import_module("torch").from_numpy(rows.copy())
