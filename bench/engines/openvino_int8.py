"""OpenVINO on NNCF's static int8 with SmoothQuant; what is not quantized stays in float32."""

from __future__ import annotations

from engines import openvino


class Engine(openvino.Engine):
    graph = "int8.xml"
