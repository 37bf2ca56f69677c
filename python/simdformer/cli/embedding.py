# SPDX-License-Identifier: Apache-2.0
"""Shared by embed, search, rerank and classify: loading a model, embedding records."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from simdformer.cli.errors import CliError, reported, say

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

    from simdformer import CrossEncoder, Pipeline, SentenceTransformer, SparseEncoder
    from simdformer.cli.records import Record, Vectors

Model = TypeVar("Model", "SentenceTransformer", "CrossEncoder", "SparseEncoder")


class Chunk(NamedTuple):
    """Consecutive records, their vectors (len(records), dim), float32 or int8 codes, and their number of
    tokens."""

    records: list[Record]
    embeddings: Vectors
    num_tokens: int


def load_model(args: argparse.Namespace) -> SentenceTransformer:
    """The model in the arguments. CliError if it cannot be loaded."""
    from simdformer import SentenceTransformer

    return _load(SentenceTransformer, args)


def load_cross_encoder(args: argparse.Namespace) -> CrossEncoder:
    """The same for rerank."""
    from simdformer import CrossEncoder

    return _load(CrossEncoder, args)


def load_any(args: argparse.Namespace) -> SentenceTransformer | CrossEncoder | SparseEncoder:
    """The same for the class that fits the model's folder."""
    from simdformer import CrossEncoder, SentenceTransformer, SparseEncoder
    from simdformer.folder.cross_encoder_folder import open_folder
    from simdformer.folder.resolve import resolve_model
    from simdformer.folder.settings import read_model_type

    with reported():
        folder = resolve_model(args.model)
        saved = read_model_type(folder)
        if saved == "SparseEncoder":
            return _load(SparseEncoder, args)
        if saved not in ("CrossEncoder", "SentenceTransformer"):
            raise CliError(f"{args.model}: a {saved} is not served")
        reads_pairs = open_folder(folder).reads_pairs
    return _load(CrossEncoder, args) if reads_pairs else _load(SentenceTransformer, args)


def _load(kind: type[Model], args: argparse.Namespace) -> Model:
    with reported():
        return kind(
            args.model,
            compute_type=args.compute_type,
            num_threads=args.num_threads,
            max_batch_tokens=args.max_batch_tokens,
        )


def warn_of_truncation(
    model: SentenceTransformer | CrossEncoder | Pipeline, num_texts: int, unit: str = "texts"
) -> None:
    """One line for all texts that were too long; the library warns about the first one only."""
    if model.truncated_texts:
        say(
            f"warning: {model.truncated_texts:,} of {num_texts:,} {unit} were longer than "
            f"{model.max_seq_length} tokens; the rest of them was left out"
        )


def texts_of(records: Iterable[Record], waiting: deque[Record]) -> Iterator[str]:
    """The texts of the records; each record is kept until its result is available."""
    for record in records:
        waiting.append(record)
        yield record.text


def grouped(records: Iterable[Record], size: int) -> Iterator[list[Record]]:
    """Consecutive records that are computed together, at most so many."""
    from simdformer.text.batching import chunks

    waiting: deque[Record] = deque()
    for group in chunks(texts_of(records, waiting), size):
        yield [waiting.popleft() for _ in group]


def embed_records(
    model: SentenceTransformer,
    records: Iterable[Record],
    *,
    prompt_name: str | None,
    normalize: bool,
) -> Iterator[Chunk]:
    """Embed records in order, in chunks. Only records that have no vectors yet are kept in memory."""
    waiting: deque[Record] = deque()
    texts = texts_of(records, waiting)
    with reported():
        stream = model.encode_stream(texts, prompt_name=prompt_name, normalize_embeddings=normalize)
        tokens_before = model.num_tokens
        for embeddings in stream:
            done = [waiting.popleft() for _ in range(len(embeddings))]
            yield Chunk(done, embeddings, model.num_tokens - tokens_before)
            tokens_before = model.num_tokens
