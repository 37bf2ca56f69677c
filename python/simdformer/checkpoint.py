# SPDX-License-Identifier: Apache-2.0
"""The weights of a model folder: safetensors files, checked before a byte of them is believed.

Tensors are read with pread into arrays of our own. A file that shrinks under a memory map kills the
process with SIGBUS; under pread it is an exception.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

Float32 = NDArray[np.float32]

# bfloat16 has no NumPy dtype: it is read as its bits and widened.
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. ValueError names the file if it holds something else."""
    value = read_any_json(path)
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(value).__name__}")  # noqa: TRY004  (the file is wrong, not the call)
    return value


def read_any_json(path: Path) -> Any:
    """The JSON value in `path`. ValueError names the file if it is not JSON in UTF-8."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no {path.name} in {path.parent}; is it a model?") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from error


class _Entry(NamedTuple):
    """Where one tensor lies: `offset` counts from the start of the file."""

    file: _File
    dtype: str
    shape: tuple[int, ...]
    offset: int


class _File:
    """One open safetensors file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # The library's parser refuses truncated files, overlapping or missing ranges, sizes that
            # overflow and headers that lie; it opens the file but no tensor is read through it.
            with safe_open(path, framework="numpy"):
                pass
        except SafetensorError as error:
            raise ValueError(f"{path}: not a valid safetensors file: {error}") from error
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def entries(self) -> dict[str, _Entry]:
        length = int.from_bytes(self.read(8, 0), "little")
        header = json.loads(self.read(length, 8))
        header.pop("__metadata__", None)
        return {
            name: _Entry(
                self, info["dtype"], tuple(info["shape"]), 8 + length + info["data_offsets"][0]
            )
            for name, info in header.items()
        }

    def read(self, size: int, offset: int) -> bytes:
        buffer = bytearray(size)
        self.read_into(memoryview(buffer), offset)
        return bytes(buffer)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        done = 0
        while done < len(buffer):  # one call moves at most 2 GiB
            count = os.preadv(self.fd, [buffer[done:]], offset + done)
            if count == 0:
                raise ValueError(f"{self.path}: the file was truncated while it was being read")
            done += count

    def close(self) -> None:
        os.close(self.fd)


class Checkpoint:
    """The tensors in a folder's model.safetensors, in the shards its index names, or in one file.

    Use as a context manager; arrays that it gave out stay valid.
    Errors: FileNotFoundError if there are no safetensors, ValueError (naming the file and the
    reason) if they are damaged or the index points outside the folder.
    """

    def __init__(self, folder: Path) -> None:
        self._files: list[_File] = []
        self._entries: dict[str, _Entry] = {}
        try:
            if folder.is_file():
                self._open(folder)
            elif (folder / _SINGLE).is_file():
                self._open(folder / _SINGLE)
            elif (folder / _INDEX).is_file():
                self._open_shards(folder)
            else:
                raise FileNotFoundError(_no_weights(folder))
        except BaseException:
            self.close()
            raise

    def _open(self, path: Path) -> set[str]:
        file = _File(path)
        self._files.append(file)
        entries = file.entries()
        # TensorFlow's names live on in early BERT checkpoints; the field reads them as weight and bias.
        renamed = {_modern_name(name): entry for name, entry in entries.items()}
        self._entries.update(renamed)
        return set(entries)

    def _open_shards(self, folder: Path) -> None:
        index = folder / _INDEX
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise ValueError(f"{index}: 'weight_map' must map tensor names to shard files")
        for shard in sorted({_shard_name(index, value) for value in weight_map.values()}):
            if not (folder / shard).is_file():
                raise FileNotFoundError(
                    f"{index} names the shard {shard!r}, which is not in {folder}"
                )
            found = self._open(folder / shard)
            for name, home in weight_map.items():
                if home == shard and name not in found:
                    raise ValueError(f"{index} places tensor {name!r} in {shard!r}, which lacks it")

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
        """Close the files. Calling it twice is harmless."""
        for file in self._files:
            file.close()
        self._files.clear()

    def names(self) -> list[str]:
        """The names of all tensors."""
        return list(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, from the header."""
        return self._entries[name].shape

    def file_name(self, name: str) -> str:
        """The name of the file that holds a tensor."""
        return self._entries[name].file.path.name

    def read(self, name: str) -> Float32:
        """One tensor as float32 (float16, bfloat16 and float64 are converted).

        ValueError if it holds other numbers, or a NaN or an infinity.
        """
        entry = self._entries[name]
        if entry.dtype not in _DTYPES:
            raise ValueError(
                f"tensor {name!r} in {entry.file.path} has dtype {entry.dtype};"
                f" weights must be one of {', '.join(_DTYPES)}"
            )
        raw = np.empty(entry.shape, dtype=_DTYPES[entry.dtype])
        entry.file.read_into(raw.reshape(-1).view(np.uint8).data, entry.offset)
        tensor = _widen_bfloat16(raw) if entry.dtype == "BF16" else raw
        with np.errstate(over="ignore", invalid="ignore"):
            tensor = tensor.astype(np.float32, copy=False)
            # A NaN or an infinity survives a sum, so a finite sum clears all elements in one pass.
            if not np.isfinite(tensor.sum()) and not np.isfinite(tensor).all():
                bad = math.prod(entry.shape) - int(np.isfinite(tensor).sum())
                raise ValueError(
                    f"tensor {name!r} in {entry.file.path} holds {bad} values that are NaN or"
                    " infinite; the file may be damaged: download it again"
                )
        return tensor


class Weights:
    """The tensors of one architecture, each checked against the sizes that config.json states.

    `sizes` maps config fields to their values. `prefixes` are names that a task model puts before
    its encoder's ("bert." in BertForMaskedLM); the first that occurs in the checkpoint is used.
    """

    def __init__(
        self, checkpoint: Checkpoint, sizes: Mapping[str, Any], prefixes: Sequence[str] = ()
    ) -> None:
        names = checkpoint.names()
        self._checkpoint = checkpoint
        self._sizes = sizes
        self._unread = set(names)
        self._prefix = next((p for p in prefixes if any(n.startswith(p) for n in names)), "")

    def __call__(self, name: str, *fields: str) -> Float32:
        """The tensor `name`, whose dimensions must equal the named config fields, in order."""
        name = self._prefix + name
        shape = tuple(self._sizes[field] for field in fields)
        given = ", ".join(f"{field}={self._sizes[field]}" for field in dict.fromkeys(fields))
        if name not in self._checkpoint:
            raise ValueError(
                f"tensor {name!r} is missing from the checkpoint;"
                f" config.json ({given}) needs it with shape {shape}"
            )
        found = self._checkpoint.shape(name)
        if found != shape:
            raise ValueError(
                f"tensor {name!r} in {self._checkpoint.file_name(name)} has shape {found};"
                f" config.json ({given}) needs {shape}"
            )
        self._unread.discard(name)
        return self._checkpoint.read(name)

    def refuse_unread(self, ignored: Sequence[str]) -> None:
        """ValueError if tensors are left that the architecture did not ask for.

        `ignored`: beginnings of names, with or without the prefix, of parts that embeddings do not
        use (a pooler, a classifier).
        """
        beginnings = tuple(ignored) + tuple(self._prefix + name for name in ignored)
        left = sorted(name for name in self._unread if not name.startswith(beginnings))
        if left:
            shown = ", ".join(repr(name) for name in left[:5]) + (", ..." if left[5:] else "")
            raise ValueError(
                f"the checkpoint holds {len(left)} tensors that config.json leaves no place for:"
                f" {shown}"
            )


def _widen_bfloat16(bits: NDArray[Any]) -> Float32:
    wide: Float32 = (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return wide


def _modern_name(name: str) -> str:
    for old, new in (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")):
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _shard_name(index: Path, value: object) -> str:
    # A shard name comes with the model: "../../etc/x" must not leave the folder.
    if not isinstance(value, str) or value != Path(value).name or "\\" in value:
        raise ValueError(f"{index}: shard names must be plain file names, got {value!r}")
    if not value.endswith(".safetensors"):
        raise ValueError(f"{index}: shards must be .safetensors files, got {value!r}")
    return value


def _no_weights(folder: Path) -> str:
    message = f"no {_SINGLE} or {_INDEX} in {folder}"
    if (folder / "pytorch_model.bin").is_file():
        message += (
            "; pytorch_model.bin is a pickle, which can run code and is never read:"
            " convert it to safetensors"
        )
    return message
