# SPDX-License-Identifier: Apache-2.0
"""The body of a request: a JSON object whose fields are read and checked one by one."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from json import decoder, scanner
from typing import TYPE_CHECKING, Any, NoReturn

from simdformer.server.errors import invalid, shown
from simdformer.server.incoming import SMALL_BYTES
from simdformer.text.tokenizer import check_text

if TYPE_CHECKING:
    from typing_extensions import Self

# The model reads only the start of such a text, but the tokenizer reads all of it, which takes 1 s and 0.2
# GB.
_MAX_CHARACTERS = 1_000_000
# The number of values in a long body: twice those of 2,048 texts of 512 token ids, which take one to two
# seconds. An array, an object and each field count as 32, because of the garbage collector.
_MAX_VALUES = 2**21
_NESTED = 32


Scan = Callable[[str, int], Any]  # json calls it for a value at an offset in a text


class RequestFields:
    """The fields of a JSON object; null means missing. Every method raises ApiError."""

    def __init__(self, members: Mapping[str, Any]) -> None:
        self._members = {name: value for name, value in members.items() if value is not None}

    @classmethod
    def of_body(cls, body: bytes) -> Self:
        """The fields of a request's body, which must be JSON."""
        kind = _Interruptible if len(body) > SMALL_BYTES else json.JSONDecoder
        try:
            members = json.loads(body, cls=kind, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
            raise invalid(f"the body is not JSON: {reason}") from error
        if not isinstance(members, dict):
            raise invalid(f"the body must be a JSON object, got {_kind(members)}")
        return cls(members)

    def only(self, known: Collection[str], place: str = "") -> Self:
        """The same. Unknown fields are rejected, so that no option is silently ignored. place: of an object
        in the body."""
        if unknown := [name for name in self._members if name not in known]:
            name = place + unknown[0]
            raise invalid(f"unknown field {shown(name)}; known: {', '.join(known)}", name[:80])
        return self

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def inner(self, name: str, known: Collection[str]) -> RequestFields:
        """The fields of an object in this one; none if it is missing."""
        value = self._members.get(name, {})
        if not isinstance(value, dict):
            raise invalid(f"{name} must be an object, got {_kind(value)}", name)
        return RequestFields(value).only(known, f"{name}.")

    def any(self, name: str) -> Any:
        """A required field."""
        if name not in self._members:
            raise invalid(f"{name} is missing", name)
        return self._members[name]

    def array(self, name: str) -> list[Any]:
        """A required array."""
        value = self.any(name)
        if not isinstance(value, list):
            raise invalid(f"{name} must be an array, got {_kind(value)}", name)
        return value

    def texts(self, name: str, most: int) -> list[str]:
        """A required string, or an array with at least one string and at most this number of strings."""
        value = self.any(name)
        if not isinstance(value, list):
            return [checked_text(value, name)]
        check_number(value, name, most)
        return [checked_text(row, f"{name}[{i}]") for i, row in enumerate(value)]

    def text(self, name: str) -> str | None:
        """A string; None if it is missing."""
        value = self._members.get(name)
        return None if value is None else checked_text(value, name)

    def integer(self, name: str, lowest: int, highest: int | None = None) -> int | None:
        """An integer within bounds; None if it is missing."""
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
        """One of the choices; the first one, which may be None, if it is missing."""
        value = self._members.get(name, choices[0])
        if not any(type(value) is type(choice) and value == choice for choice in choices):
            known = ", ".join(json.dumps(choice) for choice in choices if choice is not None)
            raise invalid(f"{name} must be one of {known}, got {shown(value)}", name)
        return value


class _Interruptible(json.JSONDecoder):
    """The standard library's decoder in Python. The one in C holds the GIL until everything is read; with
    this one other threads can run. It also limits the number of values. A string is one value and is read in
    C."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._num_values = 0
        self.parse_array = self._array
        self.parse_object = self._object
        self.scan_once = scanner.py_make_scanner(self)  # type: ignore[attr-defined]

    def _array(self, place: Any, scan: Scan) -> Any:
        self._count(_NESTED)
        return decoder.JSONArray(place, self._counted(scan, 1))  # type: ignore[attr-defined]

    def _object(self, place: Any, strict: bool, scan: Scan, *rest: Any) -> Any:
        self._count(_NESTED)
        counted = self._counted(scan, _NESTED)
        return decoder.JSONObject(place, strict, counted, *rest)  # type: ignore[attr-defined]

    def _counted(self, scan: Scan, cost: int) -> Scan:
        def scan_and_count(text: str, index: int) -> Any:
            self._count(cost)
            return scan(text, index)

        return scan_and_count

    def _count(self, cost: int) -> None:
        self._num_values += cost
        if self._num_values > _MAX_VALUES:
            raise ValueError(f"it has over {_MAX_VALUES} values")


def checked_text(value: object, place: str, max_characters: int = _MAX_CHARACTERS) -> str:
    """A string that can be tokenized. ApiError with its place in the body."""
    if not isinstance(value, str):
        raise invalid(f"{place} must be a string, got {_kind(value)}", place)
    if len(value) > max_characters:
        raise invalid(f"{place} has {len(value)} characters, at most {max_characters}", place)
    try:
        return check_text(value, None, place)
    except ValueError as error:  # a lone surrogate
        raise invalid(str(error).partition(";")[0], place) from error


def check_number(rows: Sequence[Any], name: str, most: int) -> None:
    """ApiError for no items, and for more items than allowed."""
    if not rows:
        raise invalid(f"{name} must not be empty", name)
    if len(rows) > most:
        raise invalid(f"{name} has {len(rows)} items, at most {most} are allowed", name)


def is_integer(value: object) -> bool:
    """Whether the JSON value is an integer."""
    return isinstance(value, int) and not isinstance(value, bool)


def _kind(value: object) -> str:
    """The JSON name of a value's type."""
    names = {bool: "a boolean", int: "an integer", float: "a number", str: "a string"}
    return (names | {list: "an array", dict: "an object", type(None): "null"})[type(value)]


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
