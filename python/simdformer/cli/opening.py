# SPDX-License-Identifier: Apache-2.0
"""Opens inputs: plain and compressed files, standard input, and URIs of pyarrow's file systems."""

from __future__ import annotations

import glob
import gzip
import io
import os
import re
import sys
import zlib
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from urllib.parse import quote

from simdformer.cli.errors import CliError, UsageError

if TYPE_CHECKING:
    from types import ModuleType

# Formats by the suffix of a name.
FORMATS_BY_SUFFIX = {
    "txt": "txt",
    "jsonl": "jsonl",
    "csv": "csv",
    "tsv": "tsv",
    "md": "document",
    "parquet": "parquet",
    "arrow": "arrow",
}
FORMATS = tuple(dict.fromkeys(FORMATS_BY_SUFFIX.values()))
_COMPRESSIONS = ("gz", "zst")
# Errors from reading a file, compressed or not.
READ_ERRORS = (OSError, EOFError, zlib.error)


def pyarrow(module: str = "pyarrow") -> ModuleType:
    """Import a module of pyarrow, which only some formats need. CliError says how to install it."""
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise CliError('this format needs pyarrow: pip install "simdformer[arrow]"') from error


def is_uri(path: str) -> bool:
    """Whether a path is a URI of one of pyarrow's file systems."""
    return "://" in path


def local_path(path: str) -> Path | None:
    """The real path of a file on this machine; None for standard input and for what is elsewhere."""
    if path == "-":
        return None
    if not is_uri(path):
        return Path(os.path.realpath(path))
    if path.partition("://")[0] not in ("file", "local"):
        return None
    try:
        return Path(os.path.realpath(pyarrow("pyarrow.fs").FileSystem.from_uri(path)[1]))
    except ValueError:  # opening it says what is wrong
        return None


def _without_query(uri: str) -> str:
    return re.split("[?#]", uri, maxsplit=1)[0]


def _suffixes(path: str) -> tuple[str, str]:
    """The suffixes of a name for its format and its compression; "" if missing."""
    path = _without_query(path) if is_uri(path) else path
    *rest, last = ["", *Path(path).name.lower().split(".")]
    if last in _COMPRESSIONS:
        return (rest[-1] if len(rest) > 2 else ""), last
    return (last if len(rest) > 1 else ""), ""


def known_format(path: str) -> str | None:
    """The format that a file's suffix stands for; None if it is unknown."""
    return FORMATS_BY_SUFFIX.get(_suffixes(path)[0])


def text_format(path: str, chosen: str | None) -> str:
    """The format of `path`: `chosen`, else by its suffix; txt for standard input."""
    if chosen is not None:
        return chosen
    if path == "-":
        return "txt"
    found = known_format(path)
    if found is None:
        known = ", ".join(f".{name}" for name in FORMATS_BY_SUFFIX)
        raise UsageError(
            f"{path}: its name does not say what format it has (known: {known}; those of text also with"
            " .gz or .zst); use --format"
        )
    return found


def open_input(path: str) -> tuple[BinaryIO, int | None]:
    """Open an input. Returns its decompressed bytes, and its size on disk if known."""
    if path == "-":
        return sys.stdin.buffer, None
    compression = _suffixes(path)[1]
    with ExitStack() as stack:
        try:
            file = stack.enter_context(_opened(path))
            opened = _decompressed(file, compression)
            size = None
            if not (is_uri(path) or compression):
                size = os.fstat(file.fileno()).st_size or None  # the size of a pipe or device is 0
        except (*READ_ERRORS, ValueError) as error:
            raise CliError(f"cannot read {path}: {reason(error)}") from error
        stack.pop_all()
    return opened, size


def _decompressed(file: BinaryIO, compression: str) -> BinaryIO:
    """The bytes of a file. Closing them closes the file."""
    if compression == "gz":
        return cast("BinaryIO", _GzipReader(fileobj=file))
    if compression == "zst":
        return _buffered(pyarrow().CompressedInputStream(file, "zstd"))
    return file


class _GzipReader(gzip.GzipFile):
    """A gzip reader that also closes the compressed file."""

    def close(self) -> None:
        file: Any = self.fileobj
        super().close()
        if file is not None:
            file.close()


def reason(error: BaseException) -> str:
    """The reason of an error, on one line."""
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(said).splitlines()[0]


def _opened(path: str) -> BinaryIO:
    if not is_uri(path):
        return Path(path).open("rb")
    system, name = pyarrow("pyarrow.fs").FileSystem.from_uri(path)
    return _buffered(system.open_input_file(name))


def _buffered(stream: Any) -> BinaryIO:
    return cast("BinaryIO", io.BufferedReader(stream, 1 << 20))


def expand(inputs: list[str], chosen: str | None) -> tuple[list[str], int]:
    """The files given by INPUT arguments, in order, and the number of skipped files.

    A folder stands for the files in it and its subfolders whose suffix has a known format, sorted by name;
    other files are skipped. A name with *, ? or [ is a pattern, unless a file has that name.
    """
    files: list[str] = []
    unknown = 0
    for name in inputs:
        if is_uri(name):
            found = _expand_uri(name)
        elif Path(name).is_dir():
            found = _files_below(name)
        elif not Path(name).exists() and any(c in name for c in "*?["):
            found = sorted(p for p in glob.iglob(name, recursive=True) if Path(p).is_file())  # noqa: PTH207  (absolute ones too)
            if not found:
                raise CliError(f"no file matches {name}")
            files += found
            continue
        else:
            files.append(name)
            continue
        known = found if chosen or found == [name] else [p for p in found if known_format(p)]
        if not known:
            suffixes = ", ".join(f".{suffix}" for suffix in FORMATS_BY_SUFFIX)
            raise CliError(f"{name}: the folder has no file whose name ends in {suffixes}")
        unknown += len(found) - len(known)
        files += known
    return files, unknown


def _files_below(folder: str) -> list[str]:
    """The visible files of a folder, sorted. Links to folders are not followed, as they may lead back."""
    return sorted(str(p) for p in Path(folder).rglob("*") if _is_visible_file(p, folder))


def _is_visible_file(path: Path, folder: str) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return not hidden and path.is_file()


def _expand_uri(uri: str) -> list[str]:
    fs = pyarrow("pyarrow.fs")
    try:
        system, name = fs.FileSystem.from_uri(uri)
        info = system.get_file_info(name)
        if info.type != fs.FileType.Directory:
            return [uri]
        if isinstance(system, fs.LocalFileSystem):
            names = [Path(path).relative_to(name).as_posix() for path in _files_below(name)]
        else:
            below = system.get_file_info(fs.FileSelector(name, recursive=True))
            paths = sorted(each.path for each in below if each.type == fs.FileType.File)
            names = [path.removeprefix(info.path).lstrip("/") for path in paths]
        return [_uri_below(uri, name) for name in names]
    except (OSError, ValueError) as error:
        raise CliError(f"cannot read {uri}: {reason(error)}") from error


def _uri_below(uri: str, name: str) -> str:
    """The URI of the file `name` in the folder of a URI, whose query it keeps."""
    folder = _without_query(uri)
    slash = "" if folder.endswith("/") else "/"
    return f"{folder}{slash}{quote(name)}{uri[len(folder) :]}"
