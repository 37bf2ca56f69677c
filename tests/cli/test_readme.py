"""The commands in README: the search finds the answer, and the targets of make exist."""

from __future__ import annotations

import re
import shlex

import pytest

from simdformer.cli import main
from tests.support import ROOT
from tests.support.docs import blocks


def test_the_search_finds_the_line_that_answers(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    (command,) = [b.code for b in blocks(ROOT / "README.md") if b.language == "sh" and b.runs]
    assert main(shlex.split(command)[1:]) == 0
    *_, found = capsys.readouterr().out.splitlines()
    number = int(re.search(r"line (\d+):", found)[1])
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert "## Limits" in lines[number - 4 : number]
    assert "ARM" in lines[number - 1]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_make_targets_exist(page):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    text = (ROOT / page).read_text(encoding="utf-8")
    shown = re.findall(r"(?:^(?: {4})?|`)make ([a-z0-9-]+)", text, flags=re.MULTILINE)
    assert shown
    assert set(shown) <= set(re.findall(r"^([a-z0-9-]+):.*##", makefile, flags=re.MULTILINE))
