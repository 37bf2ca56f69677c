# SPDX-License-Identifier: Apache-2.0
"""Creates a model folder's tokenizer from its files, as in transformers 5.

The class decides first (tokenizer_classes.py): it has a normalizer, a pre-tokenizer and mostly the special
tokens around a text. The generic class uses tokenizer.json without changes. tokenizer.json contains the
vocabulary and whatever the class does not define, tokenizer_config.json the settings of the class, and all
files the special and added tokens (declared_tokens.py). Source: transformers 5.24,
tokenization_utils_tokenizers.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import tokenizers
from tokenizers import AddedToken, processors

from simdformer.checkpoint import read_optional_json
from simdformer.text.declared_tokens import ROLES, Declared, read_declared, tokens_to_add
from simdformer.text.tokenizer_classes import TokenizerClass, choose
from simdformer.text.tokenizer_parts import Source
from simdformer.text.vocabulary_files import (
    Content,
    definition_name,
    read_content,
    read_vocabulary,
    reading,
    vocabulary_file,
)


class TokenizerFiles(NamedTuple):
    """The settings of a folder's tokenizer.

    max_length: of a text in tokens, as stored in the file. pad_id: 0 if none is declared.
    special_tokens: their texts by role, such as "cls_token". special_ids: the ids of these and of other
    tokens that are declared special. has_types: whether token types are returned.
    truncation_side, padding_side: "right" or "left". cleans_up: whether decoding removes the spaces before
    punctuation.
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


def read_tokenizer(folder: Path, overrides: Mapping[str, Any]) -> TokenizerFiles:
    """The tokenizer of a folder, without length limit and padding.

    overrides: replace fields of the files.
    Errors: FileNotFoundError if there are no files for a tokenizer, ImportError if one needs a missing
    package, ValueError with the file that is damaged or declares something unsupported.
    """
    config_path = folder / "tokenizer_config.json"
    config = read_optional_json(config_path)
    definition, kind = _chosen(folder, config)
    has_definition = definition.is_file()
    path = definition if has_definition else vocabulary_file(folder, kind)
    content = read_content(path, kind) if has_definition else read_vocabulary(path, kind)
    declared = read_declared(folder, config, overrides, content.added)
    with reading(path, keep=ValueError):  # the message already names the file
        files = _made(config_path, kind, content, declared)
        files.tokenizer.no_truncation()
        files.tokenizer.no_padding()  # first: a damaged length could ask for all of the memory
        files.tokenizer.encode("a")  # some definitions fail only with a text
        return files


def special_tokens(folder: Path, overrides: Mapping[str, Any]) -> dict[str, str]:
    """The texts of a folder's special tokens by role, without loading its vocabulary. Errors: as above."""
    config = read_optional_json(folder / "tokenizer_config.json")
    definition, kind = _chosen(folder, config)
    declared = read_declared(folder, config, overrides, {} if definition.is_file() else None)
    tokens = declared.special({} if kind is None else kind.special, ())
    return {role: str(token) for role, token in tokens.items()}


def _chosen(folder: Path, config: Mapping[str, Any]) -> tuple[Path, TokenizerClass | None]:
    """The path of tokenizer.json, if it exists, and the class."""
    definition = folder / definition_name(config)

    def is_byte_level() -> bool:
        return definition.is_file() and b'"ByteLevel"' in definition.read_bytes()

    model = read_optional_json(folder / "config.json")
    return definition, choose(folder / "tokenizer_config.json", config, model, is_byte_level)


def _made(
    path: Path, kind: TokenizerClass | None, content: Content, declared: Declared
) -> TokenizerFiles:
    """Make the tokenizer. path: tokenizer_config.json."""
    rest = content.rest
    padding = (rest and rest.padding) or {}
    defaults = {} if kind is None else kind.special
    if "pad_token" in padding:
        defaults = {"pad_token": padding["pad_token"], **defaults}
    special = declared.special(defaults, () if kind is None else kind.strips_left)
    if kind is not None and kind.makes_objects:
        texts_only = {role for role in ROLES if isinstance(special.get(role), str)}
        special |= {role: AddedToken(str(special[role])) for role in texts_only}
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
    """Apply the settings of tokenizer_config.json. ValueError names an invalid field."""
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
    content: Content,
    fields: Mapping[str, Any],
    roles: Mapping[str, str],
) -> processors.PostProcessor:
    """The special tokens around a text: those of the class or tokenizer.json, or those that two settings
    add."""

    def numbered(role: str) -> tuple[str, int]:
        text = roles.get(role)
        number = None if text is None else tokenizer.token_to_id(text)
        if text is None or number is None:
            raise ValueError(f"{content.path}: the {role}, {text!r}, has no id")
        return text, number

    own = None if kind is None else kind.frame
    given = None if content.rest is None else content.rest.post_processor
    explicit = "add_bos_token" in fields or "add_eos_token" in fields
    if kind is not None and own is not None and not (kind.keeps_frame and (given or explicit)):
        return own(numbered, fields)
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
