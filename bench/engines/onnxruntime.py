"""ONNX Runtime on the fused float32 graph (Attention, SkipLayerNormalization, BiasGelu)."""

from __future__ import annotations

import numpy as np

from engines.base import LATENCY, STREAMS, BatchedEngine, EngineOptions, Float32, mean_pool, pad


class Engine(BatchedEngine):
    graph = "fused.onnx"

    def __init__(self, options: EngineOptions) -> None:
        import onnxruntime

        super().__init__(options)

        def session(threads: int) -> onnxruntime.InferenceSession:
            settings = onnxruntime.SessionOptions()
            settings.intra_op_num_threads = threads
            settings.inter_op_num_threads = 1
            settings.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
            settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
            return onnxruntime.InferenceSession(
                str(options.converted / self.graph), settings, providers=["CPUExecutionProvider"]
            )

        # One session with one thread serves all streams, because run() may be called from several threads.
        self._sessions = {LATENCY: session(options.threads), STREAMS: session(1)}

    def pooled(self, ids: list[list[int]], variant: str) -> Float32:
        input_ids, mask = pad(ids, np.int64)
        inputs = {
            "input_ids": input_ids,
            "attention_mask": mask,
            "token_type_ids": np.zeros_like(input_ids),
        }
        # The fusion of embeddings changes the graph's inputs to int32.
        session = self._sessions[variant]
        feeds = {
            i.name: inputs[i.name].astype(np.int32 if "int32" in i.type else np.int64, copy=False)
            for i in session.get_inputs()
        }
        return mean_pool(session.run(["last_hidden_state"], feeds)[0], mask)
