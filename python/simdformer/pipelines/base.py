# SPDX-License-Identifier: Apache-2.0
"""What the pipelines of all tasks have in common: arguments, forms of inputs, batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from types import SimpleNamespace
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from simdformer import nn
from simdformer.drop_in.arguments import FoundRequest
from simdformer.drop_in.transformers_tokenizer import TransformersTokenizer
from simdformer.folder.loading import LoadedTask, load_task
from simdformer.functional.arrays import positive_int
from simdformer.text.batching import chunks, map_ahead
from simdformer.text.finite import check_finite
from simdformer.text.inputs import as_list, check_known
from simdformer.text.pipeline import TextPipeline
from simdformer.text.tokenizer import Tokenizer, check_text
from simdformer.text.truncation import TRUNCATIONS

Float32 = NDArray[np.float32]

_NO_LIMIT = 2**62
# The number of inputs of an iterator that are computed together, unless batch_size is given.
_GROUP = 64
# Arguments of transformers that change how torch computes. Nothing is padded here.
_NO_EFFECT = {"batch_size": None, "num_workers": None}
TOKENIZING: Mapping[str, Any] = {"truncation": None, "max_length": None, "padding": None}


class Tokenized(Protocol):
    """`Tokens`, or what has the same attributes."""

    @property
    def input_ids(self) -> list[list[int]]:
        """One list of ids per text."""

    @property
    def type_ids(self) -> list[list[int]] | None:
        """The same for token types, None if all are 0."""

    @property
    def num_truncated(self) -> int:
        """Number of truncated texts."""


T = TypeVar("T", bound=Tokenized)


class Pipeline(ABC):
    """A model for a task. `simdformer.pipeline` creates it.

    An input gives the same result in any batch and with any number of threads.

    Attributes
    ----------
    task : str
        The name of the task.
    name_or_path : str
        The name or folder by which the model was loaded.
    config : dict
        The model's config.json.
    encoder : nn.TextEncoder
        The model without its head.
    compute_type, part_types, num_tokens, truncated_texts
        See `SentenceTransformer`.

    Examples
    --------
    >>> from simdformer import pipeline
    >>> embed = pipeline("feature-extraction", "all-MiniLM-L6-v2")
    >>> len(embed("A cat.")[0])  # tokens
    5
    """

    task: ClassVar[str]
    # Opens the folder of the model.
    OPENS: ClassVar[Callable[..., Any]]
    # The arguments of a call besides the inputs, with their defaults.
    ARGUMENTS: ClassVar[Mapping[str, Any]]
    # Whether long inputs are truncated, with a warning, even if no argument asks for it.
    ALWAYS_TRUNCATES: ClassVar[bool] = False

    def __init__(self, request: FoundRequest, arguments: Mapping[str, Any]) -> None:
        """arguments: defaults for the arguments of calls."""
        found = request.found()
        opens = type(self).OPENS
        loaded = load_task(found.folder, found.compute_type, found.overrides, opens)
        self._request = found
        self._arguments = dict(arguments)
        self.name_or_path = found.name_or_path
        self.encoder: nn.TextEncoder = loaded.encoder
        self.compute_type, self.part_types = loaded.compute_type, dict(loaded.part_types)
        self.config = dict(loaded.config)
        self.pipeline = TextPipeline(
            loaded.tokenizer,
            loaded.encoder,
            loaded.pool,
            found.budget,
            padding=loaded.pad_token_id,
        )
        self.tokenizer = TransformersTokenizer(self)
        self._adopt(loaded)
        self._settings({})

    def _adopt(self, loaded: LoadedTask) -> None:  # noqa: B027  (not every task needs it)
        """Keep what the task needs of the loaded model."""

    def __reduce__(self) -> Any:
        return type(self), (self._request, self._arguments)

    def __repr__(self) -> str:
        return f"pipeline({self.task!r}, {self.name_or_path!r})"

    @property
    def num_tokens(self) -> int:
        """Number of tokens computed since loading."""
        return self.pipeline.num_tokens

    @property
    def truncated_texts(self) -> int:
        """Number of inputs truncated since loading. Only the first call with such an input warns."""
        return self.pipeline.truncated_texts

    @property
    def max_seq_length(self) -> int:
        """The number of tokens to which inputs are truncated, if they are."""
        return self.pipeline.tokenizer.max_seq_length

    def __call__(self, inputs: Any, **arguments: Any) -> Any:
        """Compute the results of inputs.

        Parameters
        ----------
        inputs
            One input, a list of inputs, or an iterable without a length, such as a generator.
        **arguments
            Arguments of the task. They take precedence over those given to `simdformer.pipeline`.

        Returns
        -------
        object, list or iterator
            The result of one input, a list of them, or an iterator that computes them as it is
            read. Results have the form of transformers.

        Raises
        ------
        TypeError, ValueError
            If an input or an argument cannot be used; the message names it.
        """
        settings = self._settings(arguments)
        if self._is_single(inputs):
            (result,) = self._results([inputs], settings, 0)
            return result
        listed = as_list(inputs)
        if listed is not None:
            return list(self._results(listed, settings, 0))
        if isinstance(inputs, (bytes, bytearray, dict, set, frozenset, np.ndarray)):
            raise TypeError(f"inputs must be a str or several of them, got {type(inputs).__name__}")
        try:
            iterator = iter(inputs)
        except TypeError:
            raise TypeError(
                f"inputs must be a str or several of them, got {type(inputs).__name__}"
            ) from None
        return self._stream(iterator, settings)

    # --- defined by each task ---

    @abstractmethod
    def _check(self, settings: Any) -> None:
        """Raise an error for an invalid argument, and convert the others."""

    @abstractmethod
    def _results(self, items: list[Any], settings: Any, first: int) -> Iterator[Any]:
        """The result of each input. first: the index of the first input, for error messages."""

    def _is_single(self, inputs: object) -> bool:
        return isinstance(inputs, str)

    # --- used by the tasks ---

    def _settings(self, arguments: Mapping[str, Any]) -> Any:
        """The checked arguments of a call."""
        known = {**_NO_EFFECT, **self.ARGUMENTS}
        given = {**self._arguments, **arguments}
        if unknown := given.keys() - known.keys():
            raise TypeError(
                f"{self.task} got unknown arguments: {', '.join(sorted(unknown))};"
                f" known: {', '.join(known)}"
            )
        settings = SimpleNamespace(**{**known, **given}, given=given)
        if settings.batch_size is not None:
            positive_int("batch_size", settings.batch_size)
        self._check(settings)
        return settings

    def _stream(self, items: Iterator[Any], settings: Any) -> Iterator[Any]:
        size, first = settings.batch_size or _GROUP, 0
        while group := list(islice(items, size)):
            yield from self._results(group, settings, first)
            first += len(group)

    def _tokenizer(self, settings: Any) -> Tokenizer:
        """The tokenizer with the truncation that the arguments ask for. The default is none, as in transformers."""
        truncation, length = settings.truncation, settings.max_length
        if not isinstance(truncation, (bool, str, type(None))):
            raise TypeError(f"truncation must be a bool or a str, got {truncation!r}")
        if truncation is None:
            truncation = length is not None and settings.padding in (None, False)
        strategy = {True: "longest_first", False: "do_not_truncate"}.get(truncation, truncation)
        check_known("truncation", strategy, TRUNCATIONS)
        tokenizer = self.pipeline.tokenizer
        limit = tokenizer.max_seq_length
        if strategy == "do_not_truncate":
            limit = _NO_LIMIT
        elif length is not None:
            limit = positive_int("max_length", length)
        return tokenizer.truncating(None, limit, strategy)

    def _tokenized(
        self,
        texts: Iterable[Any],
        tokenizer: Callable[[list[Any]], T],
        first: int,
        each: int = 1,
    ) -> Iterator[T]:
        """The tokens of consecutive texts. The next ones are tokenized while the model computes.

        each: the number of texts per input. ValueError for a text that has more tokens than the model has
        positions.
        """
        most, count = self.pipeline.encoder.max_positions, first * each
        for tokens in map_ahead(tokenizer, chunks(texts)):
            if tokens.num_truncated:
                warned_with = self.pipeline.tokenizer if self.ALWAYS_TRUNCATES else None
                self.pipeline.count_truncated(tokens.num_truncated, warned_with)
            for index, ids in enumerate(tokens.input_ids, count):
                if 0 < most < len(ids):
                    raise ValueError(
                        f"inputs[{index // each}] has {len(ids)} tokens, and the model has {most} positions:"
                        " shorten the text, or pass truncation=True"
                    )
            yield tokens
            count += len(tokens.input_ids)

    def _rows(
        self, texts: Iterable[Any], tokenizer: Tokenizer, first: int, each: int = 1
    ) -> Iterator[Float32]:
        """A row for each text: float32 (width,)."""
        count = first * each
        for tokens in self._tokenized(texts, tokenizer, first, each):
            rows = self.pipeline.rows_of_tokens(tokens)
            finite = np.isfinite(rows).all(axis=1)
            if not finite.all():
                place = int(finite.argmin())
                check_finite(rows[[place]], (count + place) // each)
            count += len(rows)
            yield from rows

    def _token_rows(self, tokens: Any, owners: Iterable[int]) -> Iterator[Float32]:
        """A row for each token of each text: float32 (tokens, width). owners: the index of each text's input."""
        parts = chain.from_iterable(self.pipeline.token_row_passes(tokens))
        for owner, rows in zip(owners, parts, strict=False):
            check_finite(rows[None], owner)
            yield rows

    @staticmethod
    def _texts(items: list[Any], first: int) -> list[str]:
        return [check_text(text, index, "inputs") for index, text in enumerate(items, first)]
