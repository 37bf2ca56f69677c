# SPDX-License-Identifier: Apache-2.0
"""Replacements for the names that a torch.save pickle may use: storages, tensors and dicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# torch's storages by the dtype names of safetensors.
_STORAGES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
_MOST_AXES = 32  # NumPy 1's limit


@dataclass(frozen=True)
class StorageType:
    """A class of storages."""

    dtype: str


@dataclass(frozen=True)
class Storage:
    """An array in the file; tensors are views of it. size: in elements."""

    dtype: str
    key: str
    size: int


@dataclass(frozen=True)
class StoredTensor:
    """A tensor: a view of a storage. Offset and strides are in elements, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _is_shape(value: object) -> bool:
    return type(value) is tuple and len(value) <= _MOST_AXES and all(map(is_size, value))


def _tensor(*arguments: Any) -> StoredTensor:
    """Replaces torch._utils._rebuild_tensor_v2, with the arguments storage, offset, shape, strides,
    requires_grad and hooks, and a flag if the tensor is conjugated or negated."""
    match arguments:
        case (Storage() as storage, offset, shape, strides, bool(), dict()) if (
            is_size(offset) and _is_shape(shape) and _is_shape(strides)
        ):
            if len(shape) == len(strides):
                return StoredTensor(storage, offset, shape, strides)
    raise ValueError("the pickle describes a tensor in a way that torch.save does not")


def _parameter(*arguments: Any) -> StoredTensor:
    """Replaces torch._utils._rebuild_parameter, with the arguments tensor, requires_grad and hooks."""
    match arguments:
        case (StoredTensor() as tensor, bool(), dict()):
            return tensor
    raise ValueError("the pickle describes a parameter in a way that torch.save does not")


def _dict(*arguments: Any) -> dict[str, Any]:
    """Replaces collections.OrderedDict; it is created empty."""
    if arguments:
        raise ValueError("the pickle fills an OrderedDict in a way that torch.save does not")
    return {}


NAMES: dict[tuple[str, str], object] = {
    ("collections", "OrderedDict"): _dict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    **{("torch", name): StorageType(dtype) for name, dtype in _STORAGES.items()},
}
