# SPDX-License-Identifier: Apache-2.0
"""The intermediate results of `embed --resume`, stored beside the output until the output is complete.

A folder with a manifest (all settings that vectors depend on: model, version, level, ...) and parts: vectors
of consecutive texts, with checksums of texts and vectors. The vector of a text has the same bits in any
batch, so an output of stored and new vectors is identical to that of an uninterrupted run.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from simdformer.cli.embedding import Chunk
from simdformer.cli.errors import CliError
from simdformer.cli.opening import reason
from simdformer.cli.output import AtomicFile, lock_output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

    from numpy.typing import NDArray
    from typing_extensions import Self

    from simdformer.cli.records import Record

_ROWS = 4096  # rows per part; a killed run loses at most these


class Journal:
    """The folder `.NAME.resume` beside the output NAME.

    Leaving without error removes the folder; after an error the results are kept. Enter it before the output,
    so that the output is complete when the folder is removed.
    """

    def __init__(self, output: str) -> None:
        path = Path(output)
        self.folder = path.with_name(f".{path.name}.resume")
        self._manifest: dict[str, Any] = {}
        self._parts: list[Path] = []
        self._records: list[Record] = []
        self._rows: list[NDArray[np.float32]] = []
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def begin(self, manifest: dict[str, Any]) -> None:
        """Create the folder, or continue with that of an interrupted run. CliError if that run had another
        manifest or is still running."""
        self._manifest = manifest
        try:
            self.folder.mkdir(exist_ok=True)
            with ExitStack() as stack:
                self._lock = stack.enter_context((self.folder / "lock").open("ab"))
                lock_output(self._lock, str(self.folder))
                self._check_manifest()
                self._open = stack.pop_all()
        except OSError as error:
            raise CliError(f"cannot write {self.folder}: {reason(error)}") from error
        self._parts = sorted(self.folder.glob("part-*.safetensors"))

    def _check_manifest(self) -> None:
        path = self.folder / "manifest.json"
        if not path.exists():
            with AtomicFile(str(path)) as file:
                file.write(json.dumps(self._manifest, indent=1).encode())
            return
        try:
            stored = json.loads(path.read_bytes())
        except ValueError as error:
            raise CliError(f"{path}: not valid JSON: {error}") from error
        keys = [k for k in {**stored, **self._manifest} if stored.get(k) != self._manifest.get(k)]
        if keys:
            found = ", ".join(
                f"{key} was {stored.get(key)!r}, is {self._manifest.get(key)!r}" for key in keys
            )
            raise CliError(f"cannot resume: {found}; remove {self.folder} to start again")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is not None:
                self._store()
        finally:
            self._open.close()
        if kind is None:
            self._remove()

    def _remove(self) -> None:
        """A run that is killed meanwhile leaves the first parts with the manifest, which are valid."""
        for path in reversed(self._parts):
            with suppress(OSError):
                path.unlink()
        shutil.rmtree(self.folder, ignore_errors=True)

    def chunks(self, records: Iterator[Record], dim: int) -> Iterator[Chunk]:
        """The stored vectors with their records, which are read from the input."""
        for path in self._parts:
            rows, digest = _read_part(path, dim)
            waiting = list(islice(records, len(rows)))
            if _digest(waiting) != digest:
                raise CliError(
                    f"cannot resume: the input has changed since the previous run; remove"
                    f" {self.folder} to start again"
                )
            yield Chunk(waiting, rows, 0)

    def append(self, chunk: Chunk) -> None:
        """Add computed vectors."""
        self._records += chunk.records
        self._rows.append(chunk.embeddings)
        if len(self._records) >= _ROWS:
            self._store()

    def _store(self) -> None:
        if not self._records:
            return
        rows = np.concatenate(self._rows)
        metadata = {
            "texts": _digest(self._records),
            "embeddings": hashlib.sha256(rows.tobytes()).hexdigest(),
        }
        path = self.folder / f"part-{len(self._parts):08}.safetensors"
        with AtomicFile(str(path)) as file:
            file.write(save({"embeddings": rows}, metadata))
        self._parts.append(path)
        self._records, self._rows = [], []


def _read_part(path: Path, dim: int) -> tuple[NDArray[np.float32], str]:
    try:
        with safe_open(path, "np") as file:
            rows = file.get_tensor("embeddings")
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise CliError(f"cannot read {path}: {reason(error)}") from error
    whole = metadata.get("embeddings") == hashlib.sha256(rows.tobytes()).hexdigest()
    if not whole or rows.dtype != np.float32 or rows.shape[1:] != (dim,):
        raise CliError(f"{path} is damaged; remove it and the parts after it")
    return rows, metadata.get("texts", "")


def _digest(records: Sequence[Record]) -> str:
    digest = hashlib.sha256()
    for record in records:
        data = record.text.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def resumed(
    journal: Journal,
    records: Iterator[Record],
    dim: int,
    compute: Callable[[Iterator[Record]], Iterator[Chunk]],
) -> Iterator[Chunk]:
    """All chunks of an input: the stored ones, then those of `compute(records)` for the other records, which
    are stored too."""
    yield from journal.chunks(records, dim)
    for chunk in compute(records):
        journal.append(chunk)
        yield chunk
