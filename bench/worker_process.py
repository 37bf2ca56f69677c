"""A process that answers requests and is suspended while others compute, and its side of the pipe."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

BENCH = Path(__file__).resolve().parent


class WorkerError(RuntimeError):
    """A worker's request failed. The message is the worker's traceback."""


class WorkerProcess:
    """`python -m MODULE ARGUMENTS... FD` in this folder, suspended except during a request.

    The threads of runtimes keep spinning for a while after work, which a suspended process cannot.
    """

    def __init__(
        self, name: str, module: str, arguments: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        self.name = name
        self._connection, remote = multiprocessing.Pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments, str(remote.fileno())],
            cwd=BENCH,
            env=environment,
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
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            code = self._process.wait()
            raise WorkerError(f"{self.name}: the worker died with exit code {code}") from error
        finally:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGSTOP)
        if "error" in answer:
            raise WorkerError(f"{self.name}: {answer['error']}")
        return answer["result"]

    def close(self) -> None:
        self._connection.close()
        self._process.kill()
        self._process.wait()


def serve(worker: Any, connection: Connection) -> None:
    """Call the worker's methods that requests name, until the other side closes the pipe."""
    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:
            return
        try:
            connection.send({"result": getattr(worker, method)(**arguments)})
        except Exception:  # noqa: BLE001 - whatever a worker raises goes to the parent
            connection.send({"error": traceback.format_exc()})
