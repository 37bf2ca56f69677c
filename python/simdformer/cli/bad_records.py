# SPDX-License-Identifier: Apache-2.0
"""Skipped records: counts them and reports why."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from simdformer.cli.errors import CliError, say
from simdformer.cli.output import AtomicFile

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

_SHOWN = 10


class BadRecords:
    """Counts and lists skipped records, in a .jsonl file with {"source", "line", "error"}, or the first ten
    on standard error.

    The file is also written if the command fails.
    """

    def __init__(self, path: str | None) -> None:
        self.count = 0
        self._file = None if path is None else AtomicFile(path)

    def note(self, error: CliError, line: int, source: str) -> None:
        """Add a skipped record."""
        self.count += 1
        if self._file is not None:
            members = {"source": source, "line": line, "error": str(error)}
            self._file.write((json.dumps(members, ensure_ascii=False) + "\n").encode())
        elif self.count <= _SHOWN:
            say(f"skipped: {error}")

    def __enter__(self) -> Self:
        if self._file is not None:
            self._file.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.__exit__(None, None, None)
