# SPDX-License-Identifier: Apache-2.0
"""Shared by the protocols for embeddings: reads texts and options, writes rows of numbers."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from simdformer.server.endpoint import Call
from simdformer.server.errors import invalid
from simdformer.server.passes import Float32, Output
from simdformer.server.request_fields import RequestFields, check_number, checked_text, is_integer
from simdformer.server.served import Embedder, Reading, TextOrIds, TextRunner
from simdformer.server.service import Service
from simdformer.util.embedding_precision import quantize_embeddings
from simdformer.util.similarity import normalize_embeddings

# Size of a number in a JSON response.
NUMBER_BYTES = 14


class Truncation(NamedTuple):
    """How long texts are treated: as an error, or truncated on a side to a number of tokens. None: as
    the model does."""

    whole: bool = False
    side: str | None = None
    limit: int | None = None


DEFAULT_TRUNCATION = Truncation()


class Items(NamedTuple):
    """A request for embeddings.

    items: texts, prompt included, or token ids. reading: see Reading. whole: a text that would be truncated
    is an error. name: the field of the request.
    """

    items: list[TextOrIds]
    reading: Reading
    whole: bool
    name: str


def read_items(
    fields: RequestFields,
    name: str,
    runner: TextRunner,
    most: int,
    truncation: Truncation = DEFAULT_TRUNCATION,
    prompt_name: str | None = None,
) -> Items:
    """A field with a text, a list of texts, token ids, or a list of lists of token ids.

    Texts of a list may also be objects with a "text". Ids are used as they are, special tokens included. ApiError for
    invalid items.
    """
    value = fields.any(name)
    prompt = runner.prompt(prompt_name)
    whole, side, limit = truncation
    if isinstance(value, list) and value and is_integer(value[0]):
        value = [value]
    rows = value if isinstance(value, list) else [value]
    check_number(rows, name, most)
    if isinstance(rows[0], list):
        if prompt_name is not None:
            raise invalid("prompt_name can be used with texts, not with token ids", "prompt_name")
        ids = [_ids(row, f"{name}[{i}]", runner) for i, row in enumerate(rows)]
        return Items([*ids], Reading(), whole, name)
    if not isinstance(value, list):
        texts = [checked_text(value, name)]
    else:
        texts = [_text(row, f"{name}[{i}]") for i, row in enumerate(rows)]
    items = [runner.prompted(text, prompt) for text in texts]
    return Items([*items], runner.group(prompt, side, limit), whole, name)


def prompt_of_task(
    fields: RequestFields, runner: TextRunner, task: str | None, name: str = "input_type"
) -> str | None:
    """The name of the prompt that prompt_name or a client's task selects. name: the field of the task."""
    prompt_name = fields.text("prompt_name")
    if task is None:
        return prompt_name
    if prompt_name is not None:
        raise invalid(f"prompt_name and {name} both select a prompt; send one of them", name)
    return runner.prompt_of(task)


async def embedded(
    service: Service, call: Call, embedder: Embedder, items: Items, dimensions: int | None = None
) -> Output:
    """The vectors of the items. dimensions: the number to keep; shortened vectors are normalized."""
    call.held.take(len(items.items) * embedder.dimension * NUMBER_BYTES)
    await check_whole(service, embedder, items)
    output = await service.compute(call.request, embedder, items.items, items.reading)
    if dimensions in (None, embedder.dimension):
        return output
    return output._replace(rows=normalize_embeddings(output.rows[:, :dimensions]))


async def check_whole(service: Service, runner: TextRunner, items: Items) -> None:
    """ApiError if a text that must not be truncated is too long."""
    if items.whole:
        await service.aside(lambda: runner.check_lengths(items.items, items.reading, items.name))


def _text(row: object, place: str) -> str:
    if isinstance(row, dict) and set(row) == {"text"}:  # Jina's
        return checked_text(row["text"], f"{place}.text")
    return checked_text(row, place)


def _ids(row: object, place: str, runner: TextRunner) -> list[int]:
    if not isinstance(row, list) or not row or not all(map(is_integer, row)):
        raise invalid(f"{place} must be an array of token ids, like those before it", place)
    runner.check_ids(row, place)
    return row


# --- rows as JSON; json.dumps would take more time than the model ---

FORMATS = ("float", "base64", "binary", "ubinary")


def rows_json(rows: Float32, form: str = "float") -> Iterator[str]:
    """Each row as JSON in one of FORMATS: an array of numbers (nine digits restore every float32 exactly), the
    float32 bytes in base64, or the signs of eight numbers per byte, as `quantize_embeddings` gives them."""
    if form == "base64":
        little_endian = np.ascontiguousarray(rows, "<f4")
        return (f'"{base64.b64encode(row).decode()}"' for row in little_endian)
    if form != "float":
        return (json.dumps(row) for row in quantize_embeddings(rows, form).tolist())
    digits = "[" + ",".join(["%.9g"] * rows.shape[1]) + "]"
    return (digits % tuple(row.tolist()) for row in rows)


def array(rows: Iterable[str]) -> str:
    """A JSON array of rows."""
    return f"[{','.join(rows)}]"
