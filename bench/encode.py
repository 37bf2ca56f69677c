"""Sentence embeddings, from text to unit vectors: simdformer compared with its peers.

    python bench/encode.py

Each engine runs in its own process with its best fair setting: texts sorted by length, batches padded to
their longest text or not at all, and all threads on one batch or one batch per thread, whichever is faster.
In a round, every engine encodes every set in turn; one computes at a time, and the others are suspended.
Before each turn the machine's FMA peak is measured. Figures are medians of the rounds.

Useful work is the same for all engines, whatever padding they compute. For a text of L tokens:

    flops = layers * (L * 2 * (4 * hidden^2 + 2 * hidden * intermediate) + L * 4 * L * hidden)

These are the QKV and output projections, the two feed-forward GEMMs, and the two products of attention.
Writes OUTPUT.json, OUTPUT.md and OUTPUT.png.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

import machine
import plots
import report
from engines import DISTRIBUTIONS, ENGINES, INT8_PEERS, OWN_SMALLER, REFERENCE, installed
from engines.cache import DEFAULT_CACHE, converted, converted_for, default_model, model_name
from engines.process import EngineProcess, peer_isa_environment
from simdformer import _core
from similarity import cosines
from texts import SET_NAMES, TextSet, make_sets, standard_library_docstrings

_CLOCK_HELP = "'cpu' counts CPU seconds: one thread's speed on a machine that others use too"
_LATENCY_SECONDS = 1.0  # of repeated calls with the single text in a round


@dataclass(frozen=True)
class Turn:
    """One engine on one set in one round."""

    seconds: float
    peak_gflops: float
    slowest_seconds: float
    other_load: float  # fraction of the CPUs that other processes used meanwhile


def encoder_flops(config: dict[str, Any], token_counts: Sequence[int]) -> int:
    """The formula in this module's docstring, summed over texts."""
    hidden, intermediate = config["hidden_size"], config["intermediate_size"]
    per_token = 2 * (4 * hidden**2 + 2 * hidden * intermediate)
    total = sum(length * per_token + 4 * length**2 * hidden for length in token_counts)
    return config["num_hidden_layers"] * total


def fidelity(vectors: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Cosines and the largest absolute difference, compared with the reference's unit vectors."""
    found = cosines(vectors, reference)
    return {
        "min_cosine": float(found.min()),
        "mean_cosine": float(found.mean()),
        "max_abs_difference": float(np.abs(vectors - reference).max()),
    }


class Benchmark:
    def __init__(self, arguments: argparse.Namespace, stack: ExitStack) -> None:
        self.arguments = arguments
        self.model: Path = arguments.model or default_model()
        if arguments.random_bert_base:
            self.model = converted("random-bert-base", self.model, arguments.cache)
        self.config = json.loads((self.model / "config.json").read_text())
        self.meter = machine.PeakMeter(arguments.isa or _core.active_isa(), arguments.threads)
        self.sets = self._load_sets()
        self.engines: dict[str, EngineProcess] = {}
        self.loaded: dict[str, dict[str, Any]] = {}
        self._stack = stack

    def _load_sets(self) -> dict[str, TextSet]:
        limits = json.loads((self.model / "sentence_bert_config.json").read_text())
        self.max_length = limits["max_seq_length"]
        tokenizer = Tokenizer.from_file(str(self.model / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        docstrings = standard_library_docstrings()
        sets = make_sets(docstrings, tokenizer, self.max_length, tuple(self.arguments.sets))
        limit = self.arguments.limit
        return {name: s.first(limit) if limit else s for name, s in sets.items()}

    def start(self, name: str) -> EngineProcess:
        arguments = self.arguments
        folder = converted_for(name, self.model, arguments.cache)
        process = EngineProcess(name, arguments.threads, arguments.isa, arguments.peer_isa)
        self._stack.callback(process.close)
        self.loaded[name] = process.load(
            self.model,
            folder,
            self.sets,
            max_length=self.max_length,
            batch_size=arguments.batch_size,
        )
        self.engines[name] = process
        return process

    def reference_vectors(self) -> dict[str, np.ndarray]:
        if REFERENCE not in self.engines:
            self.start(REFERENCE)
        reference = self.engines[REFERENCE]
        vectors = {
            name: reference.request("vectors", set_name=name, variant="latency")
            for name in self.sets
        }
        if REFERENCE not in self.arguments.engines:
            self.engines.pop(REFERENCE).close()
        return vectors

    def best_variants(self, name: str, reference: dict[str, np.ndarray]) -> list[dict[str, Any]]:
        """Run every set once in every variant, check the vectors, and keep the faster variant."""
        rows = []
        for set_name in self.sets:
            tried, errors = {}, []
            variants = self.loaded[name]["variants"]
            for variant in variants:
                vectors = self.engines[name].request("vectors", set_name=set_name, variant=variant)
                errors.append(fidelity(vectors, reference[set_name]))
                if len(variants) > 1:
                    tried[variant] = self.turn(name, set_name, variant).seconds
            best = min(variants, key=lambda variant: tried.get(variant, 0.0))
            worst = min(errors, key=lambda error: error["min_cosine"])
            rows.append(
                {
                    "name": f"{set_name}/{name}",
                    "set": set_name,
                    "engine": name,
                    "variant": best,
                    "probe_seconds": tried,
                    "fidelity": worst,
                }
            )
        return rows

    def turn(self, name: str, set_name: str, variant: str) -> Turn:
        peak = self.meter.fma()
        load = machine.OtherLoad((os.getpid(), self.engines[name].pid))
        passes = self.engines[name].request(
            "time",
            set_name=set_name,
            variant=variant,
            min_seconds=_LATENCY_SECONDS if set_name == "one" else 0.0,
            clock=self.arguments.clock,
        )
        return Turn(statistics.median(passes), peak, max(passes), load.share())

    def rounds(self, rows: list[dict[str, Any]]) -> list[list[Turn]]:
        """Every row once per round, set by set. The order of engines rotates between rounds."""
        turns: list[list[Turn]] = [[] for _ in rows]
        for number in range(self.arguments.rounds):
            for set_name in self.sets:
                indices = [i for i, row in enumerate(rows) if row["set"] == set_name]
                shift = number % len(indices)
                for i in indices[shift:] + indices[:shift]:
                    row = rows[i]
                    turns[i].append(self.turn(row["engine"], set_name, row["variant"]))
            say(f"round {number + 1} of {self.arguments.rounds} done")
        return turns

    def run(self) -> dict[str, Any]:
        rows: list[dict[str, Any]] = []
        reference = self.reference_vectors()
        for name in self.arguments.engines:
            say(f"warming up {name}")
            if name not in self.engines:
                self.start(name)
            rows += self.best_variants(name, reference)
        for row, turns in zip(rows, self.rounds(rows), strict=True):
            row.update(self._measured(row["set"], turns))
        peak = self.meter.summary()
        for row in rows:
            row["share_of_peak"] = row["gflops"] / peak["fma_gflops"]["best"]
        return {
            "kind": "encode",
            "machine": self.arguments.machine,
            "settings": self._settings(),
            "peak": peak,
            "sets": {name: self._set_summary(name) for name in self.sets},
            "engines": {
                name: {
                    "load_seconds": self.loaded[name]["seconds"],
                    "peak_rss_bytes": self.engines[name].request("peak_rss"),
                }
                for name in self.arguments.engines
            },
            "rows": rows,
        }

    def _measured(self, set_name: str, turns: list[Turn]) -> dict[str, Any]:
        text_set = self.sets[set_name]
        gflop = encoder_flops(self.config, text_set.token_counts) / 1e9
        rates = [gflop / turn.seconds for turn in turns]
        seconds = statistics.median(turn.seconds for turn in turns)
        return {
            "rates": rates,
            "peak_rates": [turn.peak_gflops for turn in turns],
            "seconds": seconds,
            "slowest_seconds": max(turn.slowest_seconds for turn in turns),
            "spread": report.spread(rates),
            "other_load": [turn.other_load for turn in turns],
            "texts_per_s": len(text_set.texts) / seconds,
            "tokens_per_s": text_set.total_tokens / seconds,
            "gflops": gflop / seconds,
        }

    def _settings(self) -> dict[str, Any]:
        arguments = self.arguments
        return {
            "model": "random BERT-base" if arguments.random_bert_base else model_name(self.model),
            "threads": arguments.threads,
            "clock": arguments.clock,
            "rounds": arguments.rounds,
            "batch_size": arguments.batch_size,
            "max_length": self.max_length,
            "isa": self.meter.isa,
            "peer_isa": peer_isa_environment(arguments.peer_isa) if arguments.peer_isa else None,
        }

    def _set_summary(self, name: str) -> dict[str, Any]:
        text_set = self.sets[name]
        return {
            "texts": len(text_set.texts),
            "tokens": text_set.total_tokens,
            "mean_tokens": text_set.total_tokens / len(text_set.texts),
            "gflop": encoder_flops(self.config, text_set.token_counts) / 1e9,
            "texts_per_call": text_set.call_size or len(text_set.texts),
        }


def to_markdown(result: dict[str, Any]) -> str:
    """Speed with its spread, fraction of the peak, fidelity and memory; one line per engine."""
    rows = {(row["set"], row["engine"]): row for row in result["rows"]}
    sets, engines = result["sets"], result["engines"]
    header = ["engine"]
    for name, s in sets.items():
        unit = "ms" if name == "one" else "texts/s"
        header.append(f"{name} ({s['mean_tokens']:.0f} tokens), {unit}")

    def speed(row: dict[str, Any]) -> str:
        value = row["seconds"] * 1e3 if row["set"] == "one" else row["texts_per_s"]
        return f"{report.figure(value)} ± {row['spread']:.0%}"

    def quality(engine: str) -> list[str]:
        found = [rows[s, engine]["fidelity"] for s in sets]
        least = min(f["min_cosine"] for f in found)
        most = max(f["max_abs_difference"] for f in found)
        memory = engines[engine]["peak_rss_bytes"] / 2**20
        return [f"{least:.7f}", f"{most:.1e}", f"{memory:,.0f} MB"]

    speeds = [[e, *(speed(rows[s, e]) for s in sets)] for e in engines]
    shares = [[e, *(f"{rows[s, e]['share_of_peak']:.0%}" for s in sets)] for e in engines]
    settings, peak = result["settings"], result["peak"]
    speeds_title = (
        f"{settings['model']}, threads: {settings['threads']}, {settings['clock']} time, median of "
        f"{settings['rounds']} interleaved rounds ± half the interquartile range:\n"
    )
    shares_title = (
        f"Share of the FMA peak ({peak['fma_gflops']['best']:.0f} GFLOP/s, {peak['isa']}, "
        "measured in the same run) that is used without padding:\n"
    )
    return "\n".join(
        [
            speeds_title,
            report.markdown_table(header, speeds),
            shares_title,
            report.markdown_table(["engine", *sets], shares),
            report.markdown_table(
                ["engine", f"least cosine to {REFERENCE}", "largest difference", "peak memory"],
                [[e, *quality(e)] for e in engines],
            ),
            report.describe_machine(result["machine"]),
            f"Other processes took {_other_load(result):.0%} of the CPUs during the rounds.\n",
        ]
    )


def _other_load(result: dict[str, Any]) -> float:
    return statistics.mean(share for row in result["rows"] for share in row["other_load"])


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _names(allowed: Sequence[str]) -> Any:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in allowed]:
            raise argparse.ArgumentTypeError(f"unknown {unknown}, expected of {list(allowed)}")
        return names

    return parse


def _stem(options: argparse.Namespace) -> str:
    """The name of a run's files, which contains its options."""
    parts = ["int8"] * options.int8 + [options.isa] * (options.isa is not None)
    return "-".join(["encode", *parts, *["bert-base"] * options.random_bert_base])


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--output", type=Path, help="without suffix; default: by class of CPU and options")
    known = tuple(DISTRIBUTIONS)
    add("--engines", type=_names(known), help="comma-separated; default: all installed")
    add("--int8", action="store_true", help="the engines in int8, beside simdformer in float32")
    add("--sets", type=_names(SET_NAMES), default=list(SET_NAMES[:4]), help="comma-separated")
    add("--unsorted", action="store_true", help="also the set 'stream': 32 texts a call as come")
    add("--threads", type=int, default=2)
    add("--rounds", type=int, default=5)
    add("--limit", type=int, help="only so many texts a set, for a trial; pads peers more")
    add("--batch-size", type=int, default=32, help="of the peers that batch by count")
    add("--model", type=Path, help="a sentence-transformers folder of a BERT with mean pooling")
    add("--random-bert-base", action="store_true", help="BERT-base's sizes, random weights")
    add("--isa", choices=_core.available_isas(), help="force simdformer to a level")
    add("--peer-isa", help="hold peers that can be held to a level: sse4, avx2 or avx512")
    add("--cache", type=Path, default=DEFAULT_CACHE, help="folder of converted models")
    add("--clock", choices=["wall", "cpu"], default="wall", help=_CLOCK_HELP)
    parsed = parser.parse_args(arguments)
    if parsed.clock == "cpu" and parsed.threads != 1:
        parser.error(f"--clock cpu needs --threads 1, got {parsed.threads}: waiting threads spin")
    default = ("simdformer", *OWN_SMALLER, *INT8_PEERS) if parsed.int8 else ENGINES
    parsed.engines = parsed.engines or [name for name in default if installed(name)]
    parsed.output = parsed.output or machine.results(_stem(parsed))
    if parsed.unsorted and "stream" not in parsed.sets:
        parsed.sets.append("stream")
    return parsed


def main() -> None:
    arguments = parse_arguments()
    machine.limit_to(arguments.threads)
    names = [name for engine in arguments.engines for name in DISTRIBUTIONS[engine]]
    arguments.machine = machine.describe(dict.fromkeys(names))
    with ExitStack() as stack:
        result = Benchmark(arguments, stack).run()
    report.write_json(arguments.output.with_suffix(".json"), result)
    markdown = to_markdown(result)
    report.write_text(arguments.output.with_suffix(".md"), markdown)
    plots.plot_encode(result, arguments.output.with_suffix(".png"))
    print(markdown)


if __name__ == "__main__":
    main()
