# SPDX-License-Identifier: Apache-2.0
"""What the command line says on standard error: one line, no traceback."""

from __future__ import annotations

import sys


def say(message: str) -> None:
    """Print one line on standard error, under the command's name."""
    print(f"simdformer: {message}", file=sys.stderr)


class CliError(Exception):
    """Something the user can put right: the message says what, where, and what was expected."""


class UsageError(CliError):
    """Arguments that do not go together; reported as argparse reports its own errors."""
