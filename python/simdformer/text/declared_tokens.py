# SPDX-License-Identifier: Apache-2.0
"""The special and added tokens declared in the files of a model folder, merged as in transformers 5.

tokenizer_config.json comes first. If it has no `added_tokens_decoder`, special_tokens_map.json changes its
fields, and added_tokens.json and then tokenizer.json say which tokens are added. Source: transformers 5.24,
tokenization_utils_base.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import AddedToken

from simdformer.checkpoint import read_optional_json

Token = str | AddedToken

# transformers' order. Tokens that are missing in the vocabulary get ids in this order.
ROLES = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_EXTRA, _OLD_EXTRA = "extra_special_tokens", "additional_special_tokens"


class Declared(NamedTuple):
    """fields: of tokenizer_config.json, changed by special_tokens_map.json. named: special tokens with a role
    that the model defines. added: the added tokens by id."""

    fields: dict[str, Any]
    named: dict[str, Token]
    added: dict[int, AddedToken]

    def special(
        self, defaults: Mapping[str, str | None], strips_left: Iterable[str]
    ) -> dict[str, Token]:
        """The special tokens by role. defaults: used if no file names a token. strips_left: roles of tokens
        that include the space before them if only their text is given."""
        given = {role: self.fields.get(role, defaults.get(role)) for role in ROLES}
        for role in strips_left:
            if isinstance(text := given[role], str):
                given[role] = AddedToken(text, lstrip=True, special=True)
        return {role: token for role, token in given.items() if token is not None} | self.named

    def extra(self, otherwise: Iterable[Token]) -> list[Token]:
        """The special tokens without a role. otherwise: used if tokenizer_config.json has none."""
        return list(self.fields[_EXTRA] or [] if _EXTRA in self.fields else otherwise)

    @property
    def old_extra(self) -> list[Token] | None:
        """The special tokens without a role in the older files."""
        return self.fields.get(_OLD_EXTRA)


def read_declared(
    folder: Path,
    config: Mapping[str, Any],
    overrides: Mapping[str, Any],
    of_definition: Mapping[int, AddedToken] | None,
) -> Declared:
    """Read the tokens that a folder declares.

    config: its tokenizer_config.json. overrides: replace fields of the files. of_definition: the added tokens
    of tokenizer.json; None if there is no such file.
    Errors: ValueError naming the file with invalid tokens.
    """
    path, fields = folder / "tokenizer_config.json", dict(config)
    if of_definition is not None:  # it defines the special tokens around a text
        for name in ("add_bos_token", "add_eos_token"):
            fields.pop(name, None)
    fields.update(overrides)
    if _OLD_EXTRA in fields and not fields.get(_EXTRA):
        fields[_EXTRA] = fields.pop(_OLD_EXTRA)
    texts = [name for name in _own_roles(fields) if isinstance(fields[name], str)]
    named: dict[str, Any] = {name: fields.pop(name) for name in texts}
    _move_extra(fields, named)
    if "added_tokens_decoder" in fields:
        added = _numbered(path, fields["added_tokens_decoder"])
    else:
        _merge_map(folder / "special_tokens_map.json", fields, overrides)
        _move_extra(fields, named)
        added = _old_added(folder / "added_tokens.json", _texts(fields)) | dict(of_definition or {})
    for role in (*ROLES, *_own_roles(fields)):
        if fields.get(role) is not None:
            fields[role] = token_of(path, fields[role])
    for name in (_EXTRA, _OLD_EXTRA):
        if fields.get(name) is not None:
            fields[name] = _tokens(path, name, fields[name])
    known = {token.content: token for token in added.values()}
    for role in ROLES:
        if fields.get(role) is not None:
            fields[role] = known.get(str(fields[role]), fields[role])
    first = {name: fields[name] for name in _own_roles(fields)}
    return Declared(fields, first | {k: token_of(path, v) for k, v in named.items()}, added)


def tokens_to_add(
    present: Mapping[int, AddedToken],
    added: Mapping[int, AddedToken],
    special: Mapping[str, Token],
    extra: Iterable[Token],
) -> list[AddedToken]:
    """The added and special tokens that the tokenizer lacks, in the order in which they get ids.

    present: its tokens. special: by role. extra: without a role.
    """
    there = {repr(token) for token in present.values()}
    found: list[Token] = [added[i] for i in sorted(added) if repr(added[i]) not in there]
    known = {token.content for token in present.values()} | {str(token) for token in found}
    for token in (*special.values(), *extra):
        if str(token) not in known and token not in found:  # an object differs from its text
            found.append(token)
    texts = {str(token) for token in special.values()}
    tokens = [AddedToken(t, special=True) if isinstance(t, str) else t for t in found]
    for token in tokens:
        if token.content in texts:
            token.special = True
    return tokens


def token_of(path: Path, value: object) -> Token:
    """A token from JSON: its text, or an object."""
    if isinstance(value, (str, AddedToken)):
        return value
    if not isinstance(value, dict) or not isinstance(value.get("content"), str):
        raise ValueError(f"{path}: a token must be a string or an object with one, got {value!r}")  # noqa: TRY004  (the file is wrong, not the call)
    flags = {name: value[name] for name in _FLAGS if name in value}
    if not all(isinstance(flag, bool) for flag in flags.values()):
        raise ValueError(f"{path}: the settings of a token must be true or false, got {value!r}")
    return AddedToken(value["content"], **flags)


def added_token(path: Path, value: object) -> AddedToken:
    """The library's object for a token. A plain text has no settings."""
    token = token_of(path, value)
    return AddedToken(token) if isinstance(token, str) else token


def _own_roles(fields: Mapping[str, Any]) -> list[str]:
    """The names of roles other than the usual ones."""
    return [
        name
        for name, value in fields.items()
        if name.endswith("_token") and name not in ROLES and _is_token(value)
    ]


def _is_token(value: object) -> bool:
    """Whether a field is a token: a string, or an object of that type."""
    if isinstance(value, dict):
        return value.get("__type") == "AddedToken"
    return isinstance(value, (str, AddedToken))


def _move_extra(fields: dict[str, Any], named: dict[str, Any]) -> None:
    if isinstance(fields.get(_EXTRA), dict):
        named.update(fields.pop(_EXTRA))


def _merge_map(path: Path, fields: dict[str, Any], overrides: Mapping[str, Any]) -> None:
    """Merge special_tokens_map.json into the fields. Its list of extra tokens is appended."""
    for name, value in read_optional_json(path).items():
        if overrides.get(name):
            continue
        if name == _EXTRA and isinstance(value, list):
            mine = fields.get(_EXTRA) or []
            fields[_EXTRA] = [*mine, *(token for token in value if token not in mine)]
        elif isinstance(value, dict) and name != _EXTRA:
            fields[name] = token_of(path, {**value, "special": True})
        else:
            fields[name] = value


def _texts(fields: Mapping[str, Any]) -> set[str]:
    """The texts of the declared special tokens. As in transformers, objects in tokenizer_config.json are left
    out, because they are read later."""
    extra = fields.get(_EXTRA)  # other types are rejected later, with the name of the field
    values = [*(fields.get(role) for role in ROLES), *(extra if isinstance(extra, list) else [])]
    return {str(value) for value in values if value}


def _tokens(path: Path, name: str, values: object) -> list[Token]:
    if not isinstance(values, list):
        raise ValueError(f"{path}: {name} must be a list of tokens, got {values!r}")  # noqa: TRY004  (the file is wrong, not the call)
    return [token_of(path, value) for value in values]


def _numbered(path: Path, values: object) -> dict[int, AddedToken]:
    """Tokens sorted by id. The library numbers them in this order."""
    if not isinstance(values, dict) or not all(_is_number(key) for key in values):
        raise ValueError(f"{path}: added tokens must be an object with ids, got {values!r}")
    return {int(key): added_token(path, value) for key, value in values.items()}


def _old_added(path: Path, special: set[str]) -> dict[int, AddedToken]:
    """The added tokens in files from before 2023, which map texts to ids."""
    values = {
        str(number): {
            "content": text,
            "special": text in special,
            "normalized": text not in special,
        }
        for text, number in read_optional_json(path).items()
    }
    return _numbered(path, values)


def _is_number(key: str) -> bool:
    return key.isdecimal() and len(key) < 10
