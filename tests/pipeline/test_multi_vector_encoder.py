"""MultiVectorEncoder on a tiny BERT, compared with its definition in float64."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from safetensors.numpy import save_file

from simdformer import MultiVectorEncoder, SentenceTransformer
from simdformer.util.late_interaction import HierarchicalTokenPooling
from tests import oracle
from tests.support import assert_same_bits
from tests.support.bert_weights import random_weights
from tests.support.model_fixtures import (
    TEXTS,
    TINY,
    VOCABULARY,
    modules_json,
    write_dense,
    write_files,
    write_model,
)
from tests.support.tiny_jina import FLASH

MODULES = "sentence_transformers.multi_vector_encoder.modules"
TYPES = {
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "Dense": "sentence_transformers.base.modules.dense.Dense",
    "MultiVectorMask": f"{MODULES}.MultiVectorMask",
    "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
}
LENGTH = 12


def write_colbert(folder, expansion=None, files=None, mask=None):
    tokens = {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}
    write_model(
        folder,
        kinds=tuple(TYPES),
        types=TYPES,
        files={
            "config_sentence_transformers.json": {
                "model_type": "MultiVectorEncoder",
                "prompts": {"query": "q ", "document": "d "},
            },
            "sentence_bert_config.json": {
                "max_seq_length": 100,
                "query_expansion": expansion,
                "document_length": 20,
            },
            "2_MultiVectorMask/config.json": {"skiplist_words": ["e", "##e"]}
            if mask is None
            else mask,
            "3_Normalize/config.json": {"module_input_name": "token_embeddings"},
            **(files or {}),
        },
    )
    identity = "torch.nn.modules.linear.Identity"
    write_dense(
        folder / "1_Dense", TINY.hidden_size, 8, bias=False, activation_function=identity, **tokens
    )
    return folder


POOLED = {**TYPES, "HierarchicalTokenPooling": f"{MODULES}.HierarchicalTokenPooling"}


def write_pooled(folder):
    """The same model with a module that pools tokens."""
    config = {"pool_factor": 2, "num_protected_tokens": 2}
    write_colbert(folder, files={"4_HierarchicalTokenPooling/config.json": config})
    write_files(folder, {"modules.json": modules_json(tuple(POOLED), POOLED)})
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    fixed = {"strategy": "fixed", "length": LENGTH}
    return write_colbert(tmp_path_factory.mktemp("models") / "colbert", fixed)


@pytest.fixture(scope="module")
def model(folder):
    return MultiVectorEncoder(folder)


def expected(model, text, length=None, seen=None):
    """float64 (tokens, 8). length: extend with mask tokens up to this. seen: how many tokens the others
    see."""
    ids = model.pipeline.tokenizer([text]).input_ids[0]
    kept = len(ids)
    ids = [*ids, *[VOCABULARY.index("[MASK]")] * ((length or kept) - kept)]

    def hidden(n):
        return np.broadcast_to(np.where(np.arange(n) < kept, 0, -np.inf), (TINY.num_heads, n, n))

    bias = None if seen is None else hidden
    w = random_weights()
    states = oracle.bert(
        np.array(ids),
        w,
        [0, len(ids)],
        TINY.num_layers,
        TINY.num_heads,
        activation=TINY.activation,
        eps=TINY.eps,
        bias=bias,
    )
    weight, _ = write_dense_weight()
    return ids, oracle.l2_normalize(oracle.linear(states, weight))


def write_dense_weight():
    rng = np.random.default_rng(1)
    return rng.standard_normal((8, TINY.hidden_size)).astype(np.float32), None


def test_a_documents_vectors_are_those_of_its_tokens_without_skipped_ones(model):
    skipped = {VOCABULARY.index("e"), VOCABULARY.index("##e")}
    texts = TEXTS[:3]
    for text, vectors in zip(texts, model.encode_document(texts), strict=True):
        ids, rows = expected(model, f"d {text}")
        kept = [i for i, number in enumerate(ids) if number not in skipped]
        np.testing.assert_allclose(vectors, rows[kept], rtol=0, atol=5e-6)


@pytest.mark.parametrize("attends", [False, True])
def test_a_query_is_extended_with_mask_tokens(tmp_path, attends):
    expansion = {"strategy": "fixed", "length": LENGTH, "attend": attends}
    model = MultiVectorEncoder(write_colbert(tmp_path, expansion))
    for text in ("a", "deed", "a cab"):
        (vectors,) = model.encode_query([text])
        _, rows = expected(model, f"q {text}", LENGTH, None if attends else True)
        assert vectors.shape == (LENGTH, 8)
        np.testing.assert_allclose(vectors, rows, rtol=0, atol=5e-6)


@pytest.mark.parametrize(("strategy", "count"), [("fixed", LENGTH), ("min", 20)])
def test_a_longer_query_is_truncated_or_kept(tmp_path, strategy, count):
    expansion = {"strategy": strategy, "length": LENGTH}
    model = MultiVectorEncoder(write_colbert(tmp_path, expansion))
    text = "a " * 17  # the marker, [CLS] and [SEP] in addition
    (vectors,) = model.encode_query([text.strip()]) if strategy == "min" else _warned(model, text)
    assert len(vectors) == count


def _warned(model, text):
    with pytest.warns(UserWarning, match="are truncated"):
        return model.encode_query([text])


def test_vectors_have_the_same_bits_in_any_batch(folder, model):
    texts = [*TEXTS[:3], *TEXTS[:2]]
    for method in ("encode_query", "encode_document"):
        whole = getattr(model, method)(texts)
        other = MultiVectorEncoder(folder, num_threads=3, max_batch_tokens=10)
        for i, (a, b) in enumerate(zip(getattr(other, method)(texts), whole, strict=True)):
            assert_same_bits(a, b)
            assert_same_bits(getattr(model, method)(texts[i]), b)


@pytest.mark.parametrize("compute_type", ["bfloat16", "int8"])
def test_other_compute_types_are_close(folder, model, compute_type):
    other = MultiVectorEncoder(folder, compute_type=compute_type)
    for a, b in zip(other.encode_query(TEXTS[:3]), model.encode_query(TEXTS[:3]), strict=True):
        assert (a * b).sum(1).min() > 0.97
        assert (a != b).any()


def test_similarity_is_the_sum_of_the_largest_products(model):
    queries, documents = model.encode_query(TEXTS[:3]), model.encode_document(TEXTS[:2])
    found = model.similarity(queries, documents)
    np.testing.assert_allclose(found, oracle.max_sim(queries, documents), rtol=1e-5)
    pairs = model.similarity_pairwise(queries[:2], documents)
    np.testing.assert_allclose(pairs, np.diag(found[:2]), rtol=1e-6)
    assert_same_bits(model.similarity(queries[0], documents[0]), found[:1, :1])
    other = np.stack([queries[0], queries[1]])  # length one
    assert_same_bits(model.similarity(other, documents), found[:2])


def test_mean_maxsim_divides_by_a_querys_vectors(folder, model):
    other = MultiVectorEncoder(folder, similarity_fn_name="meanmaxsim")
    queries, documents = model.encode_query(TEXTS[:3]), model.encode_document(TEXTS[:2])
    expected = oracle.max_sim(queries, documents, mean=True)
    np.testing.assert_allclose(other.similarity(queries, documents), expected, rtol=1e-5)


def test_token_pooling_reduces_the_number_of_vectors(model):
    pytest.importorskip("scipy")
    pooling = HierarchicalTokenPooling(2)
    (whole,) = model.encode_document(["a cab in a bag"])
    (fewer,) = model.encode_document(["a cab in a bag"], token_pooling=pooling)
    assert len(fewer) == 1 + (len(whole) - 1) // 2
    np.testing.assert_allclose(np.linalg.norm(fewer, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(fewer[0], whole[0], rtol=1e-6)
    assert_same_bits(model.encode_query("a", token_pooling=pooling), model.encode_query("a"))


def test_a_pass_has_at_most_max_batch_tokens_with_the_added_ones(folder, model):
    small = MultiVectorEncoder(folder, max_batch_tokens=3 * LENGTH)
    texts = ["a"] * 7
    parts = list(small.pipeline.for_task("query").token_vectors(texts, "query"))
    assert [sum(map(len, part)) for part in parts] == [3 * LENGTH, 3 * LENGTH, LENGTH]
    parts = list(small.pipeline.for_task("document").token_vectors(texts, "document"))
    assert len(parts) == 1
    assert_same_bits(small.encode_query(texts)[6], model.encode_query("a"))


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("HierarchicalTokenPooling", {"pool_factor": "2"}),
        ("HierarchicalTokenPooling", {"pool_factor": 0.5}),
        ("HierarchicalTokenPooling", {"num_protected_tokens": -1}),
        ("HierarchicalTokenPooling", {"normalize_embeddings": "x"}),
        ("HierarchicalTokenPooling", {"tasks": 1}),
        ("HierarchicalTokenPooling", {"factor": 2}),
        ("MultiVectorMask", {"skiplist_words": 1}),
        ("MultiVectorMask", {"skiplist_tasks": [None]}),
        ("MultiVectorMask", {"keep_only_token_ids": ["x"]}),
    ],
)
def test_a_wrong_field_of_a_module_is_refused_by_file_and_name(tmp_path, kind, config):
    folder = write_pooled(tmp_path / "m")
    place = f"{list(POOLED).index(kind)}_{kind}/config.json"
    write_files(folder, {place: config})
    (name,) = config
    with pytest.raises(ValueError, match=rf"{kind}/config\.json: '?{name}'?"):
        MultiVectorEncoder(folder)


def test_a_folders_own_pooling_reduces_the_number_of_vectors(tmp_path, model):
    pytest.importorskip("scipy")
    found = MultiVectorEncoder(write_pooled(tmp_path / "m")).encode_document("a cab in a bag")
    pooling = HierarchicalTokenPooling(2, num_protected_tokens=2, normalize_embeddings=False)
    assert_same_bits(found, model.encode_document("a cab in a bag", token_pooling=pooling))


def test_copies_give_the_same_vectors(model, tmp_path):
    whole = model.encode_query("a cab")
    assert_same_bits(pickle.loads(pickle.dumps(model)).encode_query("a cab"), whole)
    model.save_pretrained(tmp_path / "copy")
    assert_same_bits(MultiVectorEncoder(tmp_path / "copy").encode_query("a cab"), whole)


def test_wrong_arguments_are_refused(model):
    with pytest.raises(ValueError, match="convert_to_tensor"):
        model.encode(TEXTS, convert_to_tensor=True)
    with pytest.raises(ValueError, match="unknown similarity_fn_name 'cosine'"):
        model.similarity_fn_name = "cosine"
    with pytest.raises(ValueError, match=r"b\[1\] must have shape"):
        model.similarity(np.zeros((2, 8), np.float32), [np.zeros((2, 8)), np.zeros(8)])
    with pytest.raises(ValueError, match=r"documents\[0\] has no tokens"):
        model.similarity(np.zeros((2, 8), np.float32), [np.zeros((0, 8), np.float32)])
    with pytest.raises(ValueError, match="pool_factor must be at least 1"):
        HierarchicalTokenPooling(0.5)


@pytest.mark.parametrize(
    ("expansion", "message"),
    [
        ({"strategy": "fixed"}, "length"),
        ({"strategy": "other", "length": 3}, "strategy"),
        (
            {"strategy": "fixed", "length": 12, "token": "nothing"},
            "needs a token of the vocabulary",
        ),
        ({"strategy": "fixed", "length": 12, "more": 1}, "'more': not supported"),
        ("fixed", "must be an object or null"),
    ],
)
def test_an_invalid_expansion_is_refused(tmp_path, expansion, message):
    with pytest.raises(ValueError, match=message):
        MultiVectorEncoder(write_colbert(tmp_path, expansion))


def test_a_model_of_another_kind_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is not a MultiVectorEncoder"):
        MultiVectorEncoder(write_model(tmp_path / "dense"))


def test_an_embedding_model_does_not_expand_queries(tmp_path):
    settings = {"query_expansion": {"strategy": "fixed", "length": 12}}
    folder = write_model(tmp_path, files={"sentence_bert_config.json": settings})
    with pytest.raises(ValueError, match="query_expansion"):
        SentenceTransformer(folder)


def test_a_folder_in_the_original_colbert_format_is_read(tmp_path):
    weights = {f"bert.{name}": tensor for name, tensor in random_weights().items()}
    weights["linear.weight"] = write_dense_weight()[0]
    write_model(tmp_path, files={"modules.json": None, "sentence_bert_config.json": None})
    save_file(weights, tmp_path / "model.safetensors")
    from tests.support.model_fixtures import config_json

    files = {
        "config.json": config_json(architectures=["HF_ColBERT"]),
        "artifact.metadata": {
            "query_maxlen": LENGTH,
            "query_token_id": "0",
            "doc_token_id": "1",
            "mask_punctuation": False,
        },
    }
    write_files(tmp_path, files)
    model = MultiVectorEncoder(tmp_path)
    assert model.prompts == {"query": "0 ", "document": "1 "}
    (vectors,) = model.encode_query(["a cab"])
    _, rows = expected(model, "0 a cab", LENGTH, seen=True)
    np.testing.assert_allclose(vectors, rows, rtol=0, atol=5e-6)


def test_a_folder_with_code_of_its_own_in_that_format_is_read(tmp_path):
    """The layout of jina-colbert-v2, whose code is not run."""
    weights = {f"roberta.{name}": w for name, w in FLASH.renamed(FLASH.weights()).items()}
    weights["linear.weight"] = write_dense_weight()[0]
    fields = FLASH.fields(architectures=["HF_ColBERT"])
    settings = {"query_maxlen": LENGTH, "query_token_id": "<s>", "doc_token_id": "<mask>"}
    settings["mask_punctuation"] = False  # the tokenizer has no punctuation
    tokenizer = {"mask_token": "<mask>", "tokenizer_class": "PreTrainedTokenizerFast"}
    plain = {"modules.json": None, "sentence_bert_config.json": None, "1_Pooling/config.json": None}
    files = {"config.json": fields, "artifact.metadata": settings, **plain}
    files["tokenizer_config.json"] = tokenizer | {"pad_token": "<pad>", "model_max_length": 100}
    model = MultiVectorEncoder(FLASH.write(tmp_path / "m", weights=weights, files=files))
    (vectors,) = model.encode_document(["cab ed"])
    rows = oracle.linear(FLASH.states("<mask> cab ed"), weights["linear.weight"])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, rows, rtol=0, atol=5e-6)
    assert len(model.encode_query(["cab"])[0]) == LENGTH
