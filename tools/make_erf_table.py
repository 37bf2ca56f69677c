#!/usr/bin/env python3
"""Write cpp/simd/erf_table.h: erf(x / sqrt(2)) for x >= 0 by polynomials in equal segments.

Chebyshev interpolation in float64, rounded to float32. The step between the segments' middles is
short enough in binary that its multiples are exact in float32.
"""

from __future__ import annotations

import math
import textwrap
from pathlib import Path

import numpy as np
from numpy.polynomial import chebyshev

HEADER = Path(__file__).resolve().parent.parent / "cpp" / "simd" / "erf_table.h"
SEGMENTS = 32
DEGREE = 4
STEP = 23 / 128  # the last segment begins at 5.48, where erf is 1 in float32

INTRODUCTION = """\
// SPDX-License-Identifier: Apache-2.0
// Written by tools/make_erf_table.py. kErfTable[d][i]: the coefficient of r^d in erf(x / sqrt(2)),
// x = i kErfStep + r, |r| <= kErfStep / 2. Error of the fit: {error:.1e}.
#pragma once

#include <cstddef>

namespace simdformer {{
namespace {{

constexpr size_t kErfSegments = {segments};
constexpr size_t kErfDegree = {degree};
constexpr float kErfStep = {step}f;
// clang-format off
alignas(64) constexpr float kErfTable[kErfDegree + 1][kErfSegments] = {{
"""


def segment(middle: float) -> tuple[np.ndarray, float]:
    """The coefficients around `middle`, and the largest error in between the nodes."""
    half = STEP / 2

    def function(r: np.ndarray) -> np.ndarray:
        return np.array([math.erf((middle + t * half) / math.sqrt(2)) for t in r])

    series = chebyshev.Chebyshev(chebyshev.chebinterpolate(function, DEGREE))
    dense = np.linspace(-1, 1, 1001)
    error = np.abs(series(dense) - function(dense)).max()
    power = np.zeros(DEGREE + 1)
    coefficients = chebyshev.cheb2poly(series.coef)
    power[: len(coefficients)] = coefficients
    return power / half ** np.arange(DEGREE + 1), error


def main() -> None:
    table = np.zeros((DEGREE + 1, SEGMENTS))
    errors = []
    for i in range(SEGMENTS - 1):
        table[:, i], error = segment(i * STEP)
        errors.append(error)
    table[::2, 0] = 0  # erf is odd
    table[0, -1] = 1  # and from the last segment on it is 1
    text = INTRODUCTION.format(error=max(errors), segments=SEGMENTS, degree=DEGREE, step=STEP)
    for row in table.astype(np.float32):
        numbers = [f"{value:.9g}" for value in row]
        literals = [n + ("f" if "." in n or "e" in n else ".0f") for n in numbers]
        text += textwrap.fill(
            ", ".join(literals), 98, initial_indent="    {", subsequent_indent="     "
        )
        text += "},\n"
    text += "};\n// clang-format on\n\n}  // namespace\n}  // namespace simdformer\n"
    HEADER.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
