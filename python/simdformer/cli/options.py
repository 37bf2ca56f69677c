# SPDX-License-Identifier: Apache-2.0
"""Arguments shared by subcommands."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from simdformer.cli.opening import FORMATS
from simdformer.cli.records import DEFAULT_FIELD

if TYPE_CHECKING:
    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]

DEFAULT_MODEL = "all-MiniLM-L6-v2"

_MOST_THREADS = 1024  # of the library


def positive_int(text: str) -> int:
    """An argparse type: an integer above zero."""
    value = int(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {value}")
    return value


def _thread_count(text: str) -> int:
    value = positive_int(text)
    if value > _MOST_THREADS:
        raise argparse.ArgumentTypeError(f"expected at most {_MOST_THREADS}, got {value}")
    return value


def not_negative_int(text: str) -> int:
    """An argparse type: an integer of zero or more."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected a number of 0 or more, got {value}")
    return value


def add_query_arguments(parser: argparse.ArgumentParser, *, corpus_required: bool = True) -> None:
    """Arguments for queries, corpus and output of matches."""
    parser.add_argument("queries", nargs="+", metavar="QUERY", help="text to search for")
    parser.add_argument(
        "--in",
        dest="corpus",
        required=corpus_required,
        metavar="CORPUS",
        help="file with the texts, or - for stdin",
    )
    parser.add_argument(
        "--top", type=positive_int, default=5, metavar="K", help="matches per query (default: 5)"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help='one JSON object per query: {"query", "matches": [{"rank", "score", "line", "text"}]}; with'
        ' "source" of several files, and "id" if there is one',
    )


def add_input_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments for reading the input."""
    group = parser.add_argument_group("input")
    group.add_argument(
        "--field",
        metavar="NAME",
        help=f'JSON field or CSV column with the text (default: "{DEFAULT_FIELD}")',
    )
    group.add_argument(
        "--format",
        choices=FORMATS,
        help="format of the input (default: by its suffix; standard input: txt)",
    )


def add_record_arguments(group: argparse._ArgumentGroup) -> None:
    """Arguments for what is taken of a record, and for records that cannot be used."""
    add = group.add_argument
    add("--id", metavar="NAME", help="the JSON member or column with an id to copy to the output")
    add(
        "--template", metavar="T", help='make the text of several fields, such as "{title}: {body}"'
    )
    add(
        "--on-error",
        choices=("fail", "skip"),
        default="fail",
        help="what to do with an invalid record (default: %(default)s)",
    )
    add(
        "--errors", metavar="FILE", help="write the skipped records and reasons to this .jsonl file"
    )


def add_model_arguments(
    parser: argparse.ArgumentParser, default: str | None = DEFAULT_MODEL
) -> None:
    """Arguments for the model and the progress bar. default: None if a model is required."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        default=default,
        required=default is None,
        metavar="M",
        help="folder or name of the model" + (f" (default: {default})" if default else ""),
    )
    add_execution_arguments(group)
    parser.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="show a progress bar on standard error (default: if it is a terminal)",
    )


def add_execution_arguments(group: argparse._ArgumentGroup) -> None:
    """Arguments for running a model."""
    group.add_argument(
        "--compute-type",
        choices=("default", "auto", "float32", "bfloat16", "int8"),
        default="default",
        help="arithmetic of the linear layers (default: what the model's folder declares, else float32)",
    )
    group.add_argument(
        "--num-threads",
        type=_thread_count,
        metavar="N",
        help="number of threads (default: what the affinity mask, cgroup quota and environment allow)",
    )
    group.add_argument(
        "--max-batch-tokens",
        type=positive_int,
        default=16384,
        metavar="N",
        help="tokens per forward pass; bounds the memory (default: %(default)s)",
    )
