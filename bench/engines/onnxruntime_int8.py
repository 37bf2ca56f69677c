"""ONNX Runtime on the fused graph with dynamic int8: weights per channel, activations per tensor."""

from __future__ import annotations

from engines import onnxruntime


class Engine(onnxruntime.Engine):
    graph = "int8.onnx"
