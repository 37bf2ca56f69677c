# SPDX-License-Identifier: Apache-2.0
"""Errors of the tokenizers library as errors of this one, and its calls that release the GIL.

The library raises Exception itself. Where its code fails altogether it raises PanicException, which is no
Exception, so that `except Exception` would let it through.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from simdformer import _core

# What tokenizing takes at most: where each character came from, and the threads' stacks.
_BYTES_PER_CHARACTER = 128
_BYTES_OF_THREADS = 2**25


def is_of_library(error: BaseException) -> bool:
    """Whether the library raised it. PanicException cannot be imported."""
    return type(error) is Exception or type(error).__name__ == "PanicException"


@contextmanager
def as_value_error(message: str, *, keep: type[Exception] = MemoryError) -> Iterator[None]:
    """What goes wrong inside is a ValueError with this message before the library's own, but for
    what is to be kept as it is."""
    try:
        yield
    except (keep, MemoryError):
        raise
    except BaseException as error:
        if isinstance(error, Exception) or is_of_library(error):
            raise ValueError(f"{message}: {error!s}" if str(error) else message) from error
        raise


@contextmanager
def outside_python(num_characters: int) -> Iterator[None]:
    """Around a call of the library that releases the GIL: the interpreter does not end meanwhile.

    MemoryError if the memory that so many characters may need is not there: where the library gets none,
    it ends the process.
    """
    size = _BYTES_OF_THREADS + _BYTES_PER_CHARACTER * num_characters
    try:
        bytes(size)  # reserved, not touched
    except MemoryError:
        message = f"tokenizing {num_characters} characters needs up to {size >> 20} MB of memory"
        raise MemoryError(f"{message}, which are not there") from None
    _core.leave_python()
    try:
        yield
    finally:
        _core.return_to_python()
