"""Damaged model folders. Each gives vectors, or an exception that names a file, within seconds.

    python -m tests.fuzz.folders --count 2000 --seed 1        # all; prints a table, exit status 1 for a
    finding
    python -m tests.fuzz.folders --seed 1 --only 1234         # one of them, with its traceback

Batches of folders run in separate processes, with a memory limit and a timeout per folder, so a crash ends
only one batch. A folder depends only on the seed and its number.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

from tests.fuzz.mutations import mutated

SECONDS = 10  # per folder
MEMORY = 4 * 2**30
BATCH = 250
ACCEPTED = (ValueError, OSError)
TEXTS = ["a cab", "", "the quick brown fox jumps over the lazy dog"]


def write_samples(root):
    """Write the folders to damage: every architecture, and every format of weights and vocabularies. Returns
    their names."""
    from safetensors.numpy import load_file, save_file

    from tests.support.model_fixtures import (
        VOCABULARY,
        modules_json,
        write_cross_encoder,
        write_dense,
        write_model,
    )
    from tests.support.tiny_models import ARCHITECTURES
    from tests.support.torch_files import write_torch

    for architecture in ARCHITECTURES:
        architecture.write(root / architecture.model_type)
    write_cross_encoder(root / "cross_encoder")
    plain = write_model(root / "vocab_txt", files={"tokenizer.json": None})
    (plain / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    weights = load_file(plain / "model.safetensors")
    torch = write_model(root / "torch_bin")
    (torch / "model.safetensors").unlink()
    write_torch(torch / "pytorch_model.bin", weights)
    shards = write_model(root / "shards")
    (shards / "model.safetensors").unlink()
    names = sorted(weights)
    files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for file, part in zip(files, (names[::2], names[1::2]), strict=True):
        save_file({name: weights[name] for name in part}, shards / file)
    index = {"weight_map": {name: files[i % 2] for i, name in enumerate(names)}, "metadata": {}}
    (shards / "model.safetensors.index.json").write_text(json.dumps(index))
    kinds = ("Transformer", "Pooling", "Dense", "Normalize")
    dense = write_model(root / "dense", kinds=kinds)
    (dense / "modules.json").write_text(json.dumps(modules_json(kinds)))
    write_dense(dense / "2_Dense", 20, 12)
    return sorted(path.name for path in root.iterdir())


def damage(samples, names, seed, number, target):
    """Folder `number` of a seed: a sample in which one file, rarely two, is damaged. Returns its name and the
    files."""
    rng = random.Random(f"{seed}/{number}")
    name = rng.choice(names)
    shutil.copytree(samples / name, target)
    files = sorted(path for path in target.rglob("*") if path.is_file())
    chosen = rng.sample(files, rng.choice((1, 1, 1, 1, 2)))
    for path in chosen:
        kind = rng.randrange(60)
        data = path.read_bytes()
        if kind < 4:
            path.unlink()
        if kind == 0:
            path.mkdir()
        elif kind == 1:
            os.mkfifo(path)
        elif kind == 2:
            path.symlink_to(rng.choice(("/dev/zero", path.name, "/nowhere")))
        elif kind > 3:
            path.write_bytes(mutated(rng, path.name, data))
    return name, [str(path.relative_to(target)) for path in chosen]


def outcome(folder, name):
    """The outcome for a folder: "vectors", "exception", or a finding with a description."""
    import numpy as np

    from simdformer import CrossEncoder, SentenceTransformer

    try:
        if name == "cross_encoder":
            rows = CrossEncoder(folder, num_threads=1).predict([("a", text) for text in TEXTS])
        else:
            rows = SentenceTransformer(folder, num_threads=1).encode(TEXTS)
    except ACCEPTED as error:
        # It may also name a subfolder, for example of a missing module.
        known = {path.name for path in Path(folder).rglob("*")} | {Path(folder).name}
        known |= {"config.json", "model.safetensors", "tokenizer.json", "vocab.txt", "modules.json"}
        if not any(part in str(error) for part in (*known, "the result for texts[")):
            return "nameless", f"{type(error).__name__}: {error}"
        return "exception", ""
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        # A vocabulary with more tokens than the model has embeddings, one of which occurs in the texts.
        if isinstance(error, IndexError) and "expected an id in" in str(error):
            return "exception", ""
        return "other kind", f"{type(error).__name__}: {error}"
    return ("vectors", "") if np.isfinite(rows).all() else ("not finite", "")


def run_batch(samples, seed, numbers):
    """Run in a separate process. Prints a line of JSON at the start and the end of each folder."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    names = sorted(path.name for path in samples.iterdir())
    for number in numbers:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as root:
            folder = Path(root) / "model"
            sample, files = damage(samples, names, seed, number, folder)
            print(json.dumps([number, sample, files]), flush=True)
            signal.alarm(SECONDS)  # SIGALRM ends the process
            result = outcome(str(folder), sample)
            signal.alarm(0)
            print(json.dumps([number, *result]), flush=True)


def fuzz(count, seed):
    """Run all folders. Returns the number of each outcome, and a line for each finding."""
    seen, findings = Counter(), []
    with tempfile.TemporaryDirectory() as root:
        samples = Path(root)
        write_samples(samples)
        begin = 0
        while begin < count:
            end = min(count, begin + BATCH)
            command = [sys.executable, "-m", "tests.fuzz.folders", "--seed", str(seed)]
            command += ["--samples", root, "--batch", str(begin), str(end)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
            lines = [json.loads(line) for line in done.stdout.splitlines()]
            for start, result in zip(lines[::2], lines[1::2], strict=False):
                seen[result[1]] += 1
                if result[1] not in ("vectors", "exception"):
                    findings.append(f"{start}: {result[1]}: {result[2][:300]}")
            begin = end
            if done.returncode != 0:
                kind = "hang" if done.returncode == -signal.SIGALRM else "signal"
                if len(lines) % 2 == 0:
                    raise RuntimeError(f"the batch from {begin} on ended with {done.returncode}")
                seen[kind] += 1
                findings.append(f"{lines[-1]}: {kind}, exit status {done.returncode}")
                begin = lines[-1][0] + 1
    return seen, findings


def main():
    """The command described in the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int)
    parser.add_argument("--batch", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--samples", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.batch:
        run_batch(args.samples, args.seed, range(*args.batch))
        return 0
    if args.only is not None:
        return show(args.seed, args.only)
    seen, findings = fuzz(args.count, args.seed)
    for line in findings:
        print(line)
    print(", ".join(f"{name}: {number}" for name, number in sorted(seen.items())))
    return int(bool(findings))


def show(seed, number):
    """Run one folder, keep it, and show its traceback."""
    from simdformer import CrossEncoder, SentenceTransformer

    root = Path(tempfile.mkdtemp())
    (root / "samples").mkdir()
    names = write_samples(root / "samples")
    sample, files = damage(root / "samples", names, seed, number, root / "model")
    print(root / "model", sample, files)
    kind = CrossEncoder if sample == "cross_encoder" else SentenceTransformer
    model = kind(str(root / "model"))
    print(model.predict([("a", "b")]) if sample == "cross_encoder" else model.encode(TEXTS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
