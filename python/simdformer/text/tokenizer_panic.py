# SPDX-License-Identifier: Apache-2.0
"""Errors of the tokenizers library as errors of this one.

The library raises Exception itself. Where its code fails altogether it raises PanicException, which is no
Exception, so that `except Exception` would let it through.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


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
