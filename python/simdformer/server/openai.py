# SPDX-License-Identifier: Apache-2.0
"""Requests and responses for embeddings: OpenAI's format and TEI's plain one."""

from __future__ import annotations

import base64
import json
from collections.abc import Hashable, Iterator
from typing import Any, NamedTuple

import numpy as np

from simdformer.server.errors import invalid, shown
from simdformer.server.passes import Float32, Output
from simdformer.server.request_fields import Fields, checked_text, is_integer
from simdformer.server.served import Embedder, TextOrIds

EMBEDDINGS_FIELDS = (
    *("input", "model", "encoding_format", "dimensions", "user", "prompt_name"),
    *("input_type", "truncate", "truncate_prompt_tokens"),
)
EMBED_FIELDS = (
    *("inputs", "normalize", "prompt_name", "dimensions", "truncate", "truncation_direction"),
)

# of NIM and Cohere
_INPUT_TYPES = (None, "query", "passage", "search_query", "search_document")


class Items(NamedTuple):
    """A request for embeddings.

    items: texts, prompt included, or token ids. group: see Batcher.submit. whole: texts that would
    be truncated are an error.
    """

    items: list[TextOrIds]
    group: Hashable
    whole: bool


def read_openai(fields: Fields, embedder: Embedder, max_items: int) -> Items:
    """The items of /v1/embeddings, with the fields of vLLM and NIM. ApiError if the request is invalid."""
    fields.integer("truncate_prompt_tokens", -1, -1)  # the model always truncates at its own limit
    mode = fields.choice("truncate", (None, "END", "START", "NONE"))
    if mode in ("END", "START"):
        _check_side(embedder, "truncate", mode, {"right": "END", "left": "START"})
    return read_items(fields, "input", embedder, max_items, whole=mode == "NONE")


def read_tei(fields: Fields, embedder: Embedder, max_items: int) -> Items:
    """The items of /embed. ApiError if the request is invalid."""
    whole = not fields.flag("truncate", default=True)
    side = fields.choice("truncation_direction", (None, "Right", "Left", "right", "left"))
    if side is not None and not whole:
        sides = {"right": "Right", "left": "Left"}
        _check_side(embedder, "truncation_direction", side.capitalize(), sides)
    return read_items(fields, "inputs", embedder, max_items, whole=whole)


def _check_side(embedder: Embedder, name: str, asked: str, known: dict[str, str]) -> None:
    own = known[embedder.truncation_side]
    if asked != own:
        raise invalid(
            f'{name} must be "{own}", the side on which the model truncates, got {shown(asked)}',
            name,
        )


def read_items(
    fields: Fields, name: str, embedder: Embedder, max_items: int, *, whole: bool
) -> Items:
    """A field with a text, a list of texts, token ids, or a list of lists of token ids.

    Ids are used as they are, special tokens included. ApiError for invalid items.
    """
    value = fields.any(name)
    prompt_name = _prompt_name(fields, embedder)
    prompt = embedder.prompt(prompt_name)
    if isinstance(value, list) and value and is_integer(value[0]):
        value = [value]
    rows = value if isinstance(value, list) else [value]
    check_number(rows, name, max_items)
    if isinstance(rows[0], list):
        if prompt_name is not None:
            raise invalid("prompt_name can be used with texts, not with token ids", "prompt_name")
        return Items([_ids(row, f"{name}[{i}]", embedder) for i, row in enumerate(rows)], 0, whole)
    single = not isinstance(value, list)
    texts = [checked_text(row, name if single else f"{name}[{i}]") for i, row in enumerate(rows)]
    return Items([embedder.prompted(text, prompt) for text in texts], embedder.group(prompt), whole)


def _prompt_name(fields: Fields, embedder: Embedder) -> str | None:
    name, input_type = fields.text("prompt_name"), fields.choice("input_type", _INPUT_TYPES)
    if input_type is None:
        return name
    if name is not None:
        raise invalid(
            "prompt_name and input_type both select a prompt; send one of them", "input_type"
        )
    return embedder.prompt_of(input_type)


def check_number(rows: list[Any], name: str, most: int) -> None:
    """ApiError for no items, and for more items than allowed."""
    if not rows:
        raise invalid(f"{name} must not be empty", name)
    if len(rows) > most:
        raise invalid(f"{name} has {len(rows)} items, at most {most} are allowed", name)


def _ids(row: object, place: str, embedder: Embedder) -> list[int]:
    if not isinstance(row, list) or not row or not all(map(is_integer, row)):
        raise invalid(f"{place} must be an array of token ids, like those before it", place)
    embedder.check_ids(row, place)
    return row


def embeddings_json(output: Output, encoding_format: str, model: str) -> bytes:
    """The response of /v1/embeddings. json.dumps would take longer than the model."""
    texts = _base64_rows(output.rows) if encoding_format == "base64" else _float_rows(output.rows)
    data = ",".join(
        [
            f'{{"object":"embedding","index":{index},"embedding":{text}}}'
            for index, text in enumerate(texts)
        ]
    )
    usage = f'{{"prompt_tokens":{output.num_tokens},"total_tokens":{output.num_tokens}}}'
    return (
        f'{{"object":"list","data":[{data}],"model":{json.dumps(model)},"usage":{usage}}}'
    ).encode()


def plain_json(rows: Float32) -> bytes:
    """The response of /embed: an array of arrays."""
    return f"[{','.join(_float_rows(rows))}]".encode()


def _float_rows(rows: Float32) -> Iterator[str]:
    """Each row as a JSON array. Nine digits restore every float32 exactly."""
    form = "[" + ",".join(["%.9g"] * rows.shape[1]) + "]"
    return (form % tuple(row.tolist()) for row in rows)


def _base64_rows(rows: Float32) -> Iterator[str]:
    little_endian = np.ascontiguousarray(rows, "<f4")
    return (f'"{base64.b64encode(row).decode()}"' for row in little_endian)
