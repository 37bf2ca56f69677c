"""POST /v1/rerank: the format of Cohere and Jina, with the scores of CrossEncoder."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.support.model_fixtures import TEXTS, write_cross_encoder

pytest.importorskip("starlette")
pytest.importorskip("httpx")

from simdformer import CrossEncoder
from simdformer.server import create_app
from simdformer.server.scorer import Scorer
from tests.support.server_client import ask, ask_all, assert_error, vectors

PATH = "/v1/rerank"
QUERY = "fox"


@pytest.fixture(scope="module")
def reranker(tmp_path_factory):
    return CrossEncoder(write_cross_encoder(tmp_path_factory.mktemp("models") / "ranks"))


@pytest.fixture(scope="module")
def app(model, reranker):
    return create_app(model, reranker, max_client_batch=50)


def expected(reranker, documents, query=QUERY, top_n=None):
    return [
        {"index": hit["corpus_id"], "relevance_score": hit["score"]}
        for hit in reranker.rank(query, documents, top_k=top_n)
    ]


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
def test_order_and_scores_are_those_of_rank(reranker, app, path):
    answer = ask(app, path, {"query": QUERY, "documents": TEXTS, "model": "ranks"}).json()
    assert answer["results"] == expected(reranker, TEXTS)
    assert set(answer) == {"id", "model", "results", "usage"}


def test_tokens_are_counted(reranker, app):
    usage = ask(app, PATH, {"query": QUERY, "documents": TEXTS}).json()["usage"]
    tokens = sum(map(len, reranker.pipeline.tokenizer([(QUERY, text) for text in TEXTS]).input_ids))
    assert usage == {"prompt_tokens": tokens, "total_tokens": tokens}


@pytest.mark.parametrize("top_n", [1, 3, 100])
def test_top_n_keeps_the_best(reranker, app, top_n):
    answer = ask(app, PATH, {"query": QUERY, "documents": TEXTS, "top_n": top_n}).json()
    assert answer["results"] == expected(reranker, TEXTS, top_n=top_n)


def test_documents_may_be_objects_and_are_returned_on_request(reranker, app):
    documents = [{"text": "a cab"}, "deed"]
    body = {"query": QUERY, "documents": documents, "return_documents": True}
    results = ask(app, PATH, body).json()["results"]
    assert [{k: v for k, v in r.items() if k != "document"} for r in results] == expected(
        reranker, ["a cab", "deed"]
    )
    assert all(r["document"] == {"text": ["a cab", "deed"][r["index"]]} for r in results)


def test_equal_scores_stay_in_order(app):
    results = ask(app, PATH, {"query": QUERY, "documents": ["z"] * 5}).json()["results"]
    assert [result["index"] for result in results] == [0, 1, 2, 3, 4]


def test_a_saved_prompt_is_put_before_the_query(tmp_path, model):
    config = {"prompts": {"query": "ask "}, "default_prompt_name": "query"}
    files = {"config_sentence_transformers.json": config}
    prompted = CrossEncoder(write_cross_encoder(tmp_path / "m", files=files))
    answer = ask(create_app(model, prompted), PATH, {"query": QUERY, "documents": TEXTS}).json()
    assert answer["results"] == expected(prompted, TEXTS)
    assert answer["results"] != expected(prompted, TEXTS, query="x")


def test_concurrent_rankings_and_embeddings_have_the_same_results(reranker, model, app):
    requests = []
    for i in range(10):
        documents = [f"{text} {i}" for text in TEXTS]
        requests.append(("POST", PATH, {"json": {"query": f"fox {i}", "documents": documents}}))
        requests.append(("POST", "/v1/embeddings", {"json": {"input": documents}}))
    answers = ask_all(app, *requests)
    for i, (ranking, embeddings) in enumerate(zip(answers[::2], answers[1::2], strict=True)):
        documents = [f"{text} {i}" for text in TEXTS]
        assert ranking.json()["results"] == expected(reranker, documents, query=f"fox {i}")
        np.testing.assert_array_equal(vectors(embeddings), model.encode(documents))


def test_both_models_are_listed(app):
    assert [m["id"] for m in ask(app, "/v1/models").json()["data"]] == ["tiny", "ranks"]


def test_each_route_uses_its_own_model(app):
    body = {"query": "a", "documents": ["b"], "model": "tiny"}
    assert_error(ask(app, PATH, body), 404, "served here: ranks", code="model_not_found")
    body = {"input": "a", "model": "ranks"}
    assert_error(ask(app, "/v1/embeddings", body), 404, "served here: tiny")


def test_fields_without_effect_are_accepted(app):
    body = {"query": "a", "documents": ["b", "deed"]}
    more = {"max_tokens_per_doc": 4096, "max_chunks_per_doc": 10, "rank_fields": ["text"]}
    more |= {"return_embeddings": False, "priority": 5}
    plain, full = (ask(app, PATH, members).json()["results"] for members in (body, body | more))
    assert full == plain


@pytest.mark.parametrize(("raw", "activation"), [(True, "Identity"), (False, "Sigmoid")])
def test_raw_scores_selects_logits_or_their_sigmoid(app, reranker, raw, activation):
    documents = ["b", "deed", "a cab"]
    answer = ask(app, PATH, {"query": "a", "documents": documents, "raw_scores": raw}).json()
    scores = {row["index"]: row["relevance_score"] for row in answer["results"]}
    pairs = [("a", document) for document in documents]
    expected = reranker.predict(pairs, activation_fn=f"torch.nn.{activation}")
    assert [scores[i] for i in range(3)] == expected.tolist()


def test_without_a_reranker_rankings_are_refused(model):
    answer = ask(create_app(model), PATH, {"query": "a", "documents": ["b"]})
    assert_error(answer, 404, "no reranker is served", code="model_not_found")


@pytest.mark.parametrize(
    ("members", "param", "message"),
    [
        ({"query": None}, "query", "missing"),
        ({"query": ["a"]}, "query", "must be a string, got an array"),
        ({"query": "a" * 65537}, "query", "has 65537 characters, at most 65536"),
        ({"documents": None}, "documents", "missing"),
        ({"documents": []}, "documents", "must not be empty"),
        ({"documents": "b"}, "documents", "must be an array, got a string"),
        ({"documents": ["b"] * 51}, "documents", "has 51 items, at most 50"),
        ({"documents": ["b", 1]}, "documents[1]", "must be a string, got an integer"),
        ({"documents": [{"txt": "b"}]}, "documents[0].text", "must be a string, got null"),
        ({"documents": ["\udc00"]}, "documents[0]", "lone surrogate"),
        ({"top_n": 0}, "top_n", "must be at least 1, got 0"),
        ({"top_n": "1"}, "top_n", "must be an integer, got a string"),
        ({"return_documents": 1}, "return_documents", "must be true or false"),
        ({"rank_fields": ["x"]}, "rank_fields", 'must be one of ["text"]'),
        ({"max_tokens_per_doc": 99}, "max_tokens_per_doc", "must be at least 100, got 99"),
        ({"max_chunks_per_doc": 0}, "max_chunks_per_doc", "must be at least 1"),
        ({"return_embeddings": True}, "return_embeddings", "must be one of false"),
        ({"raw_scores": "no"}, "raw_scores", "must be one of true, false"),
        ({"texts": ["x"]}, "texts", "unknown field"),
    ],
)
def test_an_invalid_field_is_named(app, members, param, message):
    body = {"query": "a", "documents": ["b"], **members}
    answer = ask(app, PATH, method="POST", content=json.dumps(body))
    assert_error(answer, 400, message, param=param)


def test_a_truncated_pair_counts_as_the_characters_that_are_read(tmp_path):
    model = CrossEncoder(write_cross_encoder(tmp_path / "m"))
    scorer = Scorer(model)
    assert scorer.size(("abc", "de")) == 5
    assert scorer.size(("abc", "d" * 100_000)) == 4 * model.max_seq_length
