"""Helpers for several test files: error bounds, unusual memory layouts, code in a new process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent

U = 2.0**-24  # unit roundoff of float32: the relative error of one operation
EPS = 2.0**-23  # distance from 1 to the next float32
TINY = 2.0**-126  # smallest normal float32
DENORMAL = 2.0**-149  # smallest float32 above zero


def gamma(n):
    """The relative error of n operations (Higham, Accuracy and Stability, lemma 3.1)."""
    return n * U / (1 - n * U)


def assert_within(actual, expected, bound):
    """Check |actual - expected| <= bound everywhere. The error names the worst place."""
    actual = np.asarray(actual, np.float64)
    expected, bound = np.broadcast_arrays(expected, bound)
    assert actual.shape == expected.shape
    # Written as "not <=", so that a NaN on only one side is an error too.
    wrong = ~(np.abs(actual - expected) <= bound) & ~(np.isnan(actual) & np.isnan(expected))
    wrong &= actual != expected  # equal infinities
    if wrong.any():
        excess = np.where(wrong, np.abs(actual - expected) / np.maximum(bound, DENORMAL), 0)
        worst = np.unravel_index(np.argmax(np.nan_to_num(excess, nan=np.inf)), actual.shape)
        where = tuple(int(i) for i in worst)
        raise AssertionError(
            f"{wrong.sum()} of {wrong.size} elements beyond the bound; at {where}: "
            f"got {actual[worst]:.9g}, expected {expected[worst]:.9g}, bound {bound[worst]:.3g}"
        )


def assert_same_bits(actual, expected):
    """Equal bits: 0.0 is not -0.0, and NaNs are in the same places."""
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype == np.float32
    nan = np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(actual), nan)
    different = (actual.view(np.uint32) != expected.view(np.uint32)) & ~nan
    assert not different.any(), f"{different.sum()} of {different.size} elements differ"


def ulp_error(actual, exact):
    """|actual - exact| in units of the float32 spacing at the exact value."""
    with np.errstate(over="ignore", under="ignore"):
        spacing = np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)
    return np.abs(actual.astype(np.float64) - exact) / spacing


def normal(rng, *shape, scale=1.0):
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def integers(rng, low, high, *shape):
    """Whole numbers as float32; sums of their products below 2^24 are exact."""
    return rng.integers(low, high + 1, shape).astype(np.float32)


def misaligned(x):
    """The same values at an address that is 4 bytes after a multiple of 64."""
    raw = np.empty(x.nbytes + 128, np.uint8)
    start = (-raw.ctypes.data) % 64 + 4
    out = raw[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
    out[...] = x
    return out


def column_major(x):
    return np.asfortranarray(x)


def every_other(x):
    """The same values as a strided view of an array that is twice as wide, with NaN or 99 between them."""
    between = np.nan if x.dtype.kind == "f" else 99
    wide = np.full((*x.shape[:-1], 2 * x.shape[-1]), between, x.dtype)
    wide[..., ::2] = x
    return wide[..., ::2]


def backwards(x):
    """A view with negative strides."""
    return x[..., ::-1].copy()[..., ::-1]


def read_only(x):
    out = x.copy()
    out.flags.writeable = False
    return out


LAYOUTS = [misaligned, column_major, every_other, backwards, read_only]


def sizes_around(*marks):
    """0, 1 and each given size with its neighbors."""
    return sorted({0, 1} | {n for mark in marks for n in (mark - 1, mark, mark + 1) if n >= 0})


def run_python(code, *arguments, timeout=120, **environment):
    """Run code (text or a Path) in a new interpreter that can import the modules of the tests. It is killed
    after `timeout` seconds.

    The library's environment variables are those given here, not those of the suite.
    """
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SIMDFORMER_", "OMP_"))}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), *sys.path])
    env.update(environment)
    program = [str(code)] if isinstance(code, Path) else ["-c", code]
    return subprocess.run(
        [sys.executable, *program, *arguments],
        env=env,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def output_of(code, *arguments, timeout=120, **environment):
    """The standard output of code that must succeed."""
    done = run_python(code, *arguments, timeout=timeout, **environment)
    assert done.returncode == 0, f"exit status {done.returncode}:\n{done.stderr}"
    return done.stdout.strip()


def random_qkv(rng, queries, keys, head_dim, scale=1.0):
    """q, k and v of one head."""
    return [normal(rng, n, head_dim, scale=scale) for n in (queries, keys, keys)]
