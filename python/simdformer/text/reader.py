# SPDX-License-Identifier: Apache-2.0
"""How a model reads texts: with a prompt or a chat template, and a tokenizer. It may differ between tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from simdformer.text.chat_template import ChatTemplate
from simdformer.text.tokenizer import Pair, Text, Tokenizer

if TYPE_CHECKING:
    from typing_extensions import Self

Array = NDArray[Any]
R = TypeVar("R", bound="TextReader")


class TextReader:
    """A tokenizer, prompts or a template, and the readers of tasks.

    Attributes:
      tokenizer: its limit is fixed. A call reads this attribute once.
      include_prompt: whether pooling includes the tokens of the prompt.
    """

    def __init__(
        self, tokenizer: Tokenizer, *, include_prompt: bool, template: ChatTemplate | None
    ) -> None:
        self.tokenizer = tokenizer
        self.include_prompt = include_prompt
        self._template = template
        self._tasks: Mapping[str, Any] = {}
        self._routed = self._strict = self._needs_task = False
        self._adapters: tuple[str, ...] = ()

    def add_tasks(
        self,
        tasks: Mapping[str, Any],
        *,
        routed: bool = False,
        strict: bool = False,
        needs_task: bool = False,
        adapters: Sequence[str] = (),
    ) -> None:
        """Set the readers of tasks. routed: tasks differ in more than the maximum length. strict: other tasks
        are errors. needs_task: texts without a task are errors. adapters: the tasks with an adapter, which is
        chosen when the model is loaded."""
        self._tasks, self._routed = tasks, routed
        self._strict, self._needs_task, self._adapters = strict, needs_task, tuple(adapters)

    def for_task(self, task: str | None) -> Self:
        """The reader for a task. ValueError lists the known tasks if there is none."""
        if task is not None and not isinstance(task, str):
            raise TypeError(f"task must be a str or None, got {type(task).__name__}")
        found = None if task is None else self._tasks.get(task)
        if found is None and (self._needs_task if task is None else self._strict):
            if task in self._adapters:
                raise ValueError(
                    f"the adapter of task={task!r} is merged when the model is loaded: give"
                    f" model_kwargs={{'default_task': {task!r}}}"
                )
            known = ", ".join(map(repr, self._adapters or self._tasks))
            raise ValueError(f"the model has no route for task={task!r}; known: {known}")
        return found or self

    def all(self) -> list[Self]:
        """This reader and those of the tasks."""
        return [self, *self._tasks.values()]

    @property
    def has_template(self) -> bool:
        """Whether texts go through a chat template."""
        return self._template is not None

    def pooling_start(self, prompt: str | None) -> int:
        """The first token that pooling includes for a text with this prompt. For a chat template it is 0."""
        if self._template is not None:
            return 0
        return self.tokenizer.prompt_length(prompt) if prompt and not self.include_prompt else 0

    def prompted(self, text: str, prompt: str | None, task: str | None = None) -> str:
        """A text as it is tokenized: after the prompt, or rendered by a chat template."""
        if self._template is None:
            return (prompt or "") + text
        return self._template.render(text, prompt, self._ids, task)

    def prompted_pair(self, pair: Pair, prompt: str | None) -> Pair | str:
        """A pair as it is tokenized. A chat template renders it as one text."""
        if self._template is not None:
            return self._template.render_pair(pair, prompt, self._ids)
        return ((prompt or "") + pair[0], pair[1])

    def padded_tokens(self, texts: Sequence[Text]) -> dict[str, Array]:
        """The model's input for texts, padded on the tokenizer's side: int64 (n, longest) each."""
        tokens, left = self.tokenizer(texts), self.tokenizer.files.padding_side == "left"
        ids = tokens.input_ids
        type_ids = tokens.type_ids or [[0] * len(row) for row in ids]
        ones = [[1] * len(row) for row in ids]
        return {
            "input_ids": _padded(ids, self.tokenizer.files.pad_id, left=left),
            "token_type_ids": _padded(type_ids, 0, left=left),
            "attention_mask": _padded(ones, 0, left=left),
        }

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.with_max_seq_length(2**31 - 1)([text]).input_ids[0]


def _padded(rows: Sequence[Sequence[int]], fill: int, *, left: bool) -> Array:
    width = max(map(len, rows), default=0)
    result = np.full((len(rows), width), fill, dtype=np.int64)
    for place, row in zip(result, rows, strict=True):
        place[width - len(row) if left else 0 :][: len(row)] = row
    return result
