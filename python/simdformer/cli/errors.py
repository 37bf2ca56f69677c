# SPDX-License-Identifier: Apache-2.0
"""Errors of the command line on standard error: one line, no traceback."""

from __future__ import annotations

import sys


def say(message: str) -> None:
    """Print one line on standard error, with the command's name."""
    print(f"simdformer: {message}", file=sys.stderr)


class CliError(Exception):
    """An error that the user can correct: the message says what, where, and what was expected."""


class UsageError(CliError):
    """Arguments that exclude each other; reported like argparse's errors."""
