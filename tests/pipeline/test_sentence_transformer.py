"""SentenceTransformer on tiny models: results are those of the oracle, and arguments have
sentence-transformers' meanings."""

from __future__ import annotations

import logging
import threading

import numpy as np
import pytest

from simdformer import SentenceTransformer, _core, quantize_embeddings
from tests import oracle
from tests.support import assert_same_bits
from tests.support.model_fixtures import (
    CLOSE,
    MODES,
    TEXTS,
    TINY,
    expected_states,
    letter_ids,
    pooled,
    write_model,
)
from tests.support.tiny_bert import native_encoder, random_weights

# Inputs and results of encode


def test_a_list_gives_a_float32_matrix(model):
    embeddings = model.encode(TEXTS)
    assert embeddings.dtype == np.float32
    assert embeddings.shape == (len(TEXTS), TINY.hidden_size)
    np.testing.assert_allclose(embeddings, pooled(TEXTS), **CLOSE)


def test_a_str_gives_a_vector_with_the_bits_of_its_row(model):
    assert_same_bits(model.encode(TEXTS[1]), model.encode(TEXTS)[1])


@pytest.mark.parametrize("kind", [tuple, np.array, lambda texts: np.array(texts, dtype=object)])
def test_other_sequences_are_accepted(model, kind):
    assert_same_bits(model.encode(kind(TEXTS)), model.encode(TEXTS))


def test_a_numpy_str_is_a_str(model):
    assert_same_bits(model.encode(np.str_("deed")), model.encode("deed"))


def test_no_texts_give_an_empty_array(model):
    assert model.encode([]).shape == (0,)
    assert model.encode([], output_value="token_embeddings") == []
    assert model.encode([], precision="int8").shape == (0,)


def test_the_old_name_of_inputs_still_works(model):
    assert_same_bits(model.encode(sentences=TEXTS), model.encode(TEXTS))


def test_token_embeddings_are_one_matrix_per_text_without_padding(model):
    matrices = model.encode(TEXTS, output_value="token_embeddings")
    for text, matrix in zip(TEXTS, matrices, strict=True):
        assert matrix.dtype == np.float32
        np.testing.assert_allclose(matrix, expected_states(text), **CLOSE)


def test_token_embeddings_of_a_str_are_its_matrix(model):
    matrix = model.encode("deed", output_value="token_embeddings")
    np.testing.assert_allclose(matrix, expected_states("deed"), **CLOSE)


def test_without_convert_to_numpy_the_rows_are_a_list(model):
    rows = model.encode(TEXTS, convert_to_numpy=False)
    assert isinstance(rows, list)
    assert_same_bits(np.stack(rows), model.encode(TEXTS))


def test_convert_to_tensor_needs_torch(model, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(ImportError, match="convert_to_tensor=True needs torch"):
        model.encode(TEXTS, convert_to_tensor=True)


@pytest.mark.parametrize("budget", [1, 7, 1000])
def test_the_token_budget_does_not_change_a_bit(tmp_path, model, budget):
    small = SentenceTransformer(write_model(tmp_path / "m"), max_batch_tokens=budget)
    assert_same_bits(small.encode(TEXTS), model.encode(TEXTS))


def test_many_texts_come_back_in_their_order(model):
    texts = [TEXTS[i % len(TEXTS)] for i in range(3000)]
    few = model.encode(TEXTS)
    assert_same_bits(model.encode(texts), few[np.arange(3000) % len(TEXTS)])


def test_tokens_are_counted(tmp_path):
    model = SentenceTransformer(write_model(tmp_path / "m"))
    model.encode(TEXTS)
    assert model.num_tokens == sum(len(letter_ids(text)) for text in TEXTS)


def test_nan_in_one_sequence_never_reaches_another():
    # Loading refuses NaN, so the layers are built by hand; token 5 has NaN.
    weights = random_weights()
    weights["embeddings.word_embeddings.weight"][5] = np.nan
    encoder = _core.PooledStack(native_encoder(w=weights), MODES, normalize=True)
    ids = np.array([2, 5, 3, 2, 6, 3, 2, 5, 5, 3, 2, 7, 8, 3], np.int32)
    embeddings = encoder.encode(ids, np.array([0, 3, 6, 10, 14], np.int32))
    assert np.isnan(embeddings[[0, 2]]).any(axis=1).all()
    clean = encoder.encode(ids[[3, 4, 5, 10, 11, 12, 13]], np.array([0, 3, 7], np.int32))
    assert_same_bits(embeddings[[1, 3]], clean)


def test_no_thread_is_left_running(model):
    model.encode(TEXTS * 1000)
    list(model.encode_stream(TEXTS * 1000))
    names = [thread.name for thread in threading.enumerate()]
    assert not any(name.startswith("simdformer-tokenizer") for name in names)


# Streams


def test_a_stream_gives_the_same_vectors_in_order(model):
    texts = [TEXTS[i % len(TEXTS)] for i in range(2500)]
    parts = list(model.encode_stream(iter(texts)))
    assert len(parts) > 1
    assert_same_bits(np.concatenate(parts), model.encode(texts))


def test_a_stream_takes_encode_options(model):
    parts = list(
        model.encode_stream(TEXTS, prompt="ab ", normalize_embeddings=True, truncate_dim=6)
    )
    expected = model.encode(TEXTS, prompt="ab ", normalize_embeddings=True, truncate_dim=6)
    assert_same_bits(np.concatenate(parts), expected)


def test_a_stream_reads_a_bounded_number_of_texts_ahead(model):
    read = []
    stream = model.encode_stream(read.append(i) or "a cab" for i in range(100_000))
    next(stream)
    stream.close()
    assert len(read) < 5000


def test_an_empty_stream_gives_nothing(model):
    assert list(model.encode_stream([])) == []


# Length


@pytest.mark.parametrize(
    ("max_seq_length", "model_max_length", "limit"),
    [
        (100, 512, 100),
        (100, 64, 100),  # in sentence-transformers its own setting overrides the tokenizer's
        (None, 64, 64),
        (None, int(1e30), 130),
        (None, None, 130),
        (512, 512, 130),  # there are only 130 positions
    ],
)
def test_the_length_limit(tmp_path, max_seq_length, model_max_length, limit):
    files = {
        "sentence_bert_config.json": {"max_seq_length": max_seq_length},
        "tokenizer_config.json": {"model_max_length": model_max_length},
    }
    assert SentenceTransformer(write_model(tmp_path / "m", files=files)).max_seq_length == limit


def test_the_newer_transformer_settings_have_no_length(tmp_path):
    settings = {
        "transformer_task": "feature-extraction",
        "modality_config": {
            "text": {"method": "forward", "method_output_name": "last_hidden_state"}
        },
        "module_output_name": "token_embeddings",
    }
    files = {
        "sentence_bert_config.json": settings,
        "tokenizer_config.json": {"model_max_length": 77},
    }
    assert SentenceTransformer(write_model(tmp_path / "m", files=files)).max_seq_length == 77


@pytest.fixture
def short(tmp_path):
    """A model for at most 6 tokens per text."""
    files = {"sentence_bert_config.json": {"max_seq_length": 6}}
    return SentenceTransformer(write_model(tmp_path / "m", files=files))


def test_a_longer_text_is_truncated_and_counted_with_one_warning(short):
    with pytest.warns(
        UserWarning, match="longer than max_seq_length=6 tokens are truncated"
    ) as seen:
        embeddings = short.encode(["abcd", "abcde", "abcdefgh"])
    assert len(seen) == 1
    assert short.truncated_texts == 2
    np.testing.assert_allclose(embeddings[2], pooled(["abcdefgh"], limit=6)[0], **CLOSE)
    short.encode("abcdefgh")  # no second warning, which would be an error in this suite
    assert short.truncated_texts == 3


def test_the_warning_points_at_the_caller(short):
    with pytest.warns(UserWarning, match="truncated") as seen:
        short.encode("abcdefgh")
    assert seen[0].filename == __file__


def test_max_seq_length_can_be_set(short):
    short.max_seq_length = 8
    short.encode("abcdef")
    assert short.truncated_texts == 0
    short.max_seq_length = None
    assert short.max_seq_length == TINY.max_positions


@pytest.mark.parametrize("value", [0, -1, 1, 131, 2.5, "8", True])
def test_an_impossible_max_seq_length_is_refused(short, value):
    with pytest.raises(ValueError, match="max_seq_length must be"):
        short.max_seq_length = value
    assert short.max_seq_length == 6


def test_the_truncation_side_is_that_of_the_tokenizer_config(tmp_path):
    files = {
        "sentence_bert_config.json": {"max_seq_length": 4},
        "tokenizer_config.json": {"truncation_side": "left"},
    }
    model = SentenceTransformer(write_model(tmp_path / "m", files=files))
    with pytest.warns(UserWarning, match="truncated"):
        vector = model.encode("a b c d")
    assert_same_bits(vector, model.encode("c d"))


# Processing after the model


def test_truncate_dim_keeps_the_leading_dimensions_as_they_are(model):
    assert_same_bits(model.encode(TEXTS, truncate_dim=7), model.encode(TEXTS)[:, :7].copy())
    assert model.encode("a", truncate_dim=1000).shape == (20,)


def test_truncate_dim_comes_from_the_call_the_constructor_or_the_model(tmp_path):
    files = {"config_sentence_transformers.json": {"truncate_dim": 9}}
    folder = write_model(tmp_path / "m", files=files)
    assert SentenceTransformer(folder).encode("a").shape == (9,)
    model = SentenceTransformer(folder, truncate_dim=5)
    assert model.get_embedding_dimension() == model.get_sentence_embedding_dimension() == 5
    assert model.encode("a").shape == (5,)
    assert model.encode("a", truncate_dim=3).shape == (3,)
    with model.truncate_embeddings(4):
        assert model.encode("a").shape == (4,)
    with model.truncate_embeddings(None):
        assert model.encode("a").shape == (20,)
    assert model.encode("a").shape == (5,)


def test_normalize_embeddings_comes_after_truncation(model):
    embeddings = model.encode(TEXTS, truncate_dim=6, normalize_embeddings=True)
    expected = oracle.l2_normalize(pooled(TEXTS)[:, :6])
    np.testing.assert_allclose(embeddings, expected, **CLOSE)


def test_normalized_rows_do_not_depend_on_the_batch(model):
    together = model.encode(TEXTS, normalize_embeddings=True)
    for text, row in zip(TEXTS, together, strict=True):
        assert_same_bits(model.encode(text, normalize_embeddings=True), row)


@pytest.mark.parametrize("precision", ["binary", "ubinary"])
def test_bits_of_a_str_and_of_a_list(model, precision):
    bits = model.encode(TEXTS, precision=precision)
    assert bits.shape == (5, 3)
    np.testing.assert_array_equal(bits[0], model.encode(TEXTS[0], precision=precision))


@pytest.mark.parametrize("precision", ["int8", "uint8"])
def test_bytes_are_the_quantized_embeddings(model, precision):
    texts = TEXTS * 20
    codes = model.encode(texts, precision=precision)
    np.testing.assert_array_equal(codes, quantize_embeddings(model.encode(texts), precision))


def test_quantized_token_embeddings_share_their_ranges(model):
    texts = TEXTS * 5
    matrices = model.encode(texts, output_value="token_embeddings")
    codes = model.encode(texts, output_value="token_embeddings", precision="uint8")
    expected = quantize_embeddings(np.concatenate(matrices), "uint8")
    assert [len(code) for code in codes] == [len(matrix) for matrix in matrices]
    np.testing.assert_array_equal(np.concatenate(codes), expected)


# Similarity


def test_similarity_is_cosine_by_default(tmp_path, model):
    assert model.similarity_fn_name == "cosine"
    files = {"config_sentence_transformers.json": {"similarity_fn_name": "dot"}}
    folder = write_model(tmp_path / "m", files=files)
    assert SentenceTransformer(folder).similarity_fn_name == "dot"
    assert (
        SentenceTransformer(folder, similarity_fn_name="euclidean").similarity_fn_name
        == "euclidean"
    )


def test_similarity_uses_the_chosen_function(tmp_path):
    model = SentenceTransformer(write_model(tmp_path / "m"), similarity_fn_name="manhattan")
    a, b = np.array([[1.0, 2.0], [0.0, 0.0]]), np.array([[4.0, -2.0]])
    assert model.similarity(a, b).tolist() == [[-7.0], [-6.0]]
    assert model.similarity_pairwise(a, a).tolist() == [0.0, 0.0]


# Progress


def test_no_bar_is_shown_by_default(model, capfd):
    model.encode(TEXTS)
    assert capfd.readouterr() == ("", "")


def test_a_bar_is_shown_on_stderr_if_asked_or_if_the_logger_is_at_info(model, capfd, monkeypatch):
    model.encode(TEXTS, show_progress_bar=True)
    assert "5/5" in capfd.readouterr().err
    monkeypatch.setattr(logging.getLogger("simdformer"), "level", logging.INFO)
    model.encode(TEXTS)
    assert "5/5" in capfd.readouterr().err
