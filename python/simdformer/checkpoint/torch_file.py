# SPDX-License-Identifier: Apache-2.0
"""The tensors of a pytorch_model.bin: a zip archive of a pickle, which names them, and their numbers.

So torch.save writes since PyTorch 1.6: NAME/data.pkl, NAME/data/KEY for each storage and since 2.1
NAME/byteorder. The pickle is not unpickled: see torch_pickle.
"""

from __future__ import annotations

import math

from simdformer.checkpoint.stored_zip import StoredZip
from simdformer.checkpoint.tensor_file import Entry, TensorFile
from simdformer.checkpoint.torch_pickle import read_state_dict
from simdformer.checkpoint.torch_tensors import StoredTensor

_ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
# A tensor takes about 200 bytes. What the pickle makes of its bytes stays below half a gigabyte.
_LARGEST_PICKLE = 4 << 20
# Tied weights share a storage: an embedding twice, layers in a few models a dozen times. More, and a
# small file would fill the memory.
_MOST_SHARED = 32
# The number that torch.save wrote first before 1.6, as its pickle.
_OLD_FORMAT = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."


def torch_entries(file: TensorFile) -> dict[str, Entry]:
    """Where each tensor lies.

    ValueError names the file, and the tensor if there is one, if it is damaged, holds anything but
    tensors by name, or was written before PyTorch 1.6 or on a big-endian machine.
    """
    if file.size() >= len(_OLD_FORMAT) and file.read(len(_OLD_FORMAT), 0) == _OLD_FORMAT:
        raise ValueError(
            f"{file.path}: the format of PyTorch before 1.6 is not read; load it with torch.load and"
            " save it with torch.save, or as model.safetensors"
        )
    try:
        return _entries(file)
    except ValueError as error:
        raise ValueError(f"{file.path}: not a PyTorch checkpoint that is read: {error}") from error


def _entries(file: TensorFile) -> dict[str, Entry]:
    archive = StoredZip(file)
    pickles = [name for name in archive.names() if name.partition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
        raise ValueError(f"{len(pickles)} entries called data.pkl in the archive, expected 1")
    folder = pickles[0].removesuffix("data.pkl")
    _check_byte_order(archive, file, f"{folder}byteorder")
    begin, size = archive.place(pickles[0])
    if size > _LARGEST_PICKLE:
        raise ValueError(f"data.pkl has {size} bytes; at most {_LARGEST_PICKLE} are read")
    places: dict[str, tuple[int, int]] = {}
    entries: dict[str, Entry] = {}
    total = 0
    for name, tensor in read_state_dict(file.read(size, begin)).items():
        key = tensor.storage.key
        if key not in places:
            places[key] = archive.place(f"{folder}data/{key}")
        try:
            entries[name] = _entry(file, tensor, *places[key])
        except ValueError as error:
            raise ValueError(f"tensor {name!r}: {error}") from error
        total += entries[name].num_elements() * _ITEM_BYTES[tensor.storage.dtype]
    if total > _MOST_SHARED * file.size():
        raise ValueError(f"{len(entries)} tensors of {total} bytes share the few in the file")
    return entries


def _check_byte_order(archive: StoredZip, file: TensorFile, name: str) -> None:
    if name not in archive:  # written before 2.1, and nearly always on a little-endian machine
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
    # NumPy multiplies the other axes of an empty array too.
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
    """The axes from the slowest to the fastest; None if the numbers do not lie side by side."""
    shape, strides = tensor.shape, tensor.strides
    axes = sorted(range(len(shape)), key=lambda axis: -strides[axis])
    expected = 1
    for axis in reversed(axes):
        if shape[axis] != 1 and strides[axis] != expected:
            return None
        expected *= shape[axis]
    return tuple(axes)
