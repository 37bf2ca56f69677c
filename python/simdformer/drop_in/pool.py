# SPDX-License-Identifier: Apache-2.0
"""Several processes that run copies of one model, as sentence-transformers' multi-process pools.

One process uses all cores, so a pool is not faster on one machine; it exists for compatibility. Each
process loads the weights once. A process is a new interpreter that imports only simdformer, not the
caller's main module, so programs do not need `if __name__ == "__main__"`.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import ceil
from typing import Any, NamedTuple, Protocol

from simdformer.build_info import show_config
from simdformer.text.inputs import check_device

# Seconds to wait for a result before checking whether a process has died.
_PATIENCE = 0.5
# sentence-transformers' sizes of chunks: ten per process, with at most this many inputs.
_CHUNKS, _MOST_INPUTS = 10, 5000
# The program of a process. It searches modules where its parent process does.
_PROGRAM = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer);"
    " from simdformer.drop_in.pool import work; work()"
)


class Loadable(Protocol):
    """A model that another process can load."""

    def snapshot(self, num_threads: int | None = None) -> Any:
        """The data to send to the process. Its `restore` returns the model."""


class Task(NamedTuple):
    """A chunk: the request to the model, the chunk's number, and the queue for the result."""

    request: tuple[str, Sequence[Any], dict[str, Any]]
    number: int
    results: queue.SimpleQueue[tuple[int, Any]]
    is_wanted: threading.Event


def start_pool(model: Loadable, target_devices: Sequence[object] | None) -> dict[str, Any]:
    """Start processes that load `model`. Returns a dict with "processes", and "input", their queue of tasks.

    target_devices: "cpu" once per process; None for one process per CPU, up to 4.
    """
    cpus = show_config("dicts")["threads"]["count"]
    devices = ["cpu"] * min(4, cpus) if target_devices is None else list(target_devices)
    if not devices:
        raise ValueError("target_devices must have one device per process, got none")
    for device in devices:
        check_device(device)
    start = pickle.dumps(sys.path) + pickle.dumps(model.snapshot(max(1, cpus // len(devices))))
    tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
    command = [sys.executable, "-c", _PROGRAM]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    processes = [subprocess.Popen(command, **pipes) for _ in devices]  # type: ignore[call-overload]
    for process in processes:
        threading.Thread(target=_serve, args=(process, start, tasks), daemon=True).start()
    return {"input": tasks, "processes": processes}


def stop_pool(pool: dict[str, Any]) -> None:
    """End the processes, even if they are computing."""
    for process in pool["processes"]:
        process.terminate()
        pool["input"].put(None)
    for process in pool["processes"]:
        process.wait()


@contextmanager
def chosen_pool(
    model: Loadable, pool: dict[str, Any] | None, device: object
) -> Iterator[dict[str, Any] | None]:
    """The pool for a call: the caller's, a temporary one for a list of devices, or None to compute in this
    process."""
    if pool is not None or not isinstance(device, (list, tuple)) or not device:
        yield pool
        return
    pool = start_pool(model, device)
    try:
        yield pool
    finally:
        stop_pool(pool)


def run_in_pool(
    pool: dict[str, Any],
    method: str,
    items: Sequence[Any],
    chunk_size: int | None,
    bar: Any,
    **arguments: Any,
) -> list[Any]:
    """The results of the model's `method` for consecutive chunks of items, in order.

    Errors: those of the method; TypeError for arguments that cannot be sent; RuntimeError if a process has ended.
    """
    count = len(pool["processes"])
    size = chunk_size or max(1, min(ceil(len(items) / count / _CHUNKS), _MOST_INPUTS))
    chunks = [items[start : start + size] for start in range(0, len(items), size)]
    done: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
    wanted = threading.Event()
    wanted.set()
    try:
        for i, chunk in enumerate(chunks):
            pool["input"].put(Task((method, chunk, arguments), i, done, wanted))
        results: list[Any] = [None] * len(chunks)
        for _ in chunks:
            i, result = _next_result(pool, done)
            if isinstance(result, Exception):
                raise result
            results[i] = result
            if bar is not None:
                bar.update(len(chunks[i]))
    finally:
        wanted.clear()  # remaining chunks of an interrupted call are not computed
    return results


def _next_result(pool: dict[str, Any], done: queue.SimpleQueue[tuple[int, Any]]) -> tuple[int, Any]:
    while True:
        try:
            return done.get(timeout=_PATIENCE)
        except queue.Empty:
            ended = [p for p in pool["processes"] if p.poll() is not None]
            if ended:
                told = ", ".join(f"{p.pid} (exit code {p.returncode})" for p in ended)
                raise RuntimeError(f"processes of the pool have ended: {told}") from None


def _serve(process: Any, start: bytes, tasks: queue.SimpleQueue[Task | None]) -> None:
    """Runs in one thread per process: sends it one task after another until the process ends."""
    try:
        # Closing the pipe writes its remaining data, which fails if the process has ended.
        with process.stdin as stdin, process.stdout as stdout:
            stdin.write(start)
            while (task := tasks.get()) is not None:
                if not task.is_wanted.is_set():
                    continue
                try:
                    request = pickle.dumps(task.request)
                except Exception as error:  # noqa: BLE001  (whatever a class does; who waits raises it)
                    task.results.put((task.number, _not_sent(error)))
                    continue
                pickle.dump(request, stdin)
                stdin.flush()
                task.results.put((task.number, pickle.load(stdout)))
    except (OSError, EOFError, pickle.UnpicklingError):
        return  # the process ended; whoever waits for a result notices


def work() -> None:
    """Run a process of a pool: answer the tasks from standard input until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    requests = sys.stdin.buffer
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)  # prints of libraries must not go into the stream of results
        try:
            model = pickle.load(requests).restore()
        except Exception as error:  # noqa: BLE001  (who waits for the first result raises it)
            pickle.dump(_picklable(error), answers)
            return
        while True:
            try:
                request = pickle.load(requests)
            except EOFError:
                return
            pickle.dump(_answer(model, request), answers)
            answers.flush()


def _answer(model: Any, request: bytes) -> Any:
    """The result of a pickled request, or the exception for the caller."""
    try:
        method, items, arguments = pickle.loads(request)
    except Exception as error:  # noqa: BLE001  (as of a class that this process cannot import)
        return _not_sent(error)
    try:
        return getattr(model, method)(items, **arguments)
    except Exception as error:  # noqa: BLE001  (the caller raises it)
        return _picklable(error)


def _not_sent(error: Exception) -> TypeError:
    return TypeError(f"the arguments of a call cannot be sent to a process of the pool: {error}")


def _picklable(error: Exception) -> Exception:
    """The error itself if it can be pickled, else a RuntimeError with the same message."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001  (whatever its class does)
        return RuntimeError("".join(traceback.format_exception(error)))
    return error
