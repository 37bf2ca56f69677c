"""Compare two result files of the same benchmark.

    python bench/compare_results.py BEFORE.json AFTER.json [--threshold 0.1] [--reference peak]

Each row is converted to a rate relative to a reference of its own round, so that differences between machines
and times cancel. The reference is "peak", the machine's limit measured just before the row, or, in files of
encode, a peer such as "onnxruntime" on the same set. A row is lost if its relative rate fell by more than the
threshold and its quartiles do not overlap those of before. If they overlap, it is unsure. Exit code 1 if a
row is lost or missing, else 0.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import report

FAILING = frozenset({"lost", "missing"})


@dataclass(frozen=True)
class Comparison:
    name: str
    verdict: str  # lost, won, same, unsure, missing or new
    ratio: float | None = None  # after / before
    spread: float | None = None  # of both files together, as a fraction of the ratio


def relative_rates(result: Mapping[str, Any], reference: str) -> dict[str, list[float]]:
    """Each row's rate divided by its reference's, for each round. The reference itself is left out."""
    rows = result["rows"]
    if reference == "peak":
        return {row["name"]: _divide(row["rates"], row["peak_rates"]) for row in rows}
    peers = {row["set"]: row["rates"] for row in rows if row.get("engine") == reference}
    if not peers:
        known = sorted({row["engine"] for row in rows if "engine" in row})
        raise ValueError(f"reference must be 'peak' or one of {known}, got {reference!r}")
    return {
        row["name"]: _divide(row["rates"], peers[row["set"]])
        for row in rows
        if row["engine"] != reference
    }


def compare(
    before: Mapping[str, Sequence[float]], after: Mapping[str, Sequence[float]], threshold: float
) -> list[Comparison]:
    """before, after: relative rates of each round, by row."""
    names = [*before, *(name for name in after if name not in before)]
    return [_compare_row(name, before.get(name), after.get(name), threshold) for name in names]


def _compare_row(
    name: str, before: Sequence[float] | None, after: Sequence[float] | None, threshold: float
) -> Comparison:
    if before is None:
        return Comparison(name, "new")
    if after is None:
        return Comparison(name, "missing")
    ratio = statistics.median(after) / statistics.median(before)
    spread = report.spread(before) + report.spread(after)
    overlap = _quartiles(after)[0] <= _quartiles(before)[1] and (
        _quartiles(before)[0] <= _quartiles(after)[1]
    )
    if 1 - threshold <= ratio <= 1 / (1 - threshold):
        verdict = "same"
    elif overlap:
        verdict = "unsure"
    else:
        verdict = "lost" if ratio < 1 else "won"
    return Comparison(name, verdict, ratio, spread)


def _quartiles(values: Sequence[float]) -> tuple[float, float]:
    if len(values) == 1:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


def _divide(rates: Sequence[float], references: Sequence[float]) -> list[float]:
    return [rate / reference for rate, reference in zip(rates, references, strict=True)]


def to_text(comparisons: Iterable[Comparison]) -> str:
    def line(c: Comparison) -> str:
        figures = "" if c.ratio is None else f"{c.ratio:6.3f}x ± {c.spread:.1%}"
        return f"{c.verdict:8}{figures:18}{c.name}"

    return "\n".join(map(line, comparisons))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--threshold", type=float, default=0.1, help="a loss that matters")
    parser.add_argument("--reference", default="peak", help="'peak', or an engine in both files")
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parsed = parser.parse_args(arguments)
    before, after = (json.loads(path.read_text()) for path in (parsed.before, parsed.after))
    if before["kind"] != after["kind"]:
        parser.error(f"files of one benchmark expected, got {before['kind']} and {after['kind']}")
    if not 0 < parsed.threshold < 1:
        parser.error(f"--threshold must be between 0 and 1, got {parsed.threshold}")
    try:
        rates = [relative_rates(result, parsed.reference) for result in (before, after)]
    except ValueError as error:
        parser.error(str(error))
    kept = [{name: r[name] for name in r if parsed.only in name} for r in rates]
    comparisons = compare(kept[0], kept[1], parsed.threshold)
    print(to_text(comparisons))
    failing = sum(c.verdict in FAILING for c in comparisons)
    print(f"{failing} of {len(comparisons)} rows lost or missing", file=sys.stderr)
    return 1 if failing else 0


if __name__ == "__main__":
    sys.exit(main())
