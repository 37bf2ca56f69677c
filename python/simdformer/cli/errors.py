# SPDX-License-Identifier: Apache-2.0
"""Errors that the command line reports in one line, without a traceback."""

from __future__ import annotations


class CliError(Exception):
    """Something the user can put right: the message says what, where, and what was expected."""


class UsageError(CliError):
    """Arguments that do not go together; reported as argparse reports its own errors."""
