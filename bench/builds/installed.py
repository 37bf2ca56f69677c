"""An installed copy of simdformer: its folder, and the environment variables to import it."""

from __future__ import annotations

import os
from pathlib import Path


def environment(folder: Path, isa: str | None = None) -> dict[str, str]:
    """Environment variables with which a process imports simdformer from `folder`, and everything else from
    this interpreter."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("SIMDFORMER_", "OMP_"))}
    own["PYTHONPATH"] = str(folder.resolve())
    own["TOKENIZERS_PARALLELISM"] = "true"
    own["HF_HUB_OFFLINE"] = "1"
    return own | ({"SIMDFORMER_ISA": isa} if isa else {})


def check(folder: Path) -> None:
    """Called in the process: SystemExit if another copy was imported."""
    import simdformer

    found = Path(simdformer.__file__).resolve()
    if not found.is_relative_to(folder.resolve()):
        raise SystemExit(f"expected simdformer in {folder}, imported {found}")
