"""Texts are split into chunks and batches in order, without loss and within their limits. The thread that
works ahead ends with its use."""

from __future__ import annotations

import threading
import time
from itertools import count, islice, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simdformer.text.batching import chunks, map_ahead, pack, split_by_tokens, without_padding

LENGTHS = st.lists(st.integers(0, 50), max_size=60)


@given(LENGTHS, st.integers(1, 100))
def test_batches_cover_all_sequences_in_order(lengths, budget):
    indices = [i for part in split_by_tokens(lengths, budget) for i in range(len(lengths))[part]]
    assert indices == list(range(len(lengths)))


@given(LENGTHS, st.integers(1, 100))
def test_a_batch_holds_at_most_the_budget_or_one_sequence(lengths, budget):
    for part in split_by_tokens(lengths, budget):
        assert sum(lengths[part]) <= budget or len(lengths[part]) == 1


@given(LENGTHS, st.integers(1, 100))
def test_a_batch_ends_only_where_the_next_sequence_would_not_fit(lengths, budget):
    for part in split_by_tokens(lengths, budget):
        if part.stop < len(lengths):
            assert sum(lengths[part.start : part.stop + 1]) > budget


@given(st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=9), max_size=9))
def test_packed_sequences_are_concatenated(sequences):
    batch = pack(sequences)
    assert batch.input_ids.dtype == batch.cu_seqlens.dtype == np.int32
    assert batch.token_type_ids is None
    ends = batch.cu_seqlens.tolist()
    assert ends[0] == 0
    assert [batch.input_ids[a:b].tolist() for a, b in pairwise(ends)] == sequences


def test_token_types_are_packed_like_ids():
    batch = pack([[5, 6], [7]], [[0, 1], [1]])
    assert batch.token_type_ids.tolist() == [0, 1, 1]
    assert batch.token_type_ids.dtype == np.int32


@given(st.lists(st.lists(st.integers(0, 2), max_size=5), max_size=9))
def test_padding_is_removed_only_at_the_end_of_a_sequence(sequences):
    expected = []
    for ids in sequences:
        kept = list(ids)
        while len(kept) > 1 and kept[-1] == 0:
            kept.pop()
        expected.append(kept)
    types = [list(range(len(ids))) for ids in sequences]
    batch = without_padding(pack(sequences, types), 0)
    assert batch.cu_seqlens.dtype == np.int32
    parts = list(pairwise(batch.cu_seqlens))
    assert [batch.input_ids[a:b].tolist() for a, b in parts] == expected
    assert [batch.token_type_ids[a:b].tolist() for a, b in parts] == [
        list(range(len(ids))) for ids in expected
    ]
    assert without_padding(pack(sequences), 0).token_type_ids is None


@given(st.lists(st.text(max_size=20), max_size=40), st.integers(1, 5), st.integers(1, 50))
def test_chunks_cover_all_texts_within_their_bounds(texts, max_texts, max_characters):
    parts = list(chunks(texts, max_texts, max_characters))
    assert [text for part in parts for text in part] == texts
    for part in parts:
        assert 1 <= len(part) <= max_texts
        assert sum(map(len, part)) <= max_characters or len(part) == 1


def test_chunks_read_only_as_far_as_needed():
    read = []
    endless = (read.append(i) or "x" for i in count())
    next(chunks(endless, max_texts=3))
    assert len(read) == 4


def square(x):
    return x * x


@pytest.mark.parametrize("length", [0, 1, 2, 3, 50])
def test_map_ahead_is_map(length):
    assert list(map_ahead(square, range(length))) == [x * x for x in range(length)]


def workers():
    return [t for t in threading.enumerate() if t.name.startswith("simdformer-tokenizer")]


def test_a_single_item_is_processed_without_a_thread():
    threads = list(map_ahead(lambda _: threading.current_thread(), [1]))
    assert threads == [threading.current_thread()]


def test_several_items_are_processed_in_another_thread():
    threads = set(map_ahead(lambda _: threading.current_thread(), range(5)))
    assert len(threads) == 1
    assert threading.current_thread() not in threads


def test_the_next_item_is_processed_while_the_caller_is_busy():
    done = [threading.Event() for _ in range(3)]
    results = map_ahead(lambda i: done[i].set(), range(3))
    next(results)
    assert done[1].wait(timeout=30)  # it has not been requested yet
    list(results)


def test_at_most_one_item_is_read_ahead():
    taken = []
    results = map_ahead(square, (taken.append(i) or i for i in count()))
    assert list(islice(results, 5)) == [0, 1, 4, 9, 16]
    assert len(taken) <= 7
    results.close()


def test_no_thread_is_left_after_the_last_item():
    list(map_ahead(square, range(5)))
    assert workers() == []


def test_no_thread_is_left_when_the_caller_stops_early():
    results = map_ahead(square, count())
    next(results)
    results.close()
    assert workers() == []


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_an_exception_of_the_caller_leaves_no_thread(error):
    def work():
        for result in map_ahead(square, count()):
            if result == 16:
                raise error

    with pytest.raises(error):
        work()
    assert workers() == []


def test_an_exception_of_the_function_is_raised_at_its_position():
    results = map_ahead(lambda x: 1 // x, [1, 1, 0, 1])
    assert list(islice(results, 2)) == [1, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert workers() == []


def test_an_exception_of_the_items_is_raised():
    def items():
        yield from range(3)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        list(map_ahead(square, items()))
    assert workers() == []


def test_queued_work_is_dropped_when_the_caller_stops():
    started = []

    def slow(x):
        started.append(x)
        time.sleep(0.05)

    results = map_ahead(slow, count())
    next(results)
    results.close()
    assert len(started) <= 2
