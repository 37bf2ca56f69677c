# SPDX-License-Identifier: Apache-2.0
"""Detects results beyond the range of float32, which finite weights may give. The error names the text."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import closing
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Rows = TypeVar("Rows", Float32, list[Float32])


def finite(parts: Generator[Rows, None, None]) -> Generator[Rows, None, None]:
    """Return the rows. ValueError names the first text with a row that is not finite."""
    begin = 0
    with closing(parts):
        for part in parts:
            check_finite(part, begin)
            begin += len(part)
            yield part


def check_finite(rows: Iterable[Float32], begin: int) -> None:
    """ValueError naming the first row that is not finite. begin: the number of the first text."""
    # all rows at once; the text is only searched in case of an error
    if isinstance(rows, np.ndarray) and np.isfinite(rows).all():
        return
    for index, row in enumerate(rows, begin):
        if not np.isfinite(row).all():
            raise ValueError(
                f"the result for texts[{index}] is NaN or infinite: the weights are finite, but intermediate"
                " results overflow float32; the file may be damaged"
            )
