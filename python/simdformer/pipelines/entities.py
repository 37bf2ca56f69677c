# SPDX-License-Identifier: Apache-2.0
"""From scores of tokens to entities, as in transformers' token-classification pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Entity = dict[str, Any]

STRATEGIES = ("none", "simple", "first", "average", "max")


class Token(NamedTuple):
    """A token of a text. scores: float32 (labels,). start, end: in characters. position: in the
    piece that the model read. is_subword: whether it continues the word of the token before."""

    word: str
    scores: Float32
    start: int
    end: int
    position: int
    is_subword: bool


class Grouping:
    """Forms entities from tokens by a strategy. join: returns the text of tokens."""

    def __init__(
        self, labels: Sequence[str], join: Callable[[Sequence[str]], str], strategy: str
    ) -> None:
        self._labels = labels
        self._join = join
        self._strategy = strategy

    def __call__(self, tokens: Iterable[Token]) -> list[Entity]:
        """The entities of a text: one per token, or one per group of tokens."""
        if self._strategy == "none":
            return [self._of_token(token) for token in tokens]
        if self._strategy == "simple":
            return self._groups(map(self._of_token, tokens))
        return self._groups(map(self._of_word, _words(tokens)))

    def _of_token(self, token: Token) -> Entity:
        label = int(token.scores.argmax())
        return {
            "entity": self._labels[label],
            "score": float(token.scores[label]),
            "index": token.position,
            "word": token.word,
            "start": token.start,
            "end": token.end,
        }

    def _of_word(self, word: list[Token]) -> Entity:
        """The entity of a word, whose tokens get one label."""
        if self._strategy == "first":
            scores = word[0].scores
        elif self._strategy == "max":
            scores = max(word, key=lambda token: float(token.scores.max())).scores
        else:
            scores = np.mean([token.scores for token in word], axis=0)
        text = self._join([token.word for token in word])
        whole = Token(text, scores, word[0].start, word[-1].end, word[0].position, False)
        return self._of_token(whole)

    def _groups(self, entities: Iterable[Entity]) -> list[Entity]:
        """Neighbours with the same tag form a group. A label that begins with "B-" starts a new one."""
        groups: list[list[Entity]] = []
        last = None
        for entity in entities:
            label = entity["entity"]
            tag = label[2:] if label.startswith(("B-", "I-")) else label
            if groups and tag == last and not label.startswith("B-"):
                groups[-1].append(entity)
            else:
                groups.append([entity])
            last = tag
        return [self._of_group(group) for group in groups]

    def _of_group(self, group: list[Entity]) -> Entity:
        return {
            "entity_group": group[0]["entity"].split("-", 1)[-1],
            "score": float(np.mean([entity["score"] for entity in group])),
            "word": self._join([entity["word"] for entity in group]),
            "start": group[0]["start"],
            "end": group[-1]["end"],
        }


def _words(tokens: Iterable[Token]) -> Iterator[list[Token]]:
    word: list[Token] = []
    for token in tokens:
        if word and not token.is_subword:
            yield word
            word = []
        word.append(token)
    if word:
        yield word


def without_overlaps(entities: list[Entity]) -> list[Entity]:
    """Where entities overlap, keep the longest, or of equally long ones that with the best score.

    Pieces with tokens in common find some entities twice."""
    kept: list[Entity] = []
    for entity in sorted(entities, key=lambda entity: entity["start"]):
        if not (kept and kept[-1]["start"] <= entity["start"] < kept[-1]["end"]):
            kept.append(entity)
        elif _rank(entity) > _rank(kept[-1]):
            kept[-1] = entity
    return kept


def _rank(entity: Entity) -> tuple[int, float]:
    return entity["end"] - entity["start"], entity["score"]
