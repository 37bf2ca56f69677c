# SPDX-License-Identifier: Apache-2.0
"""`simdformer search`: the texts of a file that are most similar to a query."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from simdformer.cli.corpus import Corpus
from simdformer.cli.errors import CliError, UsageError
from simdformer.cli.matches import TopMatches, as_json, as_text
from simdformer.cli.options import (
    add_input_arguments,
    add_model_arguments,
    add_query_arguments,
)
from simdformer.cli.records import Fields

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from simdformer import SentenceTransformer
    from simdformer.cli.embedding import Chunk
    from simdformer.cli.options import SubParsers

_EPILOG = """\
The formats of the corpus are those of `simdformer embed`. Without --embeddings the corpus is embedded in
every call. With --embeddings the vectors of an earlier `simdformer embed CORPUS -o FILE` with the same
model are used (made with --prompt-name document if the model has a prompt for documents). Files .jsonl and
.parquet contain the texts too; a file .npy needs --in.

examples:
  simdformer search "open a file for reading" --in docs.txt --top 3
  simdformer search "late delivery" "rude staff" --in reviews.csv --field body --json
  simdformer embed docs.txt -o docs.npy
  simdformer search "parse a date" --in docs.txt --embeddings docs.npy
  simdformer embed handbook/ --chunk 128 -o handbook.parquet
  simdformer search "days of leave" --embeddings handbook.parquet
"""


def add_parser(commands: SubParsers) -> None:
    """Add the subcommand and its arguments."""
    parser = commands.add_parser(
        "search",
        help="find the texts of a file that are most similar to a query",
        description="Find the texts of a file that are most similar to a query.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_query_arguments(parser, corpus_required=False)
    parser.add_argument(
        "--embeddings",
        metavar="FILE",
        help="vectors made by simdformer embed: .npy of the corpus, or .jsonl or .parquet files",
    )
    add_input_arguments(parser)
    add_model_arguments(parser)
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> None:
    """Embed the queries, compare them with the corpus in one pass, and print."""
    from simdformer.cli.embedding import load_model, warn_of_truncation
    from simdformer.cli.output import write_text
    from simdformer.cli.progress import Progress

    _check(args)
    with ExitStack() as stack:
        source = None
        if args.corpus is not None:
            corpus = Corpus([args.corpus], args.format, Fields(args.field))
            source = stack.enter_context(corpus)
        model = load_model(args)
        queries = _encode_queries(model, args.queries)
        if args.embeddings is not None:
            warn_of_truncation(model, len(args.queries), "queries")
        tops = [TopMatches(args.top) for _ in args.queries]
        progress = stack.enter_context(Progress(source, shown=args.progress))
        for chunk in _chunks(args, model, source):
            _rank(model, queries, chunk, tops)
            progress.update(chunk.records, chunk.num_tokens)
    if args.embeddings is None:
        warn_of_truncation(model, len(args.queries) + progress.num_texts)
    for query, top in zip(args.queries, tops, strict=True):
        write_text(as_json(query, top.best) if args.json else as_text(query, top.best))


def _check(args: argparse.Namespace) -> None:
    """UsageError for arguments that do not go together."""
    if args.embeddings is None:
        if args.corpus is None:
            raise UsageError("give --in CORPUS, or --embeddings with a .jsonl or .parquet file")
    elif (args.corpus is None) != (Path(args.embeddings).suffix.lower() != ".npy"):
        has = "has its texts beside the vectors" if args.corpus else "has no texts: give --in"
        raise UsageError(f"--embeddings {args.embeddings} {has}")
    elif args.corpus is None and args.format is not None:
        raise UsageError("--format is that of --in")


def _chunks(
    args: argparse.Namespace, model: SentenceTransformer, source: Corpus | None
) -> Iterator[Chunk]:
    from simdformer.cli.embedding import embed_records
    from simdformer.text.inputs import document_prompt

    if args.embeddings is None and source is not None:
        name = document_prompt(model.prompts)
        return embed_records(model, source, prompt_name=name, normalize=False)
    from simdformer.cli.index import read_index

    return read_index(args.embeddings, model, args.model, source, args.field)


def _encode_queries(model: SentenceTransformer, queries: list[str]) -> NDArray[np.float32]:
    try:
        vectors: NDArray[np.float32] = model.encode_query(queries)
    except ValueError as error:  # the argument is not UTF-8
        raise CliError(f"QUERY: {error}") from error
    return vectors


def _rank(
    model: SentenceTransformer,
    queries: NDArray[np.float32],
    chunk: Chunk,
    tops: list[TopMatches],
) -> None:
    scores = model.similarity(queries, chunk.embeddings)  # (queries, chunk)
    for top, row in zip(tops, scores, strict=True):
        top.add(row, chunk.records)
