# SPDX-License-Identifier: Apache-2.0
"""Checks the arguments of the public classes before any work is done."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

import numpy as np

from simdformer.functional.arrays import positive_int
from simdformer.text.tokenizer import Pair, check_text

OUTPUT_VALUES = ("sentence_embedding", "token_embeddings")  # or None


class Budget(NamedTuple):
    """The limits of a pass. Tokens: a single longer text gets a pass of its own. Threads: 0 for as many as
    the process may use."""

    max_batch_tokens: int
    num_threads: int


def checked_budget(max_batch_tokens: int, num_threads: int | None, device: object) -> Budget:
    """The limits from the arguments. ValueError for invalid values."""
    check_device(device)
    threads = 0 if num_threads is None else positive_int("num_threads", num_threads)
    return Budget(positive_int("max_batch_tokens", max_batch_tokens), threads)


def check_known(argument: str, value: object, known: Collection[str]) -> None:
    """ValueError listing the known values if the value is not one of them."""
    if value not in known:
        raise ValueError(f"unknown {argument} {value!r}; known: {', '.join(known)}")


def merge_prompts(
    given: Mapping[str, str | None] | None, saved: Mapping[str, str], always: Sequence[str] = ()
) -> dict[str, str]:
    """Merge prompts; the caller's have precedence over the saved ones. always: names that always exist, by
    default with an empty prompt."""
    if given is not None and not (
        isinstance(given, Mapping)
        and all(isinstance(prompt, (str, type(None))) for prompt in given.values())
    ):
        raise TypeError(f"prompts must map names to str, got {given!r}")
    chosen = {name: prompt for name, prompt in (given or {}).items() if prompt is not None}
    return {**dict.fromkeys([*always, *(given or {})], ""), **saved, **chosen}


def document_prompt(prompts: Mapping[str, str]) -> str | None:
    """The prompt for documents; None for the model's default."""
    return next((name for name in ("document", "passage", "corpus") if name in prompts), None)


def text_list(inputs: object) -> list[str]:
    """A sequence of texts as a list. Inputs without a length or an order are rejected."""
    texts = as_list(inputs)
    if texts is None:
        raise TypeError(
            f"inputs must be a str or a sequence of str, got {type(inputs).__name__}"
            f"{getattr(inputs, 'shape', '')} (encode_stream takes any iterable)"
        )
    return texts


def as_list(inputs: object) -> list[Any] | None:
    """The input as a list if it has a length and an order, else None. TypeError for a table."""
    columns = getattr(inputs, "column_names", None)  # a pyarrow.Table has both
    columns = getattr(inputs, "columns", None) if columns is None else columns
    if columns is not None and not isinstance(inputs, (list, tuple, np.ndarray)):
        named = ", ".join(map(repr, columns)) if isinstance(columns, Iterable) else ""
        raise TypeError(
            f"inputs must be texts, got a table ({type(inputs).__name__}); pass one of its columns: {named}"
        )
    if callable(rows := getattr(inputs, "to_pylist", None)):  # for pyarrow's arrays
        return list(rows())
    if isinstance(inputs, (list, tuple)):
        return list(inputs)
    if isinstance(inputs, np.ndarray) and inputs.ndim == 1:
        return list(inputs.tolist())
    # columns of data sets and series of data frames are not Sequences
    refused = (bytes, bytearray, dict, set, frozenset, np.ndarray)
    if isinstance(inputs, Collection) and not isinstance(inputs, refused):
        return list(inputs)
    return None


def pair_list(inputs: object, name: str = "inputs") -> tuple[list[Pair], bool]:
    """The checked pairs of texts, and whether `inputs` is a single pair. As in sentence-transformers, the
    first element decides.

    Errors: TypeError and ValueError naming the argument and the index.
    """
    rows = inputs.tolist() if isinstance(inputs, np.ndarray) else as_list(inputs)
    if isinstance(inputs, str) or not isinstance(rows, list):
        raise TypeError(
            f"{name} must be a pair of str or a sequence of pairs,"
            f" got {type(inputs).__name__}{getattr(inputs, 'shape', '')}"
        )
    if rows and not isinstance(rows[0], (list, tuple, np.ndarray)):
        return [_pair(rows, name)], True
    return [_pair(row, f"{name}[{index}]") for index, row in enumerate(rows)], False


def _pair(row: object, name: str) -> Pair:
    if not isinstance(row, (list, tuple, np.ndarray)):
        raise TypeError(f"{name} must be a pair of str, got {type(row).__name__}")
    if len(row) != 2:
        raise ValueError(f"{name} must be a pair of str, got {len(row)} elements")
    return check_text(row[0], 0, name), check_text(row[1], 1, name)


def document_list(documents: object) -> list[str]:
    """The checked documents of a ranking. TypeError and ValueError give the index."""
    texts = None if isinstance(documents, str) else as_list(documents)
    if texts is None:
        raise TypeError(f"documents must be a sequence of str, got {type(documents).__name__}")
    return [check_text(text, index, "documents") for index, text in enumerate(texts)]


def old_name(
    value: Any, kwargs: dict[str, Any], old: str = "sentences", new: str = "inputs"
) -> Any:
    """The value of argument `new`, or of its older name, which is removed from kwargs."""
    if old not in kwargs:
        return value
    if value is not None:
        raise TypeError(f"{new} and {old} are two names of one argument; pass one")
    return kwargs.pop(old)


def check_arguments(
    batch_size: int,
    output_value: str | None,
    device: object,
    pool: object,
    chunk_size: object,
    kwargs: Mapping[str, Any],
) -> None:
    """ValueError for the first invalid argument of `encode`, with the valid values."""
    if output_value is not None:
        check_known("output_value", output_value, OUTPUT_VALUES)
    check_execution(batch_size, device, pool, chunk_size)
    # A task has an effect only in models with several routes; this one has one.
    refuse_unknown("encode", kwargs, {"task"})


def pop_hidden_states(kwargs: dict[str, Any], output_value: str | None) -> bool:
    """Remove output_hidden_states from encode's further arguments and check it."""
    wanted = kwargs.pop("output_hidden_states", False)
    if wanted and output_value is not None:
        raise ValueError("output_hidden_states=True needs output_value=None")
    return bool(wanted)


def pop_returns(
    kwargs: dict[str, Any], output_value: str | None, precision: str, convert_to_tensor: bool
) -> dict[str, bool] | None:
    """Remove FlagEmbedding's return_dense, return_sparse and return_colbert_vecs from encode's further
    arguments; None if there are none. ValueError if another argument requests another kind of result."""
    defaults = {"return_dense": True, "return_sparse": False, "return_colbert_vecs": False}
    if not defaults.keys() & kwargs.keys():
        return None
    returns = {name: kwargs.pop(name, default) for name, default in defaults.items()}
    for name, value in returns.items():
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"{name} must be True or False, got {value!r}")
    if (output_value, precision, convert_to_tensor) != ("sentence_embedding", "float32", False):
        raise ValueError(
            f"{', '.join(returns)} cannot be combined with output_value={output_value!r},"
            f" precision={precision!r}, convert_to_tensor={convert_to_tensor!r}"
        )
    return returns


def check_execution(batch_size: int, device: object, pool: object, chunk_size: object) -> None:
    """ValueError for invalid arguments about execution."""
    if batch_size != 32:
        positive_int("batch_size", batch_size)
    for one in device if isinstance(device, (list, tuple)) else [device]:
        check_device(one)
    if pool is not None and not (isinstance(pool, dict) and {"input", "processes"} <= pool.keys()):
        raise ValueError(f"pool must be a result of start_multi_process_pool, got {pool!r}")
    if chunk_size is not None:
        positive_int("chunk_size", chunk_size)


def refuse_unknown(method: str, kwargs: Mapping[str, Any], known: AbstractSet[str]) -> None:
    """ValueError for unknown keyword arguments. known: arguments without effect."""
    if unknown := kwargs.keys() - known:
        raise ValueError(f"{method} got unknown arguments: {', '.join(sorted(unknown))}")


def check_device(device: object) -> None:
    """ValueError unless the device is a CPU or None."""
    if device is not None and str(device) != "cpu":
        raise ValueError(f"device must be None or 'cpu', got {device!r}")


def checked_truncate_dim(given: int | None, default: int | None) -> int | None:
    """The number of dimensions to keep: the call's, else the model's; None for all."""
    value = default if given is None else given
    return None if value is None else positive_int("truncate_dim", value)
