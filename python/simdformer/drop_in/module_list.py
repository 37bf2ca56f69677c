# SPDX-License-Identifier: Apache-2.0
"""The list of modules in a folder."""

from __future__ import annotations

from pathlib import Path

from simdformer.checkpoint import read_any_json


def read_module_list(folder: Path) -> list[tuple[str, str]]:
    """Class and path of the modules in modules.json, in order; an empty list without that file."""
    path = folder / "modules.json"
    entries = read_any_json(path) if path.is_file() else []
    return [(str(e["type"]).rpartition(".")[2], str(e.get("path", ""))) for e in entries]


def transformer_path(folder: Path) -> str:
    """The path of the Transformer's files inside the folder."""
    return dict(reversed(read_module_list(folder))).get("Transformer", "")
