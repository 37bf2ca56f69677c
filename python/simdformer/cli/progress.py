# SPDX-License-Identifier: Apache-2.0
"""A progress bar on standard error with texts and tokens per second."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from simdformer.cli.corpus import Corpus
    from simdformer.cli.records import Record


class Progress:
    """Counts texts and tokens. The bar shows bytes, because only their total is known.

    num_texts: the number of texts so far, also without a bar.
    """

    def __init__(self, source: Corpus | None, *, shown: bool | None, name: str = "embed") -> None:
        self._started = time.perf_counter()
        self.num_texts = 0
        self._tokens = 0
        size = None if source is None else source.size
        head = "{desc}: {percentage:3.0f}%|{bar:30}| " if size else "{desc}: "
        tail = "{elapsed}<{remaining}" if size else "{elapsed}"
        self._bar = tqdm(
            total=size,
            desc=name,
            file=sys.stderr,
            disable=not (sys.stderr.isatty() if shown is None else shown),
            bar_format=head + "{postfix} [" + tail + "]",
        )

    def update(self, records: list[Record], num_tokens: int) -> None:
        """Add the texts and tokens of a finished chunk."""
        self.num_texts += len(records)
        self._tokens += num_tokens
        seconds = max(time.perf_counter() - self._started, 1e-9)
        self._bar.set_postfix_str(
            f"{self.num_texts:,} texts, {self.num_texts / seconds:,.0f} texts/s, "
            f"{self._tokens / seconds:,.0f} tokens/s",
            refresh=False,
        )
        self._bar.update(records[-1].end - self._bar.n)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()
