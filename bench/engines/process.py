"""The benchmark's side of an engine: starts the engine's process and loads its model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from texts import TextSet
from worker_process import WorkerProcess

# How to limit each runtime to an instruction set. ONNX Runtime has no such option. sse4 is the narrowest
# level of oneDNN and MKL; CTranslate2 and PyTorch call theirs otherwise. PyTorch was not limited on a Zen 3.
_ISA_VARIABLES = {
    "ONEDNN_MAX_CPU_ISA": {"sse4": "SSE41", "avx512": "AVX512_CORE"},
    "CT2_FORCE_CPU_ISA": {"sse4": "GENERIC"},
    "MKL_ENABLE_INSTRUCTIONS": {"sse4": "SSE4_2"},
    "ATEN_CPU_CAPABILITY": {"sse4": "default", "avx2": "avx2", "avx512": "avx512"},
}


class EngineProcess(WorkerProcess):
    """One engine in its own process."""

    def __init__(
        self, name: str, threads: int, isa: str | None = None, peer_isa: str | None = None
    ) -> None:
        self.threads = threads
        environment = _environment(name, threads, isa, peer_isa)
        super().__init__(name, "engines.worker", [name], environment)

    def load(
        self,
        model: Path,
        converted: Path,
        sets: Mapping[str, TextSet],
        *,
        max_length: int,
        batch_size: int = 32,
    ) -> dict[str, Any]:
        """Load the engine's model and send the texts. Returns its variants and the seconds."""
        return self.request(
            "load",
            options={
                "model": str(model.resolve()),
                "converted": str(converted),
                "threads": self.threads,
                "max_length": max_length,
                "batch_size": batch_size,
            },
            sets={name: (list(s.texts), s.call_size) for name, s in sets.items()},
        )


def _environment(name: str, threads: int, isa: str | None, peer_isa: str | None) -> dict[str, str]:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "RAYON_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": "1",  # NumPy only does the pooling; its threads would compete
        "TOKENIZERS_PARALLELISM": "true",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    if name.startswith("simdformer"):
        return environment | ({"SIMDFORMER_ISA": isa} if isa else {})
    return environment | (peer_isa_environment(peer_isa) if peer_isa else {})


def peer_isa_environment(isa: str) -> dict[str, str]:
    return {variable: names.get(isa, isa.upper()) for variable, names in _ISA_VARIABLES.items()}
