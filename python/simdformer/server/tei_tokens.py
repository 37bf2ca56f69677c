# SPDX-License-Identifier: Apache-2.0
"""Text Embeddings Inference: tokenizes texts, and decodes tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from starlette.responses import Response

from simdformer.server.embeddings import array
from simdformer.server.endpoint import Call
from simdformer.server.errors import invalid, tei_error
from simdformer.server.operation import BOOLEAN, IDS, STRING, TEXTS, Operation
from simdformer.server.request_fields import RequestFields, check_number, is_integer
from simdformer.server.served import TextRunner
from simdformer.server.service import Service
from simdformer.text.tokenizer import Tokenizer

_TOKENIZE_FIELDS = {
    "inputs": TEXTS,
    "add_special_tokens": BOOLEAN,
    "prompt_name": STRING,
    "model": STRING,
}
_DECODE_FIELDS = {
    "ids": {"oneOf": [IDS, {"type": "array", "items": IDS}]},
    "skip_special_tokens": BOOLEAN,
    "model": STRING,
}
# Characters of a token: {"id":30000,"text":"a","special":false,"start":1000,"stop":1001}
_TOKEN_BYTES = 80
_ID_CHARACTERS = 4


class Tokenizing:
    """A tokenizer behind the queue: gives the tokens of texts as JSON. Each tokenizer has one."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def size(self, item: str) -> int:
        """The number of characters."""
        return len(item)

    def run(self, items: Sequence[str], group: Any) -> tuple[list[str], list[int]]:
        """The tokens of each text as a JSON array. group: whether special tokens are added."""
        encodings = self._tokenizer.encodings(items, add_special_tokens=group)
        rows = [_tokens_json(*pair) for pair in zip(items, encodings, strict=True)]
        return rows, [len(encoding.ids) for encoding in encodings]


class Decoding:
    """A tokenizer behind the queue: gives the texts of token ids as JSON."""

    def __init__(self, decode: Any) -> None:
        self._decode = decode

    def size(self, item: Sequence[int]) -> int:
        """The approximate number of characters."""
        return _ID_CHARACTERS * len(item)

    def run(self, items: Sequence[list[int]], group: Any) -> tuple[list[str], list[int]]:
        """The text of each list of ids as JSON. group: whether special tokens are left out."""
        texts = self._decode(items, skip_special_tokens=group)
        return [json.dumps(text) for text in texts], [len(ids) for ids in items]


class _Request(NamedTuple):
    """Items to tokenize or decode. size: the largest size of the response in bytes."""

    runner: Tokenizing | Decoding
    items: list[Any]
    flag: bool
    size: int


class TeiTokens:
    """The routes /tokenize and /decode."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._tokenizing: dict[Tokenizer, Tokenizing] = {}
        self._decoding: dict[Tokenizer, Decoding] = {}

    def operations(self) -> list[Operation]:
        """The routes of this protocol."""
        tokens, texts = "The tokens of texts", "The texts of token ids"
        rows = (
            (("/tokenize",), self.tokenize, tokens, _TOKENIZE_FIELDS, ("inputs",)),
            (("/decode",), self.decode, texts, _DECODE_FIELDS, ("ids",)),
        )
        return [Operation("TEI", *row, tei_error) for row in rows]

    async def tokenize(self, call: Call) -> Response:
        """The tokens of texts."""
        return await self._answer(call, await self._service.read(call, self._read_texts))

    async def decode(self, call: Call) -> Response:
        """The texts of token ids."""
        return await self._answer(call, await self._service.read(call, self._read_ids))

    def _read_texts(self, fields: RequestFields) -> _Request:
        fields.only(_TOKENIZE_FIELDS)
        model, _ = self._service.models.any(fields.text("model"))
        texts = fields.texts("inputs", self._service.limits.client_batch)
        if isinstance(model, TextRunner) and "prompt_name" in fields:
            prompt = model.prompt(fields.text("prompt_name"))
            texts = [model.prompted(text, prompt) for text in texts]
        elif "prompt_name" in fields:
            raise invalid("a cross-encoder's texts have no prompt_name", "prompt_name")
        tokenizer = model.pipeline.tokenizer
        runner = self._tokenizing.setdefault(tokenizer, Tokenizing(tokenizer))
        size = sum(len(text) + 8 for text in texts) * _TOKEN_BYTES
        return _Request(runner, texts, fields.flag("add_special_tokens", default=True), size)

    def _read_ids(self, fields: RequestFields) -> _Request:
        fields.only(_DECODE_FIELDS)
        model, _ = self._service.models.any(fields.text("model"))
        value = fields.array("ids")
        rows = value if value and isinstance(value[0], list) else [value]
        check_number(rows, "ids", self._service.limits.client_batch)
        tokenizer = model.pipeline.tokenizer
        limit = tokenizer.backend.get_vocab_size()
        for i, row in enumerate(rows):
            place = "ids" if rows[0] is value else f"ids[{i}]"
            if not isinstance(row, list) or not all(map(is_integer, row)):
                raise invalid(f"{place} must be an array of token ids", place)
            if wrong := [each for each in row if not 0 <= each < limit]:
                raise invalid(f"{place} holds {wrong[0]}, expected 0 to {limit - 1}", place)
        runner = self._decoding.setdefault(tokenizer, Decoding(model.model.tokenizer.batch_decode))
        size = sum(map(len, rows)) * _TOKEN_BYTES
        return _Request(runner, rows, fields.flag("skip_special_tokens", default=True), size)

    async def _answer(self, call: Call, request: _Request) -> Response:
        call.held.take(request.size)
        runner, items, flag, size = request
        output = await self._service.queued(call.request, runner, items, flag)
        return await self._service.written(size, lambda: array(output.rows).encode())


def _tokens_json(text: str, encoding: Any) -> str:
    columns = (encoding.ids, encoding.tokens, encoding.offsets, encoding.special_tokens_mask)
    rows = []
    for token_id, token, (start, stop), special in zip(*columns, strict=True):
        row = {"id": token_id, "text": token if special else text[start:stop]}
        place = (None, None) if special else (start, stop)
        rows.append({**row, "special": bool(special), "start": place[0], "stop": place[1]})
    return json.dumps(rows, separators=(",", ":"))
