"""Builds wheels for other platforms on x86-64 Linux, with the CPython that runs this.

    python tools/make_wheels.py FOLDER [PLATFORM ...]

This is a rehearsal: releases are built on native machines (.github/workflows/wheels.yml). The compiler is clang from
PyPI's ziglang, which contains the C libraries of all platforms. Python's headers are those of the CPython that runs
this. Debian's CPython cannot be used, because its pyconfig.h is for one architecture. PLATFORM: names in the table
below; by default all. Needs the group wheels, and the packages of pyproject.toml's
[build-system]. win_amd64 needs CPython 3.11, for which tools/windows.sh puts together headers and an import library.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

from compress_wheel import compress

ROOT = Path(__file__).resolve().parents[1]
WINDOWS = ROOT / "build" / "windows"  # tools/windows.sh
LARGEST = 1_500_000  # size of a wheel in bytes
VERSION = f"{sys.version_info.major}{sys.version_info.minor}"
# What a wheel for macOS and Windows may need.
GUARANTEED = {
    "mac": r"macOS 11\.0|/usr/lib/libSystem\.B\.dylib",
    "win": rf"KERNEL32\.dll|api-ms-win-crt-[a-z]+-l1-1-0\.dll|python{VERSION}\.dll",
}


class Platform(NamedTuple):
    """zig: its name of the target. host: distutils' name of the platform. suffix: of an extension's file."""

    zig: str
    system: str
    processor: str
    host: str
    suffix: str
    tag: str


PLATFORMS = {
    "manylinux_x86_64": Platform(
        "x86_64-linux-gnu.2.17",
        "Linux",
        "x86_64",
        "linux-x86_64",
        f".cpython-{VERSION}-x86_64-linux-gnu.so",
        "manylinux_2_17_x86_64.manylinux2014_x86_64",
    ),
    "manylinux_aarch64": Platform(
        "aarch64-linux-gnu.2.17",
        "Linux",
        "aarch64",
        "linux-aarch64",
        f".cpython-{VERSION}-aarch64-linux-gnu.so",
        "manylinux_2_17_aarch64.manylinux2014_aarch64",
    ),
    "musllinux_x86_64": Platform(
        "x86_64-linux-musl",
        "Linux",
        "x86_64",
        "linux-x86_64",
        f".cpython-{VERSION}-x86_64-linux-musl.so",
        "musllinux_1_2_x86_64",
    ),
    "musllinux_aarch64": Platform(
        "aarch64-linux-musl",
        "Linux",
        "aarch64",
        "linux-aarch64",
        f".cpython-{VERSION}-aarch64-linux-musl.so",
        "musllinux_1_2_aarch64",
    ),
    "macosx_arm64": Platform(
        "aarch64-macos.11.0",
        "Darwin",
        "arm64",
        "macosx-11.0-arm64",
        f".cpython-{VERSION}-darwin.so",
        "macosx_11_0_arm64",
    ),
    "macosx_x86_64": Platform(
        "x86_64-macos.11.0",
        "Darwin",
        "x86_64",
        "macosx-11.0-x86_64",
        f".cpython-{VERSION}-darwin.so",
        "macosx_11_0_x86_64",
    ),
    "win_amd64": Platform(
        "x86_64-windows-gnu",
        "Windows",
        "AMD64",
        "win-amd64",
        f".cp{VERSION}-win_amd64.pyd",
        "win_amd64",
    ),
}


def defines(platform: Platform) -> dict[str, str]:
    """Values that CMake and pybind11 would get by running the target's Python."""
    values = {
        "CMAKE_SYSTEM_NAME": platform.system,
        "CMAKE_SYSTEM_PROCESSOR": platform.processor,
        "PYTHON_MODULE_EXTENSION": platform.suffix,
        "PYTHON_MODULE_DEBUG_POSTFIX": "",
        "PYTHON_IS_DEBUG": "0",
        "SIMDFORMER_WERROR": "ON",
        # Not all of zig's linkers support it, and zig would compile its C++ library again for it.
        "CMAKE_INTERPROCEDURAL_OPTIMIZATION": "OFF",
    }
    if platform.system == "Darwin":
        values["CMAKE_STRIP"] = "/bin/true"  # the host's program reads only ELF
    if platform.system == "Windows":
        values["Python_INCLUDE_DIR"] = str(WINDOWS / "include")
        values["Python_LIBRARY"] = str(WINDOWS / "libpython311.a")
        values["CMAKE_RC_COMPILER"] = "/bin/true"
    if shutil.which("ccache"):
        values["CMAKE_CXX_COMPILER_LAUNCHER"] = "ccache"
    return values


def run(*command: str | Path, **variables: str) -> None:
    subprocess.run([str(part) for part in command], check=True, env={**os.environ, **variables})


def output(*command: str | Path) -> str:
    parts = [str(part) for part in command]
    return subprocess.run(parts, check=True, capture_output=True, text=True).stdout


def zig() -> str:
    import ziglang

    return str(Path(ziglang.__file__).parent / "zig")


def build(name: str, folder: Path) -> Path:
    """Build a wheel with the platform's tag in `folder`."""
    platform = PLATFORMS[name]
    if platform.system == "Windows":
        if VERSION != "311":
            raise SystemExit(f"{name} needs CPython 3.11, not {sys.version.split()[0]}")
        run(ROOT / "tools" / "windows.sh", "python", PYTHON=sys.executable)
    raw = folder / "raw" / name
    for old in raw.glob("*.whl"):
        old.unlink()
    settings = [f"-Ccmake.define.{key}={value}" for key, value in defines(platform).items()]
    # --no-build-isolation: the same cmake for all.
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel"]
    command += ["--no-deps", "--no-build-isolation", "--wheel-dir", str(raw), str(ROOT)]
    run(
        *command,
        f"-Cbuild-dir=build/wheels/{name}",
        *settings,
        CXX=str(ROOT / "tools" / "zigcxx"),
        ZIG=zig(),
        ZIG_TARGET=platform.zig,
        CCACHE_COMPILERCHECK=f"string:{platform.zig}",
        _PYTHON_HOST_PLATFORM=platform.host,
        SETUPTOOLS_EXT_SUFFIX=platform.suffix,
    )
    (wheel,) = raw.glob("*.whl")
    (tagged,) = retag(wheel, platform.tag)
    compress(tagged)
    target = folder / tagged.name
    tagged.replace(target)
    return target


def retag(wheel: Path, tag: str) -> list[Path]:
    run(sys.executable, "-m", "wheel", "tags", "--remove", "--platform-tag", tag, wheel)
    return list(wheel.parent.glob("*.whl"))


def check(name: str, wheel: Path) -> None:
    """Check the wheel's size and contents, and that it needs nothing that its tag does not guarantee."""
    size = wheel.stat().st_size
    print(f"{wheel.name}: {size:,} bytes")
    if size > LARGEST:
        raise SystemExit(f"{wheel}: {size:,} bytes, more than {LARGEST:,}")
    with zipfile.ZipFile(wheel) as archive:
        files = [file for file in archive.namelist() if file.endswith((".so", ".pyd", ".dll"))]
    expected = f"simdformer/_core{PLATFORMS[name].suffix}"
    if files != [expected]:
        raise SystemExit(f"{wheel}: expected the one library {expected}, got {files}")
    if "linux" in name:
        shown = output(sys.executable, "-m", "auditwheel", "show", wheel)
        tag = PLATFORMS[name].tag.split(".")[0]
        if f'"{tag}"' not in shown:
            raise SystemExit(f"{wheel}: auditwheel does not find it to be {tag}:\n{shown}")
        return
    with tempfile.TemporaryDirectory() as unpacked, zipfile.ZipFile(wheel) as archive:
        library = archive.extract(expected, unpacked)
        needed = macos_needs(library) if name.startswith("macosx") else windows_needs(library)
    print("  needs", *needed, sep="\n    ")
    unknown = [each for each in needed if not re.fullmatch(GUARANTEED[name[:3]], each)]
    if unknown:
        raise SystemExit(f"{wheel}: needs {unknown}, which not every system has")


def macos_needs(library: str) -> list[str]:
    """The version of macOS and the libraries that a Mach-O file needs."""
    from macholib.mach_o import LC_BUILD_VERSION, LC_LOAD_DYLIB
    from macholib.MachO import MachO

    needed = []
    (header,) = MachO(library).headers
    for load, command, data in header.commands:
        if load.cmd == LC_LOAD_DYLIB:
            needed.append(data.rstrip(b"\0").decode())
        elif load.cmd == LC_BUILD_VERSION:
            needed.append(f"macOS {command.minos >> 16}.{command.minos >> 8 & 255}")
    return sorted(needed)


def windows_needs(library: str) -> list[str]:
    """The DLLs that a PE file needs."""
    return sorted(re.findall(r"DLL Name: (\S+)", output("objdump", "-p", library)))


def main() -> int:
    folder = Path(sys.argv[1]).resolve()
    include = Path(sysconfig.get_path("include"))
    if (include / "pyconfig.h").stat().st_size < 2000:
        raise SystemExit(f"{include}/pyconfig.h holds for one architecture: take another CPython")
    for name in sys.argv[2:] or PLATFORMS:
        check(name, build(name, folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
