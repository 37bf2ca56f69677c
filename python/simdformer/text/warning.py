# SPDX-License-Identifier: Apache-2.0
"""Warnings that point to the code that called the library."""

from __future__ import annotations

import sys
import warnings


def warn_caller(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn with the location of the last stack frame outside simdformer."""
    level, frame = 1, sys._getframe()
    while frame.f_back and str(frame.f_globals.get("__name__")).startswith("simdformer."):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
