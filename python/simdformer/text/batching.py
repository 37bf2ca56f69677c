# SPDX-License-Identifier: Apache-2.0
"""Makes batches without padding from a stream of texts, in bounded memory.

Texts keep the caller's order. Sorting them by length would save nothing, because there is no padding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, chain, islice, pairwise
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from simdformer.text.tokenizer import Text, num_characters

Int32 = NDArray[np.int32]
T = TypeVar("T")
R = TypeVar("R")

# One chunk is tokenized at a time. It has enough texts to keep all cores busy for tens of milliseconds, and
# few enough characters (about 64k tokens) to react to Ctrl-C quickly and to need little memory.
_CHUNK_TEXTS = 1024
_CHUNK_CHARACTERS = 262_144


class TokenBatch(NamedTuple):
    """Concatenated sequences: sequence i is input_ids[cu_seqlens[i]:cu_seqlens[i + 1]].

    input_ids and token_type_ids: int32 (total_tokens,); cu_seqlens: int32 (batch + 1,).
    token_type_ids is None if all are 0.
    """

    input_ids: Int32
    cu_seqlens: Int32
    token_type_ids: Int32 | None = None


def pack(
    sequences: Sequence[Sequence[int]], type_ids: Sequence[Sequence[int]] | None = None
) -> TokenBatch:
    """Concatenate lists of token ids (and of token type ids)."""
    cu_seqlens = np.fromiter(
        accumulate(map(len, sequences), initial=0), dtype=np.int32, count=len(sequences) + 1
    )
    return TokenBatch(
        _flatten(sequences, int(cu_seqlens[-1])),
        cu_seqlens,
        None if type_ids is None else _flatten(type_ids, int(cu_seqlens[-1])),
    )


def without_padding(batch: TokenBatch, pad_id: int) -> TokenBatch:
    """Remove padding tokens at the end of sequences. A sequence of padding tokens only keeps the first one."""
    ids, cu_seqlens, type_ids = batch
    kept = np.zeros(len(ids), dtype=bool)
    for begin, end in pairwise(cu_seqlens):
        others = np.flatnonzero(ids[begin:end] != pad_id)
        last = others[-1] if len(others) else 0
        kept[begin : min(begin + last + 1, end)] = True
    ends = np.concatenate([[0], np.cumsum(kept)])[cu_seqlens].astype(np.int32)
    return TokenBatch(ids[kept], ends, None if type_ids is None else type_ids[kept])


def split_by_tokens(lengths: Iterable[int], max_batch_tokens: int) -> Iterator[slice]:
    """Cut consecutive sequences into batches of at most `max_batch_tokens` tokens.

    A longer sequence is a batch of its own. Yields slices that cover all sequences in order.
    """
    start = stop = total = 0
    for length in lengths:
        if stop > start and total + length > max_batch_tokens:
            yield slice(start, stop)
            start, total = stop, 0
        stop += 1
        total += length
    if stop > start:
        yield slice(start, stop)


def chunks(
    texts: Iterable[Text],
    max_texts: int = _CHUNK_TEXTS,
    max_characters: int = _CHUNK_CHARACTERS,
) -> Iterator[list[Text]]:
    """Group consecutive texts or pairs into lists of bounded size. A text above the bound gets its own
    list."""
    chunk: list[Text] = []
    characters = 0
    for text in texts:
        length = num_characters(text)
        if chunk and (len(chunk) == max_texts or characters + length > max_characters):
            yield chunk
            chunk, characters = [], 0
        chunk.append(text)
        characters += length
    if chunk:
        yield chunk


def map_ahead(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """map(function, items) in order. Each call runs in one background thread while the caller uses the
    previous result.

    `items` is advanced in the caller's thread. A single item is also processed there. An exception of
    `function` is raised at its position. The thread ends with the generator, after at most one running call,
    even if the caller abandons the generator.
    """
    iterator = iter(items)
    first = list(islice(iterator, 2))
    if len(first) < 2:
        yield from map(function, first)
        return
    from concurrent.futures import ThreadPoolExecutor

    executor = ThreadPoolExecutor(1, thread_name_prefix="simdformer-tokenizer")
    try:
        try:
            pending = executor.submit(function, first[0])
        except RuntimeError:  # the system cannot start a thread
            yield from map(function, chain(first, iterator))
            return
        for item in chain(first[1:], iterator):
            following = executor.submit(function, item)
            yield pending.result()
            pending = following
        yield pending.result()
    finally:
        executor.shutdown(cancel_futures=True)


def _flatten(sequences: Sequence[Sequence[int]], total: int) -> Int32:
    try:
        if len(sequences) == 1:
            return np.array(sequences[0], dtype=np.int32)
        return np.fromiter(chain.from_iterable(sequences), dtype=np.int32, count=total)
    except OverflowError:
        largest = max(chain.from_iterable(sequences))
        raise IndexError(
            f"the tokenizer gave the token id {largest}; expected an id in [0, 2**31)"
        ) from None
