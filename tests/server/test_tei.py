"""Routes of Text Embeddings Inference, compared with encode, predict and rank."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.support import assert_same_bits
from tests.support.model_fixtures import PAIRS, TEXTS, write_cross_encoder, write_model
from tests.support.tiny_sparse import write_sparse

pytest.importorskip("starlette")
pytest.importorskip("httpx")

from simdformer import CrossEncoder, SentenceTransformer, SparseEncoder
from simdformer.server import create_app
from simdformer.util import cos_sim
from tests.support.server_client import ask, ask_all

LONG = "ab cd " * 99


def files_of(tmp_path_factory, name):
    return tmp_path_factory.mktemp("models") / name


@pytest.fixture(scope="module")
def reranker(tmp_path_factory):
    return CrossEncoder(write_cross_encoder(files_of(tmp_path_factory, "ranks")))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return CrossEncoder(write_cross_encoder(files_of(tmp_path_factory, "classes"), 3))


@pytest.fixture(scope="module")
def sparse(tmp_path_factory):
    return SparseEncoder(write_sparse(files_of(tmp_path_factory, "splade")))


@pytest.fixture(scope="module")
def app(model, reranker, classifier, sparse):
    further = {"classes": classifier, "sparse": sparse}
    return create_app(model, reranker, models=further, max_client_batch=50)


def rows(answer):
    assert answer.status_code == 200, answer.text
    return np.array(answer.json(), np.float32)


def assert_refused(answer, message, status=400, kind="Validation"):
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body) == {"error", "error_type"}
    assert message in body["error"]
    assert body["error_type"] == kind


@pytest.mark.parametrize("path", ["/embed", "/"])
def test_embed_gives_normalized_vectors(model, app, path):
    expected = model.encode(TEXTS, normalize_embeddings=True)
    assert_same_bits(rows(ask(app, path, {"inputs": TEXTS})), expected)


@pytest.mark.parametrize("side", ["Left", "left", "Right", None])
def test_a_long_text_is_truncated_on_the_requested_side(model, app, side):
    body = {"inputs": LONG, "truncation_direction": side, "normalize": False}
    other = SentenceTransformer(
        model.name_or_path, processor_kwargs={"truncation_side": (side or "right").lower()}
    )
    with pytest.warns(UserWarning, match="truncated"):
        expected = other.encode([LONG])
    assert_same_bits(rows(ask(app, "/embed", body)), expected)


def test_token_vectors_are_those_of_encode(model, app):
    answer = ask(app, "/embed_all", {"inputs": TEXTS}).json()
    expected = model.encode(TEXTS, output_value="token_embeddings")
    for found, each in zip(answer, expected, strict=True):
        assert_same_bits(np.array(found, np.float32), each)


def test_sparse_vectors_are_those_of_encode(sparse, app):
    answer = ask(app, "/embed_sparse", {"inputs": TEXTS}).json()
    for found, row in zip(answer, sparse.encode(TEXTS), strict=True):
        assert [pair["index"] for pair in found] == row.indices.tolist()
        assert_same_bits(np.array([pair["value"] for pair in found], np.float32), row.data)


@pytest.mark.parametrize("path", ["/similarity", "/"])
def test_similarity_is_the_cosine(model, app, path):
    body = {"inputs": {"source_sentence": "deed", "sentences": TEXTS}, "parameters": {}}
    expected = cos_sim(model.encode(["deed"]), model.encode(TEXTS))[0]
    np.testing.assert_allclose(rows(ask(app, path, body)), expected, atol=1e-6)


def test_similarity_reads_its_parameters(app):
    inputs = {"source_sentence": "deed", "sentences": [LONG]}
    body = {"inputs": inputs, "parameters": {"truncate": False}}
    assert_refused(ask(app, "/similarity", body), "sentences[1] has over 100 tokens")
    body = {"inputs": inputs, "parameters": {"top": 1}}
    assert_refused(ask(app, "/similarity", body), "unknown field 'parameters.top'")


# --- scores ---


@pytest.mark.parametrize(("raw", "activation"), [(True, "Identity"), (False, "Sigmoid")])
def test_a_rankings_scores_are_logits_or_their_sigmoid(reranker, app, raw, activation):
    body = {"query": "fox", "texts": TEXTS, "raw_scores": raw, "return_text": True}
    answer = ask(app, "/rerank", body).json()
    hits = reranker.rank("fox", TEXTS, activation_fn=f"torch.nn.{activation}")
    assert answer == [
        {"index": hit["corpus_id"], "score": hit["score"], "text": TEXTS[hit["corpus_id"]]}
        for hit in hits
    ]


def test_the_route_of_rankings_also_accepts_coheres_format(app):
    answer = ask(app, "/rerank", {"query": "fox", "documents": TEXTS}).json()
    assert set(answer) == {"id", "model", "results", "usage"}
    both = {"query": "fox", "documents": TEXTS, "texts": TEXTS}
    assert ask(app, "/rerank", both).status_code == 400


def test_predictions_of_pairs_are_those_of_predict(classifier, app):
    body = {"inputs": [list(pair) for pair in PAIRS], "model": "classes", "raw_scores": True}
    answer = ask(app, "/predict", body).json()
    for found, scores in zip(answer, classifier.predict(PAIRS), strict=True):
        order = np.argsort(-scores)
        assert [each["label"] for each in found] == [f"LABEL_{i}" for i in order]
        assert_same_bits(np.array([each["score"] for each in found], np.float32), scores[order])


def test_scores_of_several_labels_add_up_to_one(app):
    answer = ask(app, "/predict", {"inputs": ["a cab", "deed"], "model": "classes"}).json()
    assert sum(each["score"] for each in answer) == pytest.approx(1)


def test_single_texts_and_pairs_may_be_mixed(app):
    mixed = ask(app, "/predict", {"inputs": [["deed"], ["a cab", "deed"]], "model": "classes"})
    alone = ask(app, "/predict", {"inputs": "deed", "model": "classes"})
    pair = ask(app, "/predict", {"inputs": ["a cab", "deed"], "model": "classes"})
    assert mixed.json() == [alone.json(), pair.json()]


def test_parameters_of_hugging_faces_client_are_applied(app):
    body = {"inputs": "deed", "model": "classes", "parameters": {"top_k": 1}}
    ((best,),) = ask(app, "/", body).json()
    parameters = {"top_k": 1, "function_to_apply": "none"}
    ((raw,),) = ask(app, "/", {**body, "parameters": parameters}).json()
    assert raw["label"] == best["label"]
    assert raw["score"] != best["score"]


# --- tokens ---


def test_tokens_have_their_positions_in_the_text(app):
    (tokens,) = ask(app, "/tokenize", {"inputs": "A cab"}).json()
    special = {"special": True, "start": None, "stop": None}
    assert tokens == [
        {"id": 2, "text": "[CLS]", **special},
        {"id": 5, "text": "A", "special": False, "start": 0, "stop": 1},
        {"id": 7, "text": "c", "special": False, "start": 2, "stop": 3},
        {"id": 31, "text": "a", "special": False, "start": 3, "stop": 4},
        {"id": 32, "text": "b", "special": False, "start": 4, "stop": 5},
        {"id": 3, "text": "[SEP]", **special},
    ]


def test_long_texts_are_tokenized_without_special_tokens(app):
    answer = ask(app, "/tokenize", {"inputs": [LONG, "a"], "add_special_tokens": False}).json()
    assert [len(tokens) for tokens in answer] == [99 * 4, 1]  # whole: nothing is truncated


@pytest.mark.parametrize(("skip", "text"), [(True, "a cab"), (False, "[CLS] a cab [SEP]")])
def test_decode_restores_the_text(app, skip, text):
    ids = [[2, 5, 7, 31, 32, 3]]
    assert ask(app, "/decode", {"ids": ids, "skip_special_tokens": skip}).json() == [text]
    assert ask(app, "/decode", {"ids": ids[0], "skip_special_tokens": skip}).json() == [text]


def test_a_prompt_is_tokenized_before_the_text(tmp_path):
    files = {"config_sentence_transformers.json": {"prompts": {"query": "q "}}}
    app = create_app(SentenceTransformer(write_model(tmp_path / "m", files=files)))
    (tokens,) = ask(app, "/tokenize", {"inputs": "a", "prompt_name": "query"}).json()
    assert [token["text"] for token in tokens] == ["[CLS]", "q", "a", "[SEP]"]


# --- information and errors ---


def test_info_describes_each_model(app):
    info = ask(app, "/info").json()
    assert info["model_id"] == "tiny"
    assert info["max_input_length"] == 100
    assert info["max_client_batch_size"] == 50
    assert info["model_type"] == {"embedding": {"pooling": "mean"}}
    kinds = {
        name: ask(app, f"/info?model={name}").json()["model_type"]
        for name in ("ranks", "classes", "sparse")
    }
    assert kinds["ranks"] == {
        "reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    }
    assert list(kinds["classes"]["classifier"]["label2id"].values()) == [0, 1, 2]
    assert kinds["sparse"] == {"embedding": {"pooling": "splade"}}


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/embed", {"inputs": LONG, "truncate": False}, "inputs[0] has over 100 tokens"),
        ("/embed", {"inputs": "a", "truncate": 1}, "truncate must be true or false"),
        ("/embed", {"inputs": "a", "truncation_direction": "up"}, "must be one of"),
        ("/embed", {"inputs": "a", "dimensions": 21}, "dimensions must be 1 to 20"),
        ("/embed", {"inputs": "a", "normalize": 1}, "true or false"),
        ("/embed", {"inputs": "a", "encoding_format": "base64"}, "encoding_format must be one of"),
        ("/embed", {"inputs": "a", "prompt_name": "x"}, "unknown prompt_name 'x'"),
        ("/embed_all", {"inputs": "a", "normalize": True}, "unknown field 'normalize'"),
        ("/embed_all", {"inputs": ["a"] * 51}, "inputs has 51 items, at most 50"),
        ("/embed_all", {"inputs": LONG, "truncate": False}, "inputs[0] has over 100 tokens"),
        ("/embed_sparse", {"inputs": LONG, "truncate": False}, "inputs[0] has over 100 tokens"),
        ("/similarity", {"inputs": "a"}, "inputs must be an object"),
        ("/similarity", {"inputs": {"source_sentence": "a"}}, "sentences is missing"),
        ("/predict", {"inputs": ["a", "b", "c"]}, "inputs must be a text, [text] or [text, text]"),
        ("/predict", {"inputs": [["a", 1]]}, "inputs[0][1] must be a string"),
        ("/predict", {"inputs": []}, "must be a text, [text] or [text, text]"),
        ("/predict", {"inputs": LONG, "truncate": False}, "inputs[0] has over 100 tokens"),
        ("/tokenize", {"inputs": ["a", 1]}, "inputs[1] must be a string"),
        ("/tokenize", {"inputs": "a", "truncate": True}, "unknown field 'truncate'"),
        ("/decode", {"ids": [2, 61]}, "ids holds 61, expected 0 to 60"),
        ("/decode", {"ids": [[2], "a"]}, "ids[1] must be an array of token ids"),
        ("/", {"input": "a"}, "inputs is missing"),
    ],
)
def test_invalid_or_unsupported_fields_are_refused(app, path, body, message):
    assert_refused(ask(app, path, method="POST", content=json.dumps(body)), message)


@pytest.mark.parametrize(
    ("path", "missing"),
    [
        ("/embed_sparse", "no sparse embedding model is served"),
        ("/predict", "no cross-encoder is served"),
    ],
)
def test_the_error_names_a_kind_of_model_that_is_not_served(model, path, missing):
    assert_refused(ask(create_app(model), path, {"inputs": "a"}), missing, 404)


@pytest.mark.parametrize("path", ["/embed_all", "/tokenize"])
def test_a_response_that_is_too_large_is_refused_before_it_is_computed(model, path):
    app = create_app(model, max_body_bytes=100_000, max_bytes_in_flight=100_000)
    answer = ask(app, path, {"inputs": ["the quick brown fox jumps"] * 100})
    assert_refused(answer, "send fewer texts at a time", 413)


def test_concurrent_routes_give_the_same_results_as_alone(app):
    requests = [
        ("POST", path, {"json": body})
        for path, body in (
            ("/embed", {"inputs": TEXTS}),
            ("/embed_all", {"inputs": TEXTS}),
            ("/embed_sparse", {"inputs": TEXTS}),
            ("/predict", {"inputs": [list(pair) for pair in PAIRS], "model": "classes"}),
            ("/rerank", {"query": "fox", "texts": TEXTS}),
            ("/tokenize", {"inputs": TEXTS}),
        )
    ]
    alone = [ask_all(app, request)[0].json() for request in requests]
    together = ask_all(app, *requests * 3)
    assert [answer.json() for answer in together] == alone * 3
