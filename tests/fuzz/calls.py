"""Random calls of functional and nn. Each returns a result or raises TypeError, ValueError, IndexError or
MemoryError.

    python -m tests.fuzz.calls --count 2000 --seed 1        # all; exit status 1 for a finding
    python -m tests.fuzz.calls --seed 1 --only 1234         # one of them, with its traceback

Shapes, strides, dtypes, values and options are unusual. During one call in four, another thread writes into
its arrays. Batches of calls run in separate processes, with a memory limit and a timeout per call.
"""

from __future__ import annotations

import argparse
import inspect
import resource
import signal
import subprocess
import sys
import threading
import warnings

import numpy as np

from simdformer.nn import Module
from tests.support import backwards, every_other, misaligned, read_only
from tests.support.calls import CALLS

ALLOWED = (TypeError, ValueError, IndexError, MemoryError)
SECONDS = 10  # per call
MEMORY = 4 * 2**30
BATCH = 500
_ODD = [
    None, True, False, 0, 1, -1, 2, 7, 2**31, 2**40, -(2**63), 0.0, -0.5, 1.5, 1e-320, 1e300, float("nan"),
    float("inf"), 1j, "", "x", "nan", b"x", [], [1, 2], (3, -1), {}, {"a": 1}, np.int8(3), np.float16(2),
    np.zeros(3), np.zeros((2, 2), bool), np.array("s"), np.datetime64("2020"), object(), len, ["a"], [[]],
]  # fmt: skip
_VALUES = [0.0, -0.0, np.nan, np.inf, -np.inf, 1e38, -3e38, 1e-45, 1.0]
_IDS = [-1, 0, 2**31, -(2**31), 2**62, 11, 3]
_DTYPES = [
    "float64",
    "float16",
    ">f4",
    "int8",
    "uint64",
    "bool",
    "complex64",
    "object",
    "U2",
    "f4,i1",
]


def _shape(rng, array):
    """The same numbers, or some of them, with another shape."""
    kind = rng.integers(5)
    if kind == 0:
        return array[:0] if array.ndim else array
    if kind == 1:
        return array[None]
    if kind == 2:
        return array.reshape(-1)
    if kind == 3:
        return np.resize(array, [int(rng.integers(0, 9)) for _ in range(rng.integers(0, 6))])
    return np.concatenate([array, array], axis=-1) if array.ndim else array


def _strides(rng, array):
    layouts = [misaligned, every_other, backwards, read_only, np.asfortranarray, np.transpose]
    if array.dtype.hasobject:
        return array
    if rng.integers(3) == 0 and array.size:
        return np.lib.stride_tricks.as_strided(array, strides=[0] * array.ndim)
    raw = np.zeros(array.nbytes + 1, np.uint8)[1:]
    if rng.integers(3) == 0 and array.dtype.kind in "fiub":
        return raw.view(array.dtype).reshape(array.shape)
    return layouts[rng.integers(len(layouts))](array) if array.ndim else array


def _values(rng, array):
    array = array.copy()
    if array.size and array.dtype in (np.float32, np.int64):
        pool = _VALUES if array.dtype.kind == "f" else _IDS
        array.reshape(-1)[rng.integers(array.size)] = pool[rng.integers(len(pool))]
    return array


def _dtype(rng, array):
    return np.zeros(array.shape, _DTYPES[rng.integers(len(_DTYPES))])


def _odd(rng, array):  # noqa: ARG001
    return _ODD[rng.integers(len(_ODD))]


def arguments(rng, call):
    """The arrays of a call, some changed in one or two ways, and up to two options."""
    given = {}
    for name, array in call.arrays.items():
        given[name] = array.copy()
        for _ in range(rng.choice(3, p=[0.6, 0.3, 0.1])):
            change = rng.choice(
                [_shape, _strides, _values, _dtype, _odd], p=[0.3, 0.3, 0.2, 0.1, 0.1]
            )
            if isinstance(given[name], np.ndarray):
                given[name] = change(rng, given[name])
    function = call.function.forward if isinstance(call.function, Module) else call.function
    options = [
        n for n, p in inspect.signature(function).parameters.items() if p.kind != p.VAR_KEYWORD
    ]
    for name in rng.permutation(options)[: rng.integers(3)]:
        if name not in given:
            given[str(name)] = _odd(rng, None)
    return given


class Disturber:
    """A thread that writes into arrays while calls read them."""

    def __init__(self):
        self.arrays = []
        self.stopped = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        rng = np.random.default_rng(0)
        while not self.stopped:
            for array in list(self.arrays):
                pool = _VALUES if array.dtype.kind == "f" else _IDS
                array.reshape(-1)[rng.integers(array.size)] = pool[rng.integers(len(pool))]

    def take(self, given):
        self.arrays = [
            x for x in given.values()
            if isinstance(x, np.ndarray) and x.size and x.flags.writeable and x.dtype in (np.float32, np.int64)
        ]  # fmt: skip


def chosen(seed, number):
    """The name and the arguments of one call."""
    rng = np.random.default_rng([seed, number])
    names = sorted(CALLS)
    name = names[rng.integers(len(names))]
    return name, arguments(rng, CALLS[name])


def run_batch(seed, numbers):
    """Run in this process. Writes findings to stdout, and the name of the running call to stderr."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # SIGALRM ends the process
    disturber = Disturber()
    for number in numbers:
        name, given = chosen(seed, number)
        print(f"{number} {name}", file=sys.stderr, flush=True)
        disturber.take(given if number % 4 == 0 else {})
        signal.alarm(SECONDS)
        try:
            with np.errstate(all="ignore"):
                CALLS[name].function(**given)
        except ALLOWED:
            pass
        except Exception as error:  # noqa: BLE001
            print(f"{number} {name}: {type(error).__name__}: {error}", flush=True)
    signal.alarm(0)
    disturber.stopped = True


def fuzz(count, seed):
    """The findings, one per line."""
    findings = []
    for begin in range(0, count, BATCH):
        span = (str(begin), str(min(begin + BATCH, count)))
        program = [sys.executable, "-m", "tests.fuzz.calls", "--seed", str(seed), "--batch", *span]
        done = subprocess.run(program, capture_output=True, text=True, check=False)
        findings += done.stdout.splitlines()
        if done.returncode:
            last = "\n".join(done.stderr.splitlines()[-3:])
            findings.append(f"exit status {done.returncode} at: {last}")
    return findings


def main():
    """The command described in the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int)
    parser.add_argument("--batch", type=int, nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.batch:
        run_batch(args.seed, range(*args.batch))
        return 0
    if args.only is not None:
        name, given = chosen(args.seed, args.only)
        print(name, given)
        print(CALLS[name].function(**given))
        return 0
    findings = fuzz(args.count, args.seed)
    print(*findings, f"calls: {args.count}, findings: {len(findings)}", sep="\n")
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
