# SPDX-License-Identifier: Apache-2.0
"""`simdformer export`: write a model to one file for the library for C and C++."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from simdformer.cli.errors import reported

if TYPE_CHECKING:
    from simdformer.cli.options import SubParsers
    from simdformer.drop_in.text_model import TextModel

_EPILOG = """\
FILE holds what runs after the tokenizer. A program in C or C++ opens it with simdformer.h and gives it token ids.
It runs at every instruction set level.

examples:
  simdformer export all-MiniLM-L6-v2 -o minilm.simdformer
  simdformer export cross-encoder/ms-marco-MiniLM-L6-v2 -o reranker.simdformer --compute-type int8
"""


def add_parser(commands: SubParsers) -> None:
    """Add the subcommand and its arguments."""
    parser = commands.add_parser(
        "export",
        help="write a model to one file for programs in C and C++",
        description="Write a model to one file for programs in C and C++.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="a model's folder or name")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="file to write")
    parser.add_argument(
        "--compute-type",
        choices=("default", "auto", "float32", "bfloat16", "int8"),
        default="default",
        help="arithmetic of the linear layers (default: what the model's folder declares, else float32)",
    )
    parser.add_argument("--task", metavar="T", help="task whose model is written, such as query")
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> None:
    """Load, then write."""
    with reported():
        _load(args.model, args.compute_type).export(args.output, task=args.task)


def _load(name: str, compute_type: str) -> TextModel:
    from simdformer import CrossEncoder, MultiVectorEncoder, SentenceTransformer, SparseEncoder
    from simdformer.folder.cross_encoder_folder import open_folder
    from simdformer.folder.resolve import resolve_model
    from simdformer.folder.settings import read_model_type

    folder = resolve_model(name)
    kinds: dict[str, Any] = {
        "SparseEncoder": SparseEncoder,
        "MultiVectorEncoder": MultiVectorEncoder,
        "ColBERT": MultiVectorEncoder,
    }
    kind = kinds.get(read_model_type(folder))
    if kind is None:
        kind = CrossEncoder if open_folder(folder).reads_pairs else SentenceTransformer
    model: TextModel = kind(folder, compute_type=compute_type)
    return model
