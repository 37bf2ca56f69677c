"""Compare two installed copies of simdformer: bits, speed, memory, kernels.

    python bench/compare_builds.py bits    OLD NEW [--allow PATTERN] [--only PATTERN] [--isa LEVEL]
    python bench/compare_builds.py speed   OLD NEW [--rounds 20] [--threads 2] [--only PATTERN] [--neighbour]
    python bench/compare_builds.py memory  OLD NEW
    python bench/compare_builds.py kernels OLD NEW [--rounds 15] [--threshold 0.1]

OLD and NEW are folders with an installed `simdformer`, made by `pip install --no-deps --target FOLDER .`.
Dependencies come from the interpreter that runs this. Each copy runs in its own processes and is called
through its public functions; only `kernels` uses internal ones. Models are written once by the helpers of the
tests.

bits     Every case at every level that NEW and the machine support, with 1, 2 and 16 threads: vectors of
         all-MiniLM-L6-v2 and of tiny models of all architectures, logits, layers, generation and
         functions. Fails for a difference that no --allow pattern ("LEVEL/CASE/ARRAY") matches, for an
         error, and for bits that depend on the number of threads. int8 arrays that may differ are
         compared with float32 in both copies.
speed    The ratio of both copies' times in each of many rounds. The 95% interval of its median must reach
         --reach. Also measured in CPU seconds, on which other load has less effect.
memory   Peak and resident memory of loading. Fails if NEW's peak exceeds its resident model plus twice
         its largest tensor plus 64 MB.
kernels  Each kernel on one thread, timed by the thread's clock.

Prints a table, writes --output OUTPUT.json, and exits with 1 after a failure.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import report
from builds import bits, kernels, memory, speed


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, **defaults: int) -> Any:
        sub = commands.add_parser(name)
        sub.add_argument("old", type=Path)
        sub.add_argument("new", type=Path)
        sub.add_argument("--output", type=Path, help="also write this file, JSON")
        for option, value in defaults.items():
            sub.add_argument(f"--{option}", type=int, default=value)
        return sub.add_argument

    add = command("bits", texts=1024)
    add("--isa", action="append", default=[], help="a level; default: all, several may be given")
    add("--only", default="*", help="a pattern of case names")
    add("--allow", action="append", default=[], help="a pattern of LEVEL/CASE/ARRAY")
    add = command("speed", rounds=20, threads=2)
    add("--only", default="*", help="a pattern of case names")
    add("--reach", type=float, default=0.98)
    add("--clock", choices=speed.CLOCKS, default="wall", help="which one decides")
    add("--neighbour", action="store_true", help="beside a process that keeps one CPU busy")
    add = command("memory")
    add("--only", default="*", help="one of the models' names")
    add = command("kernels", rounds=15)
    add("--threshold", type=float, default=0.10, help="how much more time is a loss")
    parsed = parser.parse_args(arguments)
    for folder in (parsed.old, parsed.new):
        if not (folder / "simdformer" / "__init__.py").is_file():
            parser.error(f"{folder} holds no installed simdformer")
    return parsed


def main(arguments: list[str] | None = None) -> int:
    options = vars(parse_arguments(arguments))
    command, output = options.pop("command"), options.pop("output")
    if command == "bits":
        options["isas"] = options.pop("isa")
    module = {"bits": bits, "speed": speed, "memory": memory, "kernels": kernels}[command]
    result = module.run(options.pop("old").resolve(), options.pop("new").resolve(), **options)
    if output is not None:
        report.write_json(output, {"kind": f"compare_builds {command}", **result})
    print(module.to_text(result))
    return 1 if module.failed(result) else 0


if __name__ == "__main__":
    sys.exit(main())
