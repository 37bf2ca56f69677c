"""What docs/explain.md shows works as it stands there."""

from __future__ import annotations

import re

from tests.support import ROOT

PAGE = ROOT / "docs" / "explain.md"


def test_code_blocks_run_in_order():
    blocks = re.findall(
        r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    assert len(blocks) == 4
    scope = {"__name__": "explain"}
    for block in blocks:
        exec(compile(block, PAGE.name, "exec"), scope)  # noqa: S102
