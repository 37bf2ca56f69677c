# SPDX-License-Identifier: Apache-2.0
"""Writers for the formats of vectors: .npy, .jsonl and .parquet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from simdformer.cli.output import AtomicFile, StandardOutput
from simdformer.cli.records import Columns, Format

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simdformer.cli.records import Record, Vectors


class VectorWriter(Protocol):
    """Writes vectors chunk by chunk."""

    def write(self, records: Sequence[Record], embeddings: Vectors) -> None:
        """embeddings: (len(records), dim)."""

    def finish(self) -> None:
        """Called once, after the last chunk."""


class NpyWriter:
    """An array (texts, dim) of float32, float16 or int8. Its number of rows is written into the header at the end.

    The length of an .npy header does not depend on the number of rows: NumPy pads it so that the first axis
    can grow (numpy.lib.format.GROWTH_AXIS_MAX_DIGITS).
    """

    def __init__(self, file: AtomicFile, dim: int, dtype: str = "float32") -> None:
        self._file = file
        self._dim = dim
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._rows = 0
        self._write_header()

    def write(self, records: Sequence[Record], embeddings: Vectors) -> None:
        """Append the rows."""
        del records
        self._file.write(np.ascontiguousarray(embeddings, dtype=self._dtype).view(np.uint8).data)
        self._rows += len(embeddings)

    def finish(self) -> None:
        """Write the header again with the final number of rows."""
        self._file.rewind()
        self._write_header()

    def _write_header(self) -> None:
        header = {
            "descr": self._dtype.str,
            "fortran_order": False,
            "shape": (self._rows, self._dim),
        }
        np.lib.format.write_array_header_1_0(self._file, header)


class JsonlWriter:
    """One object per line with "line" (where the text starts), "text" and "embedding". "id" comes first if
    records have ids, "source" if there are several files; chunks also have "start" and "end"."""

    def __init__(
        self, file: AtomicFile | StandardOutput, dim: int, columns: Columns | None = None
    ) -> None:
        self._file, self._columns = file, Columns() if columns is None else columns
        # Nine significant digits restore every float32 exactly, five every float16.
        digits = {"float32": "%.9g", "float16": "%.5g", "int8": "%d"}[self._columns.dtype]
        self._vector = "[" + ", ".join([digits] * dim) + "]"

    def write(self, records: Sequence[Record], embeddings: Vectors) -> None:
        """Append the lines."""
        rows = embeddings.astype(self._columns.dtype, copy=False).tolist()
        lines = (
            f'{self._begun(record)}, "embedding": {self._vector % tuple(row)}}}\n'
            for record, row in zip(records, rows, strict=True)
        )
        self._file.write("".join(lines).encode())

    def _begun(self, record: Record) -> str:
        """The object without its closing bracket."""
        return json.dumps(record_members(record, self._columns), ensure_ascii=False)[:-1]

    def finish(self) -> None:
        """Does nothing."""


def record_members(record: Record, columns: Columns) -> dict[str, object]:
    """What an output holds of a record."""
    members: dict[str, object] = {}
    if columns.id:
        members["id"] = record.id
    if columns.source:
        members["source"] = record.source
    members["line"] = record.line
    if columns.span:
        members["start"], members["end"] = record.span or (0, len(record.text))
    members["text"] = record.text
    return members


def vector_writer(path: str, file: AtomicFile | StandardOutput, output: Format) -> VectorWriter:
    """The writer for the format of the suffix of `path`; .jsonl for standard output. Parquet files keep the
    manifest, which says what decides the vectors."""
    suffix = Path(path).suffix.lower()
    if isinstance(file, AtomicFile) and suffix == ".npy":
        return NpyWriter(file, output.dim, output.columns.dtype)
    if isinstance(file, AtomicFile) and suffix == ".parquet":
        from simdformer.cli.parquet_writer import ParquetWriter

        return ParquetWriter(file, output)
    return JsonlWriter(file, output.dim, output.columns)
