# SPDX-License-Identifier: Apache-2.0
"""Reading texts from .txt, .jsonl and .csv, one record at a time, in bounded memory.

A record's line number is kept beside its text: it is what a person needs to find the text again,
and what an error message names.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from simdformer.cli.errors import CliError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from typing_extensions import Self

FORMATS = ("txt", "jsonl", "csv")
DEFAULT_FIELD = "text"
# A file without line ends must not be read whole; no text worth one vector is this long.
MAX_LINE_BYTES = 64 * 2**20


class Record(NamedTuple):
    """One text, the line (from 1) on which it starts, and the byte of the file where it ends."""

    text: str
    line: int
    end: int = 0


def text_format(path: str, chosen: str | None) -> str:
    """The format of `path`: the one chosen, else by its suffix; standard input is txt."""
    if chosen is not None:
        return chosen
    if path == "-":
        return "txt"
    suffix = Path(path).suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        known = ", ".join(f".{name}" for name in FORMATS)
        raise UsageError(
            f"{path}: its name does not say what format it has (known: {known}); use --format"
        )
    return suffix


class TextSource:
    """The records of a file, or of standard input when `path` is "-".

    txt: each line is a text, an empty line too. jsonl: each line that is not blank is an object
    whose member `field` is the text. csv: the first row names the columns, `field` is one of them.

    Opening raises CliError when the file cannot be read. Iterating raises CliError that names the
    line: bytes that are not UTF-8, invalid JSON or CSV, a missing field, a value that is not text.
    """

    def __init__(self, path: str, format: str, field: str | None = None) -> None:
        self.name = "standard input" if path == "-" else path
        self.format = format
        self.field = DEFAULT_FIELD if field is None else field
        self._bytes_read = 0
        self._line = 0
        self._open_quote: int | None = None
        self._file, self.size = self._open(path)

    def _open(self, path: str) -> tuple[BinaryIO, int | None]:
        if path == "-":
            return sys.stdin.buffer, None
        try:
            file = Path(path).open("rb")  # noqa: SIM115  (closed by __exit__)
            size = Path(path).stat().st_size
        except OSError as error:
            raise CliError(f"cannot read {path}: {error.strerror}") from error
        return file, size or None  # pipes and devices say 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not sys.stdin.buffer:
            self._file.close()

    def __iter__(self) -> Iterator[Record]:
        readers = {"txt": self._read_txt, "jsonl": self._read_jsonl, "csv": self._read_csv}
        return readers[self.format]()

    def _read_txt(self) -> Iterator[Record]:
        for line in self._lines():
            text = line.removesuffix("\n").removesuffix("\r")
            yield Record(text, self._line, self._bytes_read)

    def _read_jsonl(self) -> Iterator[Record]:
        for line in self._lines():
            if line.isspace():
                continue
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:  # a ValueError: a number of 5,000 digits
                raise self._error(f"not valid JSON: {error}") from error
            if not isinstance(value, dict):
                raise self._error(f"expected a JSON object, got {_json_kind(value)}")
            yield self._checked(value, self._line)

    def _read_csv(self) -> Iterator[Record]:
        csv.field_size_limit(MAX_LINE_BYTES)
        rows = csv.reader(self._lines_with_quotes(), strict=True)
        start = 1
        try:
            header = next(rows, None)
            if header is None:
                return
            if self.field not in header:
                raise self._error(self._no_such_field(header, "column"))
            start = self._line + 1
            for row in rows:
                if row and len(row) != len(header):
                    raise self._error(f"expected {len(header)} columns, got {len(row)}", start)
                if row:
                    yield Record(row[header.index(self.field)], start, self._bytes_read)
                start = self._line + 1
        except csv.Error as error:
            if self._open_quote is not None and self._open_quote >= start:
                problem = "a quote opens here that nothing closes"
                raise self._error(f"not valid CSV: {problem}", self._open_quote) from error
            raise self._error(f"not valid CSV: {error}") from error

    def _lines_with_quotes(self) -> Iterator[str]:
        """The lines; `_open_quote` is the one in which a quote opened that is still open."""
        for line in self._lines():
            quotes = line.replace('""', "").count('"')  # a quote within a quote is doubled
            if quotes % 2:
                self._open_quote = self._line if self._open_quote is None else None
            elif quotes and self._open_quote is not None:
                self._open_quote = self._line
            yield line

    def _checked(self, members: dict[str, object], line: int) -> Record:
        if self.field not in members:
            raise self._error(self._no_such_field(list(members), "field"))
        text = members[self.field]
        if not isinstance(text, str):
            raise self._error(f'field "{self.field}" must be a string, got {_json_kind(text)}')
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise self._error(
                f'field "{self.field}" is not Unicode text: lone surrogate '
                f"\\u{ord(text[error.start]):04x} at character {error.start}"
            ) from error
        return Record(text, line, self._bytes_read)

    def _no_such_field(self, names: list[str], kind: str) -> str:
        present = ", ".join(f'"{name}"' for name in names[:20]) or "none"
        return f'no {kind} "{self.field}" (there: {present}); use --field'

    def _lines(self) -> Iterator[str]:
        """The lines with their ends, decoded; `_line` counts them."""
        self._line = 0
        while raw := self._read_line():
            self._line += 1
            self._bytes_read += len(raw)
            if len(raw) > MAX_LINE_BYTES:
                raise self._error(f"longer than {MAX_LINE_BYTES:,} bytes; is it a text file?")
            if not raw.endswith(b"\n"):
                self._check_whole()
            try:
                yield raw.decode("utf-8-sig" if self._line == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise self._error(
                    f"not UTF-8: byte 0x{raw[error.start]:02x} at position {error.start}"
                ) from error
        self._check_whole()

    def _check_whole(self) -> None:
        """At the end: CliError if more was there at first."""
        if self._bytes_read < (self.size or 0):
            raise CliError(
                f"{self.name} has become shorter while it was read:"
                f" {self.size:,} bytes at first, then {self._bytes_read:,}"
            )

    def _read_line(self) -> bytes:
        try:
            return self._file.readline(MAX_LINE_BYTES + 1)
        except OSError as error:
            raise CliError(f"cannot read {self.name}: {error.strerror}") from error

    def _error(self, problem: str, line: int | None = None) -> CliError:
        return CliError(f"{self.name}, line {self._line if line is None else line}: {problem}")


def _json_kind(value: object) -> str:
    if value is None:
        return "null"
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}
    return names.get(type(value), "a number")
