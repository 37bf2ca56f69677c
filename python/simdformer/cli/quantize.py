# SPDX-License-Identifier: Apache-2.0
"""`simdformer quantize`: write a model folder in int8, and print the loss of each part."""

from __future__ import annotations

import argparse
from itertools import islice
from typing import TYPE_CHECKING

from simdformer.cli.corpus import Corpus
from simdformer.cli.errors import CliError, reported
from simdformer.cli.options import add_input_arguments
from simdformer.cli.records import Fields

if TYPE_CHECKING:
    from simdformer.cli.options import SubParsers
    from simdformer.int8.quantize_model import QuantizationReport

_EPILOG = """\
FOLDER is loaded like any model and runs in int8. It is created only when it is complete.

examples:
  simdformer quantize all-MiniLM-L6-v2 -o minilm-int8
  simdformer quantize ./my-model -o my-model-int8 --texts sample.txt --min-cosine 0.9995
  simdformer embed docs.txt --model minilm-int8 -o docs.npy
"""


def add_parser(commands: SubParsers) -> None:
    """Add the subcommand and its arguments."""
    parser = commands.add_parser(
        "quantize",
        help="write a model's folder with int8 weights, about a quarter of its size",
        description="Write a model's folder with int8 weights, about a quarter of its size.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="a model's folder or name")
    parser.add_argument("-o", "--output", required=True, metavar="FOLDER", help="folder to create")
    parser.add_argument(
        "--min-cosine",
        type=float,
        metavar="C",
        help="keep parts in float32 until the cosine to float32 of every vector of the sample is at"
        " least this (default: 0.999)",
    )
    parser.add_argument(
        "--texts",
        metavar="FILE",
        help="file with a hundred or more texts like those that the model will embed, which reduces the"
        " loss by about a third (default: ids of the vocabulary)",
    )
    parser.add_argument(
        "--force", action="store_true", help="replace FOLDER if it is a quantized model"
    )
    add_input_arguments(parser)
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> None:
    """Read the texts, quantize, print the report."""
    from simdformer.cli.output import write_text
    from simdformer.int8.calibration import MIN_COSINE
    from simdformer.int8.quantize_model import quantize_model

    try:
        with reported():
            report = quantize_model(
                args.model,
                args.output,
                texts=_texts(args),
                min_cosine=MIN_COSINE if args.min_cosine is None else args.min_cosine,
                overwrite=args.force,
            )
    except CliError as error:
        raise CliError(str(error).replace("overwrite=True", "--force")) from error
    write_text(as_text(report))


def as_text(report: QuantizationReport) -> str:
    """One line per part, then the total."""
    width = max(len(part.name) for part in report.parts)
    sample = f"{report.texts} texts" if report.texts else "ids of the vocabulary"
    ratio = report.float32_bytes / report.int8_bytes
    lines = [f"{'part':{width}}  {'in':7}  output error  1 - cosine, alone"]
    for part in report.parts:
        losses = f"{part.error:12.5f}  {part.cosine_loss:17.2e}"
        lines.append(f"{part.name:{width}}  {part.compute_type:7}  {losses}")
    lines.append(
        f"cosine to float32 over {sample}: mean {report.mean_cosine:.6f}, first percentile"
        f" {report.first_percentile:.6f}, smallest {report.min_cosine:.6f}"
    )
    lines.append(
        f"{report.folder}: weights of {report.int8_bytes:,} bytes, {ratio:.1f} times smaller"
        f" than {report.float32_bytes:,}"
    )
    return "\n".join(lines) + "\n"


def _texts(args: argparse.Namespace) -> list[str] | None:
    from simdformer.int8.quantize_model import MAX_TEXTS

    if args.texts is None:
        return None
    with Corpus([args.texts], args.format, Fields(args.field)) as source:
        return [record.text for record in islice(source, MAX_TEXTS)]
