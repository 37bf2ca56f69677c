# SPDX-License-Identifier: Apache-2.0
"""The best texts for a query, kept and printed by search and rerank."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, NamedTuple

from simdformer.cli.errors import CliError
from simdformer.cli.records import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Match(NamedTuple):
    """One text of the corpus and its score for the query; higher is better."""

    score: float
    record: Record


class TopMatches:
    """The `k` best matches so far. Of equal scores the earlier text comes first."""

    def __init__(self, k: int) -> None:
        self._k = k
        self.best: list[Match] = []

    def add(self, scores: NDArray[np.float32], records: list[Record]) -> None:
        """scores: float32 (len(records),). CliError if one is NaN, which has no place in the order."""
        import numpy as np

        unordered = np.isnan(scores)
        if unordered.any():
            record = records[int(unordered.argmax())]
            raise CliError(
                f"the score of the text in line {record.line} is NaN: values overflow float32"
            )
        candidates = (-scores).argsort(kind="stable")[: self._k]
        self.best += [Match(float(scores[i]), records[i]) for i in candidates]
        self.best.sort(key=lambda match: -match.score)  # a stable sort keeps the earlier text first
        del self.best[self._k :]


def as_text(query: str, matches: list[Match]) -> str:
    """The query and one line per match."""
    width = shutil.get_terminal_size((100, 24)).columns
    lines = [query]
    several = len({match.record.source for match in matches}) > 1
    for match in matches:
        place = f"{match.record.source}, " if several else ""
        head = f"  {match.score:7.4f}  {place}line {match.record.line}: "
        lines.append(head + _shortened(match.record.text, max(width - len(head), 20)))
    if not matches:
        lines.append("  (the corpus is empty)")
    return "\n".join(lines) + "\n"


def as_json(query: str, matches: list[Match]) -> str:
    """One object on one line."""
    several = len({match.record.source for match in matches}) > 1
    found = []
    for rank, (score, record) in enumerate(matches, start=1):
        members: dict[str, object] = {"rank": rank, "score": score}
        if record.id is not None:
            members["id"] = record.id
        if several:
            members["source"] = record.source
        found.append({**members, "line": record.line, "text": record.text})
    return json.dumps({"query": query, "matches": found}, ensure_ascii=False) + "\n"


def _shortened(text: str, width: int) -> str:
    """One line of `text`. Control characters, which could control the terminal, become spaces."""
    printable = "".join(c if c.isprintable() else " " for c in text[: 4 * width])
    line = " ".join(printable.split())
    return line if len(line) <= width else line[: width - 1] + "…"
