# SPDX-License-Identifier: Apache-2.0
"""Labels of tokens, words and groups of words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import accumulate
from typing import Any, ClassVar, NamedTuple

import tokenizers

from simdformer.folder.loading import LoadedTask
from simdformer.folder.task_folder import TokenClassificationFolder
from simdformer.functional import softmax
from simdformer.functional.arrays import positive_int
from simdformer.models.classification import label_names
from simdformer.pipelines.base import Float32, Pipeline
from simdformer.pipelines.entities import STRATEGIES, Grouping, Token, without_overlaps
from simdformer.text.inputs import as_list, check_known
from simdformer.text.warning import warn_caller


class SplitText(str):
    """A text joined from words.

    starts: where each word begins.
    """

    __slots__ = ("starts", "words")
    words: list[str]
    starts: list[int]

    @classmethod
    def of(cls, words: Any, delimiter: str, index: int) -> SplitText:
        """The text of an input. TypeError if it is not a list of words."""
        listed = None if isinstance(words, str) else as_list(words)
        if listed is None or not all(isinstance(word, str) for word in listed):
            raise TypeError(
                f"inputs[{index}] must be a list of words with is_split_into_words, got {words!r}"
            )
        text = cls(delimiter.join(listed))
        lengths = [len(word) + len(delimiter) for word in listed]
        text.words, text.starts = listed, [0, *accumulate(lengths)]
        return text


class CutText(NamedTuple):
    """A text, its tokens, and the positions of the tokens in each piece that the model reads."""

    text: str
    encoding: tokenizers.Encoding
    pieces: list[list[int]]

    def offsets(self) -> list[tuple[int, int]]:
        """Where each token is in the text."""
        offsets: list[tuple[int, int]] = self.encoding.offsets
        if not isinstance(self.text, SplitText):
            return offsets
        starts = [0 if word is None else self.text.starts[word] for word in self.encoding.word_ids]
        return [(start + a, start + b) for start, (a, b) in zip(starts, offsets, strict=True)]


class CutTexts(NamedTuple):
    """Several texts, and the tokens of all their pieces, as the model reads them."""

    texts: list[CutText]
    input_ids: list[list[int]]
    type_ids: list[list[int]] | None
    num_truncated: int


class TokenClassificationPipeline(Pipeline):
    """Labels of the tokens of a text, or of the entities that aggregation_strategy forms from them."""

    task = "token-classification"
    ALWAYS_TRUNCATES = True
    OPENS = TokenClassificationFolder
    ARGUMENTS: ClassVar[Mapping[str, Any]] = {
        "aggregation_strategy": "none",
        "ignore_labels": None,
        "stride": None,
        "is_split_into_words": False,
        "delimiter": None,
    }

    def __call__(self, inputs: Any, **arguments: Any) -> Any:
        """Compute the entities of inputs; see Pipeline. With is_split_into_words, a text is a list of words."""
        words = None if isinstance(inputs, str) else as_list(inputs)
        if self._settings(arguments).is_split_into_words and words and isinstance(words[0], str):
            inputs = [words]
        return super().__call__(inputs, **arguments)

    def _adopt(self, loaded: LoadedTask) -> None:
        self._labels = label_names(loaded.config)
        if not all(isinstance(label, str) for label in self._labels):
            raise ValueError(f"config.json: the names in id2label must be str, got {self._labels}")
        # In such vocabularies a token without the prefix begins a word.
        model = self.pipeline.tokenizer.backend.model
        self._knows_words = bool(getattr(model, "continuing_subword_prefix", None))

    def _check(self, settings: Any) -> None:
        strategy = settings.aggregation_strategy
        strategy = str(getattr(strategy, "value", strategy)).lower()
        check_known("aggregation_strategy", strategy, STRATEGIES)
        settings.aggregation_strategy = strategy
        ignored = ["O"] if settings.ignore_labels is None else settings.ignore_labels
        settings.ignore_labels = as_list(ignored) if not isinstance(ignored, str) else None
        if settings.ignore_labels is None:
            raise TypeError(f"ignore_labels must be a list of labels, got {ignored!r}")
        if settings.stride is not None:
            self._check_stride(settings)
        if settings.delimiter is not None and not isinstance(settings.delimiter, str):
            raise TypeError(f"delimiter must be a str, got {settings.delimiter!r}")
        if strategy in ("first", "average", "max") and not self._knows_words:
            warn_caller(
                f"aggregation_strategy={strategy!r}: the tokenizer does not mark where words"
                " begin; words are separated at spaces instead"
            )

    def _check_stride(self, settings: Any) -> None:
        stride, room = settings.stride, self._room()
        if stride != 0 or isinstance(stride, bool):
            positive_int("stride", stride)
        if stride >= room:
            raise ValueError(
                f"stride must be less than {room}, the number of tokens of a text that the model reads at once,"
                f" got {stride}"
            )
        if settings.aggregation_strategy == "none":
            raise ValueError("stride needs an aggregation_strategy other than 'none'")

    def _room(self) -> int:
        """The number of tokens of a text that the model reads at once."""
        tokenizer = self.pipeline.tokenizer
        return tokenizer.max_seq_length - tokenizer.backend.num_special_tokens_to_add(False)

    def _results(self, items: list[Any], settings: Any, first: int) -> Iterator[Any]:
        texts: list[str] = []
        if settings.is_split_into_words:
            delimiter = " " if settings.delimiter is None else settings.delimiter
            texts += [SplitText.of(words, delimiter, i) for i, words in enumerate(items, first)]
        else:
            texts += self._texts(items, first)
        for part in self._tokenized(texts, partial(self._cut, stride=settings.stride), first):
            owners = [i for i, cut in enumerate(part.texts, first) for _ in cut.pieces]
            rows = self._token_rows(part, owners)
            for cut in part.texts:
                yield self._entities(cut, [next(rows) for _ in cut.pieces], settings)
            first += len(part.texts)

    def _cut(self, texts: list[str], stride: int | None) -> CutTexts:
        """Tokenize. A text that is too long is truncated, or read in pieces if there is a stride."""
        tokenizer, room = self.pipeline.tokenizer, self._room()
        from_left = tokenizer.truncation_side == "left"
        cuts, num_truncated = [], 0
        split = [text.words for text in texts if isinstance(text, SplitText)]
        encodings = (
            tokenizer.encodings_of_words(split)
            if split
            else tokenizer.encodings(texts, add_special_tokens=True)
        )
        for text, encoding in zip(texts, encodings, strict=True):
            length = len(encoding)
            own = [i for i, owner in enumerate(encoding.sequence_ids) if owner is not None]
            first, last = (own[0], own[-1]) if own else (length, length)
            around = range(first), range(last + 1, length)
            spans = _spans(len(own), room, stride, from_left=from_left)
            num_truncated += stride is None and len(own) > room
            pieces = [[*around[0], *own[a:b], *around[1]] for a, b in spans]
            cuts.append(CutText(text, encoding, pieces))
        ids = [[cut.encoding.ids[i] for i in piece] for cut in cuts for piece in cut.pieces]
        types = [[cut.encoding.type_ids[i] for i in piece] for cut in cuts for piece in cut.pieces]
        return CutTexts(cuts, ids, types if tokenizer.has_type_ids else None, num_truncated)

    def _entities(self, cut: CutText, logits: list[Float32], settings: Any) -> list[dict[str, Any]]:
        """The entities of a text. logits: those of the tokens, for each piece."""
        strategy, ignored = settings.aggregation_strategy, settings.ignore_labels
        grouping = Grouping(self._labels, self.tokenizer.convert_tokens_to_string, strategy)
        found: list[dict[str, Any]] = []
        for piece, rows in zip(cut.pieces, logits, strict=True):
            entities = grouping(self._tokens(cut, piece, softmax(rows)))
            key = "entity" if strategy == "none" else "entity_group"
            found += [entity for entity in entities if entity[key] not in ignored]
        return without_overlaps(found) if len(cut.pieces) > 1 else found

    def _tokens(self, cut: CutText, piece: list[int], scores: Float32) -> Iterator[Token]:
        """The tokens of a piece, without special tokens."""
        encoding, text = cut.encoding, cut.text
        special, offsets = encoding.special_tokens_mask, cut.offsets()
        for index, (place, row) in enumerate(zip(piece, scores, strict=True)):
            if special[place]:
                continue
            start, end = offsets[place]
            number, word = encoding.ids[place], encoding.tokens[place]
            if self._knows_words:
                is_subword = len(word) != end - start
            else:
                is_subword = start > 0 and " " not in text[start - 1 : start + 1]
            if number == self.tokenizer.unk_token_id:
                word, is_subword = text[start:end], False
            yield Token(word, row, start, end, index, is_subword)


def _spans(count: int, room: int, stride: int | None, *, from_left: bool) -> list[tuple[int, int]]:
    """The parts of `count` tokens that are read at once. Consecutive parts have `stride` tokens in common."""
    step = max(count, 1) if stride is None else room - stride
    starts = range(0, max(count - (stride or 0), 1), step)
    spans = [(start, min(start + room, count)) for start in starts]
    return [(count - stop, count - start) for start, stop in spans] if from_left else spans
