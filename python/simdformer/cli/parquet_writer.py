# SPDX-License-Identifier: Apache-2.0
"""Writes vectors as parquet files with pyarrow (the extra `arrow`)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from simdformer.cli.arrow import MANIFEST
from simdformer.cli.errors import CliError
from simdformer.cli.opening import pyarrow, reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simdformer.cli.output import AtomicFile
    from simdformer.cli.records import Format, Record, Vectors

_ROW_GROUP = 16384


class ParquetWriter:
    """A parquet file with the columns id (optional), source, line, start and end (for chunks), text and
    embedding. An embedding is a list of fixed size of float32, float16 or int8. The manifest is in the file's
    metadata.

    Row groups do not depend on the chunks, so a resumed run writes the same bytes.
    """

    def __init__(self, file: AtomicFile, output: Format) -> None:
        pa = self._pa = pyarrow()
        self._file, self._output = file, output
        self._dim, self._columns = output.dim, output.columns
        self._metadata = {MANIFEST: json.dumps(output.manifest).encode()}
        self._writer: Any = None
        self._waiting: list[tuple[Sequence[Record], Vectors]] = []
        self._num_waiting = 0
        self._item = getattr(pa, output.columns.dtype)()

    def write(self, records: Sequence[Record], embeddings: Vectors) -> None:
        """Append the rows as row groups."""
        begin = 0
        while begin < len(records):
            end = begin + _ROW_GROUP - self._num_waiting
            self._waiting.append((records[begin:end], embeddings[begin:end]))
            self._num_waiting += len(records[begin:end])
            begin = end
            if self._num_waiting == _ROW_GROUP:
                self._flush()

    def finish(self) -> None:
        """Write the pending rows and the footer."""
        if self._waiting or self._writer is None:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        import numpy as np

        pa = self._pa
        records = [record for part, _ in self._waiting for record in part]
        rows = [part for _, part in self._waiting] or [np.empty((0, self._dim), np.float32)]
        self._waiting, self._num_waiting = [], 0
        flat = np.concatenate(rows).astype(self._columns.dtype, copy=False).ravel()
        made: dict[str, Any] = {}
        if self._columns.id:
            made["id"] = self._ids([record.id for record in records])
        made["source"] = pa.array([record.source for record in records], pa.string())
        made["line"] = pa.array([record.line for record in records], pa.int64())
        if self._columns.span:
            spans = [record.span or (0, len(record.text)) for record in records]
            made["start"] = pa.array([start for start, _ in spans], pa.int64())
            made["end"] = pa.array([end for _, end in spans], pa.int64())
        made["text"] = pa.array([record.text for record in records], pa.large_string())
        values = pa.array(flat, self._item)
        made["embedding"] = pa.FixedSizeListArray.from_arrays(values, self._dim)
        table = pa.table(made).replace_schema_metadata(self._metadata)
        if self._writer is None:
            parquet = pyarrow("pyarrow.parquet")
            sink = pa.PythonFile(_Sink(self._file), mode="w")
            self._writer = parquet.ParquetWriter(sink, table.schema)
        self._writer.write_table(table)

    def _ids(self, ids: list[object]) -> Any:
        """The ids as one type, that of the first rows of the output."""
        pa = self._pa
        if self._output.id_type is None:
            whole = all(isinstance(each, int) for each in ids) and ids
            self._output.id_type = pa.int64() if whole else pa.string()
        try:
            if self._output.id_type == pa.string():
                ids = [None if each is None else str(each) for each in ids]
            return pa.array(ids, self._output.id_type)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise CliError(
                f"ids must all be integers of 64 bits, as the first ones are: {reason(error)}"
            ) from error


class _Sink:
    """An AtomicFile as a Python file object. The caller closes the AtomicFile."""

    def __init__(self, file: AtomicFile) -> None:
        self._file = file
        self._position = 0
        self.closed = False

    def write(self, data: Any) -> int:
        """Append the bytes. pyarrow's writer also writes when it is deleted after an error: the file is gone
        then."""
        view = memoryview(data)
        if not self._file.closed:
            self._file.write(view)
        self._position += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        """The number of bytes written so far."""
        return self._position

    def flush(self) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing; the AtomicFile stays open."""
        self.closed = True

    def writable(self) -> bool:
        """Always true."""
        return True

    def readable(self) -> bool:
        """Always false."""
        return False

    def seekable(self) -> bool:
        """Always false."""
        return False
