# SPDX-License-Identifier: Apache-2.0
"""Write the docstrings of Python's standard library to a .jsonl file, a real text to search in.

    python examples/docstrings.py docstrings.jsonl
    simdformer search "wait until several threads have arrived" --in docstrings.jsonl

Nothing is imported: the library's files are parsed, so the result does not depend on what is
installed beside it.
"""

from __future__ import annotations

import ast
import json
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

SKIPPED = {"test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages", "__pycache__"}
DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def public_modules(library: Path) -> Iterator[tuple[str, Path]]:
    """The dotted name and file of every module without a leading underscore in its name."""
    for file in sorted(library.rglob("*.py")):
        parts = file.relative_to(library).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        if not SKIPPED.intersection(parts) and not any(part.startswith("_") for part in parts):
            yield ".".join(parts), file


def docstrings(name: str, node: ast.Module | ast.ClassDef) -> Iterator[tuple[str, str]]:
    """The dotted name and the docstring's first paragraph of what `node` defines."""
    for child in node.body:
        if not isinstance(child, DEFINITIONS) or child.name.startswith("_"):
            continue
        full_name = f"{name}.{child.name}"
        if text := ast.get_docstring(child):
            yield full_name, " ".join(text.split("\n\n")[0].split())
        if isinstance(child, ast.ClassDef):
            yield from docstrings(full_name, child)


def main(output: str) -> None:
    """Write {"name": ..., "text": "name: docstring"} a line."""
    library = Path(sysconfig.get_path("stdlib"))
    count = 0
    with Path(output).open("w", encoding="utf-8") as lines:
        for module, file in public_modules(library):
            for name, text in docstrings(module, ast.parse(file.read_bytes())):
                lines.write(json.dumps({"name": name, "text": f"{name}: {text}"}) + "\n")
                count += 1
    print(f"{output}: {count:,} docstrings of Python {sys.version.split()[0]}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} OUTPUT.jsonl")
    main(sys.argv[1])
