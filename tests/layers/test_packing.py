"""Batch invariance: a text's vectors have the same bits alone, in any batch, in any order, and with any
number of threads; and no value of one sequence affects another."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simdformer import _core
from tests.support import assert_same_bits
from tests.support.tiny_bert import Config, native_encoder, random_batch, random_weights

LENGTHS = [1, 2, 17, 5, 64, 3, 130, 7, 8, 9]

# Wide enough that for a few sequences columns and heads are split, not sequences.
WIDE = Config(hidden_size=192, num_heads=6, intermediate_size=400)


@pytest.fixture(params=[Config(), WIDE], ids=["narrow", "wide"])
def encoder(request, active_isa):  # noqa: ARG001
    return native_encoder(request.param)


def split(cu_seqlens):
    return [slice(a, b) for a, b in pairwise(cu_seqlens)]


def alone(encoder, ids, **options):
    """The states of one sequence in its own batch."""
    return encoder.encode(np.ascontiguousarray(ids), np.array([0, len(ids)], np.int32), **options)


def test_a_sequence_has_the_same_bits_alone_and_in_a_batch(encoder):
    ids, cu_seqlens = random_batch(LENGTHS)
    whole = encoder.encode(ids, cu_seqlens)
    for tokens in split(cu_seqlens):
        assert_same_bits(alone(encoder, ids[tokens]), whole[tokens])


def test_a_sequence_has_the_same_bits_in_any_order(encoder):
    ids, cu_seqlens = random_batch(LENGTHS)
    whole = encoder.encode(ids, cu_seqlens)
    order = np.random.default_rng(3).permutation(len(LENGTHS))
    texts = [split(cu_seqlens)[i] for i in order]
    shuffled_ids = np.concatenate([ids[tokens] for tokens in texts])
    shuffled_cu_seqlens = np.concatenate([[0], np.cumsum(np.array(LENGTHS)[order])])
    shuffled = encoder.encode(shuffled_ids, shuffled_cu_seqlens.astype(np.int32))
    assert_same_bits(shuffled, np.concatenate([whole[tokens] for tokens in texts]))


@pytest.mark.parametrize("num_threads", [2, 3, 8])
def test_the_bits_do_not_depend_on_the_number_of_threads(encoder, num_threads):
    for lengths in (LENGTHS, [1], [130], [30, 1], [1] * 100):
        ids, cu_seqlens = random_batch(lengths)
        one = encoder.encode(ids, cu_seqlens, num_threads=1)
        assert_same_bits(encoder.encode(ids, cu_seqlens, num_threads=num_threads), one)


@settings(max_examples=30)
@given(
    lengths=st.lists(st.integers(1, 130), min_size=1, max_size=12),
    num_threads=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_batch_has_the_bits_of_its_sequences_alone(lengths, num_threads, seed):
    encoder = native_encoder_once()
    ids, cu_seqlens = random_batch(lengths, seed=seed)
    whole = encoder.encode(ids, cu_seqlens, num_threads=num_threads)
    for tokens in split(cu_seqlens):
        assert_same_bits(alone(encoder, ids[tokens], num_threads=1), whole[tokens])


_encoders = {}


def native_encoder_once():
    return _encoders.setdefault(_core.active_isa(), native_encoder(WIDE))


def test_the_bits_are_the_same_at_every_call(encoder):
    # Reused scratch, or reads of uninitialized memory, would cause differences here.
    ids, cu_seqlens = random_batch(LENGTHS)
    first = encoder.encode(ids, cu_seqlens)
    alone(encoder, ids[:130])
    for _ in range(10):
        assert_same_bits(encoder.encode(ids, cu_seqlens), first)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_bad_value_in_one_sequence_never_reaches_another(active_isa, poison):  # noqa: ARG001
    w = random_weights()
    ids, cu_seqlens = random_batch(LENGTHS, vocab_size=60)
    clean = native_encoder(w=w).encode(ids, cu_seqlens)
    w["embeddings.word_embeddings.weight"][60] = poison
    encoder = native_encoder(w=w)
    for sequence, tokens in enumerate(split(cu_seqlens)):
        bad = ids.copy()
        bad[tokens.start] = 60
        out = encoder.encode(bad, cu_seqlens)
        assert np.isnan(out[tokens]).any(), f"sequence {sequence} does not show its own {poison}"
        out[tokens] = clean[tokens]
        assert_same_bits(out, clean)


@pytest.mark.parametrize("mode", _core.pooling_modes())
def test_sentence_embeddings_have_the_same_bits_alone_and_in_a_batch(active_isa, mode):  # noqa: ARG001
    encoder = _core.PooledStack(native_encoder(), [mode], normalize=True)
    ids, cu_seqlens = random_batch(LENGTHS)
    whole = encoder.encode(ids, cu_seqlens, num_threads=2)
    for row, tokens in enumerate(split(cu_seqlens)):
        assert_same_bits(alone(encoder, ids[tokens], num_threads=1), whole[row : row + 1])
