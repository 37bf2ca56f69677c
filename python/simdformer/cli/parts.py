# SPDX-License-Identifier: Apache-2.0
"""An output of several files: a folder of parts with the same number of texts."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from simdformer.cli.errors import CliError
from simdformer.cli.opening import reason
from simdformer.cli.output import FORMATS, AtomicFile, fsync_directory, lock_output
from simdformer.cli.writers import vector_writer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from typing_extensions import Self

    from simdformer.cli.records import Format, Record, Vectors
    from simdformer.cli.writers import VectorWriter

_LOCK = "lock"


class PartsFolder:
    """A folder written under a temporary name beside `path` and renamed when the block ends without error.

    A folder of parts with that name is replaced. After an error nothing of the new one remains. The next run
    removes what a killed run left, and restores the old folder if the run was killed between the two
    renames. CliError if it cannot be written. companion: see AtomicFile.
    """

    def __init__(self, path: str, companion: str | None = None) -> None:
        self.name = path
        self._companion = companion
        self._path = Path(os.path.realpath(path))
        self.temporary = self._path.with_name(f".{self._path.name}.parts")
        self._old = self._path.with_name(f".{self._path.name}.old")
        self._part: AtomicFile | None = None

    def __enter__(self) -> Self:
        self._check_replaceable()
        with ExitStack() as stack:
            try:
                self.temporary.mkdir(exist_ok=True)
                self._lock = stack.enter_context((self.temporary / _LOCK).open("ab"))
                lock_output(self._lock, self.name)
                if self._old.exists() and not self._path.exists():
                    self._old.rename(self._path)
                for path in self.temporary.iterdir():
                    if path.name != _LOCK:
                        path.unlink()
            except OSError as error:
                raise self._error(error) from error
            self._open = stack.pop_all()
        return self

    def begin_part(self, name: str) -> AtomicFile:
        """Create a file in the folder."""
        self._part = AtomicFile(str(self.temporary / name)).__enter__()
        return self._part

    def end_part(self) -> None:
        """Complete the file."""
        if self._part is not None:
            part, self._part = self._part, None
            part.__exit__(None, None, None)

    def _check_replaceable(self) -> None:
        if not self._path.exists():
            return
        if not self._path.is_dir():
            raise CliError(
                f"cannot write {self.name}: it is a file, and --part-rows makes a folder"
            )
        for path in self._path.iterdir():
            if not (path.name.startswith("part-") and path.suffix in FORMATS):
                raise CliError(
                    f"cannot replace {self.name}: it holds {path.name}, which is not a part"
                )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._open:
            if kind is None:
                try:
                    self._commit()
                except OSError as problem:
                    raise self._error(problem) from problem
            else:
                if self._part is not None:
                    self._part.__exit__(kind, error, traceback)
                self._release()
                shutil.rmtree(self.temporary, ignore_errors=True)

    def _commit(self) -> None:
        self._release()
        (self.temporary / _LOCK).unlink()
        shutil.rmtree(self._old, ignore_errors=True)
        if self._companion is not None:
            Path(self._companion).unlink(missing_ok=True)
        if self._path.exists():
            self._path.rename(self._old)
        self.temporary.rename(self._path)
        fsync_directory(self._path.parent)
        shutil.rmtree(self._old, ignore_errors=True)

    def _release(self) -> None:
        """Windows can neither remove an open file nor rename its folder."""
        if sys.platform == "win32":
            self._open.close()

    def _error(self, error: OSError) -> CliError:
        return CliError(f"cannot write {self.name}: {reason(error)}")


class PartsWriter:
    """Writes part-00000, part-00001 and so on, of `rows` texts each, in the format of the folder's name."""

    def __init__(self, folder: PartsFolder, rows: int, output: Format) -> None:
        self._folder, self._rows, self._output = folder, rows, output
        self._suffix = Path(folder.name).suffix.lower()
        self._num_parts = self._num_written = 0
        self._writer: VectorWriter | None = None

    def write(self, records: Sequence[Record], embeddings: Vectors) -> None:
        """Append rows, if necessary to several parts."""
        begin = 0
        while begin < len(records):
            writer = self._writer or self._next()
            end = begin + self._rows - self._num_written
            writer.write(records[begin:end], embeddings[begin:end])
            self._num_written += len(records[begin:end])
            begin = end
            if self._num_written == self._rows:
                self._end()

    def finish(self) -> None:
        """Complete the last part. Without texts there is one empty part."""
        if self._writer is None and not self._num_parts:
            self._next()
        self._end()

    def _next(self) -> VectorWriter:
        name = f"part-{self._num_parts:05}{self._suffix}"
        self._writer = vector_writer(name, self._folder.begin_part(name), self._output)
        self._num_parts += 1
        self._num_written = 0
        return self._writer

    def _end(self) -> None:
        if self._writer is not None:
            self._writer.finish()
            self._folder.end_part()
        self._writer = None
