"""Statistics of rounds, and writing files completely or not at all."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def spread(values: Sequence[float]) -> float:
    """Half the distance between the quartiles, as a fraction of the median."""
    if len(values) < 2:
        return 0.0
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return (third - first) / 2 / statistics.median(values)


def middle_half(values: Sequence[float]) -> tuple[float, float]:
    """The first and the third quartile."""
    if len(values) < 2:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


def of_one_precision(engines: Sequence[str]) -> list[str]:
    """The engines of a run with the precision of its peers: int8 with int8, float32 with float32."""
    int8 = any(e.endswith("-int8") and not e.startswith("simdformer") for e in engines)
    smaller = ("-int8", "-bfloat16")
    return [e for e in engines if e.endswith("-int8") == int8 and (int8 or not e.endswith(smaller))]


def figure(value: float) -> str:
    """Three significant digits; larger whole numbers in full."""
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first column is aligned left, the others right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def records_table(title: str, records: Sequence[dict[str, Any]]) -> str:
    """A table with a title, one line per record. All records have the same keys."""
    lines = [
        [figure(value) if isinstance(value, float) else str(value) for value in record.values()]
        for record in records
    ]
    return f"{title}\n\n{markdown_table(list(records[0]), lines)}"


def write_text(path: Path, text: str) -> None:
    """Write a temporary file beside `path`, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, result: dict[str, Any]) -> None:
    write_text(path, json.dumps(result, indent=1) + "\n")


def describe_machine(machine: dict[str, Any]) -> str:
    """One line for the end of a table."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{machine['cpu']}, {machine['cpus']} CPUs, {machine['memory_gb']} GB; "
        f"Python {machine['python']}, {machine['compiler']}; {versions}; "
        f"commit {machine['commit']}, {machine['date'][:10]}, "
        f"load average before the run {machine['load_average']:.2f}."
    )
