# SPDX-License-Identifier: Apache-2.0
"""Converts errors of the tokenizers library, and protects its calls that release the GIL.

The library raises Exception itself. If its Rust code panics, it raises PanicException, which is not an
Exception, so `except Exception` does not catch it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from simdformer import _core

# An upper bound for the memory that tokenizing needs: for the origin of each character, and for the stacks of
# threads.
_BYTES_PER_CHARACTER = 128
_BYTES_OF_THREADS = 2**25


def is_of_library(error: BaseException) -> bool:
    """Whether the library raised the exception. PanicException cannot be imported."""
    return type(error) is Exception or type(error).__name__ == "PanicException"


@contextmanager
def as_value_error(message: str, *, keep: type[Exception] = MemoryError) -> Iterator[None]:
    """Convert exceptions inside, except those in `keep`, to a ValueError with this message before the
    library's own."""
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
    """Guard a call of the library that releases the GIL, so that the interpreter does not exit during it.

    Errors: MemoryError if there is not enough memory for this number of characters. The library would abort
    the process.
    """
    size = _BYTES_OF_THREADS + _BYTES_PER_CHARACTER * num_characters
    try:
        bytes(size)  # reserved, not used
    except MemoryError:
        message = f"tokenizing {num_characters} characters needs up to {size >> 20} MB of memory"
        raise MemoryError(f"{message}, which are not available") from None
    _core.leave_python()
    try:
        yield
    finally:
        _core.return_to_python()
