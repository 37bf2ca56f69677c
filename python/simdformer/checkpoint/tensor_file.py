# SPDX-License-Identifier: Apache-2.0
"""An open file of tensors, and where in it each of them lies.

Tensors are read with pread into arrays of our own. A file that shrinks under a memory map kills the
process with SIGBUS; under pread it is an exception.
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

# Systems move at most 2 GiB in one call, and some refuse to be asked for more.
_MOST = 1 << 30
# Of a file's position, where there is no pread.
_position = threading.Lock()


class TensorFile:
    """One open file. Errors of reading: ValueError that names it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = open_regular(path)

    def size(self) -> int:
        """In bytes."""
        return os.fstat(self.fd).st_size

    def read(self, size: int, offset: int) -> bytes:
        """`size` bytes; the caller has seen that the file holds as many."""
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
        """How many bytes were read."""
        if hasattr(os, "preadv"):
            return os.preadv(self.fd, [buffer], offset)
        with _position, open(self.fd, "rb", buffering=0, closefd=False) as file:
            file.seek(offset)
            return file.readinto(buffer)

    def close(self) -> None:
        """Close it."""
        os.close(self.fd)


class Entry(NamedTuple):
    """Where one tensor lies.

    dtype: safetensors' name of it. offset: from the start of the file.
    axes: those of `shape` in the order of the file, where the last one varies fastest; None if as they
      are. Checkpoints that came from TensorFlow hold transposed matrices.
    """

    file: TensorFile
    dtype: str
    shape: tuple[int, ...]
    offset: int
    axes: tuple[int, ...] | None = None

    def read(self, dtype: str) -> NDArray[Any]:
        """The numbers, in C order. dtype: NumPy's name of what the file holds."""
        axes = range(len(self.shape)) if self.axes is None else self.axes
        raw = np.empty([self.shape[axis] for axis in axes], dtype=dtype)
        self.file.read_into(raw.reshape(-1).view(np.uint8).data, self.offset)
        return raw if self.axes is None else np.ascontiguousarray(raw.transpose(np.argsort(axes)))

    def num_elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)
