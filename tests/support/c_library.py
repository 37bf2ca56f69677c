"""libsimdformer with ctypes, and the checksums of its files.

SIMDFORMER_LIBRARY_DIR names the folder of the library; `make library` installs it there.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, Structure, byref, c_char_p, c_float, c_int32, c_size_t, c_void_p
from pathlib import Path

import numpy as np

FOLDER = os.environ.get("SIMDFORMER_LIBRARY_DIR")
Ids = POINTER(c_int32)


class Options(Structure):
    _fields_ = (("size", c_size_t), ("pooling_start", c_size_t), ("num_threads", c_int32))


SIGNATURES = {
    "abi_version": (c_int32, []),
    "version": (c_char_p, []),
    "last_error": (c_char_p, []),
    "open": (c_void_p, [c_char_p]),
    "open_memory": (c_void_p, [c_char_p, c_size_t]),
    "close": (None, [c_void_p]),
    "dimension": (c_size_t, [c_void_p]),
    "vocab_size": (c_size_t, [c_void_p]),
    "num_token_types": (c_size_t, [c_void_p]),
    "max_length": (c_size_t, [c_void_p]),
    "encode": (
        c_int32,
        [c_void_p, Ids, Ids, Ids, c_size_t, POINTER(Options), POINTER(c_float)],
    ),
}


class Library:
    """The functions of the library, without the prefix simdformer_."""

    def __init__(self, path=None):
        found = path or next(Path(FOLDER).glob("lib*/libsimdformer.so"))
        self.path = Path(found)
        library = ctypes.CDLL(str(found))
        for name, (result, arguments) in SIGNATURES.items():
            function = getattr(library, f"simdformer_{name}")
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)

    def error(self):
        return self.last_error().decode()


def message_of(library):
    message = library.error()
    assert message, "an error without a message"
    return message


class LibraryError(Exception):
    """The message of simdformer_last_error."""


class Model:
    """A handle. source: the path of a file, or its bytes."""

    def __init__(self, library, source):
        self._library = library
        if isinstance(source, bytes):
            self.handle = library.open_memory(source, len(source))
        else:
            self.handle = library.open(os.fsencode(source))
        if not self.handle:
            raise LibraryError(message_of(library))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._library.close(self.handle)

    def __getattr__(self, name):
        return getattr(self._library, name)(self.handle)

    def encode(self, sequences, types=None, **options):
        ids = np.array([i for sequence in sequences for i in sequence], np.int32)
        cu = np.cumsum([0, *map(len, sequences)]).astype(np.int32)
        types = None if types is None else np.concatenate(types).astype(np.int32)
        out = np.full((len(sequences), self.dimension), np.nan, np.float32)
        given = Options(size=ctypes.sizeof(Options), **options)
        code = self._library.encode(
            self.handle,
            ids.ctypes.data_as(Ids),
            None if types is None else types.ctypes.data_as(Ids),
            cu.ctypes.data_as(Ids),
            len(sequences),
            byref(given) if options else None,
            out.ctypes.data_as(POINTER(c_float)),
        )
        if code:
            raise LibraryError(message_of(self._library))
        return out


def with_checksum(data):
    """A file whose last 16 bytes are the checksum of the others: Fletcher's sums of 32-bit words."""
    words = np.frombuffer(data[:-16], "<u4").astype(np.uint64)
    first = np.cumsum(words, dtype=np.uint64)
    sums = np.array([first[-1] if len(words) else 0, first.sum(dtype=np.uint64)], "<u8")
    return data[:-16] + sums.tobytes()
