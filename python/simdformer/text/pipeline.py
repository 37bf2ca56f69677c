# SPDX-License-Identifier: Apache-2.0
"""Computes rows from texts: a tokenizer, batches of tokens, native calls."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from simdformer._core import TransformerStack
from simdformer.functional.arrays import positive_int
from simdformer.text.batching import TokenBatch, chunks, map_ahead, pack, split_by_tokens
from simdformer.text.batching import without_padding as cut_padding
from simdformer.text.chat_template import ChatTemplate
from simdformer.text.finite import check_finite, finite
from simdformer.text.inputs import Budget
from simdformer.text.model_output import (
    ModelOutput,
    OutputRequest,
    layer_masks,
    run,
)
from simdformer.text.protocols import Module, PooledModel, SavableModel, TokenModel
from simdformer.text.reader import TextReader
from simdformer.text.tokenizer import Text, Tokenizer, Tokens
from simdformer.text.warning import warn_caller

Array = NDArray[Any]
Float32 = NDArray[np.float32]
R = TypeVar("R")


class TextPipeline(TextReader):
    """A tokenizer, a native model, and the number of tokens per pass.

    Several Python threads may use it at the same time. The result for a text has the same bits in any batch.

    Attributes:
      tokenizer: with a fixed limit. A call reads this attribute once, so replacing the tokenizer does not
        affect running calls.
      include_prompt: whether pooling includes the tokens of the prompt.
      num_tokens: number of computed tokens.
      truncated_texts: number of texts longer than the tokenizer's limit. Only the first call with such a
        text warns.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        encoder: Module,
        pool: Callable[[TransformerStack], PooledModel],
        budget: Budget,
        *,
        include_prompt: bool = True,
        padding: int | None = None,
        template: ChatTemplate | None = None,
    ) -> None:
        """pool: combines the encoder with a head that returns one row per text.

        padding: the token that is removed at the end of texts, or None. template: applied to texts before
        they are tokenized.
        """
        super().__init__(tokenizer, include_prompt=include_prompt, template=template)
        self.num_tokens = 0
        self.truncated_texts = 0
        self._module = encoder
        self._pool = pool
        stack = encoder.native()
        self._packed = (stack, pool(stack))
        self._budget = budget
        self._padding = padding
        self._counting = threading.Lock()

    def with_encoder(self, encoder: Module) -> TextPipeline:
        """A copy with the same tokenizer, head and settings and another encoder."""
        other = TextPipeline(
            self.tokenizer,
            encoder,
            self._pool,
            self._budget,
            include_prompt=self.include_prompt,
            padding=self._padding,
            template=self._template,
        )
        tasks = {
            task: each.with_encoder(encoder if each._module is self._module else each._module)
            for task, each in self._tasks.items()
        }
        other.add_tasks(
            tasks,
            routed=self._routed,
            strict=self._strict,
            needs_task=self._needs_task,
            adapters=self._adapters,
        )
        return other

    # --- the model ---

    @property
    def encoder(self) -> TransformerStack:
        """The current model without its head."""
        return self._module.native()

    @property
    def _model(self) -> PooledModel:
        """The model with its head."""
        packed, stack = self._packed, self._module.native()
        if packed[0] is not stack:
            self._packed = packed = (stack, self._pool(stack))
        return packed[1]

    def save(self, write: Callable[[memoryview], object], **output: Any) -> None:
        """Call `write` with the bytes of the model in one file. output: arguments of _core.PooledStack.save.

        ValueError if a part of the model runs outside the native call.
        """
        model = self._model
        if isinstance(model, SavableModel):
            model.save(write, **output)
        else:
            raise ValueError(f"{type(model).__name__} cannot be exported")  # noqa: TRY004  (about models, not arguments)

    # --- settings ---

    @property
    def width(self) -> int:
        """The length of a row."""
        return self._model.embedding_dimension

    def limit_length(self, argument: str, value: int) -> None:
        """Set the maximum length of a text in tokens. ValueError names the argument."""
        most = self.encoder.max_positions
        value = positive_int(argument, value)
        if 0 < most < value:
            raise ValueError(
                f"{argument} must be at most {most}, the model's positions, got {value}"
            )
        self.tokenizer = self.tokenizer.with_max_seq_length(value)
        if self._routed:
            for other in self._tasks.values():
                other.limit_length(argument, value)

    # --- texts to rows ---

    def matrix(
        self,
        texts: Iterable[Text],
        shape: tuple[int, int],
        *,
        pooling_start: int = 0,
        bar: Any = None,
    ) -> Float32:
        """The rows of all texts: float32 of this shape, (number of texts, number of columns to keep).

        bar: updated with the number of finished texts, as a tqdm bar.
        """
        if shape[0] == 1:
            (text,) = texts
            result = self._row(text, pooling_start)[:, : shape[1]]
            if bar is not None:
                bar.update(1)
            return result
        result = np.empty(shape, dtype=np.float32)
        begin = 0
        with closing(self.rows(texts, pooling_start)) as parts:
            for part in parts:
                result[begin : begin + len(part)] = part[:, : shape[1]]
                begin += len(part)
                if bar is not None:
                    bar.update(len(part))
        return result

    def rows(self, texts: Iterable[Text], pooling_start: int = 0) -> Generator[Float32, None, None]:
        """The rows in parts: float32 (k, width) for k consecutive texts, in bounded memory."""
        return finite(self.passes(texts, partial(self._rows, pooling_start=pooling_start)))

    def token_rows(self, texts: Iterable[Text]) -> Generator[list[Float32], None, None]:
        """The token vectors: float32 (tokens, hidden_size) for each of some consecutive texts."""
        return finite(self.passes(texts, self._token_rows))

    def sparse_rows(self, texts: Iterable[Text]) -> Generator[Any, None, None]:
        """The results of the model's sparse_rows for consecutive texts: (counts, indices, data)."""
        begin = 0
        for counts, indices, data in self.passes(texts, self._sparse_rows):
            if not np.isfinite(data).all():
                check_finite(np.split(data, np.cumsum(counts)[:-1]), begin)
            begin += len(counts)
            yield counts, indices, data

    def token_vectors(
        self, texts: Iterable[Text], task: str | None
    ) -> Generator[list[Float32], None, None]:
        """The results of the model's token_vectors for consecutive texts: float32 (vectors, width) each."""
        model: Any = self._model
        compute = partial(self._token_vectors, task=task)
        return finite(self.passes(texts, compute, model.least_tokens(task)))

    def state_passes(
        self, texts: Iterable[Text], compute: Callable[..., R], pooling_start: int = 0
    ) -> Generator[R, None, None]:
        """Call `compute` with the rows of consecutive batches of texts, the hidden states of their tokens, the
        batch, and the number of threads."""
        return self.passes(
            texts, partial(self._with_states, compute=compute, pooling_start=pooling_start)
        )

    def output_passes(
        self, texts: Iterable[Text], request: OutputRequest, pooling_start: int = 0
    ) -> Generator[list[ModelOutput], None, None]:
        """The intermediate results of the model for each of some consecutive texts."""
        return self.passes(texts, self._to_outputs(request, pooling_start=pooling_start))

    def outputs(
        self,
        texts: Sequence[Text],
        request: OutputRequest,
        max_bytes: int | None,
        pooling_start: int = 0,
        *,
        logits: bool = False,
    ) -> list[ModelOutput]:
        """The intermediate results of all texts. First checks that their arrays take at most max_bytes.
        logits: whether rows are logits."""
        if max_bytes is not None:
            positive_int("max_bytes", max_bytes)
        tokenizer = self.tokenizer
        tokens = tokenizer(texts)
        request.check_bytes(map(len, tokens.input_ids), max_bytes)
        if tokens.num_truncated:
            self.count_truncated(tokens.num_truncated, tokenizer)
        compute = self._to_outputs(
            request, pooling_start=pooling_start, field="logits" if logits else "sentence_embedding"
        )
        batches = self._cut(tokens, 1 if request.attentions else self._budget.max_batch_tokens)
        return [output for batch in batches for output in self._counted(compute(batch), batch)]

    def passes(
        self, texts: Iterable[Text], compute: Callable[[TokenBatch], R], least_tokens: int = 0
    ) -> Generator[R, None, None]:
        """The results of `compute` for consecutive batches of texts. The next texts are tokenized meanwhile.

        least_tokens: the number of tokens to which `compute` extends shorter texts.

        Closing it ends the tokenizing thread, also when an exception keeps its frame alive.
        """
        tokenizer = self.tokenizer
        for batches, truncated in map_ahead(
            partial(self._batches, tokenizer, least_tokens), chunks(texts)
        ):
            if truncated:
                self.count_truncated(truncated, tokenizer)
            for batch in batches:
                yield self._counted(compute(batch), batch)

    def rows_of_tokens(
        self, tokens: Tokens, pooling_start: int = 0, head_masks: Float32 | None = None
    ) -> Float32:
        """The rows of tokenized texts, float32 (n, width); they may contain NaN. Truncated texts are not
        counted.

        head_masks: float32 (n, num_layers, num_heads), factors of each text's heads; None for ones.
        """
        parts, begin = [], 0
        for batch in self._cut(tokens, self._budget.max_batch_tokens):
            end = begin + len(batch.cu_seqlens) - 1
            masks = [] if head_masks is None else layer_masks(head_masks[begin:end])
            parts.append(self._counted(self._rows(batch, pooling_start, masks), batch))
            begin = end
        return np.concatenate(parts)

    def token_rows_of_tokens(self, tokens: Tokens) -> list[Float32]:
        """The token vectors of tokenized texts, float32 (tokens, hidden_size) each, finite or not."""
        return [row for rows in self.token_row_passes(tokens) for row in rows]

    def token_row_passes(self, tokens: Tokens) -> Generator[list[Float32], None, None]:
        """The same for the texts of one pass at a time."""
        for batch in self._cut(tokens, self._budget.max_batch_tokens):
            yield self._counted(self._token_rows(batch), batch)

    def sparse_rows_of_tokens(self, tokens: Tokens) -> list[Any]:
        """The results of the model's sparse_rows for each batch of tokenized texts, finite or not."""
        batches = self._cut(tokens, self._budget.max_batch_tokens)
        return [self._counted(self._sparse_rows(batch), batch) for batch in batches]

    # --- one batch ---

    def _row(self, text: Text, pooling_start: int) -> Float32:
        """The row of a single text, without the generators for many texts. After a pass over the weights,
        caches are cold and each function call costs microseconds; this saves 0.04 ms of 1 to 2 ms."""
        tokenizer = self.tokenizer
        tokens = tokenizer([text])
        if tokens.num_truncated:
            self.count_truncated(tokens.num_truncated, tokenizer)
        batch = pack(tokens.input_ids, tokens.type_ids)
        row = self._counted(self._rows(batch, pooling_start), batch)
        check_finite(row, 0)
        return row

    def _rows(
        self, batch: TokenBatch, pooling_start: int, head_masks: Sequence[Float32] = ()
    ) -> Float32:
        return self._model.encode(
            *self._read(batch),
            pooling_start=pooling_start,
            head_masks=head_masks,
            num_threads=self._budget.num_threads,
        )

    def _with_states(self, batch: TokenBatch, compute: Callable[..., R], pooling_start: int) -> R:
        batch, encoder, num_threads = self._read(batch), self.encoder, self._budget.num_threads
        states = np.empty((len(batch.input_ids), encoder.hidden_size), np.float32)
        rows = self._model.encode(
            *batch,
            pooling_start=pooling_start,
            num_threads=num_threads,
            hidden_states=[*[None] * encoder.num_layers, states],
        )
        return compute(rows, states, batch, num_threads)

    def _token_vectors(self, batch: TokenBatch, task: str | None) -> list[Float32]:
        model: Any = self._model
        found: list[Float32] = model.token_vectors(
            self._read(batch), task, self._budget.num_threads
        )
        return found

    def _sparse_rows(self, batch: TokenBatch) -> Any:
        model: Any = self._model
        return model.sparse_rows(*self._read(batch), num_threads=self._budget.num_threads)

    def _read(self, batch: TokenBatch) -> TokenBatch:
        """The model's input for a batch."""
        return batch if self._padding is None else cut_padding(batch, self._padding)

    def _to_outputs(
        self, request: OutputRequest, **call: Any
    ) -> Callable[[TokenBatch], list[ModelOutput]]:
        spell, num_threads = self.tokenizer.spell, self._budget.num_threads
        return lambda batch: run(
            self._model, request, self._read(batch), spell, num_threads=num_threads, **call
        )

    def _token_rows(self, batch: TokenBatch) -> list[Float32]:
        num_threads = self._budget.num_threads
        rows = None
        if isinstance(model := self._model, TokenModel):
            rows = model.token_rows(*batch, num_threads=num_threads)
        if rows is None:
            rows = self.encoder.encode(*batch, num_threads=num_threads)
        return np.split(rows, batch.cu_seqlens[1:-1])

    def _batches(
        self, tokenizer: Tokenizer, least_tokens: int, texts: Sequence[Text]
    ) -> tuple[list[TokenBatch], int]:
        """The result of the tokenizing thread for a chunk: batches, and the number of texts that were too
        long."""
        tokens = tokenizer(texts)
        batches = self._cut(tokens, self._budget.max_batch_tokens, least_tokens)
        return batches, tokens.num_truncated

    def _cut(
        self, tokens: Tokens, max_batch_tokens: int, least_tokens: int = 0
    ) -> list[TokenBatch]:
        ids, type_ids = tokens.input_ids, tokens.type_ids
        lengths = (max(len(each), least_tokens) for each in ids)
        return [
            pack(ids[part], None if type_ids is None else type_ids[part])
            for part in split_by_tokens(lengths, max_batch_tokens)
        ]

    # --- counters ---

    def _counted(self, output: R, batch: TokenBatch) -> R:
        """Return the output of a batch and count its tokens."""
        with self._counting:
            self.num_tokens += len(batch.input_ids)
        return output

    def count_truncated(self, count: int, tokenizer: Tokenizer | None) -> None:
        """Count texts that were truncated, with a warning for the first ones. tokenizer: None for no warning."""
        with self._counting:
            first = self.truncated_texts == 0
            self.truncated_texts += count
        if first and tokenizer is not None:
            warn_caller(
                f"texts longer than max_seq_length={tokenizer.max_seq_length} tokens are truncated"
                f" ({count} so far; truncated_texts of the model counts further ones without a warning)"
            )
