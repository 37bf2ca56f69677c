# SPDX-License-Identifier: Apache-2.0
"""The body of a request: a JSON object whose members are read one by one, each checked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NoReturn

from simdformer.server.errors import invalid, shown
from simdformer.text.tokenizer import check_text

# A model reads the beginning of such a text only, but the tokenizer all of it: a second's work, 0.2 GB.
_MAX_CHARACTERS = 1_000_000


class Fields:
    """The members of a JSON object; null counts as left out. Every method raises ApiError."""

    def __init__(self, body: bytes, known: Sequence[str]) -> None:
        """body: JSON. A member that is not known is refused: what would be ignored is said."""
        try:
            members = json.loads(body, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
            raise invalid(f"the body is not JSON: {reason}") from error
        if not isinstance(members, dict):
            raise invalid(f"the body must be a JSON object, got {_kind(members)}")
        self._members = {name: value for name, value in members.items() if value is not None}
        if unknown := [name for name in self._members if name not in known]:
            raise invalid(
                f"unknown member {shown(unknown[0])}; known: {', '.join(known)}", unknown[0][:80]
            )

    def any(self, name: str) -> Any:
        """A member that must be there."""
        if name not in self._members:
            raise invalid(f"{name} is missing", name)
        return self._members[name]

    def array(self, name: str) -> list[Any]:
        """An array that must be there."""
        value = self.any(name)
        if not isinstance(value, list):
            raise invalid(f"{name} must be an array, got {_kind(value)}", name)
        return value

    def text(self, name: str) -> str | None:
        """A string, None if it is left out."""
        value = self._members.get(name)
        return None if value is None else checked_text(value, name)

    def integer(self, name: str, lowest: int, highest: int | None = None) -> int | None:
        """An integer within bounds, None if it is left out."""
        value = self._members.get(name)
        if value is None:
            return None
        if not is_integer(value):
            raise invalid(f"{name} must be an integer, got {_kind(value)}", name)
        if value < lowest or (highest is not None and value > highest):
            bounds = f"at least {lowest}" if highest is None else f"{lowest} to {highest}"
            raise invalid(f"{name} must be {bounds}, got {shown(value)}", name)
        return int(value)

    def flag(self, name: str, default: bool) -> bool:
        """true or false."""
        value = self._members.get(name, default)
        if not isinstance(value, bool):
            raise invalid(f"{name} must be true or false, got {_kind(value)}", name)
        return value

    def choice(self, name: str, choices: Sequence[Any]) -> Any:
        """One of the choices; the first if it is left out."""
        value = self._members.get(name, choices[0])
        if not any(type(value) is type(choice) and value == choice for choice in choices):
            known = ", ".join(json.dumps(choice) for choice in choices)
            raise invalid(f"{name} must be one of {known}, got {shown(value)}", name)
        return value


def checked_text(value: object, place: str, max_characters: int = _MAX_CHARACTERS) -> str:
    """A string that can be tokenised. ApiError says where it stands in the body."""
    if not isinstance(value, str):
        raise invalid(f"{place} must be a string, got {_kind(value)}", place)
    if len(value) > max_characters:
        raise invalid(f"{place} has {len(value)} characters, at most {max_characters}", place)
    try:
        return check_text(value, None, place)
    except ValueError as error:  # a lone surrogate
        raise invalid(str(error).partition(";")[0], place) from error


def is_integer(value: object) -> bool:
    """Whether JSON had an integer there."""
    return isinstance(value, int) and not isinstance(value, bool)


def _kind(value: object) -> str:
    """JSON's name of a value's type."""
    names = {bool: "a boolean", int: "an integer", float: "a number", str: "a string"}
    return (names | {list: "an array", dict: "an object", type(None): "null"})[type(value)]


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
