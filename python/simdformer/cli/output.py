# SPDX-License-Identifier: Apache-2.0
"""Writing vectors: atomic files, and the .npy and .jsonl formats."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from simdformer.cli.errors import CliError, UsageError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from typing_extensions import Self

FORMATS = (".npy", ".jsonl", ".parquet")


class AtomicFile:
    """A file written under a temporary name beside `path` and renamed when the block ends without error.

    After an error or Ctrl-C the temporary file is removed, and `path` is unchanged. A file left by a killed
    run is removed by the next run for the same path. CliError with the path and the free space if the
    file cannot be written. A pipe or a device is refused.

    companion: a file that belongs to the old content of `path`. It is removed right before `path` is replaced.
    """

    def __init__(self, path: str, companion: str | None = None) -> None:
        self._name = path
        self._companion = companion
        self._path = Path(os.path.realpath(path))  # through a symlink: replace what it points to
        self._temporary = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}.tmp")

    def __enter__(self) -> Self:
        if self._path.is_dir():
            raise CliError(f"cannot write {self._name}: it is a directory")
        if os.path.lexists(self._path) and not self._path.is_file():  # renaming would replace it
            raise CliError(f"cannot write {self._name}: it is not a regular file")
        try:
            self._remove_orphans()
            self._file = self._locked_file()
        except OSError as error:
            raise self._error(error) from error
        return self

    def _locked_file(self) -> BinaryIO:
        """The temporary file. Other processes do not touch it while this one has it open."""
        while True:
            file = self._temporary.open("xb")
            with contextlib.suppress(
                OSError
            ):  # a file system without locks: other processes do not touch it either
                _lock(file)
            if os.fstat(file.fileno()).st_nlink:
                return file
            file.close()  # another run considered it abandoned before it was locked

    def _remove_orphans(self) -> None:
        """Remove files of killed runs, which are not locked anymore."""
        name = re.compile(re.escape(f".{self._path.name}.") + r"[0-9a-f]{8}\.tmp")
        for path in self._path.parent.iterdir():
            if name.fullmatch(path.name):
                with contextlib.suppress(OSError):
                    _remove_unlocked(path)

    def write(self, data: bytes | memoryview) -> None:
        """Append the bytes of `data`."""
        try:
            self._file.write(data)
        except OSError as error:
            raise self._error(error) from error

    def rewind(self) -> None:
        """Go back to the start, to rewrite a header."""
        try:
            self._file.seek(0)
        except OSError as error:
            raise self._error(error) from error

    @property
    def closed(self) -> bool:
        """Whether the block has ended."""
        return self._file.closed

    def sync(self) -> None:
        """Bring the bytes to the disk, so that only the renaming is left."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._error(error) from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._commit()
        finally:
            self._discard()

    def _commit(self) -> None:
        self.sync()
        try:
            if self._path.exists():
                shutil.copymode(self._path, self._temporary)
            if sys.platform == "win32":  # an open file keeps its name there
                self._file.close()
            if self._companion is not None:
                Path(self._companion).unlink(missing_ok=True)
            self._temporary.replace(self._path)
            fsync_directory(self._path.parent)
        except OSError as error:
            raise self._error(error) from error

    def _discard(self) -> None:
        """Close, and remove the temporary file unless it has been renamed."""
        try:
            with contextlib.suppress(OSError):  # the disk is full; that error was already reported
                self._file.close()
        finally:
            self._temporary.unlink(missing_ok=True)

    def _error(self, error: OSError) -> CliError:
        message = f"cannot write {self._name}: {error.strerror}"
        try:
            free = shutil.disk_usage(self._path.parent).free
        except OSError:
            return CliError(message)
        return CliError(f"{message} ({free:,} bytes are free in {self._path.parent})")


class StandardOutput:
    """Standard output with the interface of AtomicFile; a closed pipe raises BrokenPipeError."""

    def __enter__(self) -> Self:
        return self

    def write(self, data: bytes | memoryview) -> None:
        """Write the bytes of `data` and flush them, so that the reader of a pipe gets them at once."""
        try:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise CliError(f"cannot write to standard output: {error.strerror}") from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass


def open_output(
    path: str, formats: Sequence[str] = FORMATS, companion: str | None = None
) -> AtomicFile | StandardOutput:
    """The destination of results; "-" is standard output. UsageError for an unknown suffix.

    companion: see AtomicFile.
    """
    if path == "-":
        return StandardOutput()
    if Path(path).suffix.lower() not in formats:
        raise UsageError(f"{path}: the output's name must end in {', '.join(formats)}, or be -")
    return AtomicFile(path, companion)


def write_text(text: str) -> None:
    """Print `text` in UTF-8; unlike print(), a full disk is a CliError."""
    with StandardOutput() as out:
        out.write(text.encode())


def lock_output(file: BinaryIO, name: str) -> None:
    """Lock an empty file until it is closed. CliError if another run has locked it."""
    try:
        if sys.platform == "win32":
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # Windows has several errors for a locked file.
        if sys.platform != "win32" and not isinstance(error, BlockingIOError | PermissionError):
            raise
        raise CliError(f"{name}: another run writes the same output") from error


def _lock(file: BinaryIO) -> None:
    """Windows needs no lock, because it does not delete open files."""
    if sys.platform != "win32":
        fcntl.flock(file, fcntl.LOCK_EX)


def _remove_unlocked(path: Path) -> None:
    """Remove the file. OSError if a process has it open."""
    if sys.platform == "win32":
        path.unlink()
        return
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()


def fsync_directory(path: Path) -> None:
    """Make the renaming durable. Windows cannot open directories."""
    if sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
