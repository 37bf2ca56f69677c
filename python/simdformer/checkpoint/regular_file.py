# SPDX-License-Identifier: Apache-2.0
"""Opening the files of a model folder: regular files of bounded size. Reading a pipe or a device could
block or never end."""

from __future__ import annotations

import os
import stat
from pathlib import Path

# A vocabulary of a million words with merges takes about 100 MB, a configuration a few KB.
LARGEST_VOCABULARY = 1 << 30
LARGEST_JSON = 1 << 26

# Windows has neither O_CLOEXEC nor O_NONBLOCK; other systems have no O_BINARY. O_NONBLOCK keeps open() from
# waiting for the other end of a pipe.
_READ = os.O_RDONLY
for _name in ("O_CLOEXEC", "O_NONBLOCK", "O_BINARY"):
    _READ |= getattr(os, _name, 0)


def open_regular(path: Path) -> int:
    """A file descriptor to read from. ValueError with the name if it is not a regular file."""
    try:
        descriptor = os.open(path, _READ)
    except PermissionError:
        if path.is_dir():  # Windows cannot open a folder
            raise ValueError(f"{path}: not a regular file") from None
        raise
    except UnicodeEncodeError:
        raise ValueError(f"{str(path)!r}: not a file name") from None
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise ValueError(f"{path}: not a regular file")


def read_regular(path: Path, largest: int = LARGEST_JSON) -> bytes:
    """The bytes of a file. ValueError with the name if it is not a regular file or larger than `largest`."""
    with os.fdopen(open_regular(path), "rb") as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise ValueError(f"{path}: more than {largest} bytes, the limit for such a file")
    return content


def check_regular(path: Path, largest: int = LARGEST_VOCABULARY) -> None:
    """The same check for a file that a library will read."""
    descriptor = open_regular(path)
    size = os.fstat(descriptor).st_size
    os.close(descriptor)
    if size > largest:
        raise ValueError(f"{path}: {size} bytes; at most {largest} are read of such a file")
