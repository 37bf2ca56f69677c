# SPDX-License-Identifier: Apache-2.0
"""The inputs and results of `model.tokenizer`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from simdformer.text.tokenizer import check_text


class TokenizedTexts(dict[str, Any]):
    """The result of a tokenizer, like transformers' BatchEncoding: a dict whose keys are also attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the texts have no {name!r}; known: {', '.join(self)}") from None

    def to(self, device: object) -> TokenizedTexts:  # noqa: ARG002  (transformers')
        """Returns the object itself, which is always on the CPU."""
        return self


def checked_items(text: Any, text_pair: Any) -> tuple[list[Any], bool]:
    """The texts, or tuples of two, as a checked list, and whether a single one was given."""
    single = isinstance(text, str)
    firsts = [text] if single else list(text)
    if text_pair is not None:
        seconds = [text_pair] if isinstance(text_pair, str) else list(text_pair)
        if len(firsts) != len(seconds):
            raise ValueError(
                f"text_pair must have as many texts as text, {len(firsts)}, got {len(seconds)}"
            )
        firsts = list(zip(firsts, seconds, strict=True))
    items: list[Any] = []
    for i, item in enumerate(firsts):
        if isinstance(item, (tuple, list)) and len(item) == 2:
            items.append(tuple(check_text(part, i, "text") for part in item))
        else:
            items.append(check_text(item, i, "text"))
    if len({type(item) for item in items}) > 1:
        raise TypeError("text must contain texts or pairs of texts, not both")
    return items, single


def formed(rows: dict[str, Any], single: bool, return_tensors: str | None) -> TokenizedTexts:
    """The values as lists, as one list for a single text, or as matrices."""
    if return_tensors is None:
        return TokenizedTexts(
            {
                name: value[0] if single and isinstance(value[0], list) else value
                for name, value in rows.items()
            }
        )
    if len(set(map(len, rows["input_ids"]))) > 1:
        raise ValueError("padding must be set for return_tensors: the texts have several lengths")
    arrays = {name: np.array(value, dtype=np.int64) for name, value in rows.items()}
    if return_tensors == "pt":
        torch = import_module("torch")
        arrays = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return TokenizedTexts(arrays)
