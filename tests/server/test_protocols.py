"""Additional paths and fields of OpenAI; the protocols of Cohere, Jina, vLLM and Ollama, compared with encode and predict."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from tests.support import assert_same_bits
from tests.support.model_fixtures import TEXTS, write_cross_encoder, write_model

pytest.importorskip("starlette")
pytest.importorskip("httpx")

from simdformer import CrossEncoder, SentenceTransformer, quantize_embeddings
from simdformer.server import create_app
from simdformer.util import normalize_embeddings, pairwise_cos_sim
from tests.support.server_client import ask, assert_error, vectors

LONG = "ab cd " * 99
PROMPTS = {"prompts": {"query": "q ", "document": "d ", "clustering": "c "}}


@pytest.fixture(scope="module")
def reranker(tmp_path_factory):
    return CrossEncoder(write_cross_encoder(tmp_path_factory.mktemp("models") / "ranks"))


@pytest.fixture(scope="module")
def app(model, reranker):
    return create_app(model, reranker, max_client_batch=50)


@pytest.fixture(scope="module")
def prompted(tmp_path_factory):
    files = {"config_sentence_transformers.json": PROMPTS}
    folder = tmp_path_factory.mktemp("models") / "prompted"
    return SentenceTransformer(write_model(folder, files=files))


def truncated(model, texts, side):
    other = SentenceTransformer(model.name_or_path, processor_kwargs={"truncation_side": side})
    with pytest.warns(UserWarning, match="truncated"):
        return other.encode(texts)


def post(app, path, **body):
    answer = ask(app, path, body)
    assert answer.status_code == 200, answer.text
    return answer.json()


# --- OpenAI, Azure, Jina ---

OPENAI_PATHS = (
    *("/v1/embeddings", "/embeddings", "/openai/v1/embeddings"),
    "/openai/deployments/tiny/embeddings",
)


@pytest.mark.parametrize("path", OPENAI_PATHS)
def test_openais_embeddings_have_several_paths(model, app, path):
    assert_same_bits(vectors(ask(app, path, {"input": TEXTS})), model.encode(TEXTS))


def test_azures_deployment_is_a_model(app):
    path = "/openai/deployments/none/embeddings"
    assert_error(ask(app, path, {"input": "a"}), 404, "unknown model 'none'; served here: tiny")


@pytest.mark.parametrize("path", ["/v1/models", "/models"])
def test_a_model_is_retrieved(model, path):
    app = create_app(model, name="org/tiny")
    listed = ask(app, path).json()["data"]
    assert ask(app, f"{path}/org/tiny").json() == listed[0]
    assert ask(app, f"{path}/org%2Ftiny").json() == listed[0]
    assert_error(ask(app, f"{path}/gpt"), 404, "unknown model 'gpt'", code="model_not_found")


@pytest.mark.parametrize(("mode", "side"), [("START", "left"), ("END", "right"), (True, "right")])
def test_truncate_chooses_the_side(model, app, mode, side):
    answer = ask(app, "/v1/embeddings", {"input": [LONG], "truncate": mode})
    assert_same_bits(vectors(answer), truncated(model, [LONG], side))


@pytest.mark.parametrize(
    ("task", "prompt"),
    [
        ("retrieval.query", "q "),
        ("retrieval.passage", "d "),
        ("clustering", "c "),
        ("classification", ""),
    ],
)
def test_jinas_task_is_a_prompt(prompted, task, prompt):
    answer = ask(create_app(prompted), "/v1/embeddings", {"input": TEXTS, "task": task})
    assert_same_bits(vectors(answer), prompted.encode(TEXTS, prompt=prompt))


def test_jinas_texts_may_be_objects(model, app):
    body = {"input": [{"text": text} for text in TEXTS], "normalized": True}
    expected = model.encode(TEXTS, normalize_embeddings=True)
    assert_same_bits(vectors(ask(app, "/v1/embeddings", body)), expected)


@pytest.mark.parametrize("kind", ["binary", "ubinary"])
def test_bits_are_those_of_quantize_embeddings(model, app, kind):
    data = post(app, "/v1/embeddings", input=TEXTS, embedding_type=kind)["data"]
    expected = quantize_embeddings(model.encode(TEXTS), kind)
    assert [row["embedding"] for row in data] == expected.tolist()


# --- Cohere ---


def test_cohere_v1_gives_an_array(model, app):
    answer = post(app, "/v1/embed", texts=TEXTS, model="tiny", input_type="search_document")
    assert set(answer) == {"id", "texts", "response_type", "meta", "embeddings"}
    assert answer["response_type"] == "embeddings_floats"
    assert answer["texts"] == TEXTS
    tokens = sum(map(len, model.pipeline.tokenizer(TEXTS).input_ids))
    assert answer["meta"]["billed_units"] == {"input_tokens": tokens}
    assert_same_bits(np.array(answer["embeddings"], np.float32), model.encode(TEXTS))


@pytest.mark.parametrize("path", ["/v1/embed", "/v2/embed"])
def test_cohere_gives_the_requested_types(model, app, path):
    kinds = ["float", "base64", "binary", "ubinary"]
    found = post(app, path, texts=TEXTS, embedding_types=kinds)["embeddings"]
    expected = model.encode(TEXTS)
    assert list(found) == kinds
    assert_same_bits(np.array(found["float"], np.float32), expected)
    decoded = [np.frombuffer(base64.b64decode(row), "<f4") for row in found["base64"]]
    assert_same_bits(np.array(decoded), expected)
    for kind in ("binary", "ubinary"):
        assert found[kind] == quantize_embeddings(expected, kind).tolist()


def test_cohere_v2_takes_contents_and_dimensions(model, app):
    inputs = [{"content": [{"type": "text", "text": text}]} for text in TEXTS]
    found = post(app, "/v2/embed", inputs=inputs, output_dimension=7)["embeddings"]["float"]
    expected = model.encode(TEXTS, truncate_dim=7, normalize_embeddings=True)
    assert_same_bits(np.array(found, np.float32), expected)


@pytest.mark.parametrize(
    ("input_type", "prompt"),
    [("search_query", "q "), ("search_document", "d "), ("clustering", "c ")],
)
def test_coheres_input_type_is_a_prompt(prompted, input_type, prompt):
    app = create_app(prompted)
    found = post(app, "/v1/embed", texts=TEXTS, input_type=input_type)["embeddings"]
    assert_same_bits(np.array(found, np.float32), prompted.encode(TEXTS, prompt=prompt))


@pytest.mark.parametrize(("mode", "side"), [("START", "left"), ("END", "right")])
def test_coheres_max_tokens_truncates_on_the_side_of_truncate(model, app, mode, side):
    found = post(app, "/v2/embed", texts=[LONG], truncate=mode, max_tokens=12)
    short = SentenceTransformer(model.name_or_path)
    short.max_seq_length = 12
    short.pipeline.tokenizer = short.pipeline.tokenizer.truncating(side, None)
    with pytest.warns(UserWarning, match="truncated"):
        expected = short.encode([LONG])
    assert_same_bits(np.array(found["embeddings"]["float"], np.float32), expected)


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/v1/embed", {"texts": []}, "texts must not be empty"),
        ("/v1/embed", {"texts": ["a", 1]}, "texts[1] must be a string"),
        ("/v1/embed", {"texts": ["a"], "inputs": []}, "unknown field 'inputs'"),
        ("/v1/embed", {"texts": ["a"], "embedding_types": ["int8"]}, "got 'int8'"),
        ("/v1/embed", {"texts": ["a"], "input_type": "image"}, "input_type must be one of"),
        ("/v1/embed", {"texts": [LONG], "truncate": "NONE"}, "texts[0] has over 100 tokens"),
        ("/v2/embed", {}, "texts is missing"),
        ("/v2/embed", {"texts": ["a"], "inputs": ["b"]}, "send one of texts and inputs"),
        ("/v2/embed", {"texts": ["a"], "images": ["b"]}, "unknown field 'images'"),
        ("/v2/embed", {"texts": ["a"], "max_tokens": 2}, "max_tokens must be at least 3"),
        (
            "/v2/embed",
            {"inputs": [{"content": [{"type": "image_url", "image_url": {}}]}]},
            'inputs[0].content[0] must be {"type": "text", "text"}',
        ),
    ],
)
def test_unsupported_requests_of_cohere_are_refused(app, path, body, message):
    answer = ask(app, path, body)
    assert answer.status_code == 400
    assert list(answer.json()) == ["message"]
    assert message in answer.json()["message"]


# --- vLLM ---


@pytest.mark.parametrize("names", [("text_1", "text_2"), ("queries", "documents")])
@pytest.mark.parametrize("path", ["/score", "/v1/score"])
def test_scores_are_those_of_predict(reranker, app, path, names):
    answer = post(app, path, **dict(zip(names, ("fox", TEXTS), strict=True)))
    assert answer["model"] == "ranks"
    expected = reranker.predict([("fox", text) for text in TEXTS])
    scores = np.array([row["score"] for row in answer["data"]], np.float32)
    assert_same_bits(scores, expected)


def test_equally_long_lists_are_paired_one_by_one(reranker, app):
    answer = post(app, "/score", text_1=TEXTS, text_2=TEXTS[::-1], use_activation=False)
    pairs = list(zip(TEXTS, TEXTS[::-1], strict=True))
    expected = reranker.predict(pairs, activation_fn="torch.nn.Identity")
    assert_same_bits(np.array([row["score"] for row in answer["data"]], np.float32), expected)


def test_an_embedding_models_scores_are_cosines(model, app):
    answer = post(app, "/score", text_1="fox", text_2=TEXTS, model="tiny")
    expected = pairwise_cos_sim(model.encode(["fox"] * len(TEXTS)), model.encode(TEXTS))
    assert_same_bits(np.array([row["score"] for row in answer["data"]], np.float32), expected)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"text_1": "a"}, "text_2 is missing"),
        ({"text_1": ["a", "b"], "text_2": "c"}, "text_1 must have one text, or as many as text_2"),
        ({"text_1": "a", "text_2": "b", "queries": "c"}, "send one of text_1 and queries"),
        ({"text_1": "a", "text_2": "b", "truncate_prompt_tokens": 9}, "must be -1 to -1"),
        ({"text_1": "a", "text_2": "b", "softmax": True}, "unknown field 'softmax'"),
        ({"text_1": "a", "text_2": "b", "model": "tiny", "use_activation": True}, "use_activation"),
    ],
)
def test_unsupported_requests_of_vllm_are_refused(app, body, message):
    assert_error(ask(app, "/score", body), 400, message)


# --- Ollama ---


def test_ollamas_embed_normalizes(model, app):
    answer = post(app, "/api/embed", model="tiny:latest", input=TEXTS, options={"seed": 1})
    tokens = sum(map(len, model.pipeline.tokenizer(TEXTS).input_ids))
    assert answer["model"] == "tiny:latest"
    assert answer["prompt_eval_count"] == tokens
    expected = normalize_embeddings(model.encode(TEXTS))
    assert_same_bits(np.array(answer["embeddings"], np.float32), expected)


def test_ollamas_older_route_does_not_normalize(model, app):
    answer = post(app, "/api/embeddings", model="tiny", prompt="deed", keep_alive="5m")
    assert_same_bits(np.array(answer["embedding"], np.float32), model.encode("deed"))


def test_ollamas_models_are_listed(app):
    models = ask(app, "/api/tags").json()["models"]
    assert [entry["name"] for entry in models] == ["tiny", "ranks"]
    assert models[0]["details"]["family"] == "bert"


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/api/embed", {"input": LONG, "truncate": False}, "input[0] has over 100 tokens"),
        ("/api/embed", {"input": "a", "options": {"num_ctx": 50}}, "num_ctx must be at least 100"),
        ("/api/embed", {"input": "a", "options": {"rope": 1}}, "unknown field 'options.rope'"),
        ("/api/embed", {"input": "a", "dimensions": 21}, "dimensions must be 1 to 20"),
        ("/api/embeddings", {"prompt": ["a"]}, "prompt must be a string"),
    ],
)
def test_unsupported_requests_of_ollama_are_refused(app, path, body, message):
    answer = ask(app, path, body)
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
    assert message in answer.json()["error"]


# --- all protocols ---


@pytest.mark.parametrize(
    ("path", "body", "form"),
    [
        ("/embed", {"inputs": "a"}, {"error", "error_type"}),
        ("/v2/embed", {"texts": ["a"]}, {"message"}),
        ("/api/embed", {"input": "a"}, {"error"}),
        ("/score", {"text_1": "a", "text_2": "b"}, {"error"}),
    ],
)
def test_the_error_without_a_key_has_the_format_of_the_protocol(model, path, body, form):
    answer = ask(create_app(model, api_key="secret"), path, body)
    assert answer.status_code == 401
    assert set(answer.json()) == form


@pytest.mark.parametrize("header", ["api-key", "authorization"])
def test_the_key_may_be_in_azures_header(model, header):
    value = "secret" if header == "api-key" else "Bearer secret"
    app = create_app(model, api_key="secret")
    assert ask(app, "/v1/models", headers={header: value}).status_code == 200


@pytest.mark.parametrize("path", ["/v1/embed", "/api/embed", "/score", "/predict", "/decode"])
def test_bodies_are_bounded_on_every_route(model, reranker, path):
    app = create_app(model, reranker, max_body_bytes=4000)
    assert ask(app, path, method="POST", content=json.dumps("a" * 4000)).status_code == 413
