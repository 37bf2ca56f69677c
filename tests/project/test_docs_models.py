"""docs/models.md: its code blocks run as they stand, on the model that the extra [test] brings."""

from __future__ import annotations

import re

from simdformer import SentenceTransformer
from tests.support import ROOT

PAGE = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")


def test_the_code_blocks_run():
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert blocks
    names = {"__name__": "models", "model": SentenceTransformer("all-MiniLM-L6-v2")}
    for i, block in enumerate(blocks):
        exec(compile(block, f"models.md, block {i + 1}", "exec"), names)  # noqa: S102
    assert names["without"].shape == (384,)
