# SPDX-License-Identifier: Apache-2.0
"""The base of SentenceTransformer and CrossEncoder: a pipeline, prompts, the length limit."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from simdformer.text.pipeline import Array, TextPipeline
from simdformer.text.tokenizer import Tokenizer
from simdformer.text.warning import warn_caller

_logger = logging.getLogger("simdformer")


class TextModel:
    """A model that reads texts, or pairs of them.

    Attributes: those that the classes below it list.
    """

    def __init__(
        self,
        name_or_path: str | os.PathLike[str],
        pipeline: TextPipeline,
        *,
        compute_type: str,
        part_types: Mapping[str, str],
        prompts: dict[str, str],
        default_prompt_name: str | None,
    ) -> None:
        """ValueError if no prompt has the default's name."""
        self.name_or_path = os.fspath(name_or_path)
        self.pipeline = pipeline
        self.compute_type = compute_type
        self.part_types = dict(part_types)
        self.prompts = prompts
        self.default_prompt_name = default_prompt_name
        self.resolve_prompt()

    @property
    def max_seq_length(self) -> int:
        """The longest text (or pair) in tokens, special tokens included; longer ones are truncated.

        It may be set, up to the number of the model's positions; None sets it to that number.
        """
        return self.pipeline.tokenizer.max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, value: int | None) -> None:
        most = self.pipeline.encoder.max_positions
        self.pipeline.limit_length("max_seq_length", most if value is None else value)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, with its limit fixed; it cannot be changed under a running call."""
        return self.pipeline.tokenizer

    @property
    def num_tokens(self) -> int:
        """How many tokens have been computed since loading."""
        return self.pipeline.num_tokens

    @property
    def truncated_texts(self) -> int:
        """How many texts (or pairs) were longer than max_seq_length since loading.

        The first call that meets one warns; no other does.
        """
        return self.pipeline.truncated_texts

    def resolve_prompt(
        self, prompt: str | None = None, prompt_name: str | None = None
    ) -> str | None:
        """What is put before a text: `prompt`, else the prompt of this name, else the default one.

        Errors: TypeError for a prompt that is not a str, ValueError for an unknown name.
        """
        if prompt is not None:
            if prompt_name is not None:
                warn_caller(
                    f"prompt and prompt_name={prompt_name!r} are both given; prompt is used"
                )
            if not isinstance(prompt, str):
                raise TypeError(f"prompt must be a str, got {type(prompt).__name__}")
            return prompt
        if prompt_name is None:
            prompt_name = self.default_prompt_name
        if prompt_name is None:
            return None
        if prompt_name not in self.prompts:
            raise ValueError(f"unknown prompt name {prompt_name!r}; known: {list(self.prompts)}")
        return self.prompts[prompt_name]


def progress_bar(total: int, show: bool | None, unit: str) -> Any:
    """A bar over so many units, or None. show: None asks the logger "simdformer"."""
    if show is None:
        show = _logger.getEffectiveLevel() in (logging.INFO, logging.DEBUG)
    if not show:
        return None
    from tqdm.auto import tqdm

    return tqdm(total=total, desc=f"{unit.capitalize()}s", unit=unit)


def convert(rows: Array, to_numpy: bool, to_tensor: bool) -> Any:
    """The array itself, a list of its rows, or a torch.Tensor."""
    if to_tensor:
        try:
            torch = import_module("torch")
        except ImportError as error:
            raise ImportError("convert_to_tensor=True needs torch, which is missing") from error
        return torch.from_numpy(rows)
    return rows if to_numpy else list(rows)
