# SPDX-License-Identifier: Apache-2.0
"""The models of the server: items in, rows and numbers of tokens out."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simdformer.cross_encoder import CrossEncoder
from simdformer.functional import sigmoid
from simdformer.sentence_transformer import SentenceTransformer
from simdformer.server.errors import ApiError, invalid, shown
from simdformer.server.passes import Float32
from simdformer.text.inputs import document_prompt
from simdformer.text.tokenizer import Pair, Tokens, num_characters

# A text or its token ids.
TextOrIds = str | list[int]

# English has about four characters per token.
_CHARACTERS_PER_TOKEN = 4


class ServedName:
    """The names of a model in requests."""

    def __init__(self, name: str, organization: str) -> None:
        """name: the folder or name with which the server was started. organization: that of a name on the hub
        without one."""
        base = Path(name).resolve().name
        # the path of a folder is not disclosed
        self.id = base if Path(name).is_dir() else name
        repository = next(
            (part for part in Path(name).resolve().parts if part.startswith("models--")), None
        )
        if repository is not None:  # in a Hugging Face cache: models--ORG--NAME/snapshots/COMMIT
            hub_name = repository.removeprefix("models--").replace("--", "/", 1)
            self.id = hub_name
        else:
            hub_name = self.id if "/" in self.id else f"{organization}/{self.id}"
        self.all = frozenset({name, self.id, base, hub_name, hub_name.rpartition("/")[2]})


class Embedder:
    """A SentenceTransformer behind the queue. Items are texts, prompt included, or token ids."""

    def __init__(self, model: SentenceTransformer) -> None:
        """ValueError for a model that reads texts of each task differently, because requests name no task."""
        if len(model.pipeline.all()) > 1:
            raise ValueError(
                f"{model.name_or_path} reads texts of different tasks (query, document) differently, but"
                " requests name no task; it cannot be served"
            )
        self.model = model
        self.dimension = model.get_embedding_dimension()
        self._pipeline = model.pipeline

    def prompt(self, name: str | None) -> str:
        """The text of a prompt; None for the model's default. ApiError if it is unknown."""
        if name is not None and name not in self.model.prompts:
            known = ", ".join(self.model.prompts)
            raise invalid(f"unknown prompt_name {shown(name)}; known: {known}", "prompt_name")
        return self.model.resolve_prompt(None, name) or ""

    def prompt_of(self, input_type: str) -> str | None:
        """The name of the prompt that `encode_query` or `encode_document` uses; None for the default."""
        prompts = self.model.prompts
        if input_type.endswith("query"):
            return "query" if "query" in prompts else None
        return document_prompt(prompts)

    def prompted(self, text: str, prompt: str) -> str:
        """A text as it is tokenized."""
        return self._pipeline.prompted(text, prompt)

    def group(self, prompt: str) -> Hashable:
        """The group of an item. Texts can be computed together if their pooling starts at the same token."""
        return self._pipeline.pooling_start(prompt)

    def check_ids(self, ids: list[int], param: str) -> None:
        """ApiError if ids cannot come from this model's tokenizer."""
        limit = self._pipeline.encoder.vocab_size
        first, last = self._pipeline.tokenizer.special_ids_around
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
    def truncation_side(self) -> str:
        """The side on which texts are truncated, "right" or "left"."""
        return self._pipeline.tokenizer.truncation_side

    def check_lengths(self, items: Sequence[TextOrIds], param: str) -> None:
        """ApiError if a text is longer than the model's limit."""
        limit = self.model.max_seq_length
        for index, text in enumerate(items):
            if isinstance(text, str) and self._pipeline.tokenizer([text]).num_truncated:
                place = f"{param}[{index}]"
                raise invalid(f"{place} has over {limit} tokens and must not be truncated", place)

    def size(self, item: TextOrIds) -> int:
        """The approximate number of characters of an item."""
        return len(item) if isinstance(item, str) else _CHARACTERS_PER_TOKEN * len(item)

    def run(self, items: Sequence[TextOrIds], group: Any) -> tuple[Float32, list[int]]:
        """The vectors of `encode`, float32 (n, dimension), and the number of tokens of each item."""
        texts = [item for item in items if isinstance(item, str)]
        tokens = self._pipeline.tokenizer(texts) if texts else Tokens([], None, 0)
        if len(texts) < len(items):
            tokens = _with_ids(tokens, items)
        rows = self._pipeline.rows_of_tokens(tokens, group)
        return rows[:, : self.dimension], [len(ids) for ids in tokens.input_ids]


class Reranker:
    """A CrossEncoder with one score per pair behind the queue. Items are pairs, prompt included."""

    def __init__(self, model: CrossEncoder) -> None:
        """ValueError for a model with several scores."""
        if model.num_labels != 1:
            raise ValueError(
                f"the model gives {model.num_labels} scores per pair; rerank needs a model with one"
            )
        self.model = model
        self.prompt = model.resolve_prompt() or ""

    def prompted(self, query: str, document: str) -> Pair | str:
        """A pair as it is tokenized."""
        return self.model.pipeline.prompted_pair((query, document), self.prompt)

    def size(self, item: Pair | str) -> int:
        """The number of characters of a pair."""
        return num_characters(item)

    def run(self, items: Sequence[Any], group: Hashable) -> tuple[Float32, list[int]]:
        """The score of each pair, float32 (n, 1), and its number of tokens.

        group: None for the scores of `predict`, True for the logits, False for their sigmoid.
        """
        tokens = self.model.pipeline.tokenizer(items)
        logits = self.model.pipeline.rows_of_tokens(tokens)
        activation = self.model.activation_fn if group is None else sigmoid
        scores = logits if group is True else np.asarray(activation(logits), np.float32)
        return scores, [len(ids) for ids in tokens.input_ids]


def check_finite(rows: Float32) -> None:
    """ApiError for NaN and infinity, which JSON cannot represent."""
    if not np.isfinite(rows).all():
        raise ApiError(500, "the model's output is not finite", code="not_finite")


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
