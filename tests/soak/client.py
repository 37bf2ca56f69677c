"""A server in a separate process, and clients for it: one event loop, with HTTP written by hand."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

TEXT = "the quick brown fox jumps over the lazy dog"


class Served:
    """`simdformer serve` on a free port."""

    def __init__(self, model, *arguments):
        command = [
            sys.executable,
            "-m",
            "simdformer.cli",
            "serve",
            model,
            "--port",
            "0",
            *arguments,
        ]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.port = int(self.process.stderr.readline().rsplit(":", 1)[1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def memory(self):
        """Resident memory in megabytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) // 1024

    def stop(self, seconds=60):
        """The exit status after SIGTERM, and the time until it."""
        start = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds), time.monotonic() - start


def request(texts, path="/v1/embeddings"):
    """The bytes of a POST request."""
    body = json.dumps({"input": texts, "encoding_format": "base64"}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def ask(port, data, seconds=120):
    """The status of the response, or the name of the error instead, and the time."""
    start = time.monotonic()
    try:
        status = await asyncio.wait_for(_whole_answer(port, data), seconds)
    except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError) as error:
        status = type(error).__name__
    return status, time.monotonic() - start


async def _whole_answer(port, data):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split()[0]))
        return int(head.split(b" ", 2)[1])
    finally:
        writer.transport.abort()


async def capacity(port, seconds, data, clients=32):
    """Requests per second for many clients that send requests without a pause."""
    end, answered = time.monotonic() + seconds, 0

    async def client():
        nonlocal answered
        while time.monotonic() < end:
            status, _ = await ask(port, data)
            answered += status == 200

    await asyncio.gather(*(client() for _ in range(clients)))
    return answered / seconds


async def load(port, rate, seconds, data):
    """Requests at a fixed rate, whatever their results are. Returns the times of responses by status."""
    times: dict[int | str, list[float]] = {}
    tasks = []
    rng = random.Random(1)

    async def one():
        status, took = await ask(port, data)
        times.setdefault(status, []).append(took)

    end = time.monotonic() + seconds
    due = time.monotonic()
    while due < end:
        await asyncio.sleep(max(0, due - time.monotonic()))
        tasks.append(asyncio.create_task(one()))
        due += rng.expovariate(rate)
    await asyncio.gather(*tasks)
    return times


async def disconnects(port, count):
    """Clients that disconnect after sending a request."""

    async def one(i):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        data = request([TEXT] * 50)
        writer.write(data if i % 2 else data[: len(data) // 2])
        await asyncio.sleep(random.Random(i).uniform(0, 0.05))
        writer.transport.abort()

    for begin in range(0, count, 50):
        await asyncio.gather(*(one(i) for i in range(begin, begin + 50)))


async def beside(port, kind, seconds):
    """Response times of /health while hostile clients of a kind run in another process."""
    command = [sys.executable, "-m", "tests.soak.client", str(port), kind]
    others = subprocess.Popen(command)  # noqa: ASYNC220  (it does not wait)
    try:
        await asyncio.sleep(2)
        answers = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            answers.append(await ask(port, HEALTH, 20))
            await asyncio.sleep(0.02)
        return answers
    finally:
        others.kill()
        others.wait()


async def stay(port, beginning, each):
    """Sends a beginning and then pieces, or nothing, until the server closes the connection; then connects
    again."""
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.5)
            continue
        try:
            writer.write(beginning)
            gone = asyncio.ensure_future(reader.read())
            while not gone.done():
                writer.write(each)
                await asyncio.wait((gone,), timeout=0.5)
            gone.exception()
        finally:
            writer.transport.abort()


_HEAD = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\n"
_BODY = _HEAD + b"Content-Length: 16777000\r\n\r\n" + b"a" * 16_000_000
# The number of clients, what they send first, and what they send every half second.
HOSTILE = {
    "nobody else": (0, b"", b""),
    "1,150 silent connections": (1150, b"", b""),
    "100 headers, a byte each half second": (100, _HEAD, b"X"),
    "100 bodies of 16 MB without an end": (100, _BODY, b""),
}


async def hostile(port, kind):
    """Hostile clients of a kind, without end."""
    count, beginning, each = HOSTILE[kind]
    await asyncio.gather(*(stay(port, beginning, each) for _ in range(count)))


def percentile(times, share):
    """Milliseconds, "-" for none."""
    ordered = sorted(times)
    return (
        f"{ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000:.0f}" if times else "-"
    )


def shares(times):
    """The number of responses for each status."""
    return {status: len(times[status]) for status in sorted(times, key=str)}


os.environ.setdefault("HF_HUB_OFFLINE", "1")

if __name__ == "__main__":
    asyncio.run(hostile(int(sys.argv[1]), sys.argv[2]))
