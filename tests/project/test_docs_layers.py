"""docs/layers.md: its code blocks run as they stand, one after another."""

from __future__ import annotations

import re

from tests.support import ROOT

PAGE = (ROOT / "docs" / "layers.md").read_text(encoding="utf-8")


def test_the_code_blocks_run():
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 7
    names = {"__name__": "layers"}
    for i, block in enumerate(blocks):
        exec(compile(block, f"layers.md, block {i + 1}", "exec"), names)  # noqa: S102
