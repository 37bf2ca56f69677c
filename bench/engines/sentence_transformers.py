"""sentence-transformers on PyTorch: the reference for speed and for the vectors."""

from __future__ import annotations

from collections.abc import Sequence

from engines.base import LATENCY, EngineOptions, Float32


class Engine:
    variants = (LATENCY,)

    def __init__(self, options: EngineOptions) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(options.threads)
        torch.set_num_interop_threads(1)
        self._batch_size = options.batch_size
        self._model = SentenceTransformer(
            str(options.model),
            device="cpu",
            local_files_only=True,
            model_kwargs={"attn_implementation": "sdpa", "dtype": torch.float32},
        )
        self._model.max_seq_length = options.max_length

    def encode(self, texts: Sequence[str], variant: str) -> Float32:  # noqa: ARG002
        return self._model.encode(list(texts), batch_size=self._batch_size, show_progress_bar=False)
