"""Processes that exit, are killed, run out of memory, or fork while they compute."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter

import numpy as np

EXITS = """
import sys, threading, time
from simdformer import SentenceTransformer
model = SentenceTransformer(sys.argv[1])
texts = ["the quick brown fox jumps over the lazy dog " * 6] * 64
tokenizer = model.pipeline.tokenizer
def forever(work):
    while True: work(texts)
for work in (model.encode, model.encode, tokenizer)[: int(sys.argv[3])]:
    threading.Thread(target=forever, args=[work], daemon=True).start()
time.sleep(float(sys.argv[2]))
"""

MEMORY = """
import resource, sys
from simdformer import SentenceTransformer
from pathlib import Path
def limit(megabytes):
    used = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
    resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 2**20, -1))
texts = ["the quick brown fox jumps over the lazy dog " * 60] * 16
try:
    if sys.argv[2] == "load": limit(int(sys.argv[3]))
    model = SentenceTransformer(sys.argv[1], num_threads=2)
    model.encode(["a"])
    if sys.argv[2] == "encode": limit(int(sys.argv[3]))
    model.encode(texts)
except MemoryError:
    sys.exit(3)
except OSError:
    sys.exit(4)
"""

FORKS = """
import os, sys, threading
from simdformer import SentenceTransformer
model = SentenceTransformer(sys.argv[1])
text = "the quick brown fox jumps over the lazy dog"
expected = model.encode(text)
def forever():
    while True: model.encode([text] * 16)
threading.Thread(target=forever, daemon=True).start()
wrong = 0
for _ in range(int(sys.argv[2])):
    pid = os.fork()
    if pid == 0:
        os._exit(int((model.encode(text) != expected).any()))
    wrong += os.waitpid(pid, 0)[1] != 0
print(wrong)
"""


def _run(code, *arguments, seconds=120):
    """How the process ends: exit status, -signal, or "hang"."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return "hang", ""
    return done.returncode, done.stdout


def exits(report, model, scale, _):
    """The interpreter exits while daemon threads compute and tokenize."""
    rng = random.Random(1)
    count = max(4, int(200 * scale))
    seen = Counter(_run(EXITS, model, rng.uniform(0, 0.2), 2 + i % 2)[0] for i in range(count))
    report(f"{count} ends of a process while threads compute", dict(seen), set(seen) == {0})


def kills(report, model, scale, root):
    """kill -9 of embed: the output is either the old or the new one."""
    texts, out = root / "texts.txt", root / "out.npy"
    texts.write_text("the quick brown fox jumps over the lazy dog\n" * 3000)
    command = [sys.executable, "-m", "simdformer.cli", "embed", str(texts), "-o", str(out)]
    command += ["--model", model]
    np.save(out, np.zeros((1, 1), np.float32))
    rng, seen = random.Random(1), Counter()
    for _ in range(max(3, int(30 * scale))):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(0.2, 4))
        process.kill()
        process.wait()
        seen[np.load(out).shape] += 1
        if np.load(out).shape != (1, 1):
            np.save(out, np.zeros((1, 1), np.float32))
    left = len(list(root.glob(".out.npy.*")))
    subprocess.run(command, stderr=subprocess.DEVNULL, check=True)
    after = len(list(root.glob(".out.npy.*")))
    whole = np.load(out).shape[0] == 3000 and set(seen) <= {(1, 1), np.load(out).shape}
    text = f"shapes found {dict(seen)}; left {left} temporary files, {after} after the next run"
    report(f"kill -9 of embed, {sum(seen.values())} times", text, whole and after == 0)


def memory(report, model, scale, _):
    """Less and less address space, during loading and during computing."""
    for phase in ("load", "encode"):
        seen = Counter()
        steps = np.unique(np.geomspace(2, 400, max(4, int(30 * scale))).astype(int))
        for megabytes in steps:
            status, _ = _run(MEMORY, model, phase, megabytes)
            names = {0: "done", 3: "MemoryError", 4: "OSError"}
            seen[names.get(status, f"exit status {status}")] += 1
        # SIGABRT comes from the tokenizers library, which cannot report failed allocations.
        kept = set(seen) <= {"done", "MemoryError", "OSError", "exit status -6"}
        report(f"{len(steps)} limits of memory, 2 to 400 MB, at {phase}", dict(seen), kept)


def forks(report, model, scale, _):
    """Child processes of a process that computes."""
    count = max(5, int(200 * scale))
    status, output = _run(FORKS, model, count)
    report(
        f"{count} forks while a thread computes",
        f"wrong: {output.strip()}",
        (status, output) == (0, "0\n"),
    )
