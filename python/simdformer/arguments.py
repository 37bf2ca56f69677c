# SPDX-License-Identifier: Apache-2.0
"""Checking what SentenceTransformer is called with, before any work is done."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from simdformer.quantization import check_precision

OUTPUT_VALUES = ("sentence_embedding", "token_embeddings")


def merge_prompts(
    given: Mapping[str, str | None] | None, saved: Mapping[str, str]
) -> dict[str, str]:
    """The caller's prompts win over the saved ones; "query" and "document" always exist."""
    if given is not None and not (
        isinstance(given, Mapping)
        and all(isinstance(prompt, (str, type(None))) for prompt in given.values())
    ):
        raise TypeError(f"prompts must map names to str, got {given!r}")
    chosen = {name: prompt for name, prompt in (given or {}).items() if prompt is not None}
    return {"query": "", "document": "", **dict.fromkeys(given or {}, ""), **saved, **chosen}


def document_prompt(prompts: Mapping[str, str]) -> str | None:
    """The prompt that documents take; None leaves the choice to the model's default."""
    return next((name for name in ("document", "passage", "corpus") if name in prompts), None)


def text_list(inputs: object) -> list[str]:
    """A sequence of texts as a list. What has no length or no order is refused."""
    if isinstance(inputs, (list, tuple)):
        return list(inputs)
    if isinstance(inputs, np.ndarray) and inputs.ndim == 1:
        return list(inputs.tolist())
    # Columns of data sets and series of data frames are no Sequence, but have a length and an order.
    refused = (bytes, bytearray, dict, set, frozenset, np.ndarray)
    if isinstance(inputs, Collection) and not isinstance(inputs, refused):
        return list(inputs)
    raise TypeError(
        f"inputs must be a str or a sequence of str, got {type(inputs).__name__}"
        f"{getattr(inputs, 'shape', '')} (encode_stream takes any iterable)"
    )


def old_name(inputs: Any, kwargs: dict[str, Any]) -> Any:
    """`inputs`, or what was given under its older name `sentences`, which leaves kwargs."""
    if "sentences" not in kwargs:
        return inputs
    if inputs is not None:
        raise TypeError("inputs and sentences are two names of one argument; give one")
    return kwargs.pop("sentences")


def check_arguments(
    batch_size: int,
    output_value: str,
    precision: str,
    device: object,
    pool: object,
    chunk_size: object,
    kwargs: Mapping[str, Any],
) -> None:
    """ValueError for the first argument of `encode` that cannot be, listing what can."""
    if batch_size != 32:
        positive_int("batch_size", batch_size)
    if output_value not in OUTPUT_VALUES:
        raise ValueError(
            f"unknown output_value {output_value!r}; known: {', '.join(OUTPUT_VALUES)}"
        )
    check_precision(precision)
    check_device(device)
    for name, value in (("pool", pool), ("chunk_size", chunk_size)):
        if value is not None:
            raise ValueError(f"{name} must be None, got {value!r}: one process uses all cores here")
    # A task chooses a route in models with several; these have one.
    if unknown := kwargs.keys() - {"task"}:
        raise ValueError(f"encode got unknown arguments: {', '.join(sorted(unknown))}")


def check_device(device: object) -> None:
    """ValueError unless the device is a CPU's, or None."""
    if device is not None and str(device) != "cpu":
        raise ValueError(f"device must be None or 'cpu', got {device!r}")


def positive_int(name: str, value: object) -> int:
    """The value, which must be an int (or a NumPy one) of at least 1."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")
    return int(value)


def checked_truncate_dim(given: int | None, default: int | None) -> int | None:
    """The dimension to truncate to, None for none: the call's, else the model's."""
    value = default if given is None else given
    return None if value is None else positive_int("truncate_dim", value)
