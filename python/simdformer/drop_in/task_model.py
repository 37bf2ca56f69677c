# SPDX-License-Identifier: Apache-2.0
"""Models that distinguish queries and documents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

from simdformer.drop_in.text_model import TextModel
from simdformer.text.inputs import document_prompt, old_name, text_list
from simdformer.text.tokenizer import check_text

Rest = tuple[tuple[Any, ...], dict[str, Any]]


class TaskModel(TextModel):
    """A model whose `encode` takes texts, with an optional task.

    _POSITIONAL: the arguments of encode after the prompt, in order.
    """

    # The allowed values of similarity_fn_name, and the default.
    SUPPORTED_SIMILARITY_FN_NAMES: ClassVar[tuple[str, ...]]
    DEFAULT_SIMILARITY_FN_NAME: ClassVar[str]
    _POSITIONAL: ClassVar[tuple[str, ...]]
    encode: Callable[..., Any]

    @property
    def similarity_fn_name(self) -> str:
        """What `similarity` computes, one of SUPPORTED_SIMILARITY_FN_NAMES."""
        return self._similarity_fn_name

    @similarity_fn_name.setter
    def similarity_fn_name(self, name: str | None) -> None:
        # sentence-transformers also has an enum; its value is the name
        name = (
            self.DEFAULT_SIMILARITY_FN_NAME if name is None else str(getattr(name, "value", name))
        )
        if name not in self.SUPPORTED_SIMILARITY_FN_NAMES:
            known = ", ".join(self.SUPPORTED_SIMILARITY_FN_NAMES)
            raise ValueError(f"unknown similarity_fn_name {name!r}; known: {known}")
        self._similarity_fn_name = name

    def _saved_similarity(self, given: str | None, saved: str | None) -> str | None:
        """The caller's value, else the folder's, unless that belongs to another kind of model."""
        return given or (saved if saved in self.SUPPORTED_SIMILARITY_FN_NAMES else None)

    def encode_query(
        self,
        inputs: Any = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Embed queries: `encode` with the prompt "query", unless another prompt is given."""
        if prompt_name is None and prompt is None and "query" in self.prompts:
            prompt_name = "query"
        return self._call_with_task("query", inputs, (prompt_name, prompt), (args, kwargs))

    def encode_document(
        self,
        inputs: Any = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Embed documents: `encode` with a prompt for documents, unless another prompt is given.

        It is the first of "document", "passage" and "corpus" that the model has.
        """
        if prompt_name is None and prompt is None:
            prompt_name = document_prompt(self.prompts)
        return self._call_with_task("document", inputs, (prompt_name, prompt), (args, kwargs))

    def set_pooling_include_prompt(self, include_prompt: bool) -> None:
        """Set whether pooling includes the tokens of the prompt. INSTRUCTOR models exclude them."""
        for pipeline in self.pipeline.all():
            pipeline.include_prompt = include_prompt

    def encode_multi_process(self, sentences: Any, pool: dict[str, Any], **arguments: Any) -> Any:
        """The older name of `encode` with a pool."""
        return self.encode(sentences, pool=pool, **arguments)

    def is_singular_input(self, inputs: object) -> bool:
        """Whether `encode` treats these inputs as one text."""
        return isinstance(inputs, str)

    def _call_with_task(
        self, task: str, inputs: Any, names: tuple[str | None, str | None], rest: Rest
    ) -> Any:
        """Call `encode` with a task. names: prompt_name and prompt. rest: its other arguments."""
        args, kwargs = rest
        inputs = old_name(inputs, kwargs)
        kwargs = {"task": task, **dict(zip(self._POSITIONAL, args, strict=False)), **kwargs}
        return self.encode(inputs=inputs, prompt_name=names[0], prompt=names[1], **kwargs)

    def _listed(self, inputs: Any) -> tuple[list[Any], bool]:
        return ([inputs], True) if isinstance(inputs, str) else (text_list(inputs), False)

    def _prompted(
        self, texts: Iterable[Any], prompt: str | None, task: str | None = None
    ) -> Iterator[str]:
        pipeline = self.pipeline.for_task(task)
        for index, text in enumerate(texts):
            yield pipeline.prompted(check_text(text, index), prompt, task)
