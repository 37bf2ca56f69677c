"""Products that are folded over a sequence's tokens: rows over the vocabulary, and MaxSim."""

from __future__ import annotations

import numpy as np
import pytest

from simdformer import _core
from tests import oracle
from tests.support import assert_same_bits, normal

WIDTH, WORDS = 40, 300
# Lengths near a block of 128 rows, and sequences that share a block.
LENGTHS = [1, 5, 127, 128, 129, 3, 0, 300, 2]
CLOSE = {"rtol": 2e-6, "atol": 2e-5}


def offsets(lengths):
    return np.cumsum([0, *lengths]).astype(np.int32)


class Case:
    """A table without layers, and a head after it."""

    def __init__(self, rng, vocabulary=WORDS, lengths=LENGTHS):
        self.table = normal(rng, 50, WIDTH)
        self.weight, self.bias = normal(rng, vocabulary, WIDTH), normal(rng, vocabulary)
        self.cu = offsets(lengths)
        self.ids = rng.integers(0, 50, self.cu[-1]).astype(np.int32)

    def stack(self, linear=None, **options):
        plain = _core.TransformerStack([], None, _core.Embeddings(self.table))
        linear = _core.Linear(self.weight) if linear is None else linear
        return _core.VocabularyStack(plain, linear, self.bias, **options)

    def logits(self):
        return oracle.linear(self.table[self.ids], self.weight, self.bias)


@pytest.mark.parametrize("logarithms", [1, 2])
@pytest.mark.parametrize("sums", [False, True])
@pytest.mark.parametrize("vocabulary", [1, 15, 16, 17, 127, 128, 129, 300])
def test_rows_over_the_vocabulary_are_folded_logits(
    active_isa,  # noqa: ARG001
    rng,
    sums,
    logarithms,
    vocabulary,
):
    case = Case(rng, vocabulary)
    rows = case.stack(sums=sums, logarithms=logarithms).encode(case.ids, case.cu)
    expected = oracle.splade(case.logits(), case.cu, sums, logarithms)
    np.testing.assert_allclose(rows, expected, **CLOSE)


def test_a_sequence_without_tokens_has_no_weights(rng):
    case = Case(rng)
    assert not case.stack().encode(case.ids, case.cu)[LENGTHS.index(0)].any()


def test_a_transform_is_applied_before_the_product(rng):
    case = Case(rng)
    weight, bias, scale = normal(rng, WIDTH, WIDTH), normal(rng, WIDTH), normal(rng, WIDTH)
    norm = _core.LayerNorm(scale, bias, eps=1e-5)
    transform = _core.Dense(_core.Linear(weight, bias), activation="gelu", norm=norm)
    rows = case.stack(transform=transform).encode(case.ids, case.cu)
    x = oracle.gelu(oracle.linear(case.table[case.ids], weight, bias))
    x = oracle.layer_norm(x, scale, bias, 1e-5)
    expected = oracle.splade(oracle.linear(x, case.weight, case.bias), case.cu)
    np.testing.assert_allclose(rows, expected, rtol=0, atol=5e-5)


@pytest.mark.parametrize("sums", [False, True])
@pytest.mark.parametrize("compute_type", ["float32", "bfloat16", "int8"])
def test_the_bits_of_a_row_depend_only_on_its_text(active_isa, rng, compute_type, sums):  # noqa: ARG001
    case = Case(rng)
    linear = {
        "float32": lambda: _core.Linear(case.weight),
        "bfloat16": lambda: _core.Linear.in_bfloat16(case.weight),
        "int8": lambda: _core.Linear.from_int8(*_quantized(case.weight)),
    }[compute_type]()
    stack = case.stack(linear, sums=sums)
    whole = stack.encode(case.ids, case.cu, num_threads=1)
    for threads in (2, 3, 16):
        assert_same_bits(stack.encode(case.ids, case.cu, num_threads=threads), whole)
    for i in range(len(LENGTHS)):
        ids = case.ids[case.cu[i] : case.cu[i + 1]]
        alone = stack.encode(ids, np.array([0, len(ids)], np.int32), num_threads=2)
        assert_same_bits(alone[0], whole[i])


def _quantized(weight):
    values, scale = _core.quantize_weight(weight, np.empty(0, np.int32))
    return values, scale, None


def test_the_word_embeddings_may_be_the_vocabulary(rng):
    case = Case(rng)
    head = _core.Linear(case.table)
    tied = _core.TransformerStack([], None, _core.Embeddings(head))
    rows = _core.VocabularyStack(tied, None).encode(case.ids, case.cu)
    expected = oracle.splade(oracle.linear(case.table[case.ids], case.table), case.cu)
    np.testing.assert_allclose(rows, expected, **CLOSE)


def test_a_head_that_does_not_fit_is_refused(rng):
    case = Case(rng)
    plain = _core.TransformerStack([], None, _core.Embeddings(case.table))
    with pytest.raises(ValueError, match="no layer stands for the words"):
        _core.VocabularyStack(plain, None)
    with pytest.raises(ValueError, match="takes 41 features, the stack gives 40"):
        _core.VocabularyStack(plain, _core.Linear(normal(rng, 5, 41)))
    with pytest.raises(ValueError, match="bias has 4 elements, vocabulary gives 5"):
        _core.VocabularyStack(plain, _core.Linear(normal(rng, 5, 40)), normal(rng, 4))
    with pytest.raises(ValueError, match="logarithms must be 1 or 2, got 3"):
        _core.VocabularyStack(plain, _core.Linear(normal(rng, 5, 40)), logarithms=3)


# --- MaxSim ---

QUERIES, DOCUMENTS = [1, 32, 7, 200], [1, 2, 127, 128, 129, 40, 300, 5]


def texts(rng, lengths, width=24):
    return [normal(rng, length, width) for length in lengths]


def scores(queries, documents, **options):
    rows = [np.concatenate(x) for x in (queries, documents)]
    cu = [offsets([len(x) for x in each]) for each in (queries, documents)]
    return _core.max_sim(rows[0], cu[0], rows[1], cu[1], **options)


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("width", [1, 24, 128])
def test_max_sim_is_that_of_all_products(active_isa, rng, mean, width):  # noqa: ARG001
    queries, documents = texts(rng, QUERIES, width), texts(rng, DOCUMENTS, width)
    found = scores(queries, documents, mean=mean)
    expected = oracle.max_sim(queries, documents, mean)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_score_depends_only_on_its_texts(active_isa, rng):  # noqa: ARG001
    queries, documents = texts(rng, QUERIES), texts(rng, DOCUMENTS)
    whole = scores(queries, documents, num_threads=1)
    for threads in (2, 16):
        assert_same_bits(scores(queries, documents, num_threads=threads), whole)
    for i, query in enumerate(queries):
        for j, document in enumerate(documents):
            assert_same_bits(scores([query], [document])[0, 0], whole[i, j])


def test_max_sim_refuses_empty_texts(rng):
    one, none = texts(rng, [3]), [np.empty((0, 24), np.float32)]
    with pytest.raises(ValueError, match=r"documents\[0\] has no tokens"):
        scores(one, none)
    with pytest.raises(ValueError, match=r"queries\[0\] has no tokens"):
        scores(none, one, mean=True)
    assert_same_bits(scores(none, one), np.zeros((1, 1), np.float32))


def test_max_sim_refuses_vectors_of_different_lengths(rng):
    with pytest.raises(ValueError, match="queries have 24 features, documents 25"):
        scores(texts(rng, [3]), texts(rng, [3], 25))
