# SPDX-License-Identifier: Apache-2.0
"""One number for all that a model's folder holds."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def folder_digest(folder: Path) -> str:
    """SHA-256 of a model's folder: the names of its files and what they hold."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix().encode()
        digest.update(len(name).to_bytes(8, "little") + name)
        with path.open("rb") as file:
            digest.update(_file_digest(file))
    return digest.hexdigest()


def _file_digest(file: Any) -> bytes:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.digest()
