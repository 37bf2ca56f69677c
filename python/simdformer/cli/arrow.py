# SPDX-License-Identifier: Apache-2.0
"""Parquet and Arrow files, read by pyarrow (the extra `arrow`)."""

from __future__ import annotations

import json
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from simdformer.cli.errors import CliError
from simdformer.cli.opening import is_uri, pyarrow, reason
from simdformer.cli.records import Fields, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Self


_ROWS = 4096  # number of rows read at a time
INT8_REFUSED = "int8 codes are not searched; embed with --dtype float32 or float16"
MANIFEST = b"simdformer"  # in the metadata of a file's schema


class ArrowSource:
    """The rows of a parquet file, or of an Arrow file (IPC file or stream), in bounded memory.

    The line of a record is its row number, starting at 1. Text columns contain strings; the id column may
    also contain integers. Errors: as for TextSource.
    """

    size = None

    def __init__(
        self,
        path: str,
        kind: str,
        fields: Fields,
        on_bad: Callable[[CliError, int], None] | None = None,
    ) -> None:
        self.name = path
        self._fields, self._on_bad = fields, on_bad
        self._pa = pyarrow()
        with ExitStack() as stack:
            try:
                self._file = stack.enter_context(_open(path))
                self._batches, names = self._open_batches(kind)
            except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
                raise CliError(f"cannot read {path}: {reason(error)}") from error
            _check_columns(path, fields.needed, names)
            stack.pop_all()

    def _open_batches(self, kind: str) -> tuple[Iterator[Any], list[str]]:
        if kind == "parquet":
            parquet = pyarrow("pyarrow.parquet").ParquetFile(self._file)
            names = list(parquet.schema_arrow.names)
            columns = [name for name in dict.fromkeys(self._fields.needed) if name in names]
            return parquet.iter_batches(_ROWS, columns=columns), names
        ipc = pyarrow("pyarrow.ipc")
        try:
            reader = ipc.open_file(self._file)
        except self._pa.ArrowInvalid:
            self._file.seek(0)
            stream = ipc.open_stream(self._file)
            return iter(stream), list(stream.schema.names)
        batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
        return batches, list(reader.schema.names)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[Record]:
        line = 0
        try:
            for batch in self._batches:
                columns = {
                    name: batch.column(name).to_pylist() for name in set(self._fields.needed)
                }
                for row in range(batch.num_rows):
                    line += 1
                    if record := self._record({n: c[row] for n, c in columns.items()}, line):
                        yield record
        except (OSError, ValueError) as error:
            raise CliError(f"cannot read {self.name}: {reason(error)}") from error

    def _record(self, members: dict[str, object], line: int) -> Record | None:
        for name in self._fields.names:
            if not isinstance(members[name], str):
                kind = "null" if members[name] is None else type(members[name]).__name__
                return self._bad(f'column "{name}" must hold strings, got {kind}', line)
        key = None if self._fields.id is None else members[self._fields.id]
        if key is not None and (not isinstance(key, (str, int)) or isinstance(key, bool)):
            kind = type(key).__name__
            return self._bad(
                f'column "{self._fields.id}" must hold strings or integers, got {kind}', line
            )
        values = {name: str(members[name]) for name in self._fields.names}
        return Record(self._fields.text(values), line, id=key)

    def _bad(self, problem: str, line: int) -> Record | None:
        error = CliError(f"{self.name}, row {line}: {problem}")
        if self._on_bad is None:
            raise error
        self._on_bad(error, line)
        return None


@contextmanager
def open_vectors(path: str, columns: Sequence[str]) -> Iterator[tuple[dict[str, Any], Any]]:
    """The manifest of a parquet file of vectors, {} if it has none, and the file; it has the columns."""
    with ExitStack() as stack:
        try:
            file = stack.enter_context(_open(path))
            parquet = pyarrow("pyarrow.parquet").ParquetFile(file)
            manifest = json.loads((parquet.schema_arrow.metadata or {}).get(MANIFEST, b"{}"))
        except (OSError, ValueError) as error:
            raise CliError(f"cannot read {path}: {reason(error)}") from error
        _check_columns(path, columns, parquet.schema_arrow.names)
        yield manifest, parquet


def _check_columns(path: str, columns: Iterable[str], names: list[str]) -> None:
    """CliError unless each of the columns is one of the names, once."""
    for name in columns:
        count = names.count(name)
        if not count:
            present = ", ".join(f'"{each}"' for each in names[:20]) or "none"
            raise CliError(f'{path}: no column "{name}" (there: {present}); use --field')
        if count > 1:
            raise CliError(f'{path}: {count} columns have the name "{name}"')


def read_vectors(
    path: str, parquet: Any, kept: Sequence[str], vector: str, rows: int
) -> Iterator[tuple[list[dict[str, Any]], NDArray[np.float32]]]:
    """The members of `rows` rows at a time, and their vectors, float32 (rows, dim)."""
    import numpy as np

    width = pyarrow("pyarrow.compute").list_value_length
    kept = [name for name in kept if name in parquet.schema_arrow.names]
    try:
        for batch in parquet.iter_batches(rows, columns=[*kept, vector]):
            column = batch.column(vector)
            lengths = set(width(column).to_pylist())
            if len(lengths) > 1 or None in lengths:
                raise CliError(f'{path}: column "{vector}" must hold lists of one length')
            values = column.flatten().to_numpy(zero_copy_only=False)
            if values.dtype == np.int8:
                raise CliError(f"{path}: {INT8_REFUSED}")
            flat = values.astype(np.float32)
            yield batch.select(kept).to_pylist(), flat.reshape(batch.num_rows, -1)
    except (OSError, ValueError, NotImplementedError) as error:
        raise CliError(f"cannot read {path}: {reason(error)}") from error


def _open(path: str) -> Any:
    if is_uri(path):
        system, name = pyarrow("pyarrow.fs").FileSystem.from_uri(path)
        return system.open_input_file(name)
    return pyarrow().OSFile(path, "rb")
