"""The benchmark's side of a worker: starts it, asks it, and stops it while others compute."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from texts import TextSet

BENCH = Path(__file__).resolve().parent.parent

# How each runtime is held to an instruction set. ONNX Runtime has no such switch.
_ISA_VARIABLES = {
    "ONEDNN_MAX_CPU_ISA": str.upper,
    "CT2_FORCE_CPU_ISA": str.upper,
    "MKL_ENABLE_INSTRUCTIONS": str.upper,
    "ATEN_CPU_CAPABILITY": str.lower,
}


class EngineError(RuntimeError):
    """A worker's request failed; the message is the worker's traceback."""


class EngineProcess:
    """One engine in its own process, suspended except during a request.

    Runtimes keep their threads spinning for a while after work; a suspended process cannot.
    """

    def __init__(
        self, name: str, threads: int, isa: str | None = None, peer_isa: str | None = None
    ) -> None:
        self.name = name
        self.threads = threads
        self._connection, remote = multiprocessing.Pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "engines.worker", name, str(remote.fileno())],
            cwd=BENCH,
            env=_environment(name, threads, isa, peer_isa),
            pass_fds=[remote.fileno()],
            stdin=subprocess.DEVNULL,
        )
        remote.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def request(self, method: str, **arguments: Any) -> Any:
        self._process.send_signal(signal.SIGCONT)
        try:
            self._connection.send((method, arguments))
            answer = self._connection.recv()
        except (EOFError, BrokenPipeError) as error:
            code = self._process.wait()
            raise EngineError(f"{self.name}: the worker died with exit code {code}") from error
        finally:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGSTOP)
        if "error" in answer:
            raise EngineError(f"{self.name}: {answer['error']}")
        return answer["result"]

    def load(
        self,
        model: Path,
        converted: Path,
        sets: Mapping[str, TextSet],
        *,
        max_length: int,
        batch_size: int = 32,
    ) -> dict[str, Any]:
        """Load the engine's model and hand over the texts. Returns its variants and the seconds."""
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

    def close(self) -> None:
        self._connection.close()
        self._process.kill()
        self._process.wait()


def _environment(name: str, threads: int, isa: str | None, peer_isa: str | None) -> dict[str, str]:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "RAYON_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": "1",  # NumPy only pools; its threads would compete
        "TOKENIZERS_PARALLELISM": "true",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    if name.startswith("simdformer"):
        return environment | ({"SIMDFORMER_ISA": isa} if isa else {})
    return environment | (peer_isa_environment(peer_isa) if peer_isa else {})


def peer_isa_environment(isa: str) -> dict[str, str]:
    return {variable: spelled(isa) for variable, spelled in _ISA_VARIABLES.items()}
