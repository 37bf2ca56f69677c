"""deploy/: files that it names exist, and systemd accepts the unit."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest

from tests.support import ROOT
from tools.rehearse_image import instructions

DEPLOY = ROOT / "deploy"
DOCKERFILE = instructions((DEPLOY / "Dockerfile").read_text())


def test_the_dockerfile_copies_files_that_exist_and_that_its_ignore_file_lets_through():
    allowed = {
        line[1:]
        for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = [w for name, rest in DOCKERFILE if name == "COPY" for w in rest.split()[:-1]]
    copied = [word for word in copied if not word.startswith(("--from", "/"))]
    assert copied
    for name in copied:
        assert (ROOT / name).exists(), name
        assert name in allowed, name


def test_the_image_runs_as_a_user_without_rights():
    (user,) = [rest for name, rest in DOCKERFILE if name == "USER"]
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)
    assert [name for name, _ in DOCKERFILE].index("USER") < [n for n, _ in DOCKERFILE].index("CMD")


def test_extras_that_the_image_installs_exist():
    (command,) = [rest for name, rest in DOCKERFILE if name == "RUN" and "pip install" in rest]
    extras = re.search(r"\.\[(.*)\]", command)[1].split(",")
    section = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2]
    known = re.findall(r"^(\w+) = \[", section.partition("\n[")[0], flags=re.MULTILINE)
    assert set(extras) <= set(known)


def test_continued_lines_of_a_dockerfile_are_one_instruction():
    text = "# a comment\nRUN a && \\\n    b\n\nUSER 1:2\n"
    assert instructions(text) == [("RUN", "a &&  b"), ("USER", "1:2")]


def test_systemd_accepts_the_unit(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    unit = (DEPLOY / "simdformer.service").read_text()
    unit = unit.replace("/opt/simdformer/bin/simdformer", sys.executable)
    (tmp_path / "simdformer.service").write_text(unit)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / "simdformer.service"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "simdformer.service" not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr
