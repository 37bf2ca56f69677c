# SPDX-License-Identifier: Apache-2.0
"""What SentenceTransformer and CrossEncoder share: settings, prompts, the length limit, and the way of
texts through tokenizer and encoder."""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from importlib import import_module
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from simdformer.folder.loading import COMPUTE_TYPES
from simdformer.functional.arrays import positive_int
from simdformer.text.batching import TokenBatch, chunks, map_ahead, pack, split_by_tokens
from simdformer.text.inputs import check_device
from simdformer.text.tokenizer import Text, Tokenizer, Tokens

Array = NDArray[Any]
Float32 = NDArray[np.float32]
R = TypeVar("R")

_logger = logging.getLogger("simdformer")


class Encoder(Protocol):
    """What is asked of an encoder here."""

    @property
    def max_positions(self) -> int: ...


class Loaded(Protocol):
    """What loading any model gives."""

    @property
    def tokenizer(self) -> Tokenizer: ...
    @property
    def encoder(self) -> Encoder: ...
    @property
    def compute_type(self) -> str: ...
    @property
    def part_types(self) -> Mapping[str, str]: ...


class TextModel:
    """A model that reads texts, or pairs of them.

    Attributes: those that the classes below it list.
    """

    def __init__(
        self, *, compute_type: str, num_threads: int | None, max_batch_tokens: int, device: object
    ) -> None:
        """Check what can be checked before anything is read."""
        if compute_type not in COMPUTE_TYPES:
            known = ", ".join(COMPUTE_TYPES)
            raise ValueError(f"unknown compute_type {compute_type!r}; known: {known}")
        check_device(device)
        self._num_threads = 0 if num_threads is None else positive_int("num_threads", num_threads)
        self._max_batch_tokens = positive_int("max_batch_tokens", max_batch_tokens)
        self._counting = threading.Lock()
        self.num_tokens = 0
        self.truncated_texts = 0

    def _take(
        self,
        name: str | os.PathLike[str],
        loaded: Loaded,
        prompts: dict[str, str],
        default_prompt_name: str | None,
    ) -> None:
        """Take over what was loaded. ValueError if no prompt has the default's name."""
        self._name = os.fspath(name)
        self.compute_type = loaded.compute_type
        self.part_types = dict(loaded.part_types)
        self._tokenizer = loaded.tokenizer
        self._max_positions = loaded.encoder.max_positions
        self.prompts = prompts
        self.default_prompt_name = default_prompt_name
        self._resolve_prompt(None, default_prompt_name)

    # --- the length limit ---

    @property
    def max_seq_length(self) -> int:
        """The longest text (or pair) in tokens, special tokens included; longer ones are truncated.

        It may be set, up to the number of the model's positions; None sets it to that number.
        """
        return self._tokenizer.max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, value: int | None) -> None:
        self._limit_length("max_seq_length", self._max_positions if value is None else value)

    def _limit_length(self, argument: str, value: int) -> None:
        value = positive_int(argument, value)
        if value > self._max_positions:
            raise ValueError(
                f"{argument} must be at most {self._max_positions}, the model's positions,"
                f" got {value}"
            )
        self._tokenizer = self._tokenizer.with_max_seq_length(value)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, with its limit fixed; it cannot be changed under a running call."""
        return self._tokenizer

    # --- the way of the data ---

    def _matrix(
        self,
        texts: Iterable[Text],
        forward: Callable[[TokenBatch], Float32],
        shape: tuple[int, int],
        bar: Any,
    ) -> Float32:
        """What `forward` makes of all texts: float32 (number of texts, width), the shape."""
        if shape[0] == 1:
            (text,) = texts
            result = self._run_one(text, forward)
            if bar is not None:
                bar.update(1)
            return result
        result = np.empty(shape, dtype=np.float32)
        row = 0
        with closing(self._run(texts, forward)) as parts:
            for part in parts:
                result[row : row + len(part)] = part
                row += len(part)
                if bar is not None:
                    bar.update(len(part))
        return result

    def _run_one(self, text: Text, forward: Callable[[TokenBatch], Float32]) -> Float32:
        """_run of a single text, without the generators that batches need: a pass over the weights empties
        the caches, and every function on the way costs microseconds (0.04 ms of 1 to 2)."""
        tokens = self._tokenizer([text])
        if tokens.num_truncated:
            self._count_truncated(tokens.num_truncated)
        return self._counted(pack(tokens.input_ids, tokens.type_ids), forward)

    def _counted(self, batch: TokenBatch, forward: Callable[[TokenBatch], R]) -> R:
        """forward(batch), whose tokens count once it is done."""
        output = forward(batch)
        with self._counting:
            self.num_tokens += len(batch.input_ids)
        return output

    def _run(
        self, texts: Iterable[Text], forward: Callable[[TokenBatch], Any]
    ) -> Generator[Any, None, None]:
        """`forward` of consecutive batches of texts; the next ones are tokenised meanwhile.

        Closing it ends the tokenizing thread, also when an exception keeps this frame alive.
        """
        # The attribute is read once: setting max_seq_length does not change a running call.
        for tokens in map_ahead(self._tokenizer, chunks(texts)):
            if tokens.num_truncated:
                self._count_truncated(tokens.num_truncated)
            yield from self._run_tokens(tokens, forward)

    def _run_tokens(
        self, tokens: Tokens, forward: Callable[[TokenBatch], Any]
    ) -> Generator[Any, None, None]:
        """`forward` of consecutive batches of what is tokenised already."""
        ids, type_ids = tokens.input_ids, tokens.type_ids
        for part in split_by_tokens(map(len, ids), self._max_batch_tokens):
            batch = pack(ids[part], None if type_ids is None else type_ids[part])
            yield self._counted(batch, forward)

    def _count_truncated(self, count: int) -> None:
        with self._counting:
            first = self.truncated_texts == 0
            self.truncated_texts += count
        if first:
            warnings.warn(
                f"texts longer than max_seq_length={self.max_seq_length} tokens are truncated"
                f" ({count} so far; the model's truncated_texts counts on, without a warning)",
                stacklevel=_levels_to_caller(),
            )

    def _padded_tokens(self, texts: Sequence[Text]) -> dict[str, Array]:
        """The model's view of texts, padded on the right: int64 (n, longest) each."""
        tokens = self._tokenizer(texts)
        ids = tokens.input_ids
        longest = max(map(len, ids), default=0)
        type_ids = tokens.type_ids or [[0] * len(row) for row in ids]
        ones = [[1] * len(row) for row in ids]
        return {
            "input_ids": _padded(ids, longest, self._tokenizer.pad_id),
            "token_type_ids": _padded(type_ids, longest, 0),
            "attention_mask": _padded(ones, longest, 0),
        }

    def _resolve_prompt(self, prompt: str | None, prompt_name: str | None) -> str | None:
        if prompt is not None:
            if prompt_name is not None:
                warnings.warn(
                    f"prompt and prompt_name={prompt_name!r} are both given; prompt is used",
                    stacklevel=_levels_to_caller(),
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


def _levels_to_caller() -> int:
    """warnings.warn's stacklevel, in the function that asks, for the code that called the library."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back and str(frame.f_globals.get("__name__")).startswith("simdformer."):
        level, frame = level + 1, frame.f_back
    return level


def _padded(rows: Sequence[Sequence[int]], width: int, fill: int) -> Array:
    return np.array([[*row, *[fill] * (width - len(row))] for row in rows], dtype=np.int64).reshape(
        len(rows), width
    )
