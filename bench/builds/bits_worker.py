"""Computes every case with one copy: python -m builds.bits_worker COPY FIXTURES OUT ONLY.

OUT/cases.json: for each case and array, the digest for each number of threads, or the error. OUT/N.npy: the
arrays, once per digest. ONLY: a pattern of case names.
"""

from __future__ import annotations

import hashlib
import json
import sys
import traceback
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from builds import installed
from builds.case import THREADS, Arrays, Case
from engines.cache import default_model


class Record:
    """Digests by name and number of threads. Arrays with a new digest are saved."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._files: dict[str, str] = {}
        self.cases: dict[str, dict[str, dict[str, str]]] = {}

    def add(self, case: Case, threads: int, arrays: Arrays) -> None:
        for name, array in arrays.items():
            digest = self._save(np.ascontiguousarray(array))
            row = {"digest": digest, "file": self._files[digest]}
            self.cases.setdefault(f"{case.name}/{name}", {})[str(threads)] = row

    def fail(self, case: Case, threads: int, message: str) -> None:
        self.cases.setdefault(case.name, {})[str(threads)] = {"error": message}

    def _save(self, array: np.ndarray) -> str:
        digest = hashlib.sha256(f"{array.dtype} {array.shape} ".encode())
        digest.update(array.tobytes())
        name = digest.hexdigest()[:24]
        if name not in self._files:
            self._files[name] = f"{len(self._files)}.npy"
            np.save(self._out / self._files[name], array)
        return name


def all_cases(fixtures: Path) -> list[Case]:
    from builds import functional_cases, layer_cases, model_cases

    models = model_cases.cases(fixtures, default_model())
    return [*models, *layer_cases.cases(), *functional_cases.cases()]


def compute(cases: list[Case], record: Record) -> None:
    for case in cases:
        for threads in THREADS if case.threaded else THREADS[:1]:
            try:
                record.add(case, threads, case.run(threads))
            except Exception:  # noqa: BLE001 - what a case raises is its result
                record.fail(case, threads, traceback.format_exc())


def main(folder: str, fixtures: str, out: str, only: str) -> None:
    installed.check(Path(folder))
    record = Record(Path(out))
    cases = all_cases(Path(fixtures))
    compute([case for case in cases if fnmatchcase(case.name, only)], record)
    result: dict[str, Any] = {"cases": record.cases}
    (Path(out) / "cases.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
