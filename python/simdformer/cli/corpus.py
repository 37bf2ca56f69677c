# SPDX-License-Identifier: Apache-2.0
"""The texts of several inputs, one after another."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from simdformer.cli.errors import CliError, UsageError, say
from simdformer.cli.opening import expand, is_uri, local_path, text_format
from simdformer.cli.texts import TextSource

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from typing_extensions import Self

    from simdformer.cli.arrow import ArrowSource
    from simdformer.cli.bad_records import BadRecords
    from simdformer.cli.records import Fields, Record


# Formats whose records are texts alone.
WITHOUT_FIELDS = frozenset({"txt", "document"})


class Corpus:
    """The records of all files given by INPUT arguments (`opening.expand`), in order.

    files: their names. size: their total size in bytes; None if the size of a file is unknown. num_unknown:
    the number of skipped files in folders, whose names have no known format.

    The constructor checks all files, so that a wrong name is an error before any work.
    """

    def __init__(
        self,
        inputs: list[str],
        format: str | None,
        fields: Fields,
        on_bad: Callable[[CliError, int, str], None] | None = None,
    ) -> None:
        """on_bad: called with the error, the line and the file of a skipped record."""
        self.files, self.num_unknown = expand(inputs, format)
        self._formats = [text_format(path, format) for path in self.files]
        if fields.given and set(self._formats) <= WITHOUT_FIELDS:
            raise UsageError(
                f"{fields.given[0]} needs records with fields, such as .jsonl or .csv; got {self._formats[0]}"
            )
        self._fields, self._on_bad = fields, on_bad
        sizes: list[int | None] = []
        for path, kind in zip(self.files, self._formats, strict=True):
            if path == "-" or is_uri(path) or Path(path).is_fifo():  # a pipe opens only once
                sizes.append(None)
                continue
            with self._open(path, kind) as source:
                sizes.append(source.size)
        known = [size for size in sizes if size is not None]
        self.size = sum(known) if len(known) == len(sizes) else None

    def __enter__(self) -> Self:
        self._opened = ExitStack()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._opened.close()

    def __iter__(self) -> Iterator[Record]:
        before = 0
        for path, kind in zip(self.files, self._formats, strict=True):
            with self._open(path, kind) as source:
                self._opened.push(source.__exit__)
                for record in source:
                    yield record._replace(end=before + record.end, source=source.name)
                before += source.size or 0
            self._opened.pop_all()

    def _open(self, path: str, kind: str) -> TextSource | ArrowSource:
        on_bad = None if self._on_bad is None else self._note(path, self._on_bad)
        if kind in ("parquet", "arrow"):
            from simdformer.cli.arrow import ArrowSource

            return ArrowSource(path, kind, self._fields, on_bad)
        return TextSource(path, kind, self._fields, on_bad)

    @staticmethod
    def _note(
        path: str, on_bad: Callable[[CliError, int, str], None]
    ) -> Callable[[CliError, int], None]:
        return lambda error, line: on_bad(error, line, path)


def check_inputs(args: argparse.Namespace) -> None:
    """UsageError for arguments of inputs that do not go together."""
    if args.input.count("-") > 1:
        raise UsageError("standard input (-) can be read only once")
    if args.errors is not None and args.on_error != "skip":
        raise UsageError("--errors needs --on-error skip")


def refuse_same_file(sources: list[str], output: str, errors: str | None) -> None:
    """UsageError if a file that is written, OUTPUT or that of --errors, is read or written twice. That includes
    files in OUTPUT, which may be a folder that is replaced."""
    seen = [("INPUT", path, place) for path in sources if (place := local_path(path))]
    for path, name in ((output, "OUTPUT"), (errors, "--errors")):
        place = None if path is None else local_path(path)
        if path is None or place is None:
            continue
        for other, other_path, other_place in seen:
            if place == other_place:
                raise UsageError(f"{other} and {name} are the same file: {path}")
            if place in other_place.parents:
                raise UsageError(f"{other} {other_path} lies in {name}, {path}, which is replaced")
            if other_place in place.parents:
                raise UsageError(f"{name} {path} lies in {other}, {other_path}, which is replaced")
        seen.append((name, path, place))


def say_left_out(corpus: Corpus, bad: BadRecords | None, done: str) -> None:
    """The files and the records that a run did not use, if there are any. done: what it did."""
    if corpus.num_unknown:
        say(
            f"{corpus.num_unknown:,} files were skipped: the suffix of their names is no known format"
        )
    if bad is not None and bad.count:
        say(f"{done}, {bad.count:,} records skipped")
