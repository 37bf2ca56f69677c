"""All classes of CPUs together: makes bench/results/README.md from each class's encode*.json.

    python bench/side_by_side.py

One table per benchmark: for each class of CPU simdformer's speed, that of the fastest other engine with the same
precision, and the fraction of the FMA peak. The figures of a class are from one run on one machine. Fractions and
ratios predict the results of other machines better than speeds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import report

RESULTS = Path(__file__).parent / "results"
_TITLES = {
    "encode": "float32",
    "encode-int8": "int8",
    "encode-avx2": "float32, compared with engines that can be restricted to AVX2",
    "encode-sse4": "float32, generic level, compared with CTranslate2 restricted to SSE4",
    "encode-bert-base": "float32, BERT-base's sizes with random weights",
}
# No setting limits these to a level.
_NOT_HELD = ("onnxruntime", "openvino")
_INTRODUCTION = """# Results by class of CPU

`python bench/side_by_side.py` makes this page from the JSON files in the folders. A cell shows simdformer's
median, that of the fastest other engine with the same precision, their ratio, and simdformer's share of the FMA peak
that was measured in the same run (int8 may exceed 100%). The method is in [bench/README.md](../README.md).
"""


def _cell(result: dict[str, Any], set_name: str, engines: list[str]) -> str:
    rows = [r for r in result["rows"] if r["set"] == set_name and r["engine"] in engines]
    own = next(row for row in rows if row["engine"].startswith("simdformer"))
    peers = [row for row in rows if row is not own]
    peer = min(peers, key=lambda row: row["seconds"])

    def speed(row: dict[str, Any]) -> str:
        if set_name == "one":
            return f"{report.figure(row['seconds'] * 1e3)} ms"
        return f"{report.figure(row['texts_per_s'])}/s"

    ratio = peer["seconds"] / own["seconds"]
    name = peer["engine"].removesuffix("-int8")
    return f"{speed(own)} : {speed(peer)} ({name}), **{ratio:.2f}x**, {own['share_of_peak']:.0%}"


def table(results: dict[str, dict[str, Any]]) -> str:
    """One line per class, one column per set."""
    sets = list(dict.fromkeys(name for result in results.values() for name in result["sets"]))
    rows = []
    for cpu_class, result in results.items():
        engines = report.of_one_precision(list(result["engines"]))
        if result["settings"]["peer_isa"]:
            engines = [engine for engine in engines if engine not in _NOT_HELD]
        cells = [_cell(result, s, engines) if s in result["sets"] else "" for s in sets]
        threads = result["settings"]["threads"]
        rows.append([f"{cpu_class} ({result['settings']['isa']}, {threads} threads)", *cells])
    return report.markdown_table(["class", *sets], rows)


def to_markdown(folder: Path) -> str:
    """The whole page from a folder of classes."""
    parts = [_INTRODUCTION]
    for stem, title in _TITLES.items():
        files = sorted(folder.glob(f"*/{stem}.json"))
        if files:
            results = {file.parent.name: json.loads(file.read_text()) for file in files}
            links = ", ".join(f"[{name}]({name}/{stem}.md)" for name in results)
            parts.append(f"## {title}\n\n{table(results)}\nAll figures: {links}.\n")
    return "\n".join(parts)


if __name__ == "__main__":
    report.write_text(RESULTS / "README.md", to_markdown(RESULTS))
