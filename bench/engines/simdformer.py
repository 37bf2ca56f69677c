"""simdformer in float32."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from engines.base import LATENCY, EngineOptions, Float32


class Engine:
    variants = (LATENCY,)
    compute_type = "float32"

    def __init__(self, options: EngineOptions) -> None:
        from simdformer import SentenceTransformer

        # truncated texts are part of the sets
        warnings.filterwarnings("ignore", message="texts longer than max_seq_length")
        self._model = SentenceTransformer(
            str(options.model), compute_type=self.compute_type, num_threads=options.threads
        )
        self._model.max_seq_length = options.max_length

    def encode(self, texts: Sequence[str], variant: str) -> Float32:  # noqa: ARG002
        return self._model.encode(list(texts), show_progress_bar=False)
