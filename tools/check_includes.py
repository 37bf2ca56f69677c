"""Checks the directions of includes and imports. Prints each violation; exits with 1 if there is one.

    python tools/check_includes.py [ROOT]

C++: simd -> intrinsics; kernels -> simd; isa -> kernels; layers -> base, the kernel table; model_file -> layers, the
kernel table; c_api -> model_file; bindings -> layers, model_file, the kernel table.

Python: checkpoint, functional, text -> _core; nn -> these; int8 -> nn, models; models -> nn, checkpoint;
generation -> nn, functional; folder -> models, int8, text; util -> folder; drop_in -> folder, util;
public classes -> drop_in, folder, util; explain -> public classes, nn, functional, text;
cli, server -> public classes, text, and only names without an underscore. There are no import cycles.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Collection, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

# The longest of these names that starts a file's path under cpp/ applies. The file may include everything
# that starts with one of the names on the right.
TABLE = ("kernels/kernels.h", "kernels/kernels.inc", "isa/dispatch.h")
CPP = {
    "base/": ("base/",),
    "simd/": ("simd/",),
    "kernels/": ("kernels/", "simd/"),
    "isa/": ("isa/tables.h", "kernels/", "simd/"),
    "isa/dispatch": ("isa/", "kernels/kernels.h", "base/"),
    "isa/levels": ("isa/", "kernels/kernels.h", "base/"),
    "layers/": ("layers/", "base/", *TABLE),
    "model_file/": ("model_file/", "layers/", "base/", *TABLE),
    "c_api/": ("c_api/", "model_file/reader.h", "base/"),
    "bindings/": ("bindings/", "model_file/writer.h", "layers/", "base/", *TABLE),
}
# These files are compiled once per ISA. The linker might keep the copy of a standard-library function that
# was compiled with AVX-512, for all CPUs. So only types and intrinsics are allowed.
ISA_OBJECTS = ("simd/", "kernels/", "isa/")
BARE_HEADERS = {"cstddef", "cstdint", "immintrin.h", "arm_neon.h"}
THREADS_FILES = ("base/workers_openmp.cpp", "base/system_posix.cpp", "base/system_windows.cpp")

# The same for python/simdformer/, by the names below simdformer.
PUBLIC = (
    "CrossEncoder",
    "ModelOutput",
    "MultiVectorEncoder",
    "Pipeline",
    "SentenceTransformer",
    "SparseEmbeddings",
    "SparseEncoder",
    "__version__",
    "as_sentence_transformers",
    "cross_encoder",
    "multi_vector_encoder",
    "pipeline",
    "pipelines",
    "quantize_embeddings",
    "quantize_model",
    "register_threadpoolctl",
    "sentence_transformer",
    "show_config",
    "sparse_embeddings",
    "sparse_encoder",
)
BOTTOM = ("_core", "checkpoint", "functional")
FOLDER = (*BOTTOM, "build_info", "folder", "int8", "models", "nn", "text")
PYTHON: dict[str, tuple[str, ...]] = {
    "checkpoint/": ("_core", "checkpoint"),
    "functional/": ("_core", "functional"),
    "text/": (*BOTTOM, "text"),
    "nn/": (*BOTTOM, "nn", "text"),
    "int8/": (*BOTTOM, "int8", "models", "nn", "text"),
    # it reads one folder and writes another
    "int8/quantize_model.py": FOLDER,
    "models/": (*BOTTOM, "models", "nn"),
    "generation/": ("generation", "nn", "functional"),
    "folder/": FOLDER,
    "util/": ("folder", "functional", "util"),
    "drop_in/": (*FOLDER, "drop_in", "util"),
    # it replaces another package by the public classes
    "drop_in/stand_in.py": (
        "cross_encoder",
        "drop_in",
        "multi_vector_encoder",
        "sentence_transformer",
        "sparse_embeddings",
        "sparse_encoder",
        "util",
    ),
    "quantization.py": ("util",),
    "build_info.py": ("_core", "__version__"),
    "thread_limits.py": ("_core", "__version__"),
    "cross_encoder.py": ("drop_in", "folder", "functional", "text", "util"),
    "sentence_transformer.py": ("drop_in", "folder", "functional", "text", "util"),
    "multi_vector_encoder.py": ("drop_in", "folder", "text", "util"),
    "pipelines/": (
        "checkpoint",
        "drop_in",
        "folder",
        "functional",
        "models",
        "nn",
        "pipelines",
        "text",
    ),
    "sparse_embeddings.py": (),
    "sparse_encoder.py": ("drop_in", "folder", "functional", "sparse_embeddings", "text", "util"),
    "ray/": (*FOLDER, *PUBLIC, "ray"),
    "__init__.py": (
        "_core",
        "build_info",
        "drop_in",
        "int8",
        "text",
        "thread_limits",
        "util",
        *PUBLIC,
    ),
    # it reads layers and changes copies of them
    "explain/": (*PUBLIC, "explain", "functional", "nn", "text", "util"),
    "cli/": (*PUBLIC, "cli", "explain", "server", "text", "util"),
    "server/": (*PUBLIC, "functional", "server", "text", "util"),
}
# Exceptions. Each can be removed when a class of a higher part offers the same.
FURTHER = {
    "cli/identity.py": ("folder",),
    "cli/embedding.py": ("folder",),
    "cli/export.py": ("drop_in", "folder"),
    "cli/info.py": ("checkpoint", "folder", "models"),
    "cli/quantize.py": ("int8",),
}

# These use the public classes like any other program. The names on the right have an underscore but are
# documented.
USES_PUBLIC_MEMBERS = ("cli/", "explain/", "ray/", "server/")
DOCUMENTED = ("_ArgumentGroup", "_SubParsersAction", "_exit", "_replace")

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)
# Code for one architecture must be in files with its name, in simd, or in the levels.
ONE_ARCHITECTURE = re.compile(
    r"<cpuid\.h>|<sys/auxv\.h>|__builtin_ia32_|\b__asm__\b|\bbase/arch_\w+\.h"
)
MAKES_THREADS = re.compile(
    r"#\s*pragma\s+omp|<omp\.h>|\bstd::(j?thread|async)\b|\bpthread_create\b|\b_beginthread"
)
COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)


def check_cpp(path: str, text: str) -> Iterator[str]:
    rule = max((name for name in CPP if path.startswith(name)), key=len, default=None)
    if rule is None:
        yield "stands in no folder of the house"
        return
    text = COMMENT.sub("", text)
    bare = path.startswith(ISA_OBJECTS) and rule not in ("isa/dispatch", "isa/levels")
    for bracket, name in INCLUDE.findall(text):
        if bracket == '"' and not name.startswith(CPP[rule]):
            yield f'may not include "{name}"'
        if bracket == "<" and bare and name not in BARE_HEADERS:
            yield f"is compiled per ISA and may not include <{name}>"
    if bare and "std::" in text:
        yield "is compiled per ISA and may not use std::"
    if not (
        bare or path.endswith(("_x86.cpp", "_x86.h", "_arm64.cpp", "_arm64.h"))
    ) and ONE_ARCHITECTURE.search(text):
        yield "holds for one architecture, which belongs into a file named for it"
    if path not in THREADS_FILES and MAKES_THREADS.search(text):
        yield f"makes threads, which belong to {' and '.join(THREADS_FILES)} alone"


def imported_modules(text: str) -> Iterator[str]:
    """Dotted names below simdformer; "from simdformer import x" counts as the module x."""
    for node in ast.walk(ast.parse(text)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "simdformer":
            names = [f"simdformer.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = ["." * node.level + (node.module or "")]
        yield from names


def private_members(text: str) -> Iterator[str]:
    """Attributes with an underscore that are used on objects other than self."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Attribute) or node.attr in DOCUMENTED:
            continue
        own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
        if node.attr.startswith("_") and not node.attr.startswith("__") and not own:
            yield ast.unparse(node)


def check_python(path: str, text: str) -> Iterator[str]:
    rule = max((name for name in PYTHON if path.startswith(name)), key=len, default=None)
    if rule is None:
        yield "stands in no folder of the house"
        return
    if path.startswith(USES_PUBLIC_MEMBERS):
        for member in private_members(text):
            yield f"uses {member}, a private member"
    allowed = (*PYTHON[rule], *FURTHER.get(path, ()))
    for name in imported_modules(text):
        if name.startswith("."):
            yield f"imports {name}: write the whole name"
        head, _, module = name.partition(".")
        if head != "simdformer" or any(f"{module}.".startswith(f"{used}.") for used in allowed):
            continue
        yield f"may not import {name}: {rule} uses {', '.join(PYTHON[rule])}"


def modules_used(text: str, modules: Collection[str]) -> set[str]:
    """The modules of a tree that a file imports, also for type checkers only. Packages are left out, because
    they collect the contents of their files."""
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names.intersection(modules)


def circles(root: Path) -> Iterator[str]:
    """Cycles of modules that import each other, directly or indirectly."""
    top = root / "python"
    files = {
        ".".join(file.relative_to(top).with_suffix("").parts): file
        for file in sorted(top.rglob("*.py"))
        if file.name != "__init__.py"
    }
    graph = {
        name: modules_used(file.read_text(encoding="utf-8"), files) for name, file in files.items()
    }
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        yield "python: an import circle: " + " -> ".join(error.args[1])


def violations(root: Path) -> Iterator[str]:
    trees = (
        ("cpp", ("*.h", "*.inc", "*.cpp"), check_cpp),
        ("python/simdformer", ("*.py",), check_python),
    )
    for folder, patterns, check in trees:
        top = root / folder
        for file in sorted(file for pattern in patterns for file in top.rglob(pattern)):
            path = file.relative_to(top).as_posix()
            for message in check(path, file.read_text(encoding="utf-8")):
                yield f"{folder}/{path}: {message}"
    yield from circles(root)


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1]
    found = list(violations(root))
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
