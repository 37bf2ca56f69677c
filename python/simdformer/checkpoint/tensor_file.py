# SPDX-License-Identifier: Apache-2.0
"""An open file of tensors, and the offset of each tensor.

Tensors are read with pread into new arrays. If a memory-mapped file is truncated, the process is killed
by SIGBUS; with pread an exception is raised.
"""

from __future__ import annotations

import math
import os
import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simdformer.checkpoint.regular_file import open_regular

# Operating systems read at most 2 GiB per call, and some reject larger requests.
_MOST = 1 << 30
# Protects the file's position on systems without pread.
_position = threading.Lock()


class TensorFile:
    """One open file. Read errors are ValueErrors with its name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = open_regular(path)

    def size(self) -> int:
        """In bytes."""
        return os.fstat(self.fd).st_size

    def read(self, size: int, offset: int) -> bytes:
        """`size` bytes; the caller has checked that the file has as many."""
        buffer = bytearray(size)
        self.read_into(memoryview(buffer), offset)
        return bytes(buffer)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill the buffer."""
        done = 0
        while done < len(buffer):
            count = self._read_part(buffer[done : done + _MOST], offset + done)
            if count == 0:
                raise ValueError(f"{self.path}: the file was truncated while it was being read")
            done += count

    def _read_part(self, buffer: memoryview, offset: int) -> int:
        """Returns the number of bytes read."""
        if hasattr(os, "preadv"):
            return os.preadv(self.fd, [buffer], offset)
        with _position, open(self.fd, "rb", buffering=0, closefd=False) as file:
            file.seek(offset)
            return file.readinto(buffer)

    def close(self) -> None:
        """Close it."""
        os.close(self.fd)


class Entry(NamedTuple):
    """The place of one tensor in a file.

    dtype: the name in safetensors. offset: from the start of the file.
    axes: the axes of `shape` in the order of the file, the last one varies fastest; None for the
      order of `shape`. Checkpoints converted from TensorFlow contain transposed matrices.
    """

    file: TensorFile
    dtype: str
    shape: tuple[int, ...]
    offset: int
    axes: tuple[int, ...] | None = None

    def read(self, dtype: str) -> NDArray[Any]:
        """The numbers in C order. dtype: NumPy's name for the stored type."""
        axes = range(len(self.shape)) if self.axes is None else self.axes
        raw = np.empty([self.shape[axis] for axis in axes], dtype=dtype)
        self.file.read_into(raw.reshape(-1).view(np.uint8).data, self.offset)
        return raw if self.axes is None else np.ascontiguousarray(raw.transpose(np.argsort(axes)))

    def rows(self, first: int, count: int, dtype: str) -> Entry:
        """Consecutive rows of a tensor in C order, as a tensor. dtype: see read."""
        inner = self.shape[1:]
        offset = self.offset + first * math.prod(inner) * np.dtype(dtype).itemsize
        return self._replace(shape=(count, *inner), offset=offset)

    def num_elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)
