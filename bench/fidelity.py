"""How close int8 is to float32 on thousands of texts: simdformer compared with its peers.

    python bench/fidelity.py

Texts are docstrings of at least 4 tokens, truncated at the model's 512 positions. Each engine embeds all of
them, and its vectors are compared with those of sentence-transformers in float32: the cosine of each pair,
and how many of a text's ten nearest other texts are the same. With --speeds, a result of `encode.py --int8`,
speed is plotted against fidelity. Writes OUTPUT.json, OUTPUT.md and OUTPUT.png.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

import machine
import plots
import report
from engines import DISTRIBUTIONS, INT8_PEERS, OWN_SMALLER, REFERENCE, installed
from engines.cache import DEFAULT_CACHE, converted_for, default_model, model_name
from engines.process import EngineProcess
from similarity import NEIGHBOURS, cosines, neighbours_kept
from texts import SEED, TextSet, standard_library_docstrings

LEAST_TOKENS, MOST_TOKENS = 4, 512


def compare(vectors: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    found = cosines(vectors, reference)
    return {
        "mean_cosine": float(found.mean()),
        "first_percentile": float(np.quantile(found, 0.01)),
        "min_cosine": float(found.min()),
        "neighbours_kept": neighbours_kept(vectors, reference),
    }


def draw_texts(model: Path, count: int) -> TextSet:
    """Docstrings of at least LEAST_TOKENS tokens, drawn with a fixed seed."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MOST_TOKENS)
    docstrings = standard_library_docstrings()
    counts = [len(encoding.ids) for encoding in tokenizer.encode_batch_fast(docstrings)]
    documents = [d for d in zip(docstrings, counts, strict=True) if d[1] >= LEAST_TOKENS]
    if len(documents) < count:
        raise SystemExit(f"--texts must be at most {len(documents)} here, got {count}")
    texts, token_counts = zip(*random.Random(SEED).sample(documents, count), strict=True)
    return TextSet("collection", texts, token_counts)


def vectors_of(name: str, text_set: TextSet, arguments: argparse.Namespace) -> np.ndarray:
    """The vectors of all texts by one engine in its own process."""
    print(f"embedding with {name}", file=sys.stderr, flush=True)
    folder = converted_for(name, arguments.model, arguments.cache)
    process = EngineProcess(name, arguments.threads)
    try:
        sets = {text_set.name: text_set}
        loaded = process.load(arguments.model, folder, sets, max_length=MOST_TOKENS)
        variant = loaded["variants"][-1]
        return process.request("vectors", set_name=text_set.name, variant=variant)
    finally:
        process.close()


def to_markdown(result: dict[str, Any]) -> str:
    texts = result["texts"]
    title = (
        f"{result['settings']['model']}: {texts['count']:,} texts of {texts['least_tokens']} to "
        f"{texts['most_tokens']} tokens (mean {texts['mean_tokens']:.0f}), cosine to the vectors of "
        f"{REFERENCE} in float32:\n"
    )
    header = [
        "engine",
        "mean",
        "1st percentile",
        "smallest",
        f"of the {NEIGHBOURS} nearest texts, kept",
    ]
    keys = ("mean_cosine", "first_percentile", "min_cosine")
    rows = [
        [name, *(f"{found[key]:.6f}" for key in keys), f"{found['neighbours_kept']:.2%}"]
        for name, found in result["engines"].items()
    ]
    return "\n".join(
        [title, report.markdown_table(header, rows), report.describe_machine(result["machine"])]
    )


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    text_set = draw_texts(arguments.model, arguments.texts)
    reference = vectors_of(REFERENCE, text_set, arguments)
    counts = text_set.token_counts
    return {
        "kind": "fidelity",
        "machine": arguments.machine,
        "settings": {"model": model_name(arguments.model)},
        "texts": {
            "count": len(counts),
            "least_tokens": min(counts),
            "most_tokens": max(counts),
            "mean_tokens": statistics.mean(counts),
        },
        "engines": {
            name: compare(vectors_of(name, text_set, arguments), reference)
            for name in arguments.engines
        },
    }


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--output", type=Path, default=machine.results("fidelity"))
    add("--texts", type=int, default=5000)
    add("--threads", type=int, default=2)
    add("--model", type=Path, help="a sentence-transformers folder of a BERT with mean pooling")
    add("--cache", type=Path, default=DEFAULT_CACHE, help="folder of converted models")
    speeds = machine.results("encode-int8").with_suffix(".json")
    add(
        "--speeds",
        type=Path,
        help="a JSON of encode.py --int8, to plot speed against fidelity",
        default=speeds if speeds.exists() else None,
    )
    parsed = parser.parse_args(arguments)
    parsed.model = parsed.model or default_model()
    parsed.engines = [name for name in (*OWN_SMALLER, *INT8_PEERS) if installed(name)]
    return parsed


def main() -> None:
    arguments = parse_arguments()
    machine.limit_to(arguments.threads)
    names = [name for engine in arguments.engines for name in DISTRIBUTIONS[engine]]
    arguments.machine = machine.describe(dict.fromkeys(names))
    result = run(arguments)
    report.write_json(arguments.output.with_suffix(".json"), result)
    markdown = to_markdown(result)
    report.write_text(arguments.output.with_suffix(".md"), markdown)
    if arguments.speeds:
        speeds = json.loads(arguments.speeds.read_text())
        plots.plot_fidelity(result, speeds, arguments.output.with_suffix(".png"))
    print(markdown)


if __name__ == "__main__":
    main()
