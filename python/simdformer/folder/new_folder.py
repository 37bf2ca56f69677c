# SPDX-License-Identifier: Apache-2.0
"""Creates folders and files atomically."""

from __future__ import annotations

import os
import re
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
    removed. A process that was killed between the two renames left it under another name: it is restored.
    """
    _restore(target)
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
        _remove(old)


def _restore(target: Path) -> None:
    """Give `target` back the folder that a killed process had renamed; remove those that were replaced."""
    name = re.compile(re.escape(f".{target.name}.") + r"[0-9a-f]{8}\.old")
    left = [path for path in target.parent.iterdir() if name.fullmatch(path.name)]
    for path in sorted(left, key=lambda path: path.lstat().st_ctime_ns, reverse=True):
        if os.path.lexists(target):
            _remove(path)
        else:
            path.rename(target)


def _remove(folder: Path) -> None:
    if folder.is_symlink():
        folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def new_file(target: Path) -> Iterator[BinaryIO]:
    """A file under a temporary name beside `target`, which replaces it when the block ends without error.

    After an error the file is removed, and `target` is unchanged. FileExistsError if it is no regular file,
    such as a pipe or a device.
    """
    if os.path.lexists(target) and not target.is_file():
        raise FileExistsError(f"{target} is not a regular file; it is not replaced")
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
