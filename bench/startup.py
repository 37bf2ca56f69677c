"""Costs of starting: import, cold start, wheel, and memory for a large file.

    python bench/startup.py [--wheel DIST.whl] [--texts 100000]

import       seconds of `import simdformer` in a new process, and NumPy's part of it
cold start   the same, then loading the model and computing the first vector; and the whole process
peak memory  of `simdformer embed` for a file with this number of short lines, reported by the kernel

Times are medians of 5 processes, with the files in the page cache. Writes OUTPUT.json and OUTPUT.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
import report
from engines.cache import default_model
from texts import standard_library_docstrings

_PROCESSES = 5

_IMPORT = """
import time; start = time.perf_counter()
import numpy; numpy_done = time.perf_counter()
import simdformer; done = time.perf_counter()
import json; print(json.dumps({"numpy": numpy_done - start, "import": done - start}))
"""

_COLD_START = """
import sys, time; start = time.perf_counter()
import simdformer; imported = time.perf_counter()
model = simdformer.SentenceTransformer(sys.argv[1]); loaded = time.perf_counter()
model.encode("How do I open a file?"); done = time.perf_counter()
import json; print(json.dumps({
    "import": imported - start, "load": loaded - imported, "first_vector": done - loaded,
    "import_load_first_vector": done - start}))
"""


def fresh_process(code: str, *arguments: str) -> dict[str, float]:
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    elapsed = time.perf_counter() - start
    return {**json.loads(done.stdout), "process": elapsed}


def median_of_processes(code: str, *arguments: str) -> dict[str, float]:
    fresh_process(code, *arguments)  # fills the page cache and writes .pyc files
    runs = [fresh_process(code, *arguments) for _ in range(_PROCESSES)]
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def write_corpus(path: Path, count: int) -> None:
    """Numbered first lines of docstrings, so that all texts differ."""
    lines = [docstring.splitlines()[0] for docstring in standard_library_docstrings()]
    with path.open("w") as file:
        for number, line in enumerate(itertools.islice(itertools.cycle(lines), count)):
            file.write(f"{number} {line}\n")


def embed_corpus(model: Path, count: int) -> dict[str, float]:
    """Run the command line on `count` texts. Returns its peak memory and its time."""
    with tempfile.TemporaryDirectory() as folder:
        corpus, output = Path(folder) / "corpus.txt", Path(folder) / "vectors.npy"
        write_corpus(corpus, count)
        code = "import sys; from simdformer.cli import main; sys.exit(main())"
        command = [sys.executable, "-c", code, "embed", str(corpus), "-o", str(output)]
        start = time.perf_counter()
        with subprocess.Popen([*command, "--model", str(model)], stderr=subprocess.PIPE) as child:
            assert child.stderr is not None
            messages = child.stderr.read()
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise SystemExit(f"simdformer embed failed:\n{messages.decode()}")
        return {
            "texts": count,
            "seconds": time.perf_counter() - start,
            "peak_rss_bytes": usage.ru_maxrss * 1024,
            "output_bytes": output.stat().st_size,
        }


def extension_bytes() -> int:
    from simdformer import _core

    return Path(_core.__file__).stat().st_size


def to_markdown(result: dict[str, Any]) -> str:
    start, cold = result["import"], result["cold_start"]
    weights = result["weights_bytes"] / 2**20
    lines = [
        ["import", f"{start['import'] * 1e3:.0f} ms (NumPy {start['numpy'] * 1e3:.0f} ms)"],
        ["import + load + first vector", f"{cold['import_load_first_vector'] * 1e3:.0f} ms"],
        ["the whole process of that", f"{cold['process'] * 1e3:.0f} ms"],
        ["extension module", f"{result['extension_bytes'] / 2**20:.1f} MB"],
    ]
    if "wheel_bytes" in result:
        lines.append(["wheel", f"{result['wheel_bytes'] / 2**20:.1f} MB"])
    if "embed" in result:
        embed = result["embed"]
        lines.append(
            [
                f"peak memory, {embed['texts']:,} texts from a file",
                f"{embed['peak_rss_bytes'] / 2**20:.0f} MB (weights {weights:.0f} MB)",
            ]
        )
        lines.append(["the same, texts/s", f"{embed['texts'] / embed['seconds']:,.0f}"])
    table = report.markdown_table(["what", "figure"], lines)
    return f"{table}\n{report.describe_machine(result['machine'])}\n"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--output", type=Path, default=machine.results("startup"))
    add("--model", type=Path, help="a model folder; default: all-MiniLM-L6-v2")
    add("--wheel", type=Path, help="a built wheel whose size to report")
    add("--texts", type=int, default=100_000, help="lines of the file; 0 leaves this out")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    model = (arguments.model or default_model()).resolve()
    result: dict[str, Any] = {
        "kind": "startup",
        "machine": machine.describe(["simdformer", "numpy", "tokenizers"]),
        "import": median_of_processes(_IMPORT),
        "cold_start": median_of_processes(_COLD_START, str(model)),
        "extension_bytes": extension_bytes(),
        "weights_bytes": (model / "model.safetensors").stat().st_size,
    }
    if arguments.wheel:
        result["wheel_bytes"] = arguments.wheel.stat().st_size
    if arguments.texts:
        result["embed"] = embed_corpus(model, arguments.texts)
    report.write_json(arguments.output.with_suffix(".json"), result)
    markdown = to_markdown(result)
    report.write_text(arguments.output.with_suffix(".md"), markdown)
    print(markdown)


if __name__ == "__main__":
    main()
