# SPDX-License-Identifier: Apache-2.0
"""The interface to the tokenizers library: texts in, lists of token ids out.

A `tokenizers.Tokenizer` can be used from many threads as long as its truncation and padding are not changed.
So both are disabled here when a Tokenizer is created, and texts are truncated by this module. Besides, the
library would also create the truncated pieces, and for two long texts all their combinations, which takes
seconds and gigabytes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, TypeVar

import tokenizers
from tokenizers import normalizers

from simdformer.text.chat_template import Rendered
from simdformer.text.tokenizer_files import TokenizerFiles, read_tokenizer
from simdformer.text.tokenizer_panic import is_of_library, outside_python
from simdformer.text.truncation import TRUNCATIONS

# transformers writes int(1e30) into model_max_length if a tokenizer has no limit.
_NO_LIMIT = 10**9

# A short text is tokenized without the library's thread pool, which would take longer than the work. A long
# text uses the pool, because only these calls release the GIL.
_SHORT_CHARACTERS = 4096


# Two texts that a model reads together.
Pair = tuple[str, str]
Text = TypeVar("Text", str, Pair)


class Tokens(NamedTuple):
    """The tokens of several texts, or pairs.

    input_ids: one list of ids per text. type_ids: the same for token types, None if all are 0.
    num_truncated: number of texts longer than the limit.
    """

    input_ids: list[list[int]]
    type_ids: list[list[int]] | None
    num_truncated: int


class Tokenizer:
    """A fast tokenizer with a fixed length limit, safe to call from any number of threads.

    Attributes:
      files: the settings of its folder.
      special_ids_around: the special tokens before and after a text's own tokens.
    """

    _pool_works: ClassVar[bool] = True  # the library tries to start its threads only once

    def __init__(
        self,
        files: TokenizerFiles,
        *,
        max_seq_length: int,
        pairs: bool = False,
        with_type_ids: bool = True,
        add_special_tokens: bool = True,
    ) -> None:
        """Use the library's tokenizer without its stored padding and truncation.

        max_seq_length: the longest sequence in tokens, special tokens included.
        pairs: calls are with pairs of texts. If a pair is too long, the longer text is truncated until both
          have the same length, then both.
        with_type_ids: return token types if there are any but 0.
        add_special_tokens: add the special tokens of the post-processor.
        """
        tokenizer = files.tokenizer
        num_special = tokenizer.num_special_tokens_to_add(pairs) if add_special_tokens else 0
        if max_seq_length < max(num_special, 1):
            raise ValueError(
                f"max_seq_length must be at least {max(num_special, 1)}"
                f" ({num_special} special tokens), got {max_seq_length}"
            )
        self.files = files
        self._tokenizer = tokenizer
        self._max_seq_length = max_seq_length
        self._pairs = pairs
        self._add_special_tokens = add_special_tokens
        self._truncation = "longest_first"
        # Token types come from the post-processor's template, so one text shows whether there are other types
        # than 0.
        probe = self._encode(("a", "a") if pairs else "a")
        self._has_type_ids = with_type_ids and any(probe.type_ids)
        own = [i for i, special in enumerate(probe.special_tokens_mask) if not special] or [0, -1]
        self.special_ids_around = probe.ids[: own[0]], probe.ids[own[-1] + 1 :]

    @property
    def max_seq_length(self) -> int:
        """The longest sequence in tokens, special tokens included."""
        return self._max_seq_length

    @property
    def has_type_ids(self) -> bool:
        """Whether token types are given out."""
        return self._has_type_ids

    @property
    def special_ids(self) -> frozenset[int]:
        """The ids of special tokens, such as [CLS]."""
        return self.files.special_ids

    def _encode(self, text: str | Pair) -> tokenizers.Encoding:
        first, second = (text, None) if isinstance(text, str) else text
        special = self._add_special_tokens
        try:
            return self._tokenizer.encode(first, second, add_special_tokens=special)
        except BaseException as error:
            if not is_of_library(error):
                raise
            message = f"a text cannot be tokenized; it begins with {first[:40]!r}: {error}"
            raise ValueError(message) from error

    def with_max_seq_length(self, max_seq_length: int) -> Tokenizer:
        """A copy with another limit."""
        return Tokenizer(
            self.files,
            max_seq_length=max_seq_length,
            pairs=self._pairs,
            with_type_ids=self._has_type_ids,
            add_special_tokens=self._add_special_tokens,
        )

    def with_options(
        self, max_seq_length: int, *, pairs: bool, add_special_tokens: bool
    ) -> Tokenizer:
        """A copy for other kinds of input, with token types if any is not 0."""
        other = copy.copy(self)
        other._max_seq_length = max_seq_length
        other._pairs, other._add_special_tokens = pairs, add_special_tokens
        other._has_type_ids = any(other._encode(("a", "a") if pairs else "a").type_ids)
        return other

    def truncating(
        self, side: str | None, max_seq_length: int | None, truncation: str = "longest_first"
    ) -> Tokenizer:
        """A copy that truncates on another side, or to another length; None for no change. truncation: one of
        TRUNCATIONS."""
        other = copy.copy(self)
        other._truncation = truncation
        if side is not None:
            other.files = self.files._replace(truncation_side=side)
        if max_seq_length is not None:
            other._max_seq_length = max_seq_length
        return other

    @property
    def backend(self) -> tokenizers.Tokenizer:
        """The library's tokenizer. Do not change it."""
        return self._tokenizer

    @property
    def truncation_side(self) -> str:
        """The side on which longer texts are truncated."""
        return self.files.truncation_side

    def __call__(self, texts: Sequence[str] | Sequence[Pair]) -> Tokens:
        """Tokenize. The texts must be str without lone surrogates (see check_text).

        ValueError with the first characters of a text for which the library fails.
        """
        encodings = self._encode_all(texts)
        input_ids = [encoding.ids for encoding in encodings]
        type_ids = [encoding.type_ids for encoding in encodings] if self._has_type_ids else None
        num_truncated = 0
        for i, ids in enumerate(input_ids):
            if len(ids) > self._max_seq_length:
                kept = self._kept(encodings[i].sequence_ids)
                if kept is None:
                    continue
                num_truncated += 1
                input_ids[i] = _with_suffix([ids[k] for k in kept], texts[i])
                if type_ids is not None:
                    type_ids[i] = [type_ids[i][k] for k in kept]
        return Tokens(input_ids, type_ids, num_truncated)

    def encodings(
        self, texts: Sequence[str], *, add_special_tokens: bool
    ) -> Sequence[tokenizers.Encoding]:
        """The library's results for whole texts, with the offsets of tokens in characters."""
        options = {"pairs": False, "add_special_tokens": add_special_tokens}
        return self.with_options(self._max_seq_length, **options)._encode_all(texts, offsets=True)

    def encodings_of_words(self, texts: Sequence[Sequence[str]]) -> list[tokenizers.Encoding]:
        """The same for texts that are split into words, with special tokens. The offsets count from the
        beginning of each word."""
        return [self._tokenizer.encode(list(words), is_pretokenized=True) for words in texts]

    def _encode_all(
        self, texts: Sequence[str] | Sequence[Pair], *, offsets: bool = False
    ) -> Sequence[tokenizers.Encoding]:
        if len(texts) == 1 and num_characters(texts[0]) <= _SHORT_CHARACTERS:
            return [self._encode(texts[0])]
        if not self._pool_works:
            return [self._encode(text) for text in texts]
        try:
            special, library = self._add_special_tokens, self._tokenizer
            encode = library.encode_batch if offsets else library.encode_batch_fast
            with outside_python(sum(map(num_characters, texts))):
                return encode(texts, add_special_tokens=special)
        except BaseException as error:
            if not is_of_library(error):
                raise
        # one by one, to find the text, or because no thread can be started
        encodings = [self._encode(text) for text in texts]
        Tokenizer._pool_works = False
        return encodings

    def _kept(self, sequence_ids: Sequence[int | None]) -> list[int] | None:
        """The positions of a sequence that are kept; None if it is not truncated. sequence_ids: which of the
        texts a position belongs to, None for special tokens."""
        texts = [[i for i, owner in enumerate(sequence_ids) if owner == text] for text in (0, 1)]
        first, second = map(len, texts)
        room = self._max_seq_length - (len(sequence_ids) - first - second)
        counts = TRUNCATIONS[self._truncation](first, second, room)
        if counts is None:
            return None
        cut: set[int] = set()
        for positions, count in zip(texts, counts, strict=True):
            from_left = self.files.truncation_side == "left"
            cut.update(positions[: len(positions) - count] if from_left else positions[count:])
        return [i for i in range(len(sequence_ids)) if i not in cut]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """The first character of each token in the whole text, and the one after its last. Special tokens are
        left out."""
        encoding = self._encode(text)
        pairs = zip(encoding.offsets, encoding.sequence_ids, strict=True)
        return [span for span, owner in pairs if owner is not None]

    def spell(self, ids: Iterable[int]) -> tuple[str, ...]:
        """The tokens of ids as strings of the vocabulary."""
        return tuple(self._tokenizer.id_to_token(token_id) or "" for token_id in ids)

    def prompt_length(self, prompt: str) -> int:
        """The number of tokens that a prompt adds before the text, leading special tokens included.

        As in sentence-transformers: the tokens of the prompt, without a special token at the end.
        """
        (ids,) = self([prompt]).input_ids
        return len(ids) - bool(ids and ids[-1] in self.files.special_ids)


def _with_suffix(ids: list[int], text: object) -> list[int]:
    """Truncate a text from a chat template. The template's text after the content is kept."""
    suffix = list(text.suffix)[-len(ids) :] if isinstance(text, Rendered) else []
    return [*ids[: len(ids) - len(suffix)], *suffix]


def num_characters(text: str | Pair) -> int:
    """The length of a text, or the total length of a pair."""
    return len(text) if isinstance(text, str) else len(text[0]) + len(text[1])


def load_tokenizer(
    folder: Path,
    *,
    max_seq_length: int | None,
    max_positions: int,
    do_lower_case: bool,
    overrides: Mapping[str, Any] = MappingProxyType({}),
    pairs: bool = False,
    with_type_ids: bool = True,
    add_special_tokens: bool = True,
) -> Tokenizer:
    """The tokenizer of a model folder.

    max_seq_length: of sentence_bert_config.json. As in sentence-transformers it overrides
      model_max_length of tokenizer_config.json, which is used if it is None.
    max_positions: the number of positions of the encoder, always a limit.
    do_lower_case: convert texts to lower case first.
    overrides: replace fields of tokenizer_config.json; model_max_length also replaces max_seq_length.
    pairs, with_type_ids, add_special_tokens: see Tokenizer.

    Errors: FileNotFoundError or ValueError, naming the file.
    """
    files = read_tokenizer(folder, overrides)
    limit = overrides.get("model_max_length", max_seq_length)
    if limit is None:
        limit = files.max_length
    if not isinstance(limit, (int, float)) or not 0 < limit < _NO_LIMIT:
        limit = max_positions
    if do_lower_case:
        _lower_case_first(files.tokenizer)
    return Tokenizer(
        files,
        max_seq_length=min(int(limit), max_positions),
        pairs=pairs,
        with_type_ids=with_type_ids and files.has_types,
        add_special_tokens=add_special_tokens,
    )


def _lower_case_first(tokenizer: tokenizers.Tokenizer) -> None:
    """Put Lowercase before the normalizer unless it contains one, as sentence-transformers does."""
    normalizer = tokenizer.normalizer
    steps = [normalizer] if normalizer is not None else []
    if isinstance(normalizer, normalizers.Sequence):
        steps = [normalizer[i] for i in range(len(normalizer))]
    if not any(isinstance(step, normalizers.Lowercase) for step in steps):
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *steps])


def check_text(text: object, index: int | None, argument: str = "texts") -> str:
    """Return `text` if it can be tokenized. TypeError and ValueError name the argument and the index, and do
    not quote the text."""
    if not isinstance(text, str):
        raise TypeError(f"{_place(argument, index)} must be a str, got {type(text).__name__}")
    # str stores whether it is ASCII; other texts are scanned once
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{_place(argument, index)} holds the lone surrogate U+{ord(text[error.start]):04X} at"
                f" position {error.start}, which is not text; decode the source with"
                " errors='replace', or replace it"
            ) from error
    return text


def _place(argument: str, index: int | None) -> str:
    return argument if index is None else f"{argument}[{index}]"
