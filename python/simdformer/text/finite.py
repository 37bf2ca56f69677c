# SPDX-License-Identifier: Apache-2.0
"""Finite weights may give results beyond float32: an error that names the text instead of NaN."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import closing
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Rows = TypeVar("Rows", Float32, list[Float32])


def finite(parts: Generator[Rows, None, None]) -> Generator[Rows, None, None]:
    """Return the rows. ValueError names the first text whose rows are not finite."""
    begin = 0
    with closing(parts):
        for part in parts:
            check_finite(part, begin)
            begin += len(part)
            yield part


def check_finite(rows: Iterable[Float32], begin: int) -> None:
    """ValueError that names the first row that is not finite. begin: the number of the first text."""
    # All at once; one by one only to find the text.
    if isinstance(rows, np.ndarray) and np.isfinite(rows).all():
        return
    for index, row in enumerate(rows, begin):
        if not np.isfinite(row).all():
            raise ValueError(
                f"the result for texts[{index}] is NaN or infinite: the weights are finite, but intermediate"
                " results overflow float32; the file may be damaged"
            )
