"""OpenVINO with NNCF's static int8 and SmoothQuant. Operations that are not quantized stay in float32."""

from __future__ import annotations

from engines import openvino


class Engine(openvino.Engine):
    graph = "int8.xml"
