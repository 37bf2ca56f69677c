# SPDX-License-Identifier: Apache-2.0
"""Vectors that `simdformer embed` has saved, read again beside their texts, in bounded memory."""

from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from simdformer.cli.arrow import INT8_REFUSED
from simdformer.cli.embedding import Chunk
from simdformer.cli.errors import CliError, UsageError, reported
from simdformer.cli.identity import identity
from simdformer.cli.opening import READ_ERRORS, expand, known_format, open_input, reason
from simdformer.cli.records import DEFAULT_FIELD, Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from simdformer import SentenceTransformer

VECTOR = "embedding"
_ROWS = 8192  # compared at a time
# Below it the first vector is taken for another model's. Another prompt or compute type is well above, and
# unrelated models are near 0.
_LEAST_COSINE = 0.5
_MEMBERS = ("line", "source", "id")  # that embed may store beside the text and the vector


def read_index(
    path: str,
    model: SentenceTransformer,
    name: str,
    records: Iterable[Record] | None,
    field: str | None = None,
) -> Iterator[Chunk]:
    """The texts and vectors of a .npy file (whose texts are `records`), of .jsonl or .parquet files.

    name: the model's. CliError if a file's manifest says another model or compute type, if the first vector
    is not what the model makes of the first text, or if vectors have not the model's width or are not finite.
    """
    dim = model.get_embedding_dimension()
    if records is not None:
        chunks = _npy_chunks(path, records, dim)
    else:
        chunks = _table_chunks(path, model, name, field or DEFAULT_FIELD)
    first = next(chunks, None)
    if first is None:
        return
    _check_finite(path, first)
    _check_first(path, model, first)
    yield first
    for chunk in chunks:
        _check_finite(path, chunk)
        yield chunk


def _npy_chunks(path: str, records: Iterable[Record], dim: int) -> Iterator[Chunk]:
    try:
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise CliError(f"cannot read {path}: {reason(error)}") from error
    known = stored.dtype in (np.float32, np.float16)
    if stored.ndim != 2 or stored.shape[1] != dim or not known:
        raise CliError(
            f"{path}: expected float32 or float16 (texts, {dim}) as the model makes it, "
            f"got {stored.dtype} {stored.shape}"
        )
    waiting = iter(records)
    for start in range(0, len(stored), _ROWS):
        rows = np.array(stored[start : start + _ROWS], dtype=np.float32)
        batch = list(islice(waiting, len(rows)))
        if len(batch) < len(rows):
            raise CliError(f"{path}: {len(stored):,} rows, but {start + len(batch):,} texts")
        yield Chunk(batch, rows, 0)
    if next(waiting, None) is not None:
        raise CliError(f"{path}: {len(stored):,} rows, but more texts than that")


def _table_chunks(path: str, model: SentenceTransformer, name: str, field: str) -> Iterator[Chunk]:
    """Of a .jsonl or .parquet file, or a folder, pattern or URI of such."""
    width = (model.get_embedding_dimension(),)
    for file in expand([path], None)[0]:
        kind = known_format(file)
        if kind == "parquet":
            batches = _parquet_batches(file, model, name, field)
        elif kind == "jsonl":
            batches = _jsonl_batches(file, field)
        else:
            raise UsageError(f"{file}: saved vectors are .npy, .jsonl or .parquet files")
        for records, rows in batches:
            if rows.shape[1:] != width:
                raise CliError(f"{file}: expected vectors {width}, got {rows.shape[1:]}")
            if kind == "jsonl" and (rows == np.rint(rows)).all():
                raise CliError(f"{file}: {INT8_REFUSED}")
            yield Chunk(records, rows, 0)


def _parquet_batches(
    path: str, model: SentenceTransformer, name: str, field: str
) -> Iterator[tuple[list[Record], NDArray[np.float32]]]:
    from simdformer.cli.arrow import open_vectors, read_vectors

    with open_vectors(path, [field, VECTOR]) as (manifest, parquet):
        _check_manifest(path, manifest, model, name)
        before = 0
        for members, rows in read_vectors(path, parquet, [field, *_MEMBERS], VECTOR, _ROWS):
            numbered = enumerate(members, before + 1)
            yield [_record(path, each, number, field) for number, each in numbered], rows
            before += len(members)


def _jsonl_batches(path: str, field: str) -> Iterator[tuple[list[Record], NDArray[np.float32]]]:
    file, _ = open_input(path)
    with file:
        lines = enumerate(_lines(path, file), 1)
        while batch := list(islice(lines, _ROWS)):
            members = [(_object(path, line, number, field), number) for number, line in batch]
            records = [_record(path, each, number, field) for each, number in members]
            yield records, _matrix(path, members)


def _lines(path: str, file: Iterable[bytes]) -> Iterator[bytes]:
    try:
        yield from file
    except READ_ERRORS as error:
        raise CliError(f"cannot read {path}: {reason(error)}") from error


def _object(path: str, line: bytes, number: int, field: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise CliError(f"{path}, line {number}: not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise CliError(f"{path}, line {number}: expected a JSON object")
    for name in (field, VECTOR):
        if name not in value:
            present = ", ".join(f'"{each}"' for each in list(value)[:20]) or "none"
            raise CliError(f'{path}, line {number}: no field "{name}" (there: {present})')
    return value


def _record(path: str, members: dict[str, Any], number: int, field: str) -> Record:
    """The text and what is stored beside it; `number` is the row's."""
    if not isinstance(members[field], str):
        raise CliError(f'{path}, row {number}: "{field}" must be a string')
    line, source, key = (members.get(name) for name in _MEMBERS)
    line = line if isinstance(line, int) else number
    return Record(members[field], line, source=str(source or ""), id=key)


def _matrix(path: str, members: list[tuple[dict[str, Any], int]]) -> NDArray[np.float32]:
    width = None
    for each, number in members:
        vector = each[VECTOR]
        flat = isinstance(vector, list) and all(isinstance(x, (int, float)) for x in vector)
        if not flat or (width is not None and len(vector) != width):
            raise CliError(
                f'{path}, line {number}: "{VECTOR}" must be a list of numbers, of one length in all'
                " lines"
            )
        width = len(vector)
    return np.array([each[VECTOR] for each, _ in members], dtype=np.float32)


def _check_manifest(
    path: str, manifest: dict[str, Any], model: SentenceTransformer, name: str
) -> None:
    if not manifest:
        return
    own = identity(name, model)
    if manifest.get("model") != own["model"]:
        raise CliError(f"{path} was made by another model than {name}; use --model")
    if manifest.get("compute_type") != own["compute_type"]:
        raise CliError(
            f"{path} was made in {manifest.get('compute_type')}, and {name} runs in"
            f" {own['compute_type']}; use --compute-type"
        )


def _check_finite(path: str, chunk: Chunk) -> None:
    """A score that is NaN would have no place in the order."""
    finite = np.isfinite(chunk.embeddings).all(axis=1)
    if not finite.all():
        record = chunk.records[int(np.argmin(finite))]
        raise CliError(
            f"{path}: the vector of the text in line {record.line} has values that are not finite"
        )


def _check_first(path: str, model: SentenceTransformer, chunk: Chunk) -> None:
    """CliError unless the model makes about the stored vector of the first text, under some prompt."""
    text, stored = chunk.records[0].text, chunk.embeddings[0].astype(np.float64)
    best = -1.0
    for name in (None, *model.prompts):
        with reported():
            made = model.encode(text, prompt_name=name).astype(np.float64)
        lengths = np.linalg.norm(made) * np.linalg.norm(stored)
        best = max(best, float(made @ stored / lengths) if lengths else 1.0)
    if best < _LEAST_COSINE:
        raise CliError(
            f"{path}: the first vector is not what the model makes of its text (cosine {best:.2f});"
            " it was made by another model, or of other texts"
        )
