"""README and the pages of docs/: their code runs unchanged, and their links have targets."""

from __future__ import annotations

import os
import re
import shutil
import sys

import pytest

from tests.support import ROOT
from tests.support.docs import PAGES, SHOWN, blocks, run
from tests.support.model_fixtures import write_cross_encoder
from tests.support.sqlite import sqlite_with_extensions

NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
RUNNING = [name for name in NAMES if any(block.runs for block in blocks(ROOT / name))]


@pytest.fixture
def path(tmp_path, monkeypatch):
    """PATH with this `python`. A tiny cross-encoder replaces the named reranker."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (programs / "python").chmod(0o755)
    cache = tmp_path / "cache"
    write_cross_encoder(cache / "models--cross-encoder--ms-marco-MiniLM-L6-v2" / "snapshots/main")
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    monkeypatch.delenv("SENTENCE_TRANSFORMERS_HOME", raising=False)
    return os.pathsep.join([str(programs), os.environ["PATH"]])


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The current folder with the files that pages read: README and examples/."""
    place = tmp_path / "work"
    place.mkdir()
    shutil.copy(ROOT / "README.md", place)
    shutil.copytree(ROOT / "examples", place / "examples")
    monkeypatch.chdir(place)


@pytest.mark.parametrize("name", RUNNING)
def test_code_runs_in_order_and_prints_what_is_shown(name, path):
    assert run(ROOT / name, path=path)


@pytest.mark.parametrize("name", NAMES)
def test_every_block_runs_or_has_a_reason_not_to(name):
    for block in blocks(ROOT / name):
        shown = block.language in SHOWN or block.language.startswith("{")
        assert block.runs or shown or block.comment, f"{name}:{block.line}: {block.language!r}"


@pytest.mark.parametrize("name", NAMES)
def test_a_block_that_another_test_runs_names_it(name):
    for block in blocks(ROOT / name):
        if block.comment and block.comment[0] == "run by":
            assert (ROOT / block.comment[1]).is_file()


@pytest.mark.parametrize("name", [*NAMES, "CONTRIBUTING.md"])
def test_links_have_targets(name):
    text = re.sub(
        r"^```.*?^```", "", (ROOT / name).read_text("utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if not target.startswith(("http", "#")):
            file = target.partition("#")[0]
            assert ((ROOT / name).parent / file).exists(), target


NEEDS = [
    pytest.param(name, package, marks=getattr(pytest.mark, marker), id=f"{name}-{package}")
    for package, marker in {
        "chromadb": "ecosystem",
        "faiss": "stores",
        "langchain_huggingface": "ecosystem",
        "matplotlib": "pages",
        "qdrant_client": "stores",
        "sqlite_vec": "stores",
    }.items()
    for name in NAMES
    if any(block.comment == ("needs", package) for block in blocks(ROOT / name))
]


@pytest.mark.parametrize(("name", "package"), NEEDS)
def test_code_runs_with_the_package_that_it_needs(name, package, path, monkeypatch):
    pytest.importorskip(package)
    if package == "sqlite_vec":
        monkeypatch.setitem(sys.modules, "sqlite3", sqlite_with_extensions())
    assert run(ROOT / name, path=path, package=package)


def test_a_needed_package_is_one_that_a_target_of_make_installs():
    comments = [block.comment for name in NAMES for block in blocks(ROOT / name)]
    needed = {comment[1] for comment in comments if comment and comment[0] == "needs"}
    assert needed == {param.values[1] for param in NEEDS}
