"""What README shows works as it stands there."""

from __future__ import annotations

import re
import shlex
import shutil

import numpy as np
import pytest

from simdformer.cli import main
from tests.support import ROOT
from tests.support.model_fixtures import write_cross_encoder

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(autouse=True)
def reranker(tmp_path, monkeypatch):
    """The reranker that README names, in a cache: a tiny model with random weights stands for it."""
    cache = tmp_path / "cache"
    write_cross_encoder(cache / "models--cross-encoder--ms-marco-MiniLM-L6-v2" / "snapshots/main")
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    monkeypatch.delenv("SENTENCE_TRANSFORMERS_HOME", raising=False)


def test_the_python_examples_run_and_print_similarities_and_a_ranking(capsys):
    embed, rerank, limit = blocks("python")
    names = {"__name__": "readme"}
    exec(compile(embed, "README.md", "exec"), names)  # noqa: S102
    assert capsys.readouterr().out.startswith("[[")
    vectors = names["vectors"]
    exec(compile(limit, "README.md", "exec"), names)  # noqa: S102
    np.testing.assert_array_equal(names["vectors"], vectors)
    exec(compile(rerank, "README.md", "exec"), names)  # noqa: S102
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.split(" ", 1)[1] for line in lines) == sorted(names["documents"])


def test_the_commands_run(tmp_path, monkeypatch):
    (commands,) = blocks("sh")
    shutil.copy(ROOT / "README.md", tmp_path)
    monkeypatch.chdir(tmp_path)
    for command in commands.splitlines():
        program, *arguments = shlex.split(command)
        assert program == "simdformer"
        assert main(arguments) == 0


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "CONTRIBUTING.md",
        "docs/architecture.md",
        "docs/attention.md",
        "docs/layers.md",
        "docs/models.md",
        "docs/server.md",
    ],
)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = [t for t in re.findall(r"\]\(([^)]+)\)", text) if not t.startswith("http")]
    assert targets
    for target in targets:
        assert ((ROOT / page).parent / target).exists(), target


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_make_targets_exist(page):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    text = (ROOT / page).read_text(encoding="utf-8")
    shown = re.findall(r"(?:^ {4}|`)make ([a-z]+)", text, flags=re.MULTILINE)
    assert shown
    assert set(shown) <= set(re.findall(r"^([a-z]+):.*##", makefile, flags=re.MULTILINE))
