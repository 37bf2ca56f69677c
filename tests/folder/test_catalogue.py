"""Every model of a catalogue of published ones loads: folders in their form with random weights, compared with
definitions in float64."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tokenizers import Tokenizer

from simdformer import CrossEncoder, MultiVectorEncoder, SentenceTransformer, SparseEncoder
from simdformer.cli import main
from tests import oracle
from tests.pipeline import test_causal_cross_encoder as causal
from tests.pipeline import test_sparse_encoder as sparse
from tests.pipeline import test_token_heads as token_heads
from tests.support.catalogue import (
    BARE,
    CATALOGUE,
    architecture_of,
    fields_of,
    head_of,
    score_of,
    vectors_of,
    write_dense_entry,
)
from tests.support.model_fixtures import CLOSE, PAIRS, modules_json
from tests.support.tiny_models import TEXTS, TINY
from tests.support.tiny_sparse import KINDS as SPARSE_TYPES
from tests.support.tiny_sparse import write_sparse

pytestmark = pytest.mark.filterwarnings("ignore:texts longer than max_seq_length")


def each(kind):
    entries = [entry for entry in CATALOGUE["others"] if entry["kind"] == kind]
    return pytest.mark.parametrize("entry", entries, ids=lambda entry: entry["model"])


def test_the_catalogue_is_complete():
    assert sum(len(CATALOGUE[part]) for part in ("dense", "others", "absent")) == 53


@pytest.mark.parametrize("entry", CATALOGUE["dense"], ids=lambda entry: entry["model"])
def test_an_embedding_model_follows_its_definition(tmp_path, entry):
    folder, dense = write_dense_entry(tmp_path / "m", entry)
    model = SentenceTransformer(folder)
    np.testing.assert_allclose(model.encode(TEXTS), vectors_of(entry, dense, TEXTS), **CLOSE)
    queries = [entry.get("prompts", {}).get("query", "") + text for text in TEXTS]
    found = model.encode_query(TEXTS)
    np.testing.assert_allclose(found, vectors_of(entry, dense, queries), **CLOSE)


@each("reranker")
def test_a_reranker_follows_its_definition(tmp_path, entry):
    architecture, head, fields = architecture_of(entry), head_of(entry), fields_of(entry)
    weights = architecture.renamed(architecture.weights())
    prefix = architecture.prefix
    weights = {prefix + name: tensor for name, tensor in weights.items()} | head
    folder = tmp_path / "m"
    architecture.write(folder, weights=weights, files={"config.json": fields, **BARE})
    tokenizer = Tokenizer.from_str(json.dumps(architecture.tokenizer()))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    expected = []
    for pair in PAIRS:
        encoding = tokenizer.encode(*pair)
        states = architecture.states_of(np.array(encoding.ids), np.array(encoding.type_ids))
        expected.append(score_of(head, states))
    model = CrossEncoder(folder, activation_fn="torch.nn.Identity")
    assert model.num_labels == 1
    np.testing.assert_allclose(model.predict(PAIRS), expected, **CLOSE)


@each("reranker")
def test_a_reranker_is_described_as_one(tmp_path, entry, capsys):
    architecture = architecture_of(entry)
    weights = architecture.renamed(architecture.weights())
    weights = {architecture.prefix + name: w for name, w in weights.items()} | head_of(entry)
    files = {"config.json": fields_of(entry), **BARE}
    assert (
        main(["info", str(architecture.write(tmp_path / "m", weights=weights, files=files))]) == 0
    )
    assert "ForSequenceClassification" in capsys.readouterr().out


@each("causal reranker")
def test_a_causal_reranker_follows_its_definition(tmp_path, entry):
    tied = entry["config"]["tie_word_embeddings"]
    published = {name: fields_of(entry)[name] for name in ("rope_scaling", "use_sliding_window")}
    folder = causal.write(tmp_path / "m", causal.JUDGE, tied=tied, **published)
    tokenizer = Tokenizer.from_str(json.dumps(causal.with_yes_and_no()))
    tokens = tuple(map(tokenizer.token_to_id, ("yes", "no")))
    last = np.array([states[-1] for states in causal.JUDGE.states_of_pairs(PAIRS)])
    head = causal.JUDGE.weights()["words.weight"] if tied else causal.head_of(causal.JUDGE)
    expected = last @ causal.difference(head.astype(float), tokens)
    np.testing.assert_allclose(causal.logits(folder), expected, **CLOSE)


@each("sparse")
def test_a_sparse_model_follows_its_definition(tmp_path, entry):
    folder = tmp_path / "m"
    if entry["family"] == "bert":
        plain = {"modules.json": None, "1_SpladePooling/config.json": None}
        plain["config_sentence_transformers.json"] = None
        model = SparseEncoder(write_sparse(folder, {"config.json": fields_of(entry), **plain}))
        expected = sparse.expected(model, TEXTS[:3])
    else:
        architecture = causal.replace(architecture_of(entry), everywhere=(-1, -1))
        weights = architecture.renamed(architecture.weights())
        files = {"config.json": fields_of(entry), **sparse_modules()}
        prefixed = {architecture.prefix + name: tensor for name, tensor in weights.items()}
        model = SparseEncoder(architecture.write(folder, weights=prefixed, files=files))
        states = [architecture.states(text) for text in TEXTS[:3]]
        logits = oracle.linear(np.concatenate(states), architecture.weights()["words.weight"])
        expected = oracle.splade(logits, np.cumsum([0, *map(len, states)]))
    np.testing.assert_allclose(model.encode(TEXTS[:3]).toarray(), expected, rtol=0, atol=1e-5)


def sparse_modules():
    """The files of splade-code beside the Transformer's."""
    kinds = ("Transformer", "SpladePooling")
    return {
        "modules.json": modules_json(kinds, SPARSE_TYPES),
        "config_sentence_transformers.json": {"model_type": "SparseEncoder"},
        "1_SpladePooling/config.json": {"pooling_strategy": "max", "activation_function": "relu"},
        "sentence_bert_config.json": {"max_seq_length": 100, "transformer_task": "fill-mask"},
    }


@each("multi-vector")
def test_a_multi_vector_model_follows_its_definition(tmp_path, entry):
    architecture = architecture_of(entry)
    weights = architecture.renamed(architecture.weights())
    weights = {architecture.prefix + name: tensor for name, tensor in weights.items()}
    weights["linear.weight"] = oracle.f64(head_linear()).astype(np.float32)
    # The tokenizer has neither punctuation nor tokens that are not used.
    metadata = {**entry["metadata"], "mask_punctuation": False}
    files = {"config.json": fields_of(entry), "artifact.metadata": metadata, **BARE}
    files["tokenizer_config.json"] = entry["tokenizer_config"]
    model = MultiVectorEncoder(architecture.write(tmp_path / "m", weights=weights, files=files))
    (vectors,) = model.encode_document(["cab ed"])
    marked = f"{metadata['doc_token_id']} cab ed"
    expected = oracle.l2_normalize(oracle.linear(architecture.states(marked), head_linear()))
    np.testing.assert_allclose(vectors, expected, **CLOSE)
    assert len(model.encode_query(["cab"])[0]) == metadata["query_maxlen"]


def head_linear():
    return np.random.default_rng(1).standard_normal((8, TINY.hidden_size)).astype(np.float32)


@each("heads")
def test_a_head_of_bge_m3_follows_its_definition(tmp_path, entry):
    model = SentenceTransformer(token_heads.write(tmp_path / "m"))
    found = model.encode(TEXTS[:2], **token_heads.ALL)
    for i, text in enumerate(TEXTS[:2]):
        dense, weights, vectors = token_heads.expected_of(text)
        np.testing.assert_allclose(found["dense_vecs"][i], dense, **CLOSE)
        if entry["head"] == "colbert_vecs":
            np.testing.assert_allclose(found["colbert_vecs"][i], vectors, **CLOSE)
        else:
            assert list(found["lexical_weights"][i]) == list(weights)
