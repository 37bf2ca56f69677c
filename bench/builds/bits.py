"""Checks that the new copy gives the same bits as the old one, at every level and with any number of
threads."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

import report
from builds import fixtures, installed
from builds.case import THREADS
from similarity import cosines
from worker_process import BENCH

Cases = dict[str, dict[str, dict[str, str]]]


@dataclass(frozen=True)
class Difference:
    """An array that differs between the copies. what: a description. The figures exist if both copies have
    the array."""

    name: str  # level/case/array
    what: str
    max_abs_difference: float | None = None
    min_cosine: float | None = None
    allowed: bool = False


@dataclass(frozen=True)
class Fidelity:
    """How close an int8 array is to the float32 array of the same copy: cosines of rows, differences."""

    name: str
    old_mean_cosine: float
    new_mean_cosine: float
    old_min_cosine: float
    new_min_cosine: float
    old_mean_abs_difference: float
    new_mean_abs_difference: float


class Computed:
    """The results of one copy at one level."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.cases: Cases = json.loads((folder / "cases.json").read_text())["cases"]

    def array(self, name: str, threads: str = str(THREADS[0])) -> np.ndarray:
        return np.load(self._folder / self.cases[name][threads]["file"])

    def digests(self, name: str) -> dict[str, str]:
        return {t: row.get("digest", "error") for t, row in self.cases.get(name, {}).items()}


def levels_of(folder: Path) -> list[str]:
    code = "from simdformer import _core; print(*_core.available_isas())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=installed.environment(folder),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def compute(folder: Path, isa: str, given: Path, out: Path, only: str) -> Computed:
    out.mkdir()
    subprocess.run(
        [sys.executable, "-m", "builds.bits_worker", str(folder), str(given), str(out), only],
        cwd=BENCH,
        env=installed.environment(folder, isa=isa),
        check=True,
    )
    return Computed(out)


def compare(level: str, old: Computed, new: Computed) -> Iterator[Difference]:
    """Compare the copies, and numbers of threads within each copy. Returns differences and failures."""
    for name in sorted({*old.cases, *new.cases}):
        full = f"{level}/{name}"
        a, b = old.digests(name), new.digests(name)
        for which, found in (("old", a), ("new", b)):
            if "error" in found.values():
                yield Difference(full, f"an error in {which}: {_error(old, new, which, name)}")
            elif not found:
                yield Difference(full, f"missing in {which}")
            elif len(set(found.values())) > 1:
                yield Difference(full, f"other bits with other numbers of threads in {which}")
        if a and b and a != b and "error" not in {*a.values(), *b.values()}:
            threads = next(t for t in a if a[t] != b.get(t))
            pair = old.array(name, threads), new.array(name, threads)
            yield _difference(full, f"other bits with {threads} threads", *pair)


def _error(old: Computed, new: Computed, which: str, name: str) -> str:
    rows = (old if which == "old" else new).cases[name].values()
    return next(row["error"] for row in rows if "error" in row).strip().splitlines()[-1]


def _difference(name: str, what: str, a: np.ndarray, b: np.ndarray) -> Difference:
    if a.shape != b.shape or a.dtype != b.dtype:
        return Difference(name, f"{a.dtype} {a.shape} became {b.dtype} {b.shape}")
    largest = np.nanmax(np.abs(a.astype(np.float64) - b), initial=0.0)
    return Difference(name, what, float(largest), float(_row_cosines(a, b).min(initial=1.0)))


def _row_cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The cosines of rows that are finite and not all zero in both."""
    a, b = (np.atleast_2d(x).reshape(-1, x.shape[-1] if x.ndim else 1) for x in (a, b))
    kept = [np.isfinite(x).all(axis=1) & (x != 0).any(axis=1) for x in (a, b)]
    return cosines(a[kept[0] & kept[1]], b[kept[0] & kept[1]])


def fidelity(level: str, old: Computed, new: Computed, names: Sequence[str]) -> Iterator[Fidelity]:
    """The fidelity of the named arrays that are in int8."""
    for name in names:
        exact = name.replace("/int8/", "/float32/")
        if exact == name:
            continue
        pairs = [(one.array(name), one.array(exact)) for one in (old, new)]
        found = [_row_cosines(*pair) for pair in pairs]
        differences = [float(np.abs(a - b).mean()) for a, b in pairs]
        yield Fidelity(
            f"{level}/{name}",
            *(float(c.mean()) for c in found),
            *(float(c.min()) for c in found),
            *differences,
        )


def run(
    old: Path, new: Path, *, isas: Sequence[str], only: str, allow: Sequence[str], texts: int
) -> dict[str, Any]:
    """Compute and compare every level. Returns the contents of the JSON file."""
    result: dict[str, Any] = {"digests": {}, "differences": [], "fidelity": [], "counts": {}}
    with tempfile.TemporaryDirectory() as temporary:
        given = Path(temporary) / "given"
        given.mkdir()
        fixtures.write(given, ("tiny", "cross"), texts)
        for isa in isas or levels_of(new):
            start = time.perf_counter()
            computed = [
                compute(folder, isa, given, Path(temporary) / f"{isa} {which}", only)
                for which, folder in (("old", old), ("new", new))
            ]
            _add_level(result, isa, computed[0], computed[1], allow)
            print(f"{isa}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    return result


def _add_level(
    result: dict[str, Any], isa: str, old: Computed, new: Computed, allow: Sequence[str]
) -> None:
    found = []
    for difference in compare(isa, old, new):
        # Arrays that may have other bits must still not fail, nor depend on threads.
        allowed = difference.max_abs_difference is not None and any(
            fnmatchcase(difference.name, pattern) for pattern in allow
        )
        found.append({**asdict(difference), "allowed": allowed})
    result["differences"] += found
    result["digests"][isa] = {
        name: {"old": old.digests(name), "new": new.digests(name)}
        for name in sorted({*old.cases, *new.cases})
    }
    names = [d["name"].removeprefix(f"{isa}/") for d in found if d["allowed"]]
    result["fidelity"] += [asdict(one) for one in fidelity(isa, old, new, names)]
    differing = {d["name"].removeprefix(f"{isa}/") for d in found}
    for name in result["digests"][isa]:
        group = _group(name)
        counts = result["counts"].setdefault(group, {}).setdefault(isa, [0, 0])
        counts[name not in differing] += 1


def _group(name: str) -> str:
    """The table's row for a case: layers by kind, models by compute type, the large model separately."""
    kind, second, *rest = name.split("/")
    if kind in ("models", "cross-encoders") and rest:
        return f"{second if second == 'minilm' else kind}, {rest[0]}"
    return f"{kind}/{second}"


def failed(result: dict[str, Any]) -> bool:
    return not result["counts"] or any(not d["allowed"] for d in result["differences"])


def to_text(result: dict[str, Any]) -> str:
    isas = list(result["digests"])
    rows = []
    for group, counts in result["counts"].items():
        cells = [counts.get(isa, [0, 0]) for isa in isas]
        rows.append([group, *(_cell(*cell) for cell in cells)])
    parts = [report.markdown_table(["arrays of the same bits", *isas], rows)]
    if result["differences"]:
        lines = [
            [d["name"], d["what"], *_figures(d), "yes" if d["allowed"] else "NO"]
            for d in result["differences"]
        ]
        header = ["array", "difference", "largest", "min cosine", "allowed"]
        parts.append(report.markdown_table(header, lines))
    if result["fidelity"]:
        header = ["int8 to float32", "mean cosine: old", "new", "min cosine: old", "new"]
        header += ["mean difference: old", "new"]
        lines = [
            [f["name"], *(f"{value:.6g}" for value in list(f.values())[1:])]
            for f in result["fidelity"]
        ]
        parts.append(report.markdown_table(header, lines))
    return "\n".join(parts)


def _cell(different: int, same: int) -> str:
    return f"{same}" if not different else f"{same} of {same + different}"


def _figures(difference: dict[str, Any]) -> list[str]:
    if difference["max_abs_difference"] is None:
        return ["", ""]
    return [f"{difference['max_abs_difference']:.3g}", f"{difference['min_cosine']:.9g}"]
