"""The peak memory of loading a model and the memory afterwards, without imports and tokenizer."""

from __future__ import annotations

import json
import math
import statistics
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import report
from builds import fixtures, installed
from builds.model_cases import COMPUTE_TYPES
from engines.cache import default_model
from worker_process import BENCH

_MB = 2**20
_MARGIN = 64 * _MB
_PROCESSES = 3


def float32_bytes(model: Path) -> list[int]:
    """The sizes of a safetensors file's tensors, as float32."""
    with (model / "model.safetensors").open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    return [4 * math.prod(t["shape"]) for name, t in header.items() if name != "__metadata__"]


def measure(folder: Path, model: Path, compute_type: str, small: Path) -> dict[str, int]:
    """Medians over new processes, in bytes."""
    arguments = [str(folder.resolve()), str(model), compute_type, str(small)]
    runs = []
    for _ in range(_PROCESSES):
        done = subprocess.run(
            [sys.executable, "-m", "builds.memory_worker", *arguments],
            cwd=BENCH,
            env=installed.environment(folder),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        runs.append(json.loads(done.stdout))
    return {key: int(statistics.median(run[key] for run in runs)) for key in runs[0]}


def run(old: Path, new: Path, *, only: str) -> dict[str, Any]:
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        given = Path(temporary)
        fixtures.write(given, ("tiny", "bert-base"))
        models = {"all-MiniLM-L6-v2": default_model(), "random BERT-base": given / "bert-base"}
        for name, model in models.items():
            if only not in ("*", name):
                continue
            sizes = float32_bytes(model)
            for compute_type in COMPUTE_TYPES:
                small = given / "tiny" / "bert narrow"
                found = [measure(folder, model, compute_type, small) for folder in (old, new)]
                row = {"model": name, "compute_type": compute_type, "float32": sum(sizes)}
                row |= {"largest": max(sizes), "old": found[0], "new": found[1]}
                row["bound"] = found[1]["resident"] + 2 * max(sizes) + _MARGIN
                rows.append(row)
    return {"models": rows}


def failed(result: dict[str, Any]) -> bool:
    rows = result["models"]
    return not rows or any(row["new"]["peak"] > row["bound"] for row in rows)


def to_text(result: dict[str, Any]) -> str:
    header = ["MB above imports and tokenizer", "file as float32", "largest tensor"]
    header += ["peak: old", "new", "resident: old", "new", "bound", "within"]
    lines = []
    for row in result["models"]:
        values = [row["float32"], row["largest"]]
        values += [row[which][key] for key in ("peak", "resident") for which in ("old", "new")]
        cells = [f"{value / _MB:.1f}" for value in [*values, row["bound"]]]
        within = "yes" if row["new"]["peak"] <= row["bound"] else "NO"
        lines.append([f"{row['model']}, {row['compute_type']}", *cells, within])
    return report.markdown_table(header, lines)
