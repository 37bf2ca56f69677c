"""Loads one model: python -m builds.memory_worker COPY MODEL COMPUTE_TYPE SMALL. Prints JSON.

SMALL is a model that is loaded first, so that imports and the stacks of threads are not measured.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path

from builds import installed


def status(field: str) -> int:
    """A field of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def main(folder: str, model: str, compute_type: str, small: str) -> None:
    installed.check(Path(folder))
    from tokenizers import Tokenizer

    from simdformer import SentenceTransformer

    first = SentenceTransformer(small, compute_type=compute_type)
    first.encode("a text")
    gc.collect()
    imported = status("VmRSS")
    tokenizer = Tokenizer.from_file(str(Path(model) / "tokenizer.json"))
    tokenizer.encode("a text")
    before = status("VmRSS")
    # Resets VmHWM to the present memory; it may be higher from before.
    Path("/proc/self/clear_refs").write_text("5")
    loaded = SentenceTransformer(model, compute_type=compute_type)
    peak = status("VmHWM")
    gc.collect()
    after = status("VmRSS")
    # The tokenizer of the model is as large as the one that was loaded first.
    above = before + before - imported
    print(json.dumps({"peak": peak - above, "resident": after - above}))
    del first, loaded, tokenizer


if __name__ == "__main__":
    main(*sys.argv[1:])
