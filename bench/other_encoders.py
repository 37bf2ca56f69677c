"""Encoders without dense layers or with other outputs: static embeddings, sparse embeddings, MaxSim.

    python bench/other_encoders.py [--rounds N] [--threads N] [--static FOLDER] [--output STEM]

static: 100,000 short texts, lines of docstrings, by a StaticEmbedding, compared with model2vec and with the
tokenizers library alone, which is the limit. Each runs in its own process. model2vec leaves out unknown
tokens; sentence-transformers and simdformer do not. FOLDER: of a model of model2vec; without it, one with
potion-base-8M's sizes and random numbers. sparse: texts of mixed lengths by a random SPLADE model, compared with
sentence-transformers. maxsim: one query of 32 vectors against 1,000 documents of 180 vectors (128 numbers each),
as a share of the smaller of the FMA peak and 16 flops for each byte of the measured bandwidth.
Rounds are interleaved, figures are medians. Writes OUTPUT.json and OUTPUT.md. Needs the group parity and model2vec.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer

import families
import machine
import report
import static_worker
from texts import SEED, make_sets, standard_library_docstrings
from worker_process import WorkerProcess

LINES = 100_000
WORDS, WIDTH = 29_528, 256  # potion-base-8M
FLOPS_PER_BYTE = 16
QUERY, DOCUMENTS, VECTORS, DIMENSION = 32, 1000, 180, 128

Call = Callable[[], object]


def seconds(calls: dict[str, Call], rounds: int) -> dict[str, list[float]]:
    """The seconds of each call in every round, after one round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for index in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if index:
                times[name].append(time.perf_counter() - start)
    return times


def short_lines(docstrings: list[str]) -> list[str]:
    """Lines of docstrings, repeated if there are too few."""
    lines = [line.strip() for text in docstrings for line in text.splitlines() if line.strip()]
    return list(itertools.islice(itertools.cycle(lines), LINES))


def write_static(tokenizer: Tokenizer, folder: Path) -> Path:
    """A model in model2vec's form with random numbers."""
    table = np.random.default_rng(SEED).standard_normal((WORDS, WIDTH)).astype(np.float32)
    save_file({"embeddings": table}, folder / "model.safetensors")
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text('{"model_type": "model2vec", "normalize": true}')
    kinds = ("StaticEmbedding", "Normalize")
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(zip(kinds, ("", "1_Normalize"), strict=True))
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


def static(folder: Path, lines: list[str], rounds: int) -> dict[str, Any]:
    """Each library in its own process, because model2vec starts processes and torch's objects slow the others."""
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(
                closing(WorkerProcess(name, "static_worker", [name], os.environ))
            )
            for name in static_worker.LIBRARIES
        }
        for worker in workers.values():
            worker.request("load", folder=str(folder.resolve()), texts=lines)
        ours, theirs = (workers[n].request("vectors", count=2000) for n in list(workers)[:2])
        times: dict[str, list[float]] = {name: [] for name in workers}
        for index in range(rounds + 1):
            for name, worker in workers.items():
                taken = worker.request("seconds")
                if index:
                    times[name].append(taken)
    equal = np.isclose(ours, theirs, rtol=0, atol=1e-5).all(axis=1)
    return {"seconds": times, "equal_vectors": float(equal.mean())}


def sparse(folder: Path, texts: list[str], rounds: int) -> dict[str, Any]:
    import sentence_transformers
    import torch
    import transformers

    from simdformer import SparseEncoder

    torch.manual_seed(SEED)
    fields = {**families.SIZES, "vocab_size": 30_522}
    model = transformers.BertForMaskedLM(transformers.BertConfig(**fields))
    torch.nn.init.normal_(model.bert.embeddings.word_embeddings.weight, std=0.05)
    model.save_pretrained(folder)
    ours = SparseEncoder(str(folder))
    kwargs = {"attn_implementation": "sdpa"}
    theirs = sentence_transformers.SparseEncoder(str(folder), device="cpu", model_kwargs=kwargs)
    calls: dict[str, Call] = {
        "simdformer": lambda: ours.encode(texts),
        "sentence-transformers": lambda: theirs.encode(texts, batch_size=32),
    }
    return {"seconds": seconds(calls, rounds)}


def late_interaction(rounds: int, threads: int) -> dict[str, Any]:
    from simdformer import _core

    rng = np.random.default_rng(SEED)
    query = rng.standard_normal((QUERY, DIMENSION)).astype(np.float32)
    documents = rng.standard_normal((DOCUMENTS * VECTORS, DIMENSION)).astype(np.float32)
    offsets = np.arange(0, len(documents) + 1, VECTORS, dtype=np.int32)
    whole = np.array([0, QUERY], np.int32)
    meter = machine.PeakMeter(_core.active_isa(), threads)
    calls: dict[str, Call] = {
        "max_sim": lambda: _core.max_sim(query, whole, documents, offsets, mean=False),
        "fma peak": meter.fma,
        "reading": meter.read,
    }
    times = seconds(calls, rounds)["max_sim"]
    flops = 2 * QUERY * len(documents) * DIMENSION
    limit = min(max(meter.fma_rates), FLOPS_PER_BYTE * max(meter.read_rates)) * 1e9
    share = flops / statistics.median(times) / limit
    return {"seconds": {"simdformer": times}, "limit_gflops": limit / 1e9, "share": share}


def to_markdown(result: dict[str, Any]) -> str:
    rows = []
    for case, found in result["cases"].items():
        medians = {name: statistics.median(times) for name, times in found["seconds"].items()}
        for name, median in medians.items():
            ratio = f"{median / medians['simdformer']:.2f}"
            rows.append([case, name, report.figure(1000 * median), ratio])
    header = ["case", "library", "ms", "time relative to simdformer"]
    share = result["cases"]["maxsim"]["share"]
    return (
        f"{result['machine']['cpu']}, {result['threads']} threads, medians of {result['rounds']} "
        f"interleaved rounds. MaxSim runs at {share:.0%} of its limit.\n\n"
        f"{report.markdown_table(header, rows)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--static", type=Path)
    parser.add_argument("--output", type=Path, default=machine.results("other_encoders"))
    arguments = parser.parse_args()
    machine.limit_to(arguments.threads)
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(arguments.threads)
    docstrings = standard_library_docstrings()
    rounds = arguments.rounds
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "sparse"
        tokenizer = families.train_tokenizer(docstrings)
        families.save_tokenizer(tokenizer, folder)
        own = Path(work) / "static"
        own.mkdir()
        mixed = make_sets(docstrings, tokenizer, families.LONGEST, ("mixed",))["mixed"]
        model = arguments.static or write_static(tokenizer, own)
        cases = {
            "static": static(model, short_lines(docstrings), rounds),
            "sparse": sparse(folder, list(mixed.first(96).texts), rounds),
            "maxsim": late_interaction(rounds, arguments.threads),
        }
    described = machine.describe(("model2vec", "sentence-transformers", "tokenizers", "torch"))
    result = {"machine": described, "threads": arguments.threads, "rounds": rounds, "cases": cases}
    report.write_text(arguments.output.with_suffix(".json"), json.dumps(result, indent=2) + "\n")
    report.write_text(arguments.output.with_suffix(".md"), to_markdown(result))
    print(to_markdown(result))


if __name__ == "__main__":
    main()
