# SPDX-License-Identifier: Apache-2.0
"""The tokenizer classes of transformers 5: what each creates from a vocabulary, without the other files.

Each class has its own normalizer and pre-tokenizer, and most have the special tokens around a text. Settings
of tokenizer_config.json change them if the class has such a setting. From tokenizer.json only the vocabulary
is used. Source: transformers 5.24, models/*/tokenization_*.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

Piece = tuple[str, float]  # of a Unigram model: pieces with scores
_BLANK = "\u2581"  # SentencePiece's

# The words of Qwen2: letters with the character before them, single digits, runs of other characters and of
# white space.
_QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Source:
    """The input of a class.

    path, fields: tokenizer_config.json. origin: the file with the vocabulary. roles: the texts of special
    tokens. tokens: ids by token, or pieces in the order of their ids. charsmap: SentencePiece's table of
    characters to replace. unknown_id: the one in a SentencePiece model.
    """

    path: Path
    fields: Mapping[str, Any]
    roles: Mapping[str, str]
    origin: Path
    tokens: dict[str, int] | list[Piece]
    merges: list[tuple[str, str]]
    charsmap: bytes | None = None
    unknown_id: int | None = None

    def flag(self, name: str, default: bool) -> bool:
        """A field that must be true or false."""
        value = self.fields.get(name, default)
        if not isinstance(value, bool):
            raise ValueError(f"{self.path}: {name} must be true or false, got {value!r}")  # noqa: TRY004  (the file is wrong, not the call)
        return value

    def is_set(self, name: str, default: bool = False) -> bool:
        """Whether a field is true in Python's sense, as the class uses it."""
        return bool(self.fields.get(name, default))

    def number(self, name: str, default: int) -> int:
        value = self.fields.get(name, default)
        if not isinstance(value, int) or value < 0:
            raise ValueError(f"{self.path}: {name} must be a number of at least 0, got {value!r}")
        return value

    def role(self, name: str) -> str:
        """The text of a special token."""
        if name not in self.roles:
            raise ValueError(f"{self.path}: {name} is null, but the tokenizer's class requires one")
        return self.roles[name]

    @property
    def ids(self) -> dict[str, int]:
        tokens = self.tokens
        return (
            tokens
            if isinstance(tokens, dict)
            else {token: i for i, (token, _) in enumerate(tokens)}
        )

    @property
    def pieces(self) -> list[Piece]:
        if isinstance(self.tokens, dict):
            message = (
                f"{self.origin}: its class requires a Unigram model, with a score for each token"
            )
            raise ValueError(message)  # noqa: TRY004  (the file is wrong, not the call)
        return self.tokens


# --- tokenizers without special tokens, from a vocabulary ---


def wordpiece(source: Source) -> Tokenizer:
    unknown = source.role("unk_token")
    if unknown not in source.ids:
        raise ValueError(f"{source.origin}: the token for unknown words, {unknown!r}, is not in it")
    tokenizer = Tokenizer(models.WordPiece(source.ids, unk_token=unknown))
    strip_accents = source.fields.get("strip_accents")
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=source.flag("tokenize_chinese_chars", True),
        strip_accents=None if strip_accents is None else source.flag("strip_accents", False),
        lowercase=source.flag("do_lower_case", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    return tokenizer


def byte_level(source: Source) -> Tokenizer:
    tokenizer = _bpe(source, continuing_subword_prefix="", end_of_word_suffix="")
    prefix = source.flag("add_prefix_space", False)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def qwen2(source: Source) -> Tokenizer:
    tokenizer = _bpe(source, continuing_subword_prefix="", end_of_word_suffix="")
    given = source.fields.get("add_prefix_space")
    prefix = False if given is None else source.flag("add_prefix_space", False)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN2_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def llama(source: Source) -> Tokenizer:
    tokenizer = _bpe(source, fuse_unk=True, byte_fallback=True)
    scheme = "never"
    if source.fields.get("add_prefix_space") is None or source.is_set("add_prefix_space"):
        scheme = "always" if source.is_set("legacy") else "first"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(_BLANK, scheme, split=False)
    tokenizer.decoder = _bytes_decoder(strips=scheme != "never")
    return tokenizer


def gemma(source: Source) -> Tokenizer:
    unknown = source.role("unk_token")
    tokenizer = _bpe(source, fuse_unk=True, byte_fallback=True, unk_token=unknown)
    tokenizer.normalizer = normalizers.Replace(" ", _BLANK)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    tokenizer.decoder = _bytes_decoder(strips=False)
    return tokenizer


def xlm_roberta(source: Source) -> Tokenizer:
    return _unigram(source, 3, _words(source))


def camembert(source: Source) -> Tokenizer:
    unknown = source.role("unk_token")
    unknown_id = next((i for i, (token, _) in enumerate(source.pieces) if token == unknown), 0)
    return _unigram(source, unknown_id, _words(source))


def t5(source: Source) -> Tokenizer:
    return _unigram(source, 2, _words())


def albert(source: Source) -> Tokenizer:
    steps: list[Any] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    if not source.is_set("keep_accents"):
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    if source.is_set("do_lower_case", True):
        steps.append(normalizers.Lowercase())
    if source.charsmap is not None:
        steps.append(normalizers.Precompiled(source.charsmap))
    return _unigram(source, 1, _words(source), steps)


def deberta_v2(source: Source) -> Tokenizer:
    unknown = (source.role("unk_token"), 0.0)
    unknown_id = source.number("unk_id", 1) if source.unknown_id is None else source.unknown_id
    if unknown in source.pieces:
        unknown_id = source.pieces.index(unknown)
    steps: list[Any] = [normalizers.Lowercase()] if source.is_set("do_lower_case") else []
    steps += [
        normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " "),
        normalizers.NFC(),
        normalizers.Strip(left=False, right=True),
    ]
    punctuation = source.is_set("split_by_punct")
    parts: list[Any] = [pre_tokenizers.Punctuation(behavior="isolated")] if punctuation else []
    scheme = "always" if source.is_set("add_prefix_space", True) else "first"
    parts.append(pre_tokenizers.Metaspace(_BLANK, scheme))
    return _unigram(source, unknown_id, parts, steps)


def _bpe(source: Source, **options: Any) -> Tokenizer:
    return Tokenizer(models.BPE(source.ids, source.merges, **options))


def _unigram(
    source: Source, unknown_id: int, parts: list[Any], steps: list[Any] | None = None
) -> Tokenizer:
    """steps: of the normalizer; None for SentencePiece's table of characters."""
    tokenizer = Tokenizer(models.Unigram(source.pieces, unknown_id, byte_fallback=False))
    if steps is not None:
        tokenizer.normalizer = normalizers.Sequence(steps)
    elif source.charsmap is not None:
        tokenizer.normalizer = normalizers.Precompiled(source.charsmap)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
    tokenizer.decoder = decoders.Metaspace(_BLANK, parts[-1].prepend_scheme)
    return tokenizer


def _bytes_decoder(*, strips: bool) -> decoders.Decoder:
    """strips: remove the space before the first word."""
    steps: list[Any] = [decoders.Replace(_BLANK, " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if strips else steps)


def _words(source: Source | None = None) -> list[Any]:
    """Words separated by white space, each with a space before it unless a setting says otherwise."""
    prefix = source is None or source.is_set("add_prefix_space", True)
    scheme = "always" if prefix else "never"
    return [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(_BLANK, scheme)]


# --- the special tokens around a text. numbered: a token's text and id, by its role. fields: of
# tokenizer_config.json ---

Numbered = Callable[[str], tuple[str, int]]
ConfigFields = Mapping[str, Any]


def bert_frame(numbered: Numbered, _: ConfigFields) -> processors.PostProcessor:
    return _template(numbered("cls_token"), numbered("sep_token"))


def albert_frame(numbered: Numbered, _: ConfigFields) -> processors.PostProcessor:
    return _template(("[CLS]", numbered("cls_token")[1]), ("[SEP]", numbered("sep_token")[1]))


def _template(cls: tuple[str, int], sep: tuple[str, int]) -> processors.PostProcessor:
    return processors.TemplateProcessing(
        single=f"{cls[0]}:0 $A:0 {sep[0]}:0",
        pair=f"{cls[0]}:0 $A:0 {sep[0]}:0 $B:1 {sep[0]}:1",
        special_tokens=[cls, sep],
    )


def roberta_frame(numbered: Numbered, fields: ConfigFields) -> processors.PostProcessor:
    trims, prefixes = fields.get("trim_offsets", True), fields.get("add_prefix_space", False)
    return processors.RobertaProcessing(
        numbered("sep_token"), numbered("cls_token"), bool(trims), bool(prefixes)
    )


def xlm_roberta_frame(numbered: Numbered, _: ConfigFields) -> processors.PostProcessor:
    first, last = numbered("bos_token"), numbered("eos_token")
    single = [first[0], "$A", last[0]]
    return processors.TemplateProcessing(
        single=single, pair=[*single, last[0], "$B", last[0]], special_tokens=[first, last]
    )


def t5_frame(numbered: Numbered, _: ConfigFields) -> processors.PostProcessor:
    end = "</s>"
    return processors.TemplateProcessing(
        single=["$A", end],
        pair=["$A", end, "$B", end],
        special_tokens=[(end, numbered("eos_token")[1])],
    )
