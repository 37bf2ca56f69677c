"""The compiled objects for AArch64: no level contains instructions of a wider one, and tiles stay in
registers.

The objects are those of `tools/arm64.sh build` or, on AArch64, those of the build that made the extension.
"""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.objects import innermost_loops, objects_in, run

NATIVE = platform.machine().lower() in ("aarch64", "arm64")
PREFIX = "" if NATIVE else "aarch64-linux-gnu-"
LEVELS = ("generic", "neon", "neon_dot", "neon_i8mm")
ROWS, VECTORS = 6, 3  # of the float32 tile
# In the loop of the largest int8 tile: the products, the rows, and the allowed number of other instructions
# per product.
INT8 = {
    "neon": (r"umull2?", 16, 2, 1.6),
    "neon_dot": (r"udot", 48, 4, 0.4),
    "neon_i8mm": (r"ummla", 12, 4, 0.85),  # gcc has 9 others, clang 10
}
ON_STACK = re.compile(r"^[qdsv]\d.*\[sp|^[qd]\d+, [qd]\d+, \[(sp|x29)")


@pytest.fixture(scope="module")
def objects():
    given = os.environ.get("SIMDFORMER_ARM64_BUILD_DIR")
    folder = Path(given) if given else ROOT / "build" / "arm64" / "cmake"
    found = objects_in(folder)
    if not found and not given:
        pytest.skip("no build for AArch64: tools/arm64.sh build makes one")
    assert {f"isa/{level}" for level in LEVELS} <= set(found), f"no ISA objects in {folder}"
    return found


def listing(path):
    return run(PREFIX + "objdump", "-d", "--no-show-raw-insn", "--demangle", str(path))


@pytest.fixture(scope="module")
def listings(objects):
    return {level: listing(objects[f"isa/{level}"]) for level in LEVELS}


def function_of(text, name):
    # Not the first place of the name: clang also places callers before the function.
    head = re.compile(rf"^[0-9a-f]+ <[^\n]*::{re.escape(name)}\([^\n]*>:$", re.MULTILINE)
    return head.split(text)[1].split("\n\n", 1)[0]


def loops_with(text, name, products):
    """The loops of a function with this number of products, as (number, body)."""
    loops = innermost_loops(function_of(text, name))
    counted = [
        (sum(bool(re.fullmatch(products, code[0])) for code in loop), loop) for loop in loops
    ]
    return [(count, loop) for count, loop in counted if count]


@pytest.mark.parametrize("level", LEVELS)
def test_isa_object_exports_its_table_and_nothing_else(objects, level):
    symbols = run(
        PREFIX + "nm", "--defined-only", "--extern-only", "--demangle", objects[f"isa/{level}"]
    )
    names = [line.split(maxsplit=2)[2] for line in symbols.splitlines()]
    assert names == [f"simdformer::kKernels{''.join(map(str.capitalize, level.split('_')))}"]


@pytest.mark.parametrize("level", LEVELS)
def test_isa_object_calls_nothing_but_memory_functions(objects, level):
    symbols = run(PREFIX + "nm", "--undefined-only", "--demangle", objects[f"isa/{level}"])
    assert {line.split()[-1] for line in symbols.splitlines()} <= {"memcpy", "memset", "memmove"}


def test_dot_and_matrix_products_are_only_in_their_levels(objects):
    allowed = {
        "isa/neon_dot": {"udot"},
        "isa/neon_i8mm": {"ummla"},
    }
    for name, path in objects.items():
        found = set(
            re.findall(r"\t([us]*dot|[us]*mmla|bf\w+dot|bfmmla|bfmlal[bt])\s", listing(path))
        )
        assert found == allowed.get(name, set()), name


@pytest.mark.parametrize("level", LEVELS[1:])
@pytest.mark.parametrize("rows", range(1, ROWS + 1))
@pytest.mark.parametrize("vectors", range(1, VECTORS + 1))
def test_gemm_loop_keeps_its_tile_in_registers(listings, level, rows, vectors):
    kernel = f"micro_kernel<{rows}ul, {vectors}ul, float>"
    loops = loops_with(listings[level], kernel, "fmla")
    # Four steps of k at a time, and single steps.
    assert 4 * rows * vectors in [count for count, _ in loops]
    assert [code for _, loop in loops for code in loop if ON_STACK.search(code[1])] == []


@pytest.mark.parametrize("level", LEVELS[1:])
def test_gemm_loop_brings_two_instructions_for_five_products(listings, level):
    loops = loops_with(listings[level], f"micro_kernel<{ROWS}ul, {VECTORS}ul, float>", "fmla")
    products, loop = max(loops, key=lambda found: found[0])
    assert products == 4 * ROWS * VECTORS
    assert len(loop) - products <= 0.4 * products


@pytest.mark.parametrize("level", LEVELS[1:])
def test_int8_loop_keeps_its_tile_in_registers(listings, level):
    instruction, products, rows, others = INT8[level]
    form = "simdformer::(anonymous namespace)::S8Form"
    kernel = f"micro_kernel_s8<{form}, {rows}ul, {VECTORS}ul>"
    loops = loops_with(listings[level], kernel, instruction)
    assert {count for count, _ in loops} == {products}
    for _, loop in loops:
        assert len(loop) - products <= others * products
        assert [code for code in loop if ON_STACK.search(code[1])] == []
