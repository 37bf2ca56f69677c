# SPDX-License-Identifier: Apache-2.0
"""The tensors of a pytorch_model.bin.

Since PyTorch 1.6, torch.save writes a zip archive: NAME/data.pkl, a pickle with the names and shapes of the
tensors; NAME/data/KEY, the numbers of each storage; and, since 2.1, NAME/byteorder. Earlier versions wrote
five pickles one after another (a magic number, the version of the format, properties of the machine, the
tensors, the keys of their storages), and then, for each storage, its number of elements and the elements. No
pickle is unpickled: see torch_pickle.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from simdformer.checkpoint.stored_zip import StoredZip
from simdformer.checkpoint.tensor_file import Entry, TensorFile
from simdformer.checkpoint.torch_pickle import read_programs, read_state_dict, tensors_of
from simdformer.checkpoint.torch_tensors import StoredTensor

_ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
# A pickle has about 200 bytes per tensor. Interpreting one of this size takes less than half a gigabyte.
_LARGEST_PICKLE = 4 << 20
# Tied weights share a storage: an embedding is used twice, a layer a dozen times in a few models. Without a
# limit, a small file could fill the memory.
_MOST_SHARED = 32
# Before 1.6, torch.save first wrote this number, as a pickle, and then this version.
_OLD_FORMAT = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
_OLD_VERSION = 1001


def torch_entries(file: TensorFile) -> dict[str, Entry]:
    """The place of each tensor.

    Errors: ValueError naming the file, and the tensor if there is one, if the file is damaged, contains
    anything but named tensors, or was written on a big-endian machine.
    """
    old = file.size() >= len(_OLD_FORMAT) and file.read(len(_OLD_FORMAT), 0) == _OLD_FORMAT
    try:
        return _entries(file, *(_read_old(file) if old else _read(file)))
    except ValueError as error:
        raise ValueError(f"{file.path}: not a supported PyTorch checkpoint: {error}") from error


def _entries(
    file: TensorFile, tensors: dict[str, StoredTensor], place: Callable[[str], tuple[int, int]]
) -> dict[str, Entry]:
    """place: returns the offset of a storage's first byte, and its size in bytes."""
    places: dict[str, tuple[int, int]] = {}
    entries: dict[str, Entry] = {}
    total = 0
    for name, tensor in tensors.items():
        key = tensor.storage.key
        if key not in places:
            places[key] = place(key)
        try:
            entries[name] = _entry(file, tensor, *places[key])
        except ValueError as error:
            raise ValueError(f"tensor {name!r}: {error}") from error
        total += entries[name].num_elements() * _ITEM_BYTES[tensor.storage.dtype]
    if total > _MOST_SHARED * file.size():
        raise ValueError(f"{len(entries)} tensors of {total} bytes share the few in the file")
    return entries


def _read(file: TensorFile) -> tuple[dict[str, StoredTensor], Callable[[str], tuple[int, int]]]:
    """The tensors of a zip archive, and the place of their storages."""
    archive = StoredZip(file)
    pickles = [name for name in archive.names() if name.partition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
        raise ValueError(f"{len(pickles)} entries called data.pkl in the archive, expected 1")
    folder = pickles[0].removesuffix("data.pkl")
    _check_byte_order(archive, file, f"{folder}byteorder")
    begin, size = archive.place(pickles[0])
    if size > _LARGEST_PICKLE:
        raise ValueError(f"data.pkl has {size} bytes; at most {_LARGEST_PICKLE} are read")
    tensors = read_state_dict(file.read(size, begin))
    return tensors, lambda key: archive.place(f"{folder}data/{key}")


def _read_old(file: TensorFile) -> tuple[dict[str, StoredTensor], Callable[[str], tuple[int, int]]]:
    """The same for a file written before 1.6."""
    pickled = file.read(min(file.size(), _LARGEST_PICKLE), 0)
    (_, version, machine, state, keys), at = read_programs(pickled, 5)
    if version != _OLD_VERSION:
        raise ValueError(f"version {version!r} of the format, expected {_OLD_VERSION}")
    if type(machine) is not dict or machine.get("little_endian") is not True:
        raise ValueError("it was not written on a little-endian machine")
    tensors = tensors_of(state)
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    if type(keys) is not list or not all(type(key) is str and key in storages for key in keys):
        raise ValueError("it lists storages that no tensor has")
    places: dict[str, tuple[int, int]] = {}
    for key in keys:
        if at + 8 > file.size():
            raise ValueError(f"storage {key!r} begins after the end of the file")
        size = int.from_bytes(file.read(8, at), "little") * _ITEM_BYTES[storages[key].dtype]
        at += 8
        if size > file.size() - at:
            raise ValueError(f"storage {key!r} of {size} bytes ends after the end of the file")
        places[key] = (at, size)
        at += size
    if missing := storages.keys() - places.keys():
        raise ValueError(f"storage {min(missing)!r} is not in the file")
    return tensors, places.__getitem__


def _check_byte_order(archive: StoredZip, file: TensorFile, name: str) -> None:
    if name not in archive:  # written before 2.1, almost always on a little-endian machine
        return
    begin, size = archive.place(name)
    order = file.read(min(size, 16), begin)
    if order != b"little":
        raise ValueError(f"its byte order is {order.decode('ascii', 'replace')!r}, not 'little'")


def _entry(file: TensorFile, tensor: StoredTensor, begin: int, size: int) -> Entry:
    storage, item_bytes = tensor.storage, _ITEM_BYTES[tensor.storage.dtype]
    if storage.size * item_bytes > size:
        raise ValueError(
            f"{storage.size} numbers of {item_bytes} bytes in an entry of {size} bytes"
        )
    count = math.prod(tensor.shape)
    # NumPy also multiplies the other axes of an empty array.
    if not count and math.prod(n or 1 for n in tensor.shape) >= 1 << 48:
        raise ValueError(f"its shape {tensor.shape} is too large")
    axes = _axes(tensor) if count else tuple(range(len(tensor.shape)))
    if axes is None:
        raise ValueError(f"shape {tensor.shape} with strides {tensor.strides} has gaps or overlaps")
    if tensor.offset + count > storage.size:
        raise ValueError(
            f"shape {tensor.shape} from number {tensor.offset} on, in a storage of {storage.size}"
        )
    in_order = axes == tuple(range(len(axes)))
    at = begin + tensor.offset * item_bytes
    return Entry(file, storage.dtype, tensor.shape, at, None if in_order else axes)


def _axes(tensor: StoredTensor) -> tuple[int, ...] | None:
    """The axes from the slowest to the fastest; None if the numbers are not contiguous."""
    shape, strides = tensor.shape, tensor.strides
    axes = sorted(range(len(shape)), key=lambda axis: -strides[axis])
    expected = 1
    for axis in reversed(axes):
        if shape[axis] != 1 and strides[axis] != expected:
            return None
        expected *= shape[axis]
    return tuple(axes)
