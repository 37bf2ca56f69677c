"""An installed copy of simdformer: the folder it stands in, and the environment that imports it."""

from __future__ import annotations

import os
from pathlib import Path

from worker_process import BENCH

_TESTS = BENCH.parent / "tests"


def environment(folder: Path, *, isa: str | None = None, helpers: bool = False) -> dict[str, str]:
    """A process with it imports simdformer from `folder`, and all else from this interpreter.

    helpers: it also finds the modules of the tests that write tiny models.
    """
    own = {k: v for k, v in os.environ.items() if not k.startswith(("SIMDFORMER_", "OMP_"))}
    paths = [folder.resolve()]
    if helpers:
        paths += [_TESTS, *sorted(path for path in _TESTS.iterdir() if path.is_dir())]
    own["PYTHONPATH"] = os.pathsep.join(map(str, paths))
    own["TOKENIZERS_PARALLELISM"] = "true"
    own["HF_HUB_OFFLINE"] = "1"
    return own | ({"SIMDFORMER_ISA": isa} if isa else {})


def check(folder: Path) -> None:
    """Inside the process: SystemExit if another copy than the folder's was imported."""
    import simdformer

    found = Path(simdformer.__file__).resolve()
    if not found.is_relative_to(folder.resolve()):
        raise SystemExit(f"expected simdformer in {folder}, imported {found}")
