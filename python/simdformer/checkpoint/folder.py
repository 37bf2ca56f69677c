# SPDX-License-Identifier: Apache-2.0
"""The weights of a model folder: safetensors or PyTorch files, checked before they are used."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simdformer.checkpoint.regular_file import read_regular
from simdformer.checkpoint.safetensors_file import safetensors_entries
from simdformer.checkpoint.tensor_file import Entry, TensorFile
from simdformer.checkpoint.torch_file import torch_entries

Float32 = NDArray[np.float32]
Array = NDArray[Any]

# NumPy has no bfloat16: the bits are read and widened.
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_INTEGERS = {"I8": "<i1", "I32": "<i4"}
_IDS = {"I64": "<i8", "I32": "<i4", "U16": "<u2", "U8": "<u1"}

# Where weights may be, in this order: in one file, or in shards listed in an index.
_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# A file given by name without one of these suffixes is read as safetensors.
_TORCH_SUFFIXES = (".bin", ".pt", ".pth")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. ValueError with the file's name if it is not an object."""
    value = read_any_json(path)
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(value).__name__}")  # noqa: TRY004  (the file is wrong, not the call)
    return value


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the file's name to ValueErrors raised inside."""
    try:
        yield
    except ValueError as error:
        if str(path.parent) in str(error):  # this file, or another file of the folder
            raise
        raise ValueError(f"{path}: {str(error).removeprefix(f'{path.name}: ')}") from error


def read_optional_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`; empty if there is no such file. Errors: see read_json."""
    return read_json(path) if os.path.lexists(path) else {}


def read_any_json(path: Path) -> Any:
    """The JSON value in `path`. ValueError with the file's name if it is not JSON in UTF-8, not a
    regular file, or too large."""
    try:
        content = read_regular(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no {path.name} in {path.parent}; is it a model?") from error
    try:
        return json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from error


class Checkpoint:
    """The tensors in model.safetensors or pytorch_model.bin of a folder, in the shards listed in an index
    of either, or in one file.

    Use it as a context manager; returned arrays stay valid.
    Errors: FileNotFoundError if there is no such file. ValueError (with file and reason) if a file is
    damaged or contains anything but tensors, or if the index points outside the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.location = folder
        self._files: list[TensorFile] = []
        self._entries: dict[str, Entry] = {}
        self.names_read: set[str] = set()
        try:
            path = folder if folder.is_file() else find_weights(folder)
            if path.name.endswith(".index.json"):
                self._open_shards(path)
            else:
                self._open(path)
        except BaseException:
            self.close()
            raise

    def _open(self, path: Path) -> set[str]:
        file = TensorFile(path)
        self._files.append(file)
        is_torch = path.suffix in _TORCH_SUFFIXES
        entries = torch_entries(file) if is_torch else safetensors_entries(file)
        # Early BERT checkpoints have TensorFlow's names, which are read as weight and bias.
        renamed = {_modern_name(name): entry for name, entry in entries.items()}
        self._entries.update(renamed)
        return set(entries)

    def _open_shards(self, index: Path) -> None:
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise ValueError(f"{index}: 'weight_map' must map tensor names to shard files")
        for shard in sorted({_shard_name(index, value) for value in weight_map.values()}):
            path = index.parent / shard
            if not path.is_file():
                raise FileNotFoundError(
                    f"{index} names the shard {shard!r}, which is not in {index.parent}"
                )
            found = self._open(path)
            for name, home in weight_map.items():
                if home == shard and name not in found:
                    raise ValueError(
                        f"{index} places tensor {name!r} in {shard!r}, which does not contain it"
                    )

    def __enter__(self) -> Checkpoint:  # noqa: PYI034  (Self is newer than Python 3.10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files. A second call has no effect."""
        for file in self._files:
            file.close()
        self._files.clear()

    def names(self) -> list[str]:
        """The names of all tensors."""
        return list(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, read from the header."""
        return self._entries[name].shape

    def read(self, name: str) -> Float32:
        """One tensor as float32 (float16, bfloat16 and float64 are converted).

        ValueError if it has another dtype, or contains NaN or infinity.
        """
        self.names_read.add(name)
        return _floats(name, self._entries[name])

    def read_rows(self, name: str, rows: Sequence[int]) -> Float32:
        """Some rows of a tensor, and no others, as `read` converts them: (len(rows), ...)."""
        entry = self._entries[name]
        if entry.axes is not None:  # a row's numbers are not next to each other
            return self.read(name)[list(rows)]
        dtype = _stored_dtype(name, entry)
        if not isinstance(rows, range) or rows.step != 1:
            return np.concatenate([self.read_rows(name, range(row, row + 1)) for row in rows])
        return _floats(name, entry.rows(rows.start, len(rows), dtype))

    def read_integers(self, name: str, dtype: str) -> Array:
        """One tensor of integers: dtype "I8" or "I32". ValueError if it has another dtype."""
        entry = self._entries[name]
        if entry.dtype != dtype:
            raise ValueError(
                f"tensor {name!r} in {entry.file.path} has dtype {entry.dtype}, expected {dtype}"
            )
        return entry.read(_INTEGERS[dtype])

    def read_ids(self, name: str) -> Array:
        """One tensor of integers of any width as int64. ValueError if it has another dtype."""
        dtype = self._entries[name].dtype
        if dtype not in _IDS:
            raise ValueError(
                f"tensor {name!r} in {self.path(name)} has dtype {dtype}; ids must be one of"
                f" {', '.join(_IDS)}"
            )
        return self._entries[name].read(_IDS[dtype]).astype(np.int64)

    def path(self, name: str) -> Path:
        """The file with a tensor."""
        return self._entries[name].file.path

    def files(self) -> list[Path]:
        """The files with the tensors."""
        return [file.path for file in self._files]

    def num_bytes(self) -> int:
        """The total size of the files."""
        return sum(file.size() for file in self._files)

    def num_parameters(self) -> int:
        """The number of elements of all floating-point tensors. Integer tensors hold positions, not
        parameters."""
        floats = [entry for entry in self._entries.values() if entry.dtype in _DTYPES]
        return sum(entry.num_elements() for entry in floats)


def _floats(name: str, entry: Entry) -> Float32:
    """The numbers of a tensor as float32. Errors: see Checkpoint.read."""
    raw = entry.read(_stored_dtype(name, entry))
    tensor = widen_bfloat16(raw) if entry.dtype == "BF16" else raw
    with np.errstate(over="ignore", invalid="ignore"):
        tensor = tensor.astype(np.float32, copy=False)
        # NaN and infinity make the sum non-finite, so one pass checks all elements.
        if not np.isfinite(tensor.sum()) and not np.isfinite(tensor).all():
            bad = entry.num_elements() - int(np.isfinite(tensor).sum())
            raise ValueError(
                f"tensor {name!r} in {entry.file.path} holds {bad} values that are NaN or"
                " infinite; the file may be damaged: download it again"
            )
    return tensor


def _stored_dtype(name: str, entry: Entry) -> str:
    if entry.dtype not in _DTYPES:
        raise ValueError(
            f"tensor {name!r} in {entry.file.path} has dtype {entry.dtype};"
            f" weights must be one of {', '.join(_DTYPES)}"
        )
    return _DTYPES[entry.dtype]


def widen_bfloat16(bits: NDArray[Any]) -> Float32:
    """Numbers in bfloat16, whose bits are given, as float32."""
    wide: Float32 = (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return wide


def _modern_name(name: str) -> str:
    for old, new in (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")):
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def find_weights(folder: Path) -> Path:
    """The file with a folder's weights, or the index of its shards. FileNotFoundError if there is none."""
    for name in _FILES:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"no {', '.join(_FILES[:-1])} or {_FILES[-1]} in {folder}")


def has_weights(folder: Path) -> bool:
    """Whether find_weights finds a file."""
    return any((folder / name).is_file() for name in _FILES)


def _shard_name(index: Path, value: object) -> str:
    # Shard names come with the model: "../../etc/x" must not leave the folder.
    if not isinstance(value, str) or value != Path(value).name or "\\" in value:
        raise ValueError(f"{index}: shard names must be plain file names, got {value!r}")
    suffix = Path(index.name.removesuffix(".index.json")).suffix
    if not value.endswith(suffix):
        raise ValueError(f"{index}: shards must be {suffix} files, got {value!r}")
    return value
