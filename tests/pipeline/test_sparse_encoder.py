"""SparseEncoder on a tiny masked language model, compared with its definition in float64."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from safetensors.numpy import save_file

from simdformer import SentenceTransformer, SparseEmbeddings, SparseEncoder, quantize_model
from simdformer.cli import main
from tests import oracle
from tests.support import assert_same_bits
from tests.support.model_fixtures import (
    TEXTS,
    TINY,
    VOCABULARY,
    config_json,
    write_files,
    write_model,
)
from tests.support.tiny_sparse import KINDS, masked_weights, write_sparse

STATIC = (
    "sentence_transformers.sparse_encoder.modules.sparse_static_embedding.SparseStaticEmbedding"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_sparse(tmp_path_factory.mktemp("models") / "splade")


@pytest.fixture(scope="module")
def model(folder):
    return SparseEncoder(folder)


def expected(model, texts, **options):
    """The expected weights by the definition, in float64."""
    w = masked_weights()
    ids = model.pipeline.tokenizer(texts).input_ids
    cu = np.cumsum([0, *map(len, ids)])
    encoder = {name.removeprefix("bert."): tensor for name, tensor in w.items()}
    shape = {"activation": TINY.activation, "eps": TINY.eps}
    states = oracle.bert(np.concatenate(ids), encoder, cu, TINY.num_layers, TINY.num_heads, **shape)
    stem = "cls.predictions"
    dense, norm = f"{stem}.transform.dense", f"{stem}.transform.LayerNorm"
    x = oracle.linear(states, w[f"{dense}.weight"], w[f"{dense}.bias"])
    x = oracle.gelu(x) if TINY.activation == "gelu" else oracle.relu(x)
    x = oracle.layer_norm(x, w[f"{norm}.weight"], w[f"{norm}.bias"], TINY.eps)
    words = encoder["embeddings.word_embeddings.weight"]
    return oracle.splade(oracle.linear(x, words, w[f"{stem}.bias"]), cu, **options)


def test_weights_are_those_of_the_definition(model):
    found = model.encode(TEXTS)
    assert found.shape == (len(TEXTS), TINY.vocab_size)
    np.testing.assert_allclose(found.toarray(), expected(model, TEXTS), rtol=0, atol=1e-5)
    assert 0 < found.nnz < found.shape[0] * found.shape[1]


def test_token_values_may_be_summed(tmp_path):
    model = SparseEncoder(write_sparse(tmp_path, pooling_strategy="sum"))
    found = model.encode(TEXTS).todense()
    np.testing.assert_allclose(found, expected(model, TEXTS, sums=True), rtol=0, atol=1e-4)


def test_a_text_has_the_same_bits_in_any_batch(folder, model):
    texts = [text * n for text in TEXTS[:4] for n in (1, 2)]
    whole = model.encode(texts).toarray()
    for threads in (1, 3):
        other = SparseEncoder(folder, num_threads=threads, max_batch_tokens=20)
        assert_same_bits(other.encode(texts).toarray(), whole)
    for i, text in enumerate(texts):
        assert_same_bits(model.encode(text).toarray(), whole[i])


@pytest.mark.parametrize("compute_type", ["bfloat16", "int8"])
def test_other_compute_types_are_close(folder, model, compute_type):
    other = SparseEncoder(folder, compute_type=compute_type)
    a, b = other.encode(TEXTS).toarray(), model.encode(TEXTS).toarray()
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosines.min() > 0.99
    assert (a != b).any()
    if compute_type == "int8":
        assert other.part_types["vocabulary"] in ("int8", "float32")


def test_max_active_dims_keeps_the_largest(model):
    whole, kept = model.encode(TEXTS).toarray(), model.encode(TEXTS, max_active_dims=4)
    assert (np.diff(kept.indptr) == 4).all()
    for row, least in zip(whole, kept.toarray(), strict=True):
        assert sorted(row)[-4:] == sorted(least)[-4:]
        assert (least[least > 0] == row[least > 0]).all()


def test_max_active_dims_may_come_from_the_model(tmp_path):
    config = {"model_type": "SparseEncoder", "max_active_dims": 3}
    files = {"config_sentence_transformers.json": config}
    model = SparseEncoder(write_sparse(tmp_path, files))
    assert (np.diff(model.encode(TEXTS).indptr) == 3).all()
    assert np.diff(model.encode(TEXTS, max_active_dims=5).indptr).max() == 5


def test_embeddings_are_returned_in_the_requested_form(model):
    whole = model.encode(TEXTS)
    row = model.encode(TEXTS[0])
    assert isinstance(row, SparseEmbeddings)
    assert row.shape == (TINY.vocab_size,)
    rows = model.encode(TEXTS, convert_to_tensor=False)
    assert isinstance(rows, list)
    assert_same_bits(rows[1].toarray(), whole[1].toarray())
    wide = model.encode(TEXTS, convert_to_sparse_tensor=False)
    assert_same_bits(wide, whole.toarray())
    assert model.encode([]).shape == (0, TINY.vocab_size)
    assert_same_bits(whole[1:3].toarray(), whole.toarray()[1:3])


def test_decode_gives_the_tokens_of_the_largest_weights(model):
    embeddings = model.encode(TEXTS)
    wide = embeddings.toarray()
    for row, tokens in zip(wide, model.decode(embeddings, top_k=3), strict=True):
        order = np.argsort(-row, kind="stable")[:3]
        assert tokens == [(VOCABULARY[i], float(row[i])) for i in order]
    assert model.decode(embeddings[0], top_k=3) == model.decode(embeddings, top_k=3)[0]
    assert len(model.decode(embeddings[0])) == embeddings[0].nnz


@pytest.mark.parametrize("name", ["dot", "cosine", "euclidean", "manhattan"])
def test_similarity_is_that_of_the_arrays(folder, name):
    from simdformer.util.similarity import SIMILARITIES

    model = SparseEncoder(folder, similarity_fn_name=name)
    a = model.encode(TEXTS, max_active_dims=6)
    wide = a.toarray().astype(np.float64)
    expected = SIMILARITIES[name][0](wide, wide[:2])
    np.testing.assert_allclose(model.similarity(a, a[:2]), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model.similarity(wide, wide[:2]), expected, rtol=1e-5, atol=1e-5)
    pairs = SIMILARITIES[name][1](wide[1:], wide[:-1])
    np.testing.assert_allclose(
        model.similarity_pairwise(a[1:], a[:-1]), pairs, rtol=1e-5, atol=1e-5
    )


def test_similarity_of_a_text_without_weights_is_zero(model):
    a = model.encode(TEXTS)
    none = np.zeros((1, TINY.vocab_size), np.float32)
    assert not model.similarity(a, none).any()
    assert not model.similarity(none, a).any()


def test_intersection_and_sparsity(model):
    a = model.encode(TEXTS, max_active_dims=6)
    wide = a.toarray()
    assert_same_bits(model.intersection(a[0], a).toarray(), wide[0] * wide)
    assert model.intersection(a[0], a[1]).shape == a[1].shape
    assert model.sparsity(a) == {
        "active_dims": 6.0,
        "sparsity_ratio": 1 - 6 / TINY.vocab_size,
    }


def test_wrong_shapes_are_refused(model):
    a = model.encode(TEXTS)
    with pytest.raises(ValueError, match="embeddings_1 must have one dimension"):
        model.intersection(a, a)
    with pytest.raises(ValueError, match="embeddings1 has rows of"):
        model.similarity(a, np.zeros((2, 3), np.float32))
    with pytest.raises(TypeError, match="embeddings must be SparseEmbeddings or floating point"):
        model.decode(np.zeros(3, int))
    with pytest.raises(ValueError, match="max_active_dims must be"):
        model.encode(TEXTS, max_active_dims=0)
    with pytest.raises(ValueError, match="unknown similarity_fn_name 'maxsim'"):
        model.similarity_fn_name = "maxsim"


def test_copies_give_the_same_weights(model, tmp_path):
    whole = model.encode(TEXTS).toarray()
    assert_same_bits(pickle.loads(pickle.dumps(model)).encode(TEXTS).toarray(), whole)
    model.save_pretrained(tmp_path / "copy")
    assert_same_bits(SparseEncoder(tmp_path / "copy").encode(TEXTS).toarray(), whole)


def test_a_plain_masked_language_model_is_run_and_saved(model, tmp_path):
    plain = write_sparse(tmp_path / "plain", {"modules.json": None})
    (plain / "config_sentence_transformers.json").unlink()
    other = SparseEncoder(plain)
    other.max_seq_length = 100
    assert_same_bits(other.encode(TEXTS).toarray(), model.encode(TEXTS).toarray())
    other.save_pretrained(tmp_path / "saved")
    settings = json.loads((tmp_path / "saved" / "sentence_bert_config.json").read_text())
    assert settings["transformer_task"] == "fill-mask"
    assert_same_bits(
        SparseEncoder(tmp_path / "saved").encode(TEXTS).toarray(), model.encode(TEXTS).toarray()
    )


def test_queries_may_use_a_static_embedding(tmp_path, model):
    """With a Router, queries have the weight of each of their tokens, once per text."""
    write_sparse(tmp_path / "document_0_Transformer")
    weight = np.arange(len(VOCABULARY), dtype=np.float32)
    side = tmp_path / "query_0_SparseStaticEmbedding"
    write_files(side, {"config.json": {"frozen": True}})
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (side / name).write_bytes((tmp_path / "document_0_Transformer" / name).read_bytes())
    save_file({"weight": weight}, side / "model.safetensors")
    pooling = tmp_path / "document_1_SpladePooling"
    write_files(pooling, {"config.json": {"pooling_strategy": "max"}})
    types = {
        "query_0_SparseStaticEmbedding": STATIC,
        "document_0_Transformer": KINDS["Transformer"],
        "document_1_SpladePooling": KINDS["SpladePooling"],
    }
    structure = {"query": [next(iter(types))], "document": list(types)[1:]}
    router = "sentence_transformers.base.modules.router.Router"
    write_files(
        tmp_path,
        {
            "modules.json": [{"idx": 0, "name": "0", "path": "", "type": router}],
            "router_config.json": {"types": types, "structure": structure, "parameters": {}},
            "config_sentence_transformers.json": {"model_type": "SparseEncoder"},
        },
    )
    other = SparseEncoder(tmp_path)
    (row,) = other.encode_query(["deed a"]).toarray()
    tokens = {"d", "##e", "##d", "a"}
    assert {VOCABULARY[i] for i in np.flatnonzero(row)} == tokens
    assert all(row[VOCABULARY.index(token)] == VOCABULARY.index(token) for token in tokens)
    assert_same_bits(other.encode_document(TEXTS).toarray(), model.encode(TEXTS).toarray())


def test_other_models_are_refused(tmp_path):
    write_model(tmp_path / "dense")
    with pytest.raises(ValueError, match="is not a SparseEncoder"):
        SparseEncoder(tmp_path / "dense")
    files = {"1_SpladePooling/config.json": {"pooling_strategy": "mean"}}
    with pytest.raises(ValueError, match="pooling_strategy"):
        SparseEncoder(write_sparse(tmp_path / "strategy", files))
    files = {"config.json": config_json(model_type="t5")}
    with pytest.raises(ValueError, match=r"t5|field"):
        SparseEncoder(write_sparse(tmp_path / "t5", files))


def test_the_error_names_a_missing_head(tmp_path):
    folder = write_sparse(tmp_path)
    weights = masked_weights()
    del weights["cls.predictions.transform.dense.weight"]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"cls\.predictions\.transform\.dense\.weight"):
        SparseEncoder(folder)


def test_sentence_transformer_refuses_a_sparse_encoders_folder(folder):
    with pytest.warns(UserWarning, match="is a SparseEncoder: its modules are ignored"):
        SentenceTransformer(folder)


def test_models_without_pooled_vectors_are_not_quantized_or_described(tmp_path, capsys):
    folder = write_sparse(tmp_path / "m")
    with pytest.raises(ValueError, match="is a SparseEncoder, which is loaded, but not"):
        quantize_model(folder, tmp_path / "int8")
    assert main(["info", str(folder)]) == 1
    assert "is a SparseEncoder" in capsys.readouterr().err
