"""The ISA level that runs: the widest that this CPU supports, or the requested one, or a clear error."""

from __future__ import annotations

import platform
import shutil
import struct
import subprocess
import sys

import pytest

from simdformer import _core
from tests.support import output_of, run_python

ARM64 = platform.machine().lower() in ("aarch64", "arm64")
ALL = (
    ["generic", "neon", "neon_dot", "neon_i8mm"]
    if ARM64
    else ["generic", "avx2", "avx2_vnni", "avx512", "avx512_vnni", "avx512_amx"]
)
# The features that a level needs, by Linux's names.
NEEDS = {
    "generic": set(),
    "avx2": {"avx2", "fma", "f16c", "bmi2"},
    "avx2_vnni": {"avx2", "avx_vnni"},
    "avx512": {"avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl"},
    "avx512_vnni": {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"},
    "avx512_amx": {"avx512f", "avx512_vnni", "amx_tile", "amx_int8"},
    "neon": {"asimd"},
    "neon_dot": {"asimd", "asimddp"},
    "neon_i8mm": {"asimd", "asimddp", "i8mm"},
}
# Entries of the auxiliary vector, and their bits (asm/hwcap.h).
HWCAPS = {"asimd": (16, 1), "asimddp": (16, 20), "i8mm": (26, 13)}


def cpu_flags():
    if ARM64:
        # Under emulation, /proc/cpuinfo is that of the host.
        with open("/proc/self/auxv", "rb") as file:  # noqa: PTH123
            words = dict(struct.iter_unpack("=QQ", file.read()))
        return {name for name, (entry, bit) in HWCAPS.items() if words.get(entry, 0) >> bit & 1}
    with open("/proc/cpuinfo", encoding="ascii") as file:  # noqa: PTH123
        return next(set(line.split()) for line in file if line.startswith("flags"))


def test_every_level_is_compiled():
    assert _core.compiled_isas() == ALL


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux reports")
def test_available_levels_are_those_the_kernel_reports():
    flags = cpu_flags()
    assert _core.available_isas() == [isa for isa in ALL if NEEDS[isa] <= flags]


PRINT_ISA = "from simdformer import _core; print(_core.active_isa())"


@pytest.mark.parametrize("choice", [{}, {"SIMDFORMER_ISA": "auto"}, {"SIMDFORMER_ISA": ""}])
def test_the_widest_level_is_the_default(choice):
    assert output_of(PRINT_ISA, **choice) == _core.available_isas()[-1]


def test_environment_variable_chooses_the_level(isa):
    assert output_of(PRINT_ISA, SIMDFORMER_ISA=isa) == isa


@pytest.mark.parametrize("name", ["sse9", "AVX2", "neon ", "vsx"])
def test_an_unknown_level_is_an_import_error_that_lists_both(name):
    done = run_python("import simdformer", SIMDFORMER_ISA=name)
    assert done.returncode == 1
    error = done.stderr.splitlines()[-1]
    assert error.startswith("ImportError: ")
    assert f"'{name}'" in error
    assert ", ".join(_core.available_isas()) in error


def test_the_command_reports_an_unknown_level_in_one_line():
    code = "from simdformer_command import entry_point; entry_point()"
    done = run_python(code, SIMDFORMER_ISA="sse9")
    assert done.returncode == 1
    (error,) = done.stderr.splitlines()
    assert error.startswith("simdformer: error: SIMDFORMER_ISA: ")
    assert "'sse9'" in error


def test_a_selected_level_is_used_from_then_on(active_isa):
    assert _core.active_isa() == active_isa


def test_kernel_table_is_of_the_level_asked_for(isa):
    assert _core.KernelTable(isa).isa == isa


@pytest.mark.parametrize("choose", [_core.set_active_isa, _core.KernelTable])
def test_choosing_an_unknown_level_is_a_value_error(choose):
    before = _core.active_isa()
    with pytest.raises(ValueError, match=rf"'sse9'.*{', '.join(_core.available_isas())}"):
        choose("sse9")
    assert _core.active_isa() == before


def test_tiles_grow_with_the_level():
    lanes = {isa: _core.KernelTable(isa).lanes for isa in _core.available_isas()}
    expected = dict(zip(ALL, [4] * 4 if ARM64 else [4, 8, 8, 16, 16, 16], strict=True))
    assert lanes == {isa: expected[isa] for isa in lanes}
    assert list(lanes.values()) == sorted(lanes.values())


@pytest.mark.slow
@pytest.mark.skipif(ARM64, reason="valgrind's CPU is asked for AVX-512")
@pytest.mark.skipif(not shutil.which("valgrind"), reason="needs valgrind")
def test_an_unsupported_level_is_an_import_error():
    # Valgrind's CPU has AVX2 but not AVX-512, so the baseline and the error can be tested.
    import_core = "from simdformer import _core; print(_core.available_isas())"
    command = ["valgrind", "--tool=none", "-q", sys.executable, "-c", import_core]
    path = {"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"}
    environments = (path, {**path, "SIMDFORMER_ISA": "avx512"})
    plain, forced = (
        subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        for env in environments
    )
    assert plain.stdout.strip() == "['generic', 'avx2']"
    assert "ImportError" in forced.stderr
    assert "'avx512'" in forced.stderr
    assert "generic, avx2" in forced.stderr
