# SPDX-License-Identifier: Apache-2.0
"""Errors of the command line on standard error: one line, no traceback."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def say(message: str) -> None:
    """Print one line on standard error, with the command's name."""
    print(f"simdformer: {message}", file=sys.stderr)


def one_line(message: object) -> str:
    """A message of several lines, such as a list of places, on one."""
    first, *rest = [line.strip() for line in str(message).splitlines() if line.strip()] or [""]
    for line in rest:
        first += f" {line}" if first.endswith((":", ";", ",")) else f"; {line}"
    return first


class CliError(Exception):
    """An error that the user can correct: the message says what, where, and what was expected."""


class UsageError(CliError):
    """Arguments that exclude each other; reported like argparse's errors."""


@contextmanager
def reported() -> Iterator[None]:
    """Raise what the library says of a model, a text or an argument as CliError."""
    try:
        yield
    except (OSError, ValueError, ImportError) as error:
        raise CliError(str(error)) from error
