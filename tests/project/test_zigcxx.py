"""tools/zigcxx passes its arguments to zig, and names musl as Alpine does."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support import ROOT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a shell script")


@pytest.fixture
def compile_with(tmp_path):
    """Run the script with a zig and a patchelf that write down their arguments."""
    for name in ("zig", "patchelf"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho {name} "$@"\n')
        program.chmod(0o755)
    paths = os.pathsep.join([str(tmp_path), os.environ["PATH"]])

    def run(target, *arguments):
        variables = {"PATH": paths, "ZIG": str(tmp_path / "zig"), "ZIG_TARGET": target}
        command = [str(ROOT / "tools" / "zigcxx"), *arguments]
        return subprocess.check_output(command, env=variables, text=True).splitlines()

    return run


def test_a_bundle_of_macos_is_linked_as_a_library(compile_with):
    calls = compile_with("aarch64-macos.11.0", "-bundle", "-o", "a file.so", "a.o")
    assert calls == ["zig c++ -target aarch64-macos.11.0 -shared -o a file.so a.o"]


def test_a_library_for_musl_needs_the_file_that_alpine_has(compile_with):
    calls = compile_with("aarch64-linux-musl", "-shared", "-o", "_core.so", "a.o")
    assert calls[1:] == ["patchelf --replace-needed libc.so libc.musl-aarch64.so.1 _core.so"]


@pytest.mark.parametrize(
    ("target", "mode"), [("x86_64-linux-musl", "-c"), ("x86_64-linux-gnu.2.17", "-shared")]
)
def test_objects_and_libraries_for_glibc_are_left_as_zig_makes_them(compile_with, target, mode):
    assert len(compile_with(target, mode, "-o", "a", "a.cpp")) == 1


def test_a_failure_of_zig_is_the_exit_code(compile_with, tmp_path):
    (tmp_path / "zig").write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(subprocess.CalledProcessError) as failure:
        compile_with("x86_64-linux-musl", "-shared", "-o", "a.so")
    assert failure.value.returncode == 3
