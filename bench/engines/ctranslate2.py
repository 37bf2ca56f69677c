"""CTranslate2, which takes lists of ids and removes the padding itself."""

from __future__ import annotations

import numpy as np

from engines.base import LATENCY, STREAMS, BatchedEngine, EngineOptions, Float32, mean_pool


class Engine(BatchedEngine):
    compute_type = "float32"

    def __init__(self, options: EngineOptions) -> None:
        import ctranslate2

        super().__init__(options)

        def encoder(streams: int) -> ctranslate2.Encoder:
            return ctranslate2.Encoder(
                str(options.converted / "ctranslate2"),
                device="cpu",
                compute_type=self.compute_type,
                inter_threads=streams,
                intra_threads=options.threads // streams,
            )

        self._encoders = {LATENCY: encoder(1), STREAMS: encoder(options.threads)}

    def pooled(self, ids: list[list[int]], variant: str) -> Float32:
        output = self._encoders[variant].forward_batch(ids)
        hidden_states = np.array(output.last_hidden_state)
        lengths = np.array([len(row) for row in ids])
        mask = np.arange(hidden_states.shape[1]) < lengths[:, None]
        return mean_pool(hidden_states, mask)
