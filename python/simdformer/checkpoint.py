# SPDX-License-Identifier: Apache-2.0
"""The weights of a model folder: safetensors or PyTorch files, checked before a byte of them is believed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simdformer.precision import Int8Matrix, num_groups
from simdformer.safetensors_file import safetensors_entries
from simdformer.tensor_file import Entry, TensorFile
from simdformer.torch_checkpoint import torch_entries

Float32 = NDArray[np.float32]
Array = NDArray[Any]

# bfloat16 has no NumPy dtype: it is read as its bits and widened.
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_INTEGERS = {"I8": "<i1", "I32": "<i4"}
# What stands for a matrix in int8.
_INT8_PARTS = ("weight", "weight_scale", "outliers", "outlier_weight")

# Where a folder's weights are, the first that is there: in one file, or in shards that an index names.
_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# A file that is given by name and has no suffix of these is safetensors.
_TORCH_SUFFIXES = (".bin", ".pt", ".pth")


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


class Checkpoint:
    """The tensors in a folder's model.safetensors, else in its pytorch_model.bin, or in the shards that an
    index of either names; or in one file.

    Use as a context manager; arrays that it gave out stay valid.
    Errors: FileNotFoundError if there is none of these, ValueError (naming the file and the reason)
    if they are damaged, hold anything but tensors or the index points outside the folder.
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
        # TensorFlow's names live on in early BERT checkpoints; the field reads them as weight and bias.
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
        self.names_read.add(name)
        raw = entry.read(_DTYPES[entry.dtype])
        tensor = _widen_bfloat16(raw) if entry.dtype == "BF16" else raw
        with np.errstate(over="ignore", invalid="ignore"):
            tensor = tensor.astype(np.float32, copy=False)
            # A NaN or an infinity survives a sum, so a finite sum clears all elements in one pass.
            if not np.isfinite(tensor.sum()) and not np.isfinite(tensor).all():
                bad = entry.num_elements() - int(np.isfinite(tensor).sum())
                raise ValueError(
                    f"tensor {name!r} in {entry.file.path} holds {bad} values that are NaN or"
                    " infinite; the file may be damaged: download it again"
                )
        return tensor

    def read_integers(self, name: str, dtype: str) -> Array:
        """One tensor of integers: dtype "I8" or "I32". ValueError if it holds other numbers."""
        entry = self._entries[name]
        if entry.dtype != dtype:
            raise ValueError(
                f"tensor {name!r} in {entry.file.path} has dtype {entry.dtype}, expected {dtype}"
            )
        return entry.read(_INTEGERS[dtype])

    def path(self, name: str) -> Path:
        """The file that holds a tensor."""
        return self._entries[name].file.path

    def files(self) -> list[Path]:
        """The files that the tensors are in."""
        return [file.path for file in self._files]

    def num_bytes(self) -> int:
        """The size of the files."""
        return sum(file.size() for file in self._files)

    def num_parameters(self) -> int:
        """The elements of all floating-point tensors."""
        # Not buffers of positions, which are integers.
        floats = [entry for entry in self._entries.values() if entry.dtype in _DTYPES]
        return sum(entry.num_elements() for entry in floats)


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
        return self._checkpoint.read(self.checked(name, fields, self.shape(fields)))

    def matrix(
        self,
        name: str,
        rows: str,
        cols: str,
        *,
        parts: Sequence[str] = (),
        share: tuple[int, int] = (0, 1),
    ) -> CheckpointMatrix:
        """The matrix `name`.weight, or those of `parts` below one another; checked now, read later.

        rows and cols name the fields that each part's shape must equal. share: (index, count) if each
        part holds `count` matrices of that shape below one another, of which this is one.
        """
        found = CheckpointMatrix(self, name, tuple(parts) or (name,), (rows, cols), share)
        self._unread.difference_update(found.tensors)
        int8 = {f"{found.name}.{part}" for part in _INT8_PARTS}
        self._unread -= int8
        if not (int8 - set(found.tensors)).intersection(self._checkpoint.names()):
            for part in parts or (name,):
                found.check_part(part)
        return found

    def share(self, name: str, field: str, share: tuple[int, int]) -> Float32:
        """A vector that is one of several of one length in the tensor `name`; see matrix."""
        index, count = share
        (size,) = self.shape((field,))
        whole = self._checkpoint.read(self.checked(name, (field,), (count * size,)))
        return whole[index * size :][:size]

    def shape(self, fields: Sequence[str]) -> tuple[int, ...]:
        """The sizes that fields of config.json name."""
        return tuple(self._sizes[field] for field in fields)

    def checked(self, name: str, fields: Sequence[str], shape: tuple[int, ...]) -> str:
        """The full name of a tensor of that shape, which follows from those fields."""
        name = self._prefix + name
        given = ", ".join(f"{field}={self._sizes[field]}" for field in dict.fromkeys(fields))
        if name not in self._checkpoint:
            raise ValueError(
                f"tensor {name!r} is missing from the checkpoint {self._checkpoint.location};"
                f" config.json ({given}) needs it with shape {shape}"
            )
        found = self._checkpoint.shape(name)
        if found != shape:
            raise ValueError(
                f"tensor {name!r} in {self._checkpoint.path(name).name} has shape {found};"
                f" config.json ({given}) needs {shape}"
            )
        self._unread.discard(name)
        return name

    @property
    def prefix(self) -> str:
        """What the checkpoint puts before the encoder's names."""
        return self._prefix

    @property
    def checkpoint(self) -> Checkpoint:
        """Where the tensors are."""
        return self._checkpoint

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


class CheckpointMatrix:
    """A matrix that one tensor, a share of its rows, or several below one another hold;
    precision.Matrix."""

    def __init__(
        self,
        weights: Weights,
        name: str,
        parts: tuple[str, ...],
        fields: tuple[str, str],
        share: tuple[int, int],
    ) -> None:
        self._weights = weights
        self._name = name
        self._parts = parts
        self._fields = fields
        self._share = share

    @property
    def name(self) -> str:
        """The full name, without ".weight"."""
        return self._weights.prefix + self._name

    @property
    def tensors(self) -> list[str]:
        """The names of the tensors that hold it in float32."""
        return [f"{self._weights.prefix}{part}.weight" for part in self._parts]

    def float32(self) -> Float32:
        """Its numbers: (rows, cols)."""
        index, _ = self._share
        rows, _ = self._weights.shape(self._fields)
        wholes = [self._weights.checkpoint.read(self.check_part(part)) for part in self._parts]
        parts = [whole[index * rows :][:rows] for whole in wholes]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def check_part(self, part: str) -> str:
        """The full name of a part's tensor. ValueError if it is missing or of another shape."""
        _, count = self._share
        rows, cols = self._weights.shape(self._fields)
        return self._weights.checked(f"{part}.weight", self._fields, (count * rows, cols))

    def int8(self) -> Int8Matrix:
        """As quantize_model stores it: in one piece, scales and outliers beside the codes.

        ValueError names the file and the tensor that is missing or cannot be right.
        """
        rows, cols = self._weights.shape(self._fields)
        rows *= len(self._parts)
        groups = num_groups(cols)
        values = self._read_integers("weight", "I8", (rows, cols))
        scale = self._read("weight_scale", (rows, groups))
        self._require("weight_scale", bool((scale > 0).all()), "scales must be above 0")
        count = min(cols, math.prod(self._shape("outliers")))
        outliers = self._read_integers("outliers", "I32", (count,))
        ascending = bool((np.diff(outliers, prepend=-1, append=cols) > 0).all())
        self._require("outliers", ascending, f"columns must ascend within [0, {cols})")
        return Int8Matrix(values, scale, outliers, self._read("outlier_weight", (rows, count)))

    def _shape(self, part: str) -> tuple[int, ...]:
        """As found; () if there is no such tensor, which is refused when it is read."""
        name, checkpoint = f"{self.name}.{part}", self._weights.checkpoint
        return checkpoint.shape(name) if name in checkpoint else ()

    def _checked(self, part: str, shape: tuple[int, ...]) -> str:
        return self._weights.checked(f"{self._name}.{part}", self._fields, shape)

    def _read(self, part: str, shape: tuple[int, ...]) -> Float32:
        return self._weights.checkpoint.read(self._checked(part, shape))

    def _read_integers(self, part: str, dtype: str, shape: tuple[int, ...]) -> Array:
        return self._weights.checkpoint.read_integers(self._checked(part, shape), dtype)

    def _require(self, part: str, holds: bool, what: str) -> None:
        if not holds:
            name = f"{self.name}.{part}"
            path = self._weights.checkpoint.path(name)
            raise ValueError(f"tensor {name!r} in {path}: {what}; the file is damaged")


def _widen_bfloat16(bits: NDArray[Any]) -> Float32:
    wide: Float32 = (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return wide


def _modern_name(name: str) -> str:
    for old, new in (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")):
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def find_weights(folder: Path) -> Path:
    """The file that a folder's weights are in, or the index that names its shards. FileNotFoundError if
    there is none."""
    for name in _FILES:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"no {', '.join(_FILES[:-1])} or {_FILES[-1]} in {folder}")


def _shard_name(index: Path, value: object) -> str:
    # A shard name comes with the model: "../../etc/x" must not leave the folder.
    if not isinstance(value, str) or value != Path(value).name or "\\" in value:
        raise ValueError(f"{index}: shard names must be plain file names, got {value!r}")
    suffix = Path(index.name.removesuffix(".index.json")).suffix
    if not value.endswith(suffix):
        raise ValueError(f"{index}: shards must be {suffix} files, got {value!r}")
    return value
