# SPDX-License-Identifier: Apache-2.0
"""Tokens that replace masks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from simdformer.folder.loading import LoadedTask
from simdformer.folder.task_folder import MaskedFolder
from simdformer.functional import softmax
from simdformer.functional.arrays import positive_int
from simdformer.pipelines.base import TOKENIZING, Float32, Pipeline
from simdformer.pipelines.feature_extraction import tokenizing
from simdformer.text.inputs import as_list
from simdformer.text.tokenizer import check_text
from simdformer.text.warning import warn_caller

Int64 = NDArray[np.int64]


class FillMaskPipeline(Pipeline):
    """The most probable tokens for each mask of a text."""

    task = "fill-mask"
    OPENS = MaskedFolder
    ARGUMENTS: ClassVar[Mapping[str, Any]] = {"top_k": 5, "targets": None, "tokenizer_kwargs": None}

    def __call__(self, inputs: Any, **arguments: Any) -> Any:
        """See `Pipeline`. As in transformers a list of one text gives that text's result."""
        results = super().__call__(inputs, **arguments)
        return results[0] if isinstance(inputs, list) and len(results) == 1 else results

    def _adopt(self, loaded: LoadedTask) -> None:
        assert loaded.vocabulary is not None
        self._vocabulary = loaded.vocabulary
        mask = self.tokenizer.mask_token_id
        if mask is None:
            raise ValueError(f"{self.name_or_path}: the tokenizer has no mask_token")
        self._mask: int = mask

    def _check(self, settings: Any) -> None:
        settings.top_k = positive_int("top_k", settings.top_k)
        for name, value in TOKENIZING.items():
            setattr(settings, name, value)
        tokenizing(settings, "tokenizer_kwargs")
        settings.tokenizer = self._tokenizer(settings)
        targets = settings.targets
        settings.targets = None if targets is None else self._target_ids(targets)

    def _target_ids(self, targets: Any) -> Int64:
        """The token id of each target. A target that is not a token is replaced by its first token, with a warning."""
        listed = [targets] if isinstance(targets, str) else as_list(targets)
        if listed is None:
            raise TypeError(f"targets must be str, got {type(targets).__name__}")
        vocabulary, found = self.tokenizer.get_vocab(), set()
        for index, target in enumerate(listed):
            number = vocabulary.get(check_text(target, index, "targets"))
            if number is None:
                ids = self.tokenizer.encode(target, add_special_tokens=False)
                made = repr(self.tokenizer.convert_ids_to_tokens(ids[0])) if ids else "nothing"
                warn_caller(f"targets[{index}]={target!r} is not a token; {made} is used instead")
                if not ids:
                    continue
                number = ids[0]
            found.add(number)
        if not found:
            raise ValueError("targets contains no tokens")
        return np.array(sorted(found))

    def _results(self, items: list[Any], settings: Any, first: int) -> Iterator[Any]:
        for tokens in self._tokenized(self._texts(items, first), settings.tokenizer, first):
            rows = self._token_rows(tokens, count(first))
            for index, (ids, states) in enumerate(zip(tokens.input_ids, rows, strict=True), first):
                places = np.flatnonzero(np.array(ids) == self._mask)
                if not len(places):
                    raise ValueError(f"inputs[{index}] has no {self.tokenizer.mask_token}")
                yield self._filled(np.array(ids), places, states[places], settings)
            first += len(tokens.input_ids)

    def _filled(self, ids: Int64, places: Int64, states: Float32, settings: Any) -> Any:
        """The proposals for each mask of a text. A single mask gives its proposals without an outer list."""
        found = []
        logits = self._vocabulary(states, self._request.budget.num_threads)
        for place, row in zip(places, logits, strict=True):
            scores, chosen = _best(softmax(row), settings)
            found.append(
                [
                    self._proposal(ids, place, token, score, alone=len(places) == 1)
                    for token, score in zip(chosen, scores, strict=True)
                ]
            )
        return found[0] if len(found) == 1 else found

    def _proposal(
        self, ids: Int64, place: int, token: int, score: float, *, alone: bool
    ) -> dict[str, Any]:
        filled = ids.copy()
        filled[place] = token
        filled = filled[filled != self.tokenizer.pad_token_id]
        return {
            "score": score,
            "token": token,
            "token_str": self.tokenizer.decode([token]),
            # Other masks are special tokens too, and must stay in the text.
            "sequence": self.tokenizer.decode(filled, skip_special_tokens=alone),
        }


def _best(probabilities: Float32, settings: Any) -> tuple[list[float], list[int]]:
    """The largest probabilities, among the targets if there are any, and their tokens."""
    targets, top_k = settings.targets, settings.top_k
    if targets is not None:
        probabilities, top_k = probabilities[targets], min(top_k, len(targets))
    if top_k > len(probabilities):
        raise ValueError(
            f"top_k must be at most {len(probabilities)}, the size of the vocabulary, got {top_k}"
        )
    order = np.argsort(-probabilities, kind="stable")[:top_k]
    tokens = order if targets is None else targets[order]
    return probabilities[order].tolist(), tokens.tolist()
