"""Writes files like torch.save, without torch: pickles from single instructions, any of which can be
replaced, and the zip archive around them."""

from __future__ import annotations

import zipfile

import numpy as np

STORAGES = {"float64": "Double", "float32": "Float", "float16": "Half", "int64": "Long"}


def text(value):
    data = value.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def number(value):
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def tuple_of(*parts):
    return b"(" + b"".join(parts) + b"t"


def call(module, attribute, *arguments):
    return name(module, attribute) + tuple_of(*arguments) + b"R"


def ordered_dict():
    return name("collections", "OrderedDict") + b")R"


def storage(kind="Float", key="0", size=6, *, more=()):
    parts = (
        text("storage"),
        name("torch", f"{kind}Storage"),
        text(key),
        text("cpu"),
        number(size),
        *more,
    )
    return tuple_of(*parts) + b"Q"


def tensor(shape=(2, 3), strides=(3, 1), offset=0, stored=None):
    sizes = [tuple_of(*map(number, values)) for values in (shape, strides)]
    stored = storage() if stored is None else stored
    arguments = (stored, number(offset), *sizes, b"\x89", ordered_dict())
    return call("torch._utils", "_rebuild_tensor_v2", *arguments)


def state_dict(items, end=b"."):
    """A pickle of names and values; the values are already instructions."""
    pairs = b"".join(text(key) + value for key, value in items.items())
    return b"\x80\x02" + ordered_dict() + b"(" + pairs + b"u" + end


def write_archive(
    path, pickled, storages=(), *, folder="pytorch_model", order=b"little", **options
):
    """The archive with a pickle. storages: the bytes of 0, 1, ..."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr(f"{folder}/data.pkl", pickled)
        if order is not None:
            archive.writestr(f"{folder}/byteorder", order)
        for key, data in enumerate(storages):
            archive.writestr(f"{folder}/data/{key}", data)
    return path


def write_torch(path, tensors, *, end=b".", **options):
    """Write arrays by name, each in its own storage."""
    items, storages = {}, []
    for i, (key, array) in enumerate(tensors.items()):
        stored = storage(STORAGES[array.dtype.name], str(i), array.size)
        strides = np.empty(array.shape, np.uint8).strides
        items[key] = tensor(array.shape, strides, stored=stored)
        storages.append(array.tobytes())
    return write_archive(path, state_dict(items, end), storages, **options)


MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
VERSION = b"\x80\x02M\xe9\x03."


def machine(little=True):
    """The description of the writing machine in a file from before 1.6."""
    order = b"\x88" if little else b"\x89"
    return (
        b"\x80\x02}("
        + text("protocol_version")
        + b"M\xe9\x03"
        + text("little_endian")
        + order
        + b"u."
    )


def listed(keys):
    """A pickle of a list of strings."""
    return b"\x80\x02](" + b"".join(map(text, keys)) + b"e."


def old_file(pickled, storages, *, keys=None, version=VERSION, machine=machine()):  # noqa: B008
    """A file in the format before 1.6. storages: the numbers of each key."""
    parts = [MAGIC, version, machine, pickled, listed(storages if keys is None else keys)]
    parts += [array.size.to_bytes(8, "little") + array.tobytes() for array in storages.values()]
    return b"".join(parts)


def old_torch(tensors):
    """Write arrays by name in this format, each in its own storage."""
    items, storages = {}, {}
    for i, (key, array) in enumerate(tensors.items()):
        stored = storage(STORAGES[array.dtype.name], str(94000 + i), array.size, more=(b"N",))
        items[key] = tensor(array.shape, np.empty(array.shape, np.uint8).strides, stored=stored)
        storages[str(94000 + i)] = array
    return old_file(state_dict(items), storages)
