# SPDX-License-Identifier: Apache-2.0
"""Splits texts longer than the model's limit into chunks of tokens, which may overlap."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simdformer.cli.errors import UsageError, reported

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from simdformer import SentenceTransformer
    from simdformer.cli.records import Record


class Chunker:
    """Splits texts between words so that a chunk has at most `size` tokens, special tokens excluded.

    size: 0 for the model's limit minus the prompt. overlap: the maximum number of tokens that consecutive
    chunks share.
    """

    def __init__(
        self, model: SentenceTransformer, size: int, overlap: int, prompt_name: str | None
    ) -> None:
        self._tokenizer = model.pipeline.tokenizer
        special = len(self._tokenizer([""]).input_ids[0])
        prompt = model.resolve_prompt(None, prompt_name) or ""
        taken = len(self._tokenizer.offsets(prompt)) if prompt else 0
        most = model.max_seq_length - special - taken
        if size > most:
            raise UsageError(f"--chunk must be at most {most}, what the model takes, got {size}")
        self.size, self.overlap = size or most, overlap
        if overlap >= self.size:
            raise UsageError(f"--overlap must be less than --chunk ({self.size}), got {overlap}")

    def __call__(self, records: Iterable[Record]) -> Iterator[Record]:
        """The chunks of records. Each has the limits of its text in the record's text."""
        for record in records:
            for start, stop in self.spans(record.text):
                yield record._replace(text=record.text[start:stop], span=(start, stop))

    def spans(self, text: str) -> list[tuple[int, int]]:
        """The limits of a text's chunks, in characters. A short or empty text is one chunk."""
        with reported():
            tokens = self._tokenizer.offsets(text)
        if len(tokens) <= self.size:
            return [(0, len(text))]
        spans, begin = [], 0
        while True:
            end = min(begin + self.size, len(tokens))
            if end < len(tokens):
                end = _word_start(tokens, end, begin + 1)
            spans.append((tokens[begin][0], tokens[end - 1][1]))
            if end == len(tokens):
                return spans
            begin = max(begin + 1, _word_start(tokens, end - self.overlap, begin + 1))


def _word_start(tokens: list[tuple[int, int]], at: int, least: int) -> int:
    """The last token, from `least` to `at`, that starts a word: it does not start where another token ends.
    `at` if there is none."""
    for i in range(at, least - 1, -1):
        if tokens[i][0] > tokens[i - 1][1]:
            return i
    return at
