"""Prints a digest of the vectors of a tiny model at the generic level, which must be equal on all platforms.

python tools/encode_bits.py

"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

os.environ["SIMDFORMER_ISA"] = "generic"

from simdformer import SentenceTransformer
from tests.support.model_fixtures import write_model

TEXTS = ["a short one", "words " * 40, "where do the birds go in winter?", ""]

with tempfile.TemporaryDirectory() as folder:
    digest = hashlib.sha256()
    for compute_type in ("float32", "bfloat16", "int8"):
        model = SentenceTransformer(
            write_model(Path(folder) / compute_type), compute_type=compute_type
        )
        digest.update(model.encode(TEXTS).tobytes())
    print(digest.hexdigest())
