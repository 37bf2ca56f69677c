# SPDX-License-Identifier: Apache-2.0
"""`simdformer explain`: write a page about what a model attends to and what its vectors depend on."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from simdformer.cli.errors import CliError, UsageError, reported
from simdformer.cli.options import DEFAULT_MODEL, add_execution_arguments

if TYPE_CHECKING:
    from simdformer.cli.options import SubParsers
    from simdformer.explain.report import Report

_EPILOG = """\
The page is self-contained and makes no requests. --json writes the same numbers. --figures draws each
picture as PNG and SVG and needs the extra "plots". Files are written only when all are complete.

examples:
  simdformer explain "The cat sat on the mat because it was tired." -o report.html
  simdformer explain "A cat sleeps." "A kitten naps." -o report.html --json report.json
  simdformer explain --points -o points.html
"""


def add_parser(commands: SubParsers) -> None:
    """Add the subcommand and its arguments."""
    parser = commands.add_parser(
        "explain",
        help="show what a model attends to, and which tokens and heads its vectors depend on",
        description="Measure which tokens and heads the vector of a text, or the similarity of two,"
        " depends on, and write a page about it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("text", nargs="?", metavar="TEXT", help="a text")
    parser.add_argument("text2", nargs="?", metavar="TEXT2", help="a text to compare it with")
    parser.add_argument(
        "--points",
        action="store_true",
        help="instead of a text: measure eight points of the Transformer on the model",
    )
    parser.add_argument(
        "-o", "--output", required=True, metavar="PAGE", help="the page, or - for standard output"
    )
    parser.add_argument("--json", metavar="FILE", help="also write the numbers of the page")
    parser.add_argument("--figures", metavar="DIR", help="also draw each picture into this folder")
    parser.add_argument(
        "--prompt-name", metavar="P", help="the prompt before TEXT (default: the model's default)"
    )
    parser.add_argument(
        "--prompt-name2", metavar="P", help="the prompt before TEXT2 (default: the model's default)"
    )
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="M",
        help="folder or name of the model (default: %(default)s)",
    )
    add_execution_arguments(group)
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> None:
    """Measure, draw, then write."""
    _check_usage(args)
    if args.figures is not None:
        _need_matplotlib()
    report = _measure(args)
    files = {args.output: report.to_html().encode()}
    if args.json is not None:
        files[args.json] = report.to_json().encode()
    if args.figures is not None:
        files |= _figures(report, Path(args.figures))
    _write(files)


def _check_usage(args: argparse.Namespace) -> None:
    if args.points and (args.text is not None or args.prompt_name is not None):
        raise UsageError("--points takes no TEXT and no --prompt-name")
    if not args.points and args.text is None:
        raise UsageError("TEXT or --points is required")
    if args.prompt_name2 is not None and args.text2 is None:
        raise UsageError("--prompt-name2 needs TEXT2")


def _measure(args: argparse.Namespace) -> Report:
    from simdformer.cli.embedding import load_model, warn_of_truncation
    from simdformer.explain import explain_texts, measure_points

    model = load_model(args)
    with reported():  # text that is not UTF-8, too many tokens, unknown prompt
        if args.points:
            return measure_points(model)
        report = explain_texts(
            model,
            args.text,
            args.text2,
            prompt_name=args.prompt_name,
            prompt_name2=args.prompt_name2,
        )
    warn_of_truncation(model, 1 if args.text2 is None else 2)
    return report


def _need_matplotlib() -> None:
    if find_spec("matplotlib") is None:
        raise CliError('--figures needs matplotlib: pip install "simdformer[plots]"')


def _figures(report: Report, folder: Path) -> dict[str, bytes]:
    from simdformer.explain.plots import draw

    return {
        str(folder / f"{name}.{kind}"): draw(figure, kind)
        for name, figure in report.named_figures()
        for kind in ("png", "svg")
    }


def _write(files: dict[str, bytes]) -> None:
    from simdformer.cli.output import AtomicFile, StandardOutput

    for path, content in files.items():
        try:
            if path != "-":
                Path(path).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CliError(f"cannot make {Path(path).parent}: {error.strerror}") from error
        with StandardOutput() if path == "-" else AtomicFile(path) as file:
            file.write(content)
