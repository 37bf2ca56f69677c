# SPDX-License-Identifier: Apache-2.0
"""`simdformer rerank`: the texts of a file that answer a query best, scored by a cross-encoder."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from simdformer.cli.corpus import Corpus
from simdformer.cli.errors import CliError, reported
from simdformer.cli.matches import TopMatches, as_json, as_text
from simdformer.cli.options import (
    add_input_arguments,
    add_model_arguments,
    add_query_arguments,
)
from simdformer.cli.records import Fields

if TYPE_CHECKING:
    from simdformer import CrossEncoder
    from simdformer.cli.options import SubParsers
    from simdformer.cli.records import Record

_EPILOG = """\
A cross-encoder reads the query and a text together. It is more precise than `simdformer search` and
slower, because nothing can be computed before the query is known. Use it for a few hundred texts, such
as the results of a search. The formats of the input are those of `simdformer embed`.

examples:
  simdformer rerank "open a file for reading" --in found.txt --model cross-encoder/ms-marco-MiniLM-L6-v2
  simdformer rerank "late delivery" --in reviews.csv --field body --model ./my-reranker --json
"""

# The number of texts per update of the progress bar: one or two forward passes.
_TEXTS = 64


def add_parser(commands: SubParsers) -> None:
    """Add the subcommand and its arguments."""
    parser = commands.add_parser(
        "rerank",
        help="order the texts of a file by how well they answer a query",
        description="Order the texts of a file by how well they answer a query.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_query_arguments(parser)
    add_input_arguments(parser)
    add_model_arguments(parser, default=None)
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> None:
    """Score each text with every query in one pass over the texts, and print."""
    from simdformer.cli.embedding import grouped, load_cross_encoder, warn_of_truncation
    from simdformer.cli.output import write_text
    from simdformer.cli.progress import Progress
    from simdformer.text.tokenizer import check_text

    with Corpus([args.corpus], args.format, Fields(args.field)) as source:
        model = load_cross_encoder(args)
        if model.num_labels != 1:
            raise CliError(
                f"{args.model} gives {model.num_labels} scores per pair; rerank needs a model with one"
            )
        with reported():  # an argument that is not UTF-8
            queries = [check_text(query, None, "QUERY") for query in args.queries]
        tops = [TopMatches(args.top) for _ in queries]
        with Progress(source, shown=args.progress, name="rerank") as progress:
            for records in grouped(source, _TEXTS):
                before = model.num_tokens
                _rank(model, queries, records, tops)
                progress.update(records, model.num_tokens - before)
    warn_of_truncation(model, len(queries) * progress.num_texts, "pairs")
    for query, top in zip(queries, tops, strict=True):
        write_text(as_json(query, top.best) if args.json else as_text(query, top.best))


def _rank(
    model: CrossEncoder, queries: list[str], records: list[Record], tops: list[TopMatches]
) -> None:
    for query, top in zip(queries, tops, strict=True):
        with reported():
            scores = model.predict([(query, record.text) for record in records])
        top.add(scores, records)
