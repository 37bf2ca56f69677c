# SPDX-License-Identifier: Apache-2.0
"""Creates folders and files atomically."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder with a temporary name beside `target`. It is renamed when the block ends without error.

    After an error or Ctrl-C it is removed. An existing folder `target` stays until the renaming, and is then
    removed.
    """
    hidden = f".{target.name}.{secrets.token_hex(4)}"
    temporary, old = target.with_name(f"{hidden}.tmp"), target.with_name(f"{hidden}.old")
    temporary.mkdir()
    try:
        yield temporary
        _sync(temporary)
        if os.path.lexists(target):
            target.rename(old)
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        if os.path.lexists(old) and not os.path.lexists(target):
            old.rename(target)
        raise
    finally:
        if old.is_symlink():
            old.unlink()
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def new_file(target: Path) -> Iterator[BinaryIO]:
    """A file under a temporary name beside `target`, which replaces it when the block ends without error.

    After an error the file is removed, and `target` is unchanged.
    """
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _sync(folder: Path) -> None:
    """Flush the files to disk before the folder gets its final name."""
    windows = sys.platform == "win32"
    for path in [folder, *folder.rglob("*")]:
        if windows and path.is_dir():  # Windows cannot open a folder
            continue
        descriptor = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
