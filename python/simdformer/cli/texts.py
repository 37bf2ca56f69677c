# SPDX-License-Identifier: Apache-2.0
"""Reads texts from files, one record at a time, in bounded memory.

The line number of each record is kept, so that users can find the text and error messages can name the line.
"""

from __future__ import annotations

import csv
import json
import sys
from typing import TYPE_CHECKING, NoReturn

from simdformer.cli.errors import CliError
from simdformer.cli.opening import READ_ERRORS, open_input, reason
from simdformer.cli.records import Fields, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType

    from typing_extensions import Self

# A file without line ends must not be read whole into memory; no text for one vector is this long.
MAX_LINE_BYTES = 64 * 2**20


class TextSource:
    """The records of a file, or of standard input if `path` is "-".

    txt: each line is a text, also an empty one. jsonl: each line that is not blank is an object; its members
    are the fields. csv, tsv: the first row has the names of the columns. document: the whole file is one
    text.

    CliError when the file is opened and cannot be read. Iterating raises CliError naming the line: bytes that
    are not UTF-8, invalid JSON or CSV, a missing field, a value that is not a string. With `on_bad` such a
    record is skipped, and `on_bad` gets the error and the line. Errors that make the rest of a file
    unreadable are always raised.
    """

    def __init__(
        self,
        path: str,
        format: str,
        fields: Fields | None = None,
        on_bad: Callable[[CliError, int], None] | None = None,
    ) -> None:
        self.name = "standard input" if path == "-" else path
        self.format = format
        self._fields = Fields() if fields is None else fields
        self._on_bad = on_bad
        self._bytes_read = 0
        self._line = 0
        self._open_quote: int | None = None
        self._file, self.size = open_input(path)

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
        readers = {
            "txt": self._read_txt,
            "jsonl": self._read_jsonl,
            "csv": self._read_csv,
            "tsv": self._read_csv,
            "document": self._read_document,
        }
        return readers[self.format]()

    def _read_txt(self) -> Iterator[Record]:
        for line in self._lines():
            text = line.removesuffix("\n").removesuffix("\r")
            yield Record(text, self._line, self._bytes_read)

    def _read_document(self) -> Iterator[Record]:
        text = "".join(self._lines(strict=True))
        if len(text) > MAX_LINE_BYTES:
            self._fail(f"longer than {MAX_LINE_BYTES:,} characters; is it one text?", 1)
        yield Record(text, 1, self._bytes_read)

    def _read_jsonl(self) -> Iterator[Record]:
        for line in self._lines():
            if line.isspace():
                continue
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:  # ValueError: a number of 5,000 digits
                self._bad(f"not valid JSON: {error}")
                continue
            if not isinstance(value, dict):
                self._bad(f"expected a JSON object, got {_json_kind(value)}")
            elif record := self._record(value, self._line, "field"):
                yield record

    def _read_csv(self) -> Iterator[Record]:
        csv.field_size_limit(MAX_LINE_BYTES)
        dialect = "excel-tab" if self.format == "tsv" else "excel"
        rows = csv.reader(self._lines_with_quotes(), dialect, strict=True)
        start = 1
        try:
            header = next(rows, None)
            if header is None:
                return
            for name in self._fields.needed:
                if name not in header:
                    self._fail(_no_such_field(name, header, "column"))
                if header.count(name) > 1:
                    self._fail(f'{header.count(name)} columns have the name "{name}"')
            start = self._line + 1
            for row in rows:
                if row and len(row) != len(header):
                    self._bad(f"expected {len(header)} columns, got {len(row)}", start)
                elif row:
                    record = self._record(dict(zip(header, row, strict=True)), start, "column")
                    if record:
                        yield record
                start = self._line + 1
        except csv.Error as error:
            if self._open_quote is not None and self._open_quote >= start:
                problem = "a quote opens here that nothing closes"
                self._fail(f"not valid CSV: {problem}", self._open_quote, error)
            self._fail(f"not valid CSV: {error}", cause=error)

    def _lines_with_quotes(self) -> Iterator[str]:
        """The lines. `_open_quote` is the line of a quote that has no end yet."""
        for line in self._lines():
            quotes = line.replace('""', "").count('"')  # inside a quote, "" means one quote
            if quotes % 2:
                self._open_quote = self._line if self._open_quote is None else None
            elif quotes and self._open_quote is not None:
                self._open_quote = self._line
            yield line

    def _record(self, members: Mapping[str, object], line: int, kind: str) -> Record | None:
        """The record. None if it is skipped, because a field is missing or not a string."""
        values: dict[str, str] = {}
        for name in self._fields.needed:
            if name not in members:
                return self._bad(_no_such_field(name, list(members), kind), line)
        for name in self._fields.names:
            text = members[name]
            if not isinstance(text, str):
                return self._bad(f'{kind} "{name}" must be a string, got {_json_kind(text)}', line)
            try:
                text.encode()
            except UnicodeEncodeError as error:
                return self._bad(
                    f'{kind} "{name}" is not Unicode text: lone surrogate '
                    f"\\u{ord(text[error.start]):04x} at character {error.start}",
                    line,
                )
            values[name] = text
        key = None if self._fields.id is None else members[self._fields.id]
        if key is not None and (not isinstance(key, (str, int)) or isinstance(key, bool)):
            return self._bad(
                f'{kind} "{self._fields.id}" must be a string or an integer, got {_json_kind(key)}',
                line,
            )
        return Record(self._fields.text(values), line, self._bytes_read, id=key)

    def _lines(self, *, strict: bool = False) -> Iterator[str]:
        """The decoded lines with their ends; `_line` counts them. strict: do not skip lines that are not
        UTF-8."""
        self._line = 0
        while raw := self._read_line():
            self._line += 1
            self._bytes_read += len(raw)
            if len(raw) > MAX_LINE_BYTES:
                self._fail(f"longer than {MAX_LINE_BYTES:,} bytes; is it a text file?")
            if not raw.endswith(b"\n"):
                self._check_whole()
            try:
                line = raw.decode("utf-8-sig" if self._line == 1 else "utf-8")
            except UnicodeDecodeError as error:
                problem = f"not UTF-8: byte 0x{raw[error.start]:02x} at position {error.start}"
                if strict:
                    self._fail(problem, cause=error)
                self._bad(problem)
                continue
            yield line
        self._check_whole()

    def _check_whole(self) -> None:
        """CliError if the file has become shorter since it was opened."""
        if self._bytes_read < (self.size or 0):
            raise CliError(
                f"{self.name} became shorter while it was read:"
                f" {self.size:,} bytes at first, then {self._bytes_read:,}"
            )

    def _read_line(self) -> bytes:
        try:
            return self._file.readline(MAX_LINE_BYTES + 1)
        except READ_ERRORS as error:
            raise CliError(f"cannot read {self.name}: {reason(error)}") from error

    def _bad(self, problem: str, line: int | None = None) -> Record | None:
        """Skip an invalid record, or raise CliError."""
        line = self._line if line is None else line
        error = CliError(f"{self.name}, line {line}: {problem}")
        if self._on_bad is None:
            raise error
        self._on_bad(error, line)
        return None

    def _fail(
        self, problem: str, line: int | None = None, cause: BaseException | None = None
    ) -> NoReturn:
        """Raise CliError, because the rest of the file cannot be read."""
        line = self._line if line is None else line
        raise CliError(f"{self.name}, line {line}: {problem}") from cause


def _no_such_field(field: str, names: list[str], kind: str) -> str:
    present = ", ".join(f'"{name}"' for name in names[:20]) or "none"
    return f'no {kind} "{field}" (there: {present}); use --field'


def _json_kind(value: object) -> str:
    if value is None:
        return "null"
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}
    return names.get(type(value), "a number")
