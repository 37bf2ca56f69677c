# SPDX-License-Identifier: Apache-2.0
"""The embedding models of the server: compute rows and numbers of tokens of items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from simdformer.sentence_transformer import SentenceTransformer
from simdformer.server.errors import invalid, shown
from simdformer.server.passes import Float32
from simdformer.sparse_embeddings import SparseEmbeddings
from simdformer.sparse_encoder import SparseEncoder
from simdformer.text.inputs import document_prompt
from simdformer.text.tokenizer import Tokenizer, Tokens

# A text or its token ids.
TextOrIds = str | list[int]

# English has about four characters per token.
_CHARACTERS_PER_TOKEN = 4


class Reading(NamedTuple):
    """How texts are read. Items with equal reading are computed together.

    start: the first token that pooling includes. side: the side on which texts are truncated. limit: the
    number of tokens to which they are truncated. None for the model's own.
    """

    start: int = 0
    side: str | None = None
    limit: int | None = None


class TextRunner:
    """A model of texts behind the queue. Items are texts, prompt included, or token ids."""

    def __init__(self, model: SentenceTransformer | SparseEncoder) -> None:
        """ValueError for a model that reads texts differently for each task, because requests have no task."""
        if len(model.pipeline.all()) > 1:
            raise ValueError(
                f"{model.name_or_path} reads texts of different tasks (query, document) differently, but"
                " requests name no task; it cannot be served"
            )
        self.model = model
        self.pipeline = model.pipeline

    # --- prompts ---

    def prompt(self, name: str | None) -> str:
        """The text of a prompt; None for the model's default. ApiError if it is unknown."""
        if name is not None and name not in self.model.prompts:
            known = ", ".join(self.model.prompts)
            raise invalid(f"unknown prompt_name {shown(name)}; known: {known}", "prompt_name")
        return self.model.resolve_prompt(None, name) or ""

    def prompt_of(self, task: str) -> str | None:
        """The name of the prompt for a client's task; None for the default prompt.

        A query's and a document's are those that `encode_query` and `encode_document` take. Another task has
        the prompt of its name, if the model has one.
        """
        prompts = self.model.prompts
        if task.endswith("query"):
            return "query" if "query" in prompts else None
        if task.endswith(("passage", "document")):
            return document_prompt(prompts)
        return task if task in prompts else None

    def prompted(self, text: str, prompt: str) -> str:
        """A text as it is tokenized."""
        return self.pipeline.prompted(text, prompt)

    def group(self, prompt: str, side: str | None = None, limit: int | None = None) -> Reading:
        """How a text with this prompt is read."""
        side = None if side == self.truncation_side else side
        return Reading(self.pipeline.pooling_start(prompt), side, limit)

    # --- checks ---

    def check_ids(self, ids: list[int], param: str) -> None:
        """ApiError if ids cannot come from this model's tokenizer."""
        limit = self.pipeline.encoder.vocab_size
        first, last = self.pipeline.tokenizer.special_ids_around
        if wrong := [i for i in ids if not 0 <= i < limit]:
            problem = f"hold {shown(wrong[0])}, expected 0 to {limit - 1}"
        elif not first and not last:
            problem = "cannot be distinguished from another tokenizer's, because this model has no special tokens"
        elif ids[: len(first)] != first or ids[len(ids) - len(last) :] != last:
            problem = f"do not begin with {first} and end with {last}"
        elif len(ids) > self.model.max_seq_length:
            raise invalid(
                f"{param} has {len(ids)} tokens, the model reads {self.model.max_seq_length}",
                param,
            )
        else:
            return
        raise invalid(
            f"{param}: these ids do not come from the model's tokenizer: they {problem}; send the text"
            " (LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False))",
            param,
        )

    @property
    def num_special_tokens(self) -> int:
        """The number of special tokens around a text."""
        return sum(map(len, self.pipeline.tokenizer.special_ids_around))

    @property
    def truncation_side(self) -> str:
        """The side on which the model truncates texts, "right" or "left"."""
        return self.pipeline.tokenizer.truncation_side

    def check_lengths(self, items: Sequence[Any], reading: Reading, param: str) -> None:
        """ApiError if a text is longer than the limit."""
        check_lengths(self.tokenizer(reading), items, param)

    # --- for the queue ---

    def tokenizer(self, reading: Reading) -> Tokenizer:
        """The tokenizer of a reading."""
        return self.pipeline.tokenizer.truncating(reading.side, reading.limit)

    def size(self, item: TextOrIds) -> int:
        """The approximate number of characters of an item that the model reads."""
        size = len(item) if isinstance(item, str) else _CHARACTERS_PER_TOKEN * len(item)
        return size_read(size, self.model.max_seq_length)

    def tokens(self, items: Sequence[TextOrIds], reading: Reading) -> Tokens:
        """The tokens of the items in their order."""
        texts = [item for item in items if isinstance(item, str)]
        tokens = self.tokenizer(reading)(texts) if texts else Tokens([], None, 0)
        return tokens if len(texts) == len(items) else _with_ids(tokens, items)


class Embedder(TextRunner):
    """A SentenceTransformer behind the queue, which gives the vectors of texts."""

    def __init__(self, model: SentenceTransformer) -> None:
        """ValueError: see TextRunner."""
        super().__init__(model)
        self.dimension = model.get_embedding_dimension()
        self.token_vectors = TokenVectors(model)

    def run(self, items: Sequence[TextOrIds], group: Any) -> tuple[Float32, list[int]]:
        """The vectors of `encode`, float32 (n, dimension), and the number of tokens of each item."""
        tokens = self.tokens(items, group)
        rows = self.pipeline.rows_of_tokens(tokens, group.start)
        return rows[:, : self.dimension], [len(ids) for ids in tokens.input_ids]


class TokenVectors(TextRunner):
    """The same model, which gives the vectors of tokens."""

    def run(self, items: Sequence[TextOrIds], group: Any) -> tuple[list[Float32], list[int]]:
        """The token embeddings of `encode`, float32 (tokens, hidden_size) each."""
        tokens = self.tokens(items, group)
        rows = self.pipeline.token_rows_of_tokens(tokens)
        return rows, [len(ids) for ids in tokens.input_ids]

    def most_tokens(self, item: TextOrIds) -> int:
        """The largest number of tokens of an item, to limit memory."""
        size = len(item.encode()) if isinstance(item, str) else len(item)
        return min(self.model.max_seq_length, size + self.num_special_tokens)


class SparseEmbedder(TextRunner):
    """A SparseEncoder behind the queue, which gives the weights of the vocabulary's tokens."""

    model: SparseEncoder

    def run(
        self, items: Sequence[TextOrIds], group: Any
    ) -> tuple[list[SparseEmbeddings], list[int]]:
        """The weights of `encode`, a row of the vocabulary for each item."""
        tokens = self.tokens(items, group)
        rows: list[SparseEmbeddings] = []
        for counts, indices, data in self.pipeline.sparse_rows_of_tokens(tokens):
            indptr = np.concatenate([[0], counts]).cumsum().astype(np.int64)
            shape = (len(counts), self.model.get_embedding_dimension())
            found = SparseEmbeddings(data, indices, indptr, shape)
            most = self.model.max_active_dims
            rows.extend(found if most is None else found.largest(most))
        return rows, [len(ids) for ids in tokens.input_ids]


def size_read(size: int, max_seq_length: int) -> int:
    """The approximate number of characters, of an item with `size` ones, that are not truncated."""
    return min(size, _CHARACTERS_PER_TOKEN * max_seq_length)


def check_lengths(tokenizer: Tokenizer, items: Sequence[Any], param: str) -> None:
    """ApiError if a text or a pair is longer than the tokenizer's limit. Lists are token ids."""
    for index, item in enumerate(items):
        if not isinstance(item, list) and tokenizer([item]).num_truncated:
            place = f"{param}[{index}]"
            limit = tokenizer.max_seq_length
            raise invalid(f"{place} has over {limit} tokens and must not be truncated", place)


def _with_ids(tokens: Tokens, items: Sequence[TextOrIds]) -> Tokens:
    """Merge token ids, with token type 0, with tokenized texts in the order of the items."""
    types = tokens.type_ids
    next_ids, next_types = iter(tokens.input_ids), iter(types or [])
    input_ids = [next(next_ids) if isinstance(item, str) else item for item in items]
    type_ids = None
    if types is not None:
        type_ids = [
            next(next_types) if isinstance(item, str) else [0] * len(item) for item in items
        ]
    return Tokens(input_ids, type_ids, tokens.num_truncated)
