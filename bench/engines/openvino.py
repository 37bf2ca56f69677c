"""OpenVINO in float32, set by a hint (its default is bfloat16 if the CPU supports it)."""

from __future__ import annotations

import threading

import numpy as np

from engines.base import LATENCY, STREAMS, BatchedEngine, EngineOptions, Float32, mean_pool, pad


class Engine(BatchedEngine):
    graph = "model.onnx"

    def __init__(self, options: EngineOptions) -> None:
        import openvino

        super().__init__(options)
        core = openvino.Core()
        model = core.read_model(str(options.converted / self.graph))
        common = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": options.threads,
        }
        settings = {
            LATENCY: {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1},
            STREAMS: {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": options.threads},
        }
        self._compiled = {
            variant: core.compile_model(model, "CPU", common | setting)
            for variant, setting in settings.items()
        }
        self._requests = threading.local()

    def pooled(self, ids: list[list[int]], variant: str) -> Float32:
        requests = self._requests.__dict__
        if variant not in requests:
            requests[variant] = self._compiled[variant].create_infer_request()
        input_ids, mask = pad(ids, np.int64)
        results = requests[variant].infer(
            {
                "input_ids": input_ids,
                "attention_mask": mask,
                "token_type_ids": np.zeros_like(input_ids),
            },
            share_inputs=True,
            share_outputs=True,
        )
        return mean_pool(results[0], mask)
