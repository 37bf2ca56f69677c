"""The cost of serving: CPU time per text compared with `encode`, and response times under load.

    python bench/serve.py
    python bench/serve.py --peer infinity=http://127.0.0.1:7997/embeddings=PID

Texts are those of texts.py: nine requests with short ones for each with long ones, in random order, vectors in base64.
A request has one text, or many in the last row of the closed loop.
In a closed loop each client sends its next request after the response. In an open loop requests arrive at random
times (Poisson) that do not depend on responses, at a fraction of the closed loop's rate. The clients run in one event
loop, on the same CPUs as the server.

`encode` is given all texts of a kind in one call. The server's CPU time, of all its threads, is divided by
that of `encode` for the same numbers of short and long texts. Writes OUTPUT.json, OUTPUT.md and OUTPUT.png.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np

import machine
import plots
import report
import texts
from simdformer import SentenceTransformer

_LONG_SHARE = 0.1
_CLIENTS = (1, 4, 16, 64, 256)
_MANY, _FEW_CLIENTS = 32, 4
_LOADS = (0.5, 0.7, 0.9)
_CAPACITY_CLIENTS = 64
_TICKS = os.sysconf("SC_CLK_TCK")


class Server(NamedTuple):
    """The address and the process of a server."""

    name: str
    host: str
    port: int
    path: str
    pid: int

    def cpu_seconds(self) -> float:
        """The CPU time of all its threads until now."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def request(self, texts_: list[str], model: str) -> bytes:
        """A request for the vectors of texts."""
        content = {"input": texts_, "model": model, "encoding_format": "base64"}
        body = json.dumps(content).encode()
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: {self.host}\r\nContent-Type: application/json\r\n"
        )
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Load:
    """Requests to a server, and their results. times: seconds for each kind of text."""

    def __init__(
        self, server: Server, model: str, sets: dict[str, list[str]], per_request: int = 1
    ) -> None:
        self._server, self.per_request = server, per_request
        self._requests = {
            kind: [
                server.request(texts_[begin : begin + per_request], model)
                for begin in range(0, len(texts_) // per_request * per_request, per_request)
            ]
            for kind, texts_ in sets.items()
        }
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._random = random.Random(1)
        self.times: dict[str, list[float]] = {kind: [] for kind in sets}
        self.failed = 0

    async def one(self) -> None:
        """Send a request and read its response."""
        kind = "long" if self._random.random() < _LONG_SHARE else "short"
        data = self._random.choice(self._requests[kind])
        start = time.perf_counter()
        try:
            status = await self._status(data)
        except (OSError, asyncio.IncompleteReadError):
            status = 0
        if status == 200:
            self.times[kind].append(time.perf_counter() - start)
        else:
            self.failed += 1

    async def _status(self, data: bytes) -> int:
        if self._idle:
            reader, writer = self._idle.pop()
        else:
            reader, writer = await asyncio.open_connection(self._server.host, self._server.port)
        writer.write(data)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split()[0]))
        self._idle.append((reader, writer))
        return int(head.split(b" ", 2)[1])

    async def closed(self, clients: int, seconds: float) -> None:
        """Clients that send the next request after a response."""
        end = time.perf_counter() + seconds

        async def client() -> None:
            while time.perf_counter() < end:
                await self.one()

        await asyncio.gather(*(client() for _ in range(clients)))

    async def open(self, rate: float, seconds: float) -> None:
        """Requests at a given rate."""
        due = time.perf_counter()
        end = due + seconds
        tasks = []
        while due < end:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.create_task(self.one()))
            due += self._random.expovariate(rate)
        await asyncio.gather(*tasks)

    def close(self) -> None:
        for _, writer in self._idle:
            writer.transport.abort()


@contextmanager
def own_server(model: str, compute_type: str) -> Iterator[Server]:
    """Start `simdformer serve` in a separate process."""
    command = [sys.executable, "-m", "simdformer.cli", "serve", model, "--port", "0"]
    command += ["--compute-type", compute_type]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        port = int(process.stderr.readline().rsplit(":", 1)[1])
        yield Server("simdformer", "127.0.0.1", port, "/v1/embeddings", process.pid)
    finally:
        process.kill()
        process.communicate()


def peer(text: str) -> Server:
    """An argparse type: NAME=URL=PID."""
    name, url, pid = text.split("=")
    parts = urlsplit(url)
    return Server(name, parts.hostname or "", parts.port or 80, parts.path, int(pid))


def encode_seconds(model: SentenceTransformer, texts_: list[str]) -> float:
    """CPU seconds per text of `encode` with all texts; the minimum of several calls."""
    model.encode(texts_)
    found = []
    for _ in range(5):
        start = time.process_time()
        model.encode(texts_)
        found.append((time.process_time() - start) / len(texts_))
    return min(found)


def run(load: Load, server: Server, name: str, what: Any, cost: dict[str, float]) -> dict[str, Any]:
    """Measure a row of the result. what: the coroutine that sends the requests."""

    async def main() -> tuple[float, float]:
        cpu, start = server.cpu_seconds(), time.perf_counter()
        await what
        taken = time.perf_counter() - start
        load.close()
        return server.cpu_seconds() - cpu, taken

    cpu, taken = asyncio.run(main())
    texts_ = {kind: len(times) * load.per_request for kind, times in load.times.items()}
    count = sum(texts_.values())
    expected = sum(cost[kind] * number for kind, number in texts_.items())
    row: dict[str, Any] = {
        "server": server.name,
        "load": name,
        "texts_per_second": count / taken,
        "failed": load.failed,
        "cpu_ms_per_text": cpu / max(1, count) * 1e3,
        "cpu_beside_encode": cpu / expected if expected else 0.0,
    }
    for kind, times in load.times.items():
        p50, p99 = np.percentile(times or [0.0], [50, 99]) * 1e3
        row |= {f"{kind}_p50_ms": float(p50), f"{kind}_p99_ms": float(p99)}
    return row


def measure(
    server: Server, model: str, sets: dict[str, list[str]], cost: dict[str, float], seconds: float
) -> list[dict[str, Any]]:
    """All rows of a server."""

    def new() -> Load:
        return Load(server, model, sets)

    warm = new()
    run(warm, server, "", warm.closed(_CAPACITY_CLIENTS, min(2.0, seconds)), cost)
    rows, capacity = [], 0.0
    for clients in _CLIENTS:
        load = new()
        name = f"closed, {clients} clients" if clients > 1 else "closed, 1 client"
        rows.append(run(load, server, name, load.closed(clients, seconds), cost))
        if clients == _CAPACITY_CLIENTS:
            capacity = rows[-1]["texts_per_second"]
    load = Load(server, model, sets, _MANY)
    name = f"closed, {_FEW_CLIENTS} clients, {_MANY} texts per request"
    rows.append(run(load, server, name, load.closed(_FEW_CLIENTS, seconds), cost))
    for share in _LOADS:
        load = new()
        name = f"open, {share:.0%} of capacity"
        rows.append(run(load, server, name, load.open(share * capacity, seconds), cost))
    return rows


def markdown(result: dict[str, Any]) -> str:
    header = [
        "load",
        "texts/s",
        "failed",
        "CPU beside `encode`",
        "short: p50, p99 in ms",
        "long: p50, p99 in ms",
    ]
    lines = []
    for row in result["rows"]:
        of_kind = [
            " / ".join(report.figure(row[f"{kind}_{p}_ms"]) for p in ("p50", "p99"))
            for kind in ("short", "long")
        ]
        name = row["load"] if row["server"] == "simdformer" else f"{row['server']}: {row['load']}"
        ratio = f"{row['cpu_beside_encode']:.2f}"
        rate = report.figure(row["texts_per_second"])
        lines.append([name, rate, str(row["failed"]), ratio, *of_kind])
    foot = report.describe_machine(result["machine"])
    cost = ", ".join(f"{kind} {value * 1e3:.2f} ms" for kind, value in result["encode"].items())
    return (
        f"{report.markdown_table(header, lines)}\nCPU time of `encode` per text: {cost}. {foot}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--compute-type", default="float32")
    parser.add_argument("--seconds", type=float, default=10, help="of each load")
    parser.add_argument("--peer", type=peer, action="append", default=[], metavar="NAME=URL=PID")
    parser.add_argument("--output", type=Path, default=machine.results("serve"))
    arguments = parser.parse_args()
    described = machine.describe()
    model = SentenceTransformer(arguments.model, compute_type=arguments.compute_type)
    drawn = texts.make_sets(
        texts.standard_library_docstrings(),
        model.pipeline.tokenizer.backend,
        model.max_seq_length,
        ("short", "long"),
    )
    sets = {name: list(each.texts) for name, each in drawn.items()}
    cost = {name: encode_seconds(model, each) for name, each in sets.items()}
    with own_server(arguments.model, arguments.compute_type) as server:
        rows = measure(server, arguments.model, sets, cost, arguments.seconds)
    for other in arguments.peer:
        rows += measure(other, arguments.model, sets, cost, arguments.seconds)
    result = {"machine": described, "encode": cost, "rows": rows}
    report.write_json(arguments.output.with_suffix(".json"), result)
    text = markdown(result)
    report.write_text(arguments.output.with_suffix(".md"), text)
    plots.plot_serve(result, arguments.output.with_suffix(".png"))
    print(text)


if __name__ == "__main__":
    main()
