"""Timed cases: sets of texts, single texts, larger rotary models, layers, and a decoder's step."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from builds.case import filled, normal
from builds.fixtures import read_texts
from engines.cache import default_model

FEATURES, HEADS, INNER = 384, 12, 1536
STEPS = 16


@dataclass(frozen=True)
class Timed:
    """run(prepare()) is timed, `calls` times in a row. The best of `slices` such runs counts in each
    round."""

    run: Callable[[Any], object]
    prepare: Callable[[], Any] = lambda: None
    calls: int = 1
    slices: int = 1


def _encode(
    model: Path,
    texts: list[str],
    compute_type: str,
    threads: int,
    *,
    max_length: int | None = None,
    **options: int,
) -> Timed:
    from simdformer import SentenceTransformer

    loaded = SentenceTransformer(model, compute_type=compute_type, num_threads=threads)
    if max_length is not None:
        loaded.max_seq_length = max_length
    warnings.filterwarnings("ignore", message=".*longer than max_seq_length")
    return Timed(lambda _: loaded.encode(texts, show_progress_bar=False), **options)


def _encoder_layer(threads: int) -> Timed:
    from simdformer import nn

    layer = filled(nn.TransformerEncoderLayer(FEATURES, HEADS, INNER, activation="gelu"))
    cu = np.arange(0, 16 * 128 + 1, 128)
    x = normal("x", cu[-1], FEATURES)
    return Timed(lambda _: layer(x, cu_seqlens=cu, num_threads=threads), slices=5)


def _decoder_steps(threads: int) -> Timed:
    """16 tokens for each of 4 sequences, after 64 tokens and a memory of 64."""
    from simdformer import nn

    layer = nn.TransformerDecoderLayer(FEATURES, HEADS, INNER, activation="gelu")
    stack = filled(nn.TransformerDecoder(layer, 6))
    start, memory = normal("start", 256, FEATURES), normal("memory", 256, FEATURES)
    cu, each = np.arange(0, 257, 64), np.arange(5)
    x = normal("step", 4, FEATURES)

    def prepare() -> nn.DecoderCache:
        cache = nn.DecoderCache(4)
        offsets = {"cu_seqlens": cu, "memory_cu_seqlens": cu}
        stack(start, memory, cache=cache, num_threads=threads, **offsets)
        return cache

    def run(cache: nn.DecoderCache) -> None:
        for _ in range(STEPS):
            stack(x, None, cu_seqlens=each, cache=cache, num_threads=threads)

    return Timed(run, prepare, slices=3)


def _sets(fixtures: Path, threads: int) -> dict[str, Callable[[], Timed]]:
    texts = read_texts(fixtures)
    minilm = default_model()

    def one(name: str, compute_type: str, **options: int) -> Callable[[], Timed]:
        return lambda: _encode(minilm, texts[name], compute_type, threads, **options)

    return {
        "minilm short": one("short", "float32"),
        "minilm mixed": one("mixed", "float32"),
        "minilm long": one("long", "float32"),
        "minilm one of 14 tokens": one("one", "float32", calls=10, slices=5),
        "minilm one of 512 tokens": one("one of 512", "float32", max_length=512, slices=7),
        "minilm short int8": one("short", "int8", slices=2),
        "minilm one of 14 tokens int8": one("one", "int8", calls=10, slices=5),
    }


def cases(fixtures: Path, threads: int) -> dict[str, Callable[[], Timed]]:
    """Functions that build the cases, by name."""
    found = _sets(fixtures, threads)
    # Their tokenizers have only letters, so short texts have as many tokens as the limit allows.
    texts = read_texts(fixtures)["mixed"][:24]
    for name in ("modernbert", "qwen3"):
        for compute_type in ("float32", "int8"):
            model = fixtures / "timed" / name
            found[f"{name} {compute_type}"] = lambda model=model, compute_type=compute_type: (
                _encode(model, texts, compute_type, threads, slices=2)
            )
    found["encoder layer"] = lambda: _encoder_layer(threads)
    found["decoder step"] = lambda: _decoder_steps(threads)
    return found
