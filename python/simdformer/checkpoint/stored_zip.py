# SPDX-License-Identifier: Apache-2.0
"""Offsets of the entries of an uncompressed zip archive. Nothing is unpacked.

The layout is specified in APPNOTE.TXT (PKWARE, 6.3.10, section 4.3). zipfile does not return the offset of an
entry's bytes, and does not limit the memory that it allocates for a directory.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Any, NamedTuple

from simdformer.checkpoint.tensor_file import TensorFile

# The records and their names in APPNOTE.TXT, little-endian.
_LOCAL_HEADER = Struct("<4s22xHH")  # signature, lengths of name and extra field
_CENTRAL_HEADER = Struct("<4s4xHH8xIIHHH8xI")
_END = Struct("<4s8xIIH")  # signature, size and offset of the directory, length of the comment
_END64_LOCATOR = Struct("<4s4xQ4x")
_END64 = Struct("<4s36xQQ")
_EXTRA = Struct("<HH")

_ENCRYPTED = 1
_STORED = 0
_IN_EXTRA_FIELD = 0xFFFFFFFF  # the value has 64 bits and is in the extra field
_ZIP64 = 1  # the type of this extra field

# A model of a thousand tensors has a directory of 100 KB.
_LARGEST_DIRECTORY = 16 << 20


class _Header(NamedTuple):
    name: str
    flags: int
    method: int
    compressed: int
    size: int
    offset: int


class StoredZip:
    """An archive. Errors of the constructor and of `place`: ValueError with the reason, without the file's
    name."""

    def __init__(self, file: TensorFile) -> None:
        self._file = file
        self._size = file.size()
        self._headers = {header.name: header for header in _headers(self._directory())}

    def names(self) -> list[str]:
        """The names of all entries."""
        return list(self._headers)

    def __contains__(self, name: object) -> bool:
        return name in self._headers

    def place(self, name: str) -> tuple[int, int]:
        """The offset and the size of an entry's bytes in the file."""
        if name not in self._headers:
            raise ValueError(f"the archive has no entry {name!r}")
        header = self._headers[name]
        if header.flags & _ENCRYPTED:
            raise ValueError(f"the entry {name!r} is encrypted")
        if header.method != _STORED or header.compressed != header.size:
            raise ValueError(f"the entry {name!r} is compressed")
        local = self._read(_LOCAL_HEADER, header.offset, f"the entry {name!r}")
        if local[0] != b"PK\3\4":
            raise ValueError(f"the entry {name!r} is not where the directory says")
        begin = header.offset + _LOCAL_HEADER.size + local[1] + local[2]
        if begin + header.size > self._size:
            raise ValueError(f"the entry {name!r} ends beyond the file")
        return begin, header.size

    def _directory(self) -> bytes:
        # torch.save never writes a comment at the end
        at = self._size - _END.size
        end = self._read(_END, at, "the end of the archive") if at >= 0 else (b"", 0, 0, 0)
        if end[0] != b"PK\5\6" or end[3]:
            raise ValueError("not a zip archive, or cut short")
        size, offset = end[1], end[2]
        at -= _END64_LOCATOR.size
        locator = self._read(_END64_LOCATOR, at, "the end of the archive") if at >= 0 else (b"", 0)
        if locator[0] == b"PK\6\7":
            end64 = self._read(_END64, locator[1], "the end of the archive")
            if end64[0] != b"PK\6\6":
                raise ValueError("the end of the archive does not match its locator")
            size, offset = end64[1], end64[2]
        if size > _LARGEST_DIRECTORY:
            raise ValueError(f"a directory of {size} bytes; at most {_LARGEST_DIRECTORY} are read")
        if offset + size > self._size:
            raise ValueError("the directory ends beyond the file")
        return self._file.read(size, offset)

    def _read(self, record: Struct, offset: int, what: str) -> tuple[Any, ...]:
        if offset + record.size > self._size:
            raise ValueError(f"{what} lies beyond the file")
        return record.unpack(self._file.read(record.size, offset))


def _headers(directory: bytes) -> Iterator[_Header]:
    at = 0
    while at < len(directory):
        if len(directory) - at < _CENTRAL_HEADER.size:
            raise ValueError("the directory is damaged")
        fields = _CENTRAL_HEADER.unpack_from(directory, at)
        signature, flags, method, compressed, size, *lengths, offset = fields
        begin = at + _CENTRAL_HEADER.size
        at = begin + sum(lengths)
        if signature != b"PK\1\2" or at > len(directory):
            raise ValueError("the directory is damaged")
        extra = begin + lengths[0]
        name = directory[begin:extra].decode("utf-8", errors="replace")
        large = _large_values(directory[extra : extra + lengths[1]])
        # In the order of the extra field (4.5.3).
        size, compressed, offset = (
            next(large, value) if value == _IN_EXTRA_FIELD else value
            for value in (size, compressed, offset)
        )
        yield _Header(name, flags, method, compressed, size, offset)


def _large_values(extra: bytes) -> Iterator[int]:
    """The 64-bit values in the extra field of an entry."""
    while len(extra) >= _EXTRA.size:
        kind, length = _EXTRA.unpack_from(extra)
        field, extra = extra[_EXTRA.size : _EXTRA.size + length], extra[_EXTRA.size + length :]
        if kind == _ZIP64:
            for at in range(0, len(field) - 7, 8):
                yield int.from_bytes(field[at : at + 8], "little")
