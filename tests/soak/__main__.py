"""Load, hostile clients and killed processes, and a table of the results.

    python -m tests.soak                # ten minutes
    python -m tests.soak --scale 0.1    # one minute, with smaller numbers

Exit status 1 if a promise of docs/reliability.md was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.soak import client, processes


class Report:
    """The rows of the table, and whether each promise was kept."""

    def __init__(self):
        self.failed = []

    def __call__(self, what, seen, kept=True):
        print(f"| {what} | {seen} | {'yes' if kept else 'NO'} |", flush=True)
        if not kept:
            self.failed.append(what)


# Silent connections are closed without a response to make room for others. If the client is as busy as the
# server, a few requests are among them.
CLOSED = ("ConnectionResetError", "IncompleteReadError")
MOST_CLOSED = 0.05


def under_load(port, data, share, rate, seconds, refusals):
    """Requests at a fraction of the capacity: all are answered, with 200 or one of `refusals`."""
    times = asyncio.run(client.load(port, share * rate, seconds, data))
    good = times.get(200, [])
    refused = [took for status in refusals for took in times.get(status, [])]
    closed = sum(len(times.get(name, [])) for name in CLOSED)
    seen = f"{share * rate:.0f} requests/s, by status {client.shares(times)}; "
    seen += f"200 in {client.percentile(good, 0.5)} ms (median), {client.percentile(good, 0.99)}"
    seen += f" (99%); refused in {client.percentile(refused, 0.5)} ms (median)"
    allowed = MOST_CLOSED * sum(map(len, times.values())) if 503 in refusals else 0
    known = not set(times) - {200, *refusals, *CLOSED}
    return seen, known and closed <= allowed and max(good) < 30


def server_under_load(report, model, scale):
    """The capacity, then 100% and 300% of it, then recovery."""
    with client.Served(model) as served:
        port = served.port
        texts = client.request([client.TEXT] * 32)
        asyncio.run(client.capacity(port, 3, texts))
        rate = asyncio.run(client.capacity(port, 20 * scale, texts))
        before = served.memory()
        for share in (1, 3):
            report(
                f"requests of 32 texts at {share * 100}% of capacity",
                *under_load(port, texts, share, rate, 60 * scale, (429,)),
            )
        text = client.request(client.TEXT)
        rate = asyncio.run(client.capacity(port, 10 * scale, text))
        report(
            "requests of one text, each on a new connection, at 300%",
            *under_load(port, text, 3, rate, 30 * scale, (429, 503)),
        )
        status, took = asyncio.run(client.ask(port, client.request(client.TEXT)))
        report("a request after it", f"{status} in {took * 1000:.0f} ms", status == 200)
        count = int(1000 * scale) // 50 * 50 or 50
        asyncio.run(client.disconnects(port, count))
        status, took = asyncio.run(client.ask(port, client.request(client.TEXT)))
        seen = f"then {status} in {took * 1000:.0f} ms"
        report(f"{count} clients that go before they are answered", seen, status == 200)
        after = served.memory()
        report("memory before and after these", f"{before} MB, {after} MB", after < before + 300)


def hostile_clients(report, model, scale):
    """Normal clients beside clients that send nothing, too little, or endless bodies."""
    with client.Served(model) as served:
        for kind in client.HOSTILE:
            answers = asyncio.run(client.beside(served.port, kind, 30 * scale))
            good = [took for status, took in answers if status == 200]
            seen = f"{len(good)} of {len(answers)}, {client.percentile(good, 0.5)} ms (median), "
            seen += f"{client.percentile(good, 0.99)} (99%), {served.memory()} MB"
            kept = len(good) >= 0.98 * len(answers) and served.memory() < 800
            report(f"/health beside {kind}", seen, kept)
        status, took = served.stop()
        lines = len(served.process.stderr.read().splitlines())
        report(
            "SIGTERM then, and lines of log", f"{status}, {took:.1f} s, {lines} lines", status == 0
        )


def stopping(report, model, scale):
    """SIGTERM during requests."""

    async def once(served):
        tasks = [
            asyncio.create_task(client.ask(served.port, client.request([client.TEXT] * 40)))
            for _ in range(16)
        ]
        await asyncio.sleep(0.3)
        status, took = await asyncio.to_thread(served.stop)
        return status, took, [(await task)[0] for task in tasks]

    seen = []
    for _ in range(max(2, int(6 * scale))):
        with client.Served(model) as served:
            seen.append(asyncio.run(once(served)))
    answers = [answer for *_, each in seen for answer in each]
    kept = all(status == 0 for status, *_ in seen) and set(answers) <= {200, 503}
    counts = {status: answers.count(status) for status in sorted(set(answers))}
    took = max(took for _, took, _ in seen)
    report(f"SIGTERM under load, {len(seen)} times", f"{counts}, at most {took:.1f} s", kept)


def main():
    """The command described in the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--scale", type=float, default=1)
    args = parser.parse_args()
    report = Report()
    print("| what | seen | as promised |\n|---|---|---|")
    server_under_load(report, args.model, args.scale)
    hostile_clients(report, args.model, args.scale)
    stopping(report, args.model, args.scale)
    with tempfile.TemporaryDirectory() as root:
        for run in (processes.exits, processes.kills, processes.memory, processes.forks):
            run(report, args.model, args.scale, Path(root))
    return int(bool(report.failed))


if __name__ == "__main__":
    sys.exit(main())
