# SPDX-License-Identifier: Apache-2.0
"""A model folder's tokenizer, made of its files as transformers 5 makes it.

The class comes first (tokenizer_classes.py): it has a normalizer, a pre-tokenizer and mostly the special
tokens around a text; the generic class takes tokenizer.json as it is. tokenizer.json gives the vocabulary
and what the class leaves open, tokenizer_config.json the class's settings, all files the special and the
added tokens (declared_tokens.py). Source: transformers 5.24, tokenization_utils_tokenizers.py.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import tokenizers
from tokenizers import AddedToken, models, processors

from simdformer.checkpoint import check_regular, read_json, read_optional_json
from simdformer.text.declared_tokens import (
    Declared,
    Token,
    added_token,
    read_declared,
    tokens_to_add,
)
from simdformer.text.sentencepiece_model import merges_of, read_pieces
from simdformer.text.tokenizer_classes import TokenizerClass, choose
from simdformer.text.tokenizer_panic import as_value_error
from simdformer.text.tokenizer_parts import Piece, Source


class TokenizerFiles(NamedTuple):
    """What a folder says about its tokenizer.

    max_length: of a text in tokens, as the file has it. pad_id: 0 if nothing is declared.
    special_tokens: their texts by role, such as "cls_token". special_ids: of those and of others that are
    declared special. has_types: whether token types are given out. truncation_side, padding_side:
    "right" or "left". cleans_up: whether a text made of ids loses the blanks before its signs.
    """

    tokenizer: tokenizers.Tokenizer
    max_length: object = None
    pad_id: int = 0
    special_tokens: Mapping[str, str] = MappingProxyType({})
    special_ids: frozenset[int] = frozenset()
    has_types: bool = True
    truncation_side: str = "right"
    padding_side: str = "right"
    cleans_up: bool = False


class _Content(NamedTuple):
    """What the file with the vocabulary has, and its path.

    rest: tokenizer.json, for the generic class whole, for others without its vocabulary. added: its
    added tokens by id. extra: special tokens without a role that a SentencePiece model has.
    """

    path: Path
    tokens: dict[str, int] | list[Piece]
    merges: list[tuple[str, str]]
    charsmap: bytes | None = None
    unknown_id: int | None = None
    extra: list[Token] | None = None
    added: Mapping[int, AddedToken] | None = None
    rest: tokenizers.Tokenizer | None = None


def read_tokenizer(folder: Path, overrides: Mapping[str, Any]) -> TokenizerFiles:
    """The tokenizer of a folder, whose length limit and padding are left to the caller.

    overrides: what counts in the place of the files' fields.
    Errors: FileNotFoundError if no files are there that a tokenizer can be made of, ImportError if one
    needs a package that is not there, ValueError naming the file that is damaged or declares what is
    not supported.
    """
    config_path = folder / "tokenizer_config.json"
    config = read_optional_json(config_path)
    definition, kind = _chosen(folder, config)
    has_definition = definition.is_file()
    path = definition if has_definition else _vocabulary_file(folder, kind)
    content = _definition(path, kind) if has_definition else _vocabulary(path, kind)
    declared = read_declared(folder, config, overrides, content.added)
    with _reading(path, keep=ValueError):  # which names its file already
        files = _made(config_path, kind, content, declared)
        files.tokenizer.encode("a")  # some definitions fail at a text alone
        return files


def special_tokens(folder: Path, overrides: Mapping[str, Any]) -> dict[str, str]:
    """The texts of a folder's special tokens by role, without its vocabulary. Errors: as above."""
    config = read_optional_json(folder / "tokenizer_config.json")
    definition, kind = _chosen(folder, config)
    declared = read_declared(folder, config, overrides, {} if definition.is_file() else None)
    tokens = declared.special({} if kind is None else kind.special, ())
    return {role: str(token) for role, token in tokens.items()}


def _chosen(folder: Path, config: Mapping[str, Any]) -> tuple[Path, TokenizerClass | None]:
    """Where tokenizer.json is, if it is there, and the class."""
    definition = folder / _definition_name(config)

    def is_byte_level() -> bool:
        return definition.is_file() and b'"ByteLevel"' in definition.read_bytes()

    model = read_optional_json(folder / "config.json")
    return definition, choose(folder / "tokenizer_config.json", config, model, is_byte_level)


def read_definition(path: Path) -> tokenizers.Tokenizer:
    """tokenizer.json as it is, whatever the folder's other files say."""
    try:
        check_regular(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no {path.name} in {path.parent}") from error
    with _reading(path):
        return tokenizers.Tokenizer.from_file(str(path))


def _reading(path: Path, **options: Any) -> AbstractContextManager[None]:
    return as_value_error(f"{path}: not a tokenizer definition", **options)


# --- the file with the vocabulary ---


def _definition_name(config: Mapping[str, Any]) -> str:
    """tokenizer.json, or the newest of the files for versions of transformers."""
    names = config.get("fast_tokenizer_files", [])
    versions = sorted(str(name).removeprefix("tokenizer.") for name in names)
    newest = [v for v in versions if v.endswith(".json") and "0" <= v[0] <= "5"]
    return f"tokenizer.{newest[-1]}" if newest else "tokenizer.json"


def _definition(path: Path, kind: TokenizerClass | None) -> _Content:
    if kind is None:
        whole = read_definition(path)
        return _Content(path, {}, [], added=whole.get_added_tokens_decoder(), rest=whole)
    parsed = read_json(path)
    with _reading(path):
        model = parsed["model"]
        return _Content(
            path,
            _tokens(model["vocab"], kind),
            [_merge(merge) for merge in model.get("merges", [])] if kind.model == "BPE" else [],
            _charsmap(parsed.get("normalizer")),
            added={token["id"]: added_token(path, token) for token in parsed["added_tokens"]},
            rest=_without_vocabulary(parsed),
        )


def _without_vocabulary(parsed: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """What a definition says besides, as the library has it."""
    kept = {
        name: parsed.get(name) for name in ("version", "post_processor", "padding", "truncation")
    }
    empty = json.loads(tokenizers.Tokenizer(models.BPE()).to_str())
    return tokenizers.Tokenizer.from_str(json.dumps({**empty, **kept}))


def _tokens(vocabulary: Any, kind: TokenizerClass) -> dict[str, int] | list[Piece]:
    if isinstance(vocabulary, dict):
        return vocabulary
    if kind.model == "Unigram":
        return [(piece, score) for piece, score in vocabulary]
    return {token if isinstance(token, str) else token[0]: i for i, token in enumerate(vocabulary)}


def _merge(merge: Any) -> tuple[str, str]:
    first, second = merge.split(" ") if isinstance(merge, str) else merge
    return first, second


def _charsmap(normalizer: Any) -> bytes | None:
    """SentencePiece's table of characters in a definition's normalizer."""
    steps = (normalizer or {}).get("normalizers", [normalizer]) if normalizer else []
    tables = [s["precompiled_charsmap"] for s in steps if s.get("type") == "Precompiled"]
    return base64.b64decode(tables[0]) if tables else None


def _vocabulary_file(folder: Path, kind: TokenizerClass | None) -> Path:
    """The first file of the vocabulary. FileNotFoundError if one is missing."""
    files = () if kind is None else kind.files
    if files and files[0].endswith(".model") and (folder / "tokenizer.model").is_file():
        return folder / "tokenizer.model"  # its newer name
    if files and all((folder / file).is_file() for file in files):
        return folder / files[0]
    pieces = sorted(path.name for path in folder.glob("*.model"))
    raise FileNotFoundError(
        f"no tokenizer.json in {folder}"
        + (f", nor {' and '.join(files)}" if files else "; of a tokenizer of the generic class no other file is read")
        + (f", {pieces[0]} neither" if pieces else "")
        + "; transformers writes it: AutoTokenizer.from_pretrained, then save_pretrained"
    )  # fmt: skip


def _vocabulary(path: Path, kind: TokenizerClass | None) -> _Content:
    if path.suffix == ".model":
        model = read_pieces(path)
        if kind is None or kind.model != "BPE":
            return _Content(path, model.pieces, [], model.charsmap, model.unknown_id, model.added)
        ids = {piece: i for i, (piece, _) in enumerate(model.pieces)}
        return _Content(path, ids, merges_of(ids), model.charsmap, extra=model.added)
    check_regular(path)
    with _reading(path):
        if path.suffix == ".json":
            merges = path.with_name("merges.txt")
            check_regular(merges)
            return _Content(path, *models.BPE.read_file(str(path), str(merges)))
        return _Content(path, models.WordPiece.read_file(str(path)), [])


# --- the tokenizer ---


def _made(
    path: Path, kind: TokenizerClass | None, content: _Content, declared: Declared
) -> TokenizerFiles:
    """path: tokenizer_config.json."""
    rest = content.rest
    padding = (rest and rest.padding) or {}
    defaults = {} if kind is None else kind.special
    if "pad_token" in padding:
        defaults = {"pad_token": padding["pad_token"], **defaults}
    special = declared.special(defaults, () if kind is None else kind.strips_left)
    roles = {role: str(token) for role, token in special.items()}
    if kind is None:
        assert rest is not None, "the generic class has no other file"
        tokenizer, extra = rest, declared.extra(declared.old_extra or [])
    else:
        source = Source(path, declared.fields, roles, *content[:5])
        if content.extra is not None and kind.pieces is not None:
            source = replace(source, tokens=kind.pieces(source))
        tokenizer = kind.build(source)
        given = declared.old_extra if content.extra is None else content.extra
        extra = declared.extra(kind.extra(source, given))
    present = tokenizer.get_added_tokens_decoder()
    tokenizer.add_tokens(tokens_to_add(present, declared.added, special, extra))
    texts = list(dict.fromkeys([*roles.values(), *map(str, extra)]))
    if kind is not None and kind.resets_flags:
        tokenizer.add_tokens([AddedToken(text, special=True) for text in texts])
    tokenizer.post_processor = _frame(tokenizer, kind, content, declared.fields, roles)
    known = [i for text in texts if (i := tokenizer.token_to_id(text)) is not None]
    pad_id = tokenizer.token_to_id(roles.get("pad_token", ""))
    return _with_settings(
        path,
        declared.fields,
        TokenizerFiles(
            tokenizer,
            declared.fields.get("model_max_length", declared.fields.get("max_len")),
            padding.get("pad_id", 0) if pad_id is None else pad_id,
            roles,
            frozenset(known),
            kind is not None and kind.has_types,
            ((rest and rest.truncation) or {}).get("direction", "right"),
            padding.get("direction", "left" if kind is not None and kind.pads_left else "right"),
        ),
    )


def _with_settings(path: Path, fields: Mapping[str, Any], files: TokenizerFiles) -> TokenizerFiles:
    """With what tokenizer_config.json sets itself. ValueError names a field that cannot be."""
    for name in ("truncation_side", "padding_side"):
        if fields.get(name, "right") not in ("right", "left"):
            raise ValueError(f"{path}: {name} must be 'right' or 'left', got {fields[name]!r}")
    names = fields.get("model_input_names", ["token_type_ids"] if files.has_types else [])
    if not isinstance(names, list):
        raise ValueError(f"{path}: model_input_names must be a list, got {names!r}")  # noqa: TRY004  (the file is wrong, not the call)
    split = fields.get("split_special_tokens", False)
    if not isinstance(split, bool):
        raise ValueError(f"{path}: split_special_tokens must be true or false, got {split!r}")  # noqa: TRY004
    files.tokenizer.encode_special_tokens = split
    return files._replace(
        has_types="token_type_ids" in names,
        truncation_side=fields.get("truncation_side", files.truncation_side),
        padding_side=fields.get("padding_side", files.padding_side),
        cleans_up=bool(fields.get("clean_up_tokenization_spaces")),
    )


def _frame(
    tokenizer: tokenizers.Tokenizer,
    kind: TokenizerClass | None,
    content: _Content,
    fields: Mapping[str, Any],
    roles: Mapping[str, str],
) -> processors.PostProcessor:
    """The special tokens around a text: the class's, tokenizer.json's, or those that two settings put there."""

    def numbered(role: str) -> tuple[str, int]:
        text = roles.get(role)
        number = None if text is None else tokenizer.token_to_id(text)
        if text is None or number is None:
            raise ValueError(f"{content.path}: the {role}, {text!r}, has no number")
        return text, number

    own = None if kind is None else kind.frame
    given = None if content.rest is None else content.rest.post_processor
    explicit = "add_bos_token" in fields or "add_eos_token" in fields
    if kind is not None and own is not None and not (kind.keeps_frame and (given or explicit)):
        return own(numbered)
    if isinstance(given, processors.PostProcessor) and not explicit:
        return given
    first, last = (
        [numbered(role)] if fields.get(f"add_{role}") and role in roles else []
        for role in ("bos_token", "eos_token")
    )
    single = [*(f"{token}:0" for token, _ in first), "$A:0", *(f"{token}:0" for token, _ in last)]
    second = [part.replace("$A", "$B").removesuffix("0") + "1" for part in single]
    return processors.TemplateProcessing(
        single=single, pair=[*single, *second], special_tokens=[*first, *last]
    )
