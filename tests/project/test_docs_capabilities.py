"""docs/development/capabilities.md: all lines of code run, and the named tests exist."""

from __future__ import annotations

import ast
import re

import pytest

from tests.support import ROOT, TESTS

PAGE = (ROOT / "docs" / "development" / "capabilities.md").read_text()
SETUP = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("|") and "::" in line
]
LINES = [cell[1:-1] for row in ROWS for cell in row if cell.startswith("`")]
NAMED = sorted({name for row in ROWS for name in row[-1].split(", ")})


@pytest.fixture(scope="module")
def names():
    """The names defined by the page's first block."""
    defined = {}
    exec(SETUP, defined)  # noqa: S102  (our own page)
    return defined


@pytest.mark.parametrize("line", LINES)
def test_the_line_runs(names, line):
    assert eval(line, dict(names)) is not None


def test_every_capability_has_its_line():
    capabilities = [row for row in ROWS if len(row) == 3]
    assert len(capabilities) == len(LINES) >= 45
    assert all(row[1].startswith("`") for row in capabilities)


@pytest.mark.parametrize("name", NAMED)
def test_the_test_exists(name):
    file, function = name.split("::")
    tree = ast.parse((TESTS / file).read_text())
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
