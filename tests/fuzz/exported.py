"""Damaged exported models: the library opens each or reports an error, and can compute with those that it opens.

    python -m tests.fuzz.exported FILE --count 4000 --seed 1

Damaged files get a correct checksum, so that the checks after it are reached. A crash ends the process; the seed and
the number printed last identify the file.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from tests.support.c_library import Library, LibraryError, Model, with_checksum

WORDS = (
    0,
    1,
    2,
    3,
    7,
    64,
    2**16,
    2**31 - 1,
    2**31,
    2**32,
    2**40,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 1,
)


def mutated(data, places, rng):
    """Make one to three changes of units of 8 bytes or of bits. places: where most changes are made."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        last = len(out) // 8 - 3
        at = 8 * min(rng.choice(places) if rng.random() < 0.8 else rng.randrange(last), last)
        kind = rng.randrange(5)
        if kind == 0:
            out[at : at + 8] = rng.choice(WORDS).to_bytes(8, "little")
        elif kind == 1:
            value = int.from_bytes(out[at : at + 8], "little") + rng.choice((-8, -1, 1, 8))
            out[at : at + 8] = (value % 2**64).to_bytes(8, "little")
        elif kind == 2:
            out[at + rng.randrange(8)] ^= 1 << rng.randrange(8)
        elif kind == 3:
            del out[at : at + 8 * rng.randint(1, 4)]
        else:
            out[at:at] = out[16 : 16 + 8 * rng.randint(1, 4)]
    return bytes(out)


def small_numbers(data):
    """Units with a number below 2^16, such as sizes, counts, codes and flags, without magic, version and
    checksum."""
    units = np.frombuffer(data, "<u8")
    return (2 + np.flatnonzero(units[2:-2] < 2**16)).tolist()


def outcome(library, data):
    """The result for one file, in words."""
    try:
        with Model(library, data) as model:
            ids = [[i % max(1, model.vocab_size) for i in range(n)] for n in (3, 0, 9)]
            if model.dimension > 2**20:
                return "opened, too wide to run"
            try:
                model.encode(ids)
            except LibraryError:
                return "opened, refused the ids"
            return "opened"
    except LibraryError:
        return "refused"


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--count", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--library", type=Path)
    args = parser.parse_args(argv)
    library, data = Library(args.library), args.file.read_bytes()
    assert outcome(library, with_checksum(data)) == "opened"
    places = small_numbers(data)
    found = Counter()
    for number in range(args.count):
        print(f"\r{number}", end="", file=sys.stderr, flush=True)
        rng = random.Random(f"{args.seed}/{number}")
        found[outcome(library, with_checksum(mutated(data, places, rng)))] += 1
    print(dict(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
