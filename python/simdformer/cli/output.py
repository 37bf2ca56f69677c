# SPDX-License-Identifier: Apache-2.0
"""Writing vectors: a file that appears whole or not at all, and the .npy and .jsonl formats."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

import numpy as np

from simdformer.cli.errors import CliError, UsageError

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from numpy.typing import NDArray
    from typing_extensions import Self

    from simdformer.cli.texts import Record

FORMATS = (".npy", ".jsonl")


class AtomicFile:
    """A file written under a temporary name beside `path` and renamed when the block ends well.

    When it does not (an error, Ctrl-C), the temporary file is removed and what stood under `path`
    is as it was. What a run left that was killed is removed by the next one for the same path. A file
    that cannot be written is a CliError with the path and the free space.
    """

    def __init__(self, path: str) -> None:
        self._name = path
        self._path = Path(os.path.realpath(path))  # through a symlink: replace what it points to
        self._temporary = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}.tmp")

    def __enter__(self) -> Self:
        if self._path.is_dir():
            raise CliError(f"cannot write {self._name}: it is a directory")
        try:
            self._remove_orphans()
            self._file = self._locked_file()
        except OSError as error:
            raise self._error(error) from error
        return self

    def _locked_file(self) -> BinaryIO:
        """The temporary file, which others leave alone as long as this process has it open."""
        while True:
            file = self._temporary.open("xb")
            with contextlib.suppress(
                OSError
            ):  # a file system without locks: others leave it alone too
                _lock(file)
            if os.fstat(file.fileno()).st_nlink:
                return file
            file.close()  # another run took it for an orphan before it was locked

    def _remove_orphans(self) -> None:
        """Of runs that were killed: their files are not locked any more."""
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
        """Go back to the start, to write a header over again."""
        try:
            self._file.seek(0)
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
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            if self._path.exists():
                shutil.copymode(self._path, self._temporary)
            if sys.platform == "win32":  # where an open file keeps its name
                self._file.close()
            self._temporary.replace(self._path)
            _fsync_directory(self._path.parent)
        except OSError as error:
            raise self._error(error) from error

    def _discard(self) -> None:
        """Close, and remove the temporary file unless it has been renamed."""
        try:
            with contextlib.suppress(OSError):  # of a full disk, which has been reported
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
    """Standard output with AtomicFile's face; a closed pipe stays a BrokenPipeError."""

    def __enter__(self) -> Self:
        return self

    def write(self, data: bytes | memoryview) -> None:
        """Write the bytes of `data` and hand them on at once, for whoever reads the pipe."""
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


class VectorWriter(Protocol):
    """Takes the vectors chunk by chunk."""

    def write(self, records: Sequence[Record], embeddings: NDArray[np.float32]) -> None:
        """embeddings: float32 (len(records), dim)."""

    def finish(self) -> None:
        """Called once, after the last chunk."""


class NpyWriter:
    """A float32 array (texts, dim). The number of rows is put into the header at the end.

    The length of a .npy header does not depend on the number of rows: NumPy pads it so that the
    first axis may grow (numpy.lib.format.GROWTH_AXIS_MAX_DIGITS).
    """

    def __init__(self, file: AtomicFile, dim: int) -> None:
        self._file = file
        self._dim = dim
        self._rows = 0
        self._write_header()

    def write(self, records: Sequence[Record], embeddings: NDArray[np.float32]) -> None:
        """Append the rows."""
        del records
        self._file.write(np.ascontiguousarray(embeddings, dtype="<f4").data)
        self._rows += len(embeddings)

    def finish(self) -> None:
        """Write the header again, now with the true number of rows."""
        self._file.rewind()
        self._write_header()

    def _write_header(self) -> None:
        header = {"descr": "<f4", "fortran_order": False, "shape": (self._rows, self._dim)}
        np.lib.format.write_array_header_1_0(self._file, header)


class JsonlWriter:
    """One object a line: {"line": where the text starts, "text": ..., "embedding": [...]}."""

    def __init__(self, file: AtomicFile | StandardOutput, dim: int) -> None:
        self._file = file
        # Nine significant digits bring every float32 back exactly.
        self._vector = "[" + ", ".join(["%.9g"] * dim) + "]"

    def write(self, records: Sequence[Record], embeddings: NDArray[np.float32]) -> None:
        """Append the lines."""
        lines = (
            f'{{"line": {record.line}, "text": {json.dumps(record.text, ensure_ascii=False)}, '
            f'"embedding": {self._vector % tuple(row)}}}\n'
            for record, row in zip(records, embeddings.tolist(), strict=True)
        )
        self._file.write("".join(lines).encode())

    def finish(self) -> None:
        """Nothing is left to do."""


def open_output(path: str) -> AtomicFile | StandardOutput:
    """Where the vectors go: "-" is standard output. An unknown suffix is a UsageError."""
    if path == "-":
        return StandardOutput()
    if Path(path).suffix.lower() not in FORMATS:
        raise UsageError(f"{path}: the output's name must end in {' or '.join(FORMATS)}, or be -")
    return AtomicFile(path)


def vector_writer(path: str, file: AtomicFile | StandardOutput, dim: int) -> VectorWriter:
    """The writer for the format that the suffix of `path` names; standard output gets .jsonl."""
    if isinstance(file, AtomicFile) and Path(path).suffix.lower() == ".npy":
        return NpyWriter(file, dim)
    return JsonlWriter(file, dim)


def write_text(text: str) -> None:
    """Print `text` in UTF-8; unlike print(), a full disk is a CliError."""
    with StandardOutput() as out:
        out.write(text.encode())


def _lock(file: BinaryIO) -> None:
    """Windows needs no lock: what is open there is not removed."""
    if sys.platform != "win32":
        fcntl.flock(file, fcntl.LOCK_EX)


def _remove_unlocked(path: Path) -> None:
    """OSError if a process has the file open."""
    if sys.platform == "win32":
        path.unlink()
        return
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()


def _fsync_directory(path: Path) -> None:
    """Make the rename itself last. Windows opens no directories."""
    if sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
