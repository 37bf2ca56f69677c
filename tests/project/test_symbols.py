"""What the compiler made: nothing of one ISA level may be linked into another's code.

An inline function compiled with AVX-512 and left as a weak symbol can be the copy that the linker
keeps for everybody: an illegal instruction on older CPUs (numpy #25274, xsimd #1311). So each ISA
object exports its table and nothing else, and AVX stands in ISA objects only.

The objects are those of the build that made the extension: the newest under build/ with its threads,
or the folder that SIMDFORMER_BUILD_DIR names. With that set, a missing build is a failure instead of a skip.
"""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import pytest

from simdformer import _core
from tests.support import ROOT
from tests.support.objects import innermost_loops, objects_in, run

pytestmark = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"), reason="of x86-64; test_symbols_arm64.py"
)

LEVELS = ("generic", "avx2", "avx2_vnni", "avx512", "avx512_vnni", "avx512_amx")


def build_dir():
    given = os.environ.get("SIMDFORMER_BUILD_DIR")
    if given:
        return Path(given)
    threads = f"SIMDFORMER_THREADS:STRING={_core.thread_provider()}"
    builds = [
        cache
        for cache in ROOT.glob("build/*/CMakeCache.txt")
        if re.search("SIMDFORMER_SANITIZE:.*=OFF\n", text := cache.read_text()) and threads in text
    ]
    if not builds:
        pytest.skip("no build tree under build/: the extension was built elsewhere")
    return max(builds, key=lambda cache: cache.stat().st_mtime).parent


@pytest.fixture(scope="module", autouse=True)
def plain_build():
    if re.search("lib[at]san", run("objdump", "-p", _core.__file__)):
        pytest.skip("a sanitizer's code stands among ours in this build")


@pytest.fixture(scope="module")
def objects():
    folder = build_dir()
    found = objects_in(folder)
    assert {f"isa/{level}" for level in LEVELS} <= set(found), f"no ISA objects in {folder}"
    return found


def instructions(path):
    """(mnemonic, operands) of every instruction."""
    line = re.compile(r"^\s+[0-9a-f]+:\t(?:\{\w+\} )?(\S+)(?:\s+(.*))?$")
    listing = run("objdump", "-d", "--no-show-raw-insn", str(path))
    matches = (line.match(text) for text in listing.splitlines())
    return [(match[1], match[2] or "") for match in matches if match]


def is_bitcode(path):
    """LLVM's, of clang with LTO, which binutils do not read. ISA objects are compiled without."""
    return path.read_bytes()[:4] == b"BC\xc0\xde"


def is_avx(mnemonic, operands):
    """Encoded by VEX or EVEX: an illegal instruction on a CPU of the baseline."""
    vector = re.search(r"%[yz]mm|%k[0-7]|%xmm(1[6-9]|[23]\d)", operands)
    return bool(vector) or (mnemonic.startswith("v") and mnemonic not in ("verr", "verw"))


@pytest.mark.parametrize("level", LEVELS)
def test_isa_object_exports_its_table_and_nothing_else(objects, level):
    symbols = run("nm", "--defined-only", "--extern-only", "--demangle", objects[f"isa/{level}"])
    names = [line.split(maxsplit=2)[2] for line in symbols.splitlines()]
    camel = "".join(word.capitalize() for word in level.split("_"))
    assert names == [f"simdformer::kKernels{camel}"]


@pytest.mark.parametrize("level", LEVELS)
def test_isa_object_has_no_weak_symbol(objects, level):
    symbols = run("nm", "--demangle", objects[f"isa/{level}"])
    # V, v, W, w: weak; u: unique, which the linker shares like a weak one.
    assert [
        line for line in symbols.splitlines() if re.match(r"^[0-9a-f ]{16} [VvWwu] ", line)
    ] == []


@pytest.mark.parametrize("level", LEVELS)
def test_isa_object_calls_nothing_but_memory_functions(objects, level):
    symbols = run("nm", "--undefined-only", "--demangle", objects[f"isa/{level}"])
    names = {line.split()[-1] for line in symbols.splitlines()}
    assert names <= {"memcpy", "memset", "memmove", "_GLOBAL_OFFSET_TABLE_"}


def test_there_is_no_avx_outside_the_isa_objects(objects):
    wide = {f"isa/{level}" for level in LEVELS} - {"isa/generic"}
    for name in sorted(set(objects) - wide):
        if is_bitcode(objects[name]):
            continue  # what LTO makes of it stands in the extension, which is looked through below
        found = [code for code in instructions(objects[name]) if is_avx(*code)]
        assert found == [], f"{name} has {len(found)} AVX instructions"


@pytest.mark.parametrize("level", ["avx2", "avx2_vnni"])
def test_avx2_object_has_no_avx512(objects, level):
    code = instructions(objects[f"isa/{level}"])
    new = re.compile(r"%zmm|%k[0-7]|%[xy]mm(1[6-9]|[23]\d)|\{%?k")
    assert [line for line in code if new.search(line[1])] == []


@pytest.mark.parametrize(("level", "register"), [("avx2", "%ymm"), ("avx512", "%zmm")])
def test_isa_object_uses_its_registers(objects, level, register):
    # Otherwise the tests above would pass over an empty listing.
    code = instructions(objects[f"isa/{level}"])
    products = [line for line in code if line[0].startswith("vfmadd") and register in line[1]]
    assert len(products) > 100


@pytest.mark.parametrize(
    ("level", "instruction"),
    [("avx2_vnni", "vpdpbusd"), ("avx512_vnni", "vpdpbusd"), ("avx512_amx", "tdpbusd")],
)
def test_isa_object_uses_its_int8_products_and_no_level_below_does(objects, level, instruction):
    found = {
        name
        for name in LEVELS
        if any(code[0] == instruction for code in instructions(objects[f"isa/{name}"]))
    }
    assert level in found
    assert not found & set(LEVELS[: LEVELS.index(level)]) - {"avx2_vnni"}


@pytest.mark.parametrize("level", LEVELS)
def test_gemm_loop_keeps_its_tile_in_registers(objects, level):
    # A spilled accumulator costs a load and a store a step: a third of the speed, and no error.
    if level not in _core.available_isas():
        pytest.skip(f"this CPU has no {level}, whose table says how large its tile is")
    mr, nr = _core.KernelTable(level).gemm_tile
    vectors = nr // _core.KernelTable(level).lanes
    multiply = "mulps" if level == "generic" else "vfmadd"
    listing = run("objdump", "-d", "--no-show-raw-insn", "--demangle", objects[f"isa/{level}"])
    kernel = f"micro_kernel<{mr}ul, {vectors}ul, float>"
    # The function itself: callers name it too, and clang puts some of them before it.
    head = re.compile(rf"^[0-9a-f]+ <[^\n]*{re.escape(kernel)}\([^\n]*>:$", re.MULTILINE)
    body = head.split(listing)[1].split("\n\n", 1)[0]
    loops = [
        loop
        for loop in innermost_loops(body)
        if sum(mnemonic.startswith(multiply) for mnemonic, _ in loop) == mr * vectors
    ]
    assert loops, f"no loop with {mr * vectors} products in {kernel}"
    on_stack = re.compile(r"\(%r[sb]p")
    spills = [code for loop in loops for code in loop if on_stack.search(code[1])]
    assert [code for code in spills if "mm" in code[1]] == []


def test_extension_has_no_avx_beyond_that_of_its_objects(objects):
    # Static libraries and start-up code are linked in too; they must not bring any.
    in_objects = sum(
        sum(is_avx(*code) for code in instructions(objects[f"isa/{level}"])) for level in LEVELS
    )
    assert 0 < sum(is_avx(*code) for code in instructions(_core.__file__)) <= in_objects


def test_extension_exports_its_module_and_what_threadpoolctl_knows_it_by():
    symbols = run("nm", "--dynamic", "--defined-only", "--extern-only", _core.__file__)
    names = [line.split()[-1] for line in symbols.splitlines()]
    own = [name for name in names if "simdformer" in name or not name.startswith("_Z")]
    # The first checks the interpreter and hands over to the second.
    assert own == ["PyInit__core", "PyInit_simdformer_core", "simdformer_thread_provider"]


def test_extension_needs_no_library_but_the_systems():
    needed = re.findall(r"NEEDED\s+(\S+)", run("objdump", "-p", _core.__file__))
    # Older versions of glibc had threads and dlopen in libraries of their own.
    system = (
        "libstdc++.so",
        "libm.so",
        "libgcc_s.so",
        "libc.so",
        "libpthread.so",
        "libdl.so",
        "ld-linux",
    )
    if _core.thread_provider() == "openmp":
        system = (*system, "libgomp.so")
    assert [name for name in needed if not name.startswith(system)] == []
