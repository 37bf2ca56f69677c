# SPDX-License-Identifier: Apache-2.0
"""`simdformer embed`: texts in, vectors out, in memory that does not grow with the input."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from simdformer.cli.errors import UsageError
from simdformer.cli.options import add_input_arguments, add_model_arguments
from simdformer.cli.texts import TextSource, text_format

if TYPE_CHECKING:
    from simdformer.cli.options import SubParsers

_EPILOG = """\
INPUT   .txt: a text a line. .jsonl: an object a line. .csv: a header and rows. -: standard input.
OUTPUT  .npy: float32 (texts, dim). .jsonl: {"line", "text", "embedding"} a line. -: that, on
        standard output.

Row i of the output is the i-th text of the input. OUTPUT appears whole or not at all; a file of
that name stays as it is until then.

examples:
  simdformer embed docs.txt -o docs.npy
  simdformer embed reviews.csv --field body --normalize -o reviews.npy
  zcat pages.jsonl.gz | simdformer embed - --format jsonl -o - | gzip > vectors.jsonl.gz
"""


def add_parser(commands: SubParsers) -> None:
    """Add the subcommand and its arguments."""
    parser = commands.add_parser(
        "embed",
        help="turn the texts of a file into vectors",
        description="Turn the texts of a file into vectors.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("input", metavar="INPUT", help="the texts, or - for standard input")
    parser.add_argument("-o", "--output", required=True, metavar="OUTPUT", help="the vectors")
    parser.add_argument("--normalize", action="store_true", help="scale every vector to length 1")
    parser.add_argument(
        "--prompt-name",
        metavar="P",
        help="put this prompt of the model before every text (default: the model's default)",
    )
    add_input_arguments(parser)
    add_model_arguments(parser)
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> None:
    """Read, embed, write. The output is opened before the model: a bad path fails at once."""
    from simdformer.cli.embedding import embed_records, load_model, warn_of_truncation
    from simdformer.cli.output import open_output, vector_writer
    from simdformer.cli.progress import Progress

    _refuse_same_file(args.input, args.output)
    format_ = text_format(args.input, args.format)
    with TextSource(args.input, format_, args.field) as source, open_output(args.output) as file:
        model = load_model(args)
        writer = vector_writer(args.output, file, model.get_embedding_dimension())
        chunks = embed_records(
            model, source, prompt_name=args.prompt_name, normalize=args.normalize
        )
        with Progress(source, shown=args.progress) as progress:
            for chunk in chunks:
                writer.write(chunk.records, chunk.embeddings)
                progress.update(chunk.records, chunk.num_tokens)
        writer.finish()
    warn_of_truncation(model, progress.num_texts)


def _refuse_same_file(source: str, output: str) -> None:
    if "-" not in (source, output) and os.path.realpath(source) == os.path.realpath(output):
        raise UsageError(f"INPUT and OUTPUT are the same file: {source}")
