"""Several models in one server; readiness, CORS and the description of the routes."""

from __future__ import annotations

import threading

import pytest

from tests.support import assert_same_bits
from tests.support.model_fixtures import TEXTS, write_cross_encoder, write_model

pytest.importorskip("starlette")
pytest.importorskip("httpx")

from simdformer import CrossEncoder, SentenceTransformer
from simdformer.server import create_app
from simdformer.server.served import Embedder
from tests.support.server_client import ask, ask_all, assert_error, vectors

PATH = "/v1/embeddings"


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """An embedding model with another dimension."""
    folder = write_model(tmp_path_factory.mktemp("models") / "other")
    return SentenceTransformer(folder, truncate_dim=6)


@pytest.fixture(scope="module")
def app(model, other):
    return create_app(models={"big": model, "org/small": other})


def test_each_model_answers_for_its_name(model, other, app):
    requests = [("POST", PATH, {"json": {"input": TEXTS, "model": n}}) for n in ("big", "small")]
    big, small = ask_all(app, *requests)
    assert_same_bits(vectors(big), model.encode(TEXTS))
    assert_same_bits(vectors(small), other.encode(TEXTS))
    assert small.json()["model"] == "org/small"


def test_without_a_name_the_first_model_is_used(model, app):
    assert_same_bits(vectors(ask(app, PATH, {"input": TEXTS})), model.encode(TEXTS))


def test_all_models_are_listed(app):
    assert [entry["id"] for entry in ask(app, "/v1/models").json()["data"]] == ["big", "org/small"]


def test_dimensions_are_those_of_the_named_model(app):
    body = {"input": "a", "dimensions": 7}
    assert ask(app, PATH, body).status_code == 200
    assert_error(ask(app, PATH, {**body, "model": "small"}), 400, "must be 1 to 6")


def test_an_unknown_name_lists_the_known_ones(app):
    answer = ask(app, PATH, {"input": "a", "model": "x"})
    assert_error(answer, 404, "unknown model 'x'; served here: big, org/small")


def test_two_models_with_one_name_are_refused(model, other):
    with pytest.raises(ValueError, match="two models have the name 'tiny'"):
        create_app(model, models={"tiny": other})
    with pytest.raises(ValueError, match="needs a model"):
        create_app()


def test_a_full_name_is_preferred_to_the_last_part_of_another(model, other):
    app = create_app(models={"org/small": model, "small": other})
    answer = ask(app, PATH, {"input": TEXTS, "model": "small"})
    assert_same_bits(vectors(answer), other.encode(TEXTS))


@pytest.mark.parametrize("path", ["/v1/models/small", "/info?model=small"])
def test_a_full_name_is_preferred_on_routes_for_any_kind_of_model(model, other, path):
    app = create_app(models={"org/small": model, "small": other})
    answer = ask(app, path).json()
    assert answer.get("id", answer.get("model_id")) == "small"


@pytest.mark.parametrize("path", ["/score", "/"])
def test_a_full_name_is_preferred_to_the_preferred_kind(model, tmp_path, path):
    ranks = CrossEncoder(write_cross_encoder(tmp_path / "ranks"))
    first, second = (ranks, model) if path == "/score" else (model, ranks)
    app = create_app(models={"org/small": first, "small": second})
    if path == "/score":
        answer = ask(app, path, {"text_1": "a", "text_2": "b", "model": "small"})
        assert answer.json()["model"] == "small"
    else:
        answer = ask(app, path, {"inputs": "a", "model": "small"})
        assert answer.json()[0]["label"] == "LABEL_0"


def test_a_reranker_can_be_one_of_the_models(model, tmp_path):
    ranks = CrossEncoder(write_cross_encoder(tmp_path / "ranks"))
    app = create_app(model, models={"r": ranks})
    answer = ask(app, "/v1/rerank", {"query": "a", "documents": ["b"], "model": "r"})
    assert answer.json()["model"] == "r"


# --- readiness ---


def test_the_server_is_ready_while_the_queue_has_room(model, monkeypatch):
    """The first text is computed, and the second fills the queue."""
    release, run = threading.Event(), Embedder.run
    monkeypatch.setattr(Embedder, "run", lambda *args: release.wait(60) and run(*args))
    app = create_app(model, max_queue=1, max_client_batch=1)

    async def check(scope, receive, send):
        await app(scope, receive, send)
        if scope["path"] == "/health":
            release.set()

    texts = [("POST", PATH, {"json": {"input": "a"}})] * 2
    get = [("GET", path, {}) for path in ("/ready", "/health")]
    *_, busy, alive = ask_all(check, *texts, *get)
    assert_error(busy, 503, "too many texts are waiting", code="overloaded")
    assert alive.status_code == 200
    assert ask(app, "/ready").json() == {"status": "ready"}


def test_readiness_and_the_description_need_no_key(model):
    app = create_app(model, api_key="secret")
    for path in ("/ready", "/health", "/ping", "/docs", "/openapi.json"):
        assert ask(app, path).status_code == 200


# --- CORS ---

PREFLIGHT = {
    "origin": "https://page.example",
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization, content-type",
}


@pytest.mark.parametrize("origins", [["*"], ["https://page.example"]])
def test_a_page_of_an_allowed_origin_can_send_requests(model, origins):
    app = create_app(model, cors_origins=origins, api_key="secret")
    answer = ask(app, PATH, method="OPTIONS", headers=PREFLIGHT)
    assert answer.status_code == 200
    assert "authorization" in answer.headers["access-control-allow-headers"].lower()
    origin = {"origin": "https://page.example"}
    refused = ask(app, PATH, {"input": "a"}, headers=origin)  # without the key, and readable
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] in ("*", "https://page.example")


def test_other_origins_are_not_allowed(model):
    app = create_app(model, cors_origins=["https://other.example"])
    assert ask(app, PATH, method="OPTIONS", headers=PREFLIGHT).status_code == 400
    plain = create_app(model)
    assert ask(plain, PATH, method="OPTIONS", headers=PREFLIGHT).status_code == 405
    answer = ask(plain, PATH, {"input": "a"}, headers={"origin": "https://page.example"})
    assert "access-control-allow-origin" not in answer.headers


def test_a_long_response_also_has_the_headers(model):
    app = create_app(model, cors_origins=["*"])
    answer = ask(app, PATH, {"input": ["deed"] * 2000}, headers={"origin": "https://x.example"})
    assert len(vectors(answer)) == 2000
    assert answer.headers["access-control-allow-origin"] == "*"


# --- the description ---


def test_every_route_is_described(app):
    document = ask(app, "/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    described = {
        (path, method.upper())
        for path, operations in document["paths"].items()
        for method in operations
    }
    routes = {
        (route.path.replace(":path", ""), method)
        for route in app.routes
        for method in route.methods - {"HEAD"}
    }
    assert described == routes


def test_the_description_lists_the_known_fields(app):
    operation = ask(app, "/openapi.json").json()["paths"]["/v1/embed"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert schema["required"] == ["texts"]
    answer = ask(app, "/v1/embed", {"texts": ["a"], "x": 1}).json()["message"]
    assert answer == f"unknown field 'x'; known: {', '.join(schema['properties'])}"


def test_the_page_lists_the_routes_without_scripts(app):
    page = ask(app, "/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "<script" not in page.text
    for path in ("/v1/embeddings", "/embed_sparse", "/api/tags"):
        assert path in page.text
