#!/usr/bin/env python3
"""Write tests/data/golden.npy: the embeddings that sentence-transformers gives golden_texts.json.

Run it where the group parity is installed: tools/make_golden.py [MODEL_FOLDER_OR_NAME]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import sentence_transformers
import torch
import transformers

DATA = Path(__file__).resolve().parent.parent / "tests" / "data"


def main() -> None:
    path = DATA / "golden_texts.json"
    golden = json.loads(path.read_text(encoding="utf-8"))
    name = sys.argv[1] if len(sys.argv) > 1 else golden["model"]
    model = sentence_transformers.SentenceTransformer(name, device="cpu")
    # One at a time: no padding, and nothing that depends on the batch.
    rows = [model.encode(text, show_progress_bar=False) for text in golden["texts"]]
    np.save(DATA / "golden.npy", np.stack(rows).astype(np.float32))
    golden["made_with"] = {
        module.__name__: module.__version__
        for module in (sentence_transformers, transformers, torch)
    }
    path.write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
