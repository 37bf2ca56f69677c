"""Refused requests: the status, OpenAI's format, and never a traceback."""

from __future__ import annotations

import asyncio
import json
import logging
import threading

import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("httpx")

from simdformer import CrossEncoder
from simdformer.server import create_app
from simdformer.server.served import Embedder
from tests.support.model_fixtures import write_cross_encoder
from tests.support.server_client import ask, ask_all, assert_error

PATH = "/v1/embeddings"


@pytest.fixture(scope="module")
def app(model):
    return create_app(model, max_client_batch=3, max_body_bytes=4000)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"input": NaN}', "NaN is not a JSON number"),
        (b'{"input": ["a", -Infinity]}', "-Infinity is not a JSON number"),
        (b'{"input": "\xff"}', "not JSON"),
        (b"[" * 3000, "nested too deeply"),
        (b"[1]", "must be a JSON object, got an array"),
        (b'"x"', "must be a JSON object, got a string"),
    ],
)
def test_a_body_that_is_not_a_json_object_is_reported(app, content, message):
    answer = ask(app, PATH, method="POST", content=content)
    assert_error(answer, 400, message, type="invalid_request_error")


@pytest.mark.parametrize(
    ("members", "param", "message"),
    [
        ({"input": None}, "input", "missing"),
        ({"input": []}, "input", "must not be empty"),
        ({"input": ["a", 1]}, "input[1]", "must be a string, got an integer"),
        ({"input": ["a", None]}, "input[1]", "must be a string, got null"),
        ({"input": {"text": "a"}}, "input", "must be a string, got an object"),
        ({"input": True}, "input", "must be a string, got a boolean"),
        ({"input": 3.5}, "input", "must be a string, got a number"),
        ({"input": "\ud800"}, "input", "lone surrogate U+D800"),
        ({"input": ["a"] * 4}, "input", "has 4 items, at most 3"),
        ({"input": [[]]}, "input[0]", "array of token ids"),
        ({"input": [2, 5, "a"]}, "input[0]", "array of token ids"),
        ({"input": [[2, 3], "a"]}, "input[1]", "array of token ids"),
        ({"input": [2, True]}, "input[0]", "array of token ids"),
        ({"input": [2, 61, 3]}, "input[0]", "do not come from the model's tokenizer: they hold 61"),
        ({"input": [2, -1, 3]}, "input[0]", "hold -1"),
        ({"input": [2, 2**70, 3]}, "input[0]", f"hold {2**70}"),
        ({"input": [2] * 100 + [3]}, "input[0]", "has 101 tokens, the model reads 100"),
        ({"input": [5, 6]}, "input[0]", "do not begin with [2] and end with [3]; send the text"),
        ({"input": [[2, 5, 3], [2, 5]]}, "input[1]", "do not begin with [2] and end with [3]"),
        ({"input": [2, 5, 3], "input_type": "query"}, "prompt_name", "not with token ids"),
        ({"input_type": "cluster"}, "input_type", 'must be one of "query", "passage"'),
        ({"input_type": "query", "prompt_name": "query"}, "input_type", "send one"),
        ({"truncate": "LEFT"}, "truncate", 'must be one of "END", "START", "NONE"'),
        ({"truncate": 1}, "truncate", "must be one of"),
        ({"truncate": False, "input": ["b", "a " * 99]}, "input[1]", "over 100 tokens"),
        ({"task": "x"}, "task", 'must be one of "retrieval.query"'),
        ({"task": "retrieval.query", "input_type": "query"}, "task", "send one of them"),
        ({"task": "retrieval.query", "prompt_name": "query"}, "task", "send one of them"),
        ({"late_chunking": True}, "late_chunking", "must be one of false"),
        ({"embedding_type": "int8"}, "embedding_type", "must be one of"),
        (
            {"embedding_type": "binary", "encoding_format": "float"},
            "embedding_type",
            "send one of encoding_format and embedding_type",
        ),
        ({"input": [{"text": "a", "image": "b"}]}, "input[0]", "must be a string, got an object"),
        ({"truncate_prompt_tokens": 100}, "truncate_prompt_tokens", "must be -1 to -1"),
        ({"truncate": "NONE", "input": ["b", "a " * 99]}, "input[1]", "over 100 tokens"),
        ({"input": [2, 3], "prompt_name": "query"}, "prompt_name", "not with token ids"),
        ({"prompt_name": "none"}, "prompt_name", "unknown prompt_name 'none'; known: query"),
        ({"prompt_name": 1}, "prompt_name", "must be a string"),
        ({"encoding_format": "hex"}, "encoding_format", 'one of "float", "base64", got \'hex\''),
        ({"encoding_format": 1}, "encoding_format", "must be one of"),
        ({"dimensions": 0}, "dimensions", "must be 1 to 20, got 0"),
        ({"dimensions": 21}, "dimensions", "must be 1 to 20, got 21"),
        ({"dimensions": 2.0}, "dimensions", "must be an integer, got a number"),
        ({"dimensions": True}, "dimensions", "must be an integer, got a boolean"),
        ({"dims": 3}, "dims", "unknown field 'dims'; known: input, model"),
        ({"model": ["tiny"]}, "model", "must be a string, got an array"),
    ],
)
def test_an_invalid_field_is_named(app, members, param, message):
    content = json.dumps({"input": "a", **members})
    assert_error(ask(app, PATH, method="POST", content=content), 400, message, param=param)


def test_an_unknown_model_is_not_found(app):
    answer = ask(app, PATH, {"input": "a", "model": "gpt"})
    assert_error(answer, 404, "unknown model 'gpt'; served here: tiny", code="model_not_found")


def test_errors_for_unknown_routes_and_methods_have_the_same_format(app):
    assert_error(ask(app, "/v2/nothing"), 404, "Not Found: GET /v2/nothing")
    assert_error(ask(app, PATH), 405, "Method Not Allowed: GET")
    assert ask(app, PATH).headers["allow"] == "POST"


def test_a_body_that_is_too_long_is_refused(app):
    assert_error(ask(app, PATH, {"input": "a" * 4000}), 413, "longer than 4000 bytes")


def test_a_text_that_is_far_too_long_is_refused(model):
    answer = ask(create_app(model), PATH, {"input": ["a", "b" * 1_000_001]})
    assert_error(answer, 400, "input[1] has 1000001 characters, at most", param="input[1]")


def test_a_body_that_grows_too_long_is_refused(app):
    async def parts():
        for _ in range(5):
            yield b"a" * 1000

    assert_error(ask(app, PATH, method="POST", content=parts()), 413, "longer than 4000 bytes")


def test_a_long_value_is_shortened_in_the_error(app):
    answer = ask(app, PATH, {"input": "a", "model": "m" * 3000})
    assert len(answer.content) < 500


@pytest.mark.parametrize("header", [None, "secret", "Bearer", "Bearer wrong", "Basic secret"])
def test_without_the_key_a_request_is_refused(model, header):
    app = create_app(model, api_key="secret")
    headers = {} if header is None else {"authorization": header}
    for path, method in ((PATH, "POST"), ("/v1/models", "GET"), ("/rerank", "POST")):
        answer = ask(app, path, method=method, headers=headers)
        assert_error(answer, 401, "API key", code="invalid_api_key")
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("key", ["secret", "gehëim"])
def test_with_the_key_a_request_is_answered(model, key):
    app = create_app(model, api_key=key)
    headers = {"authorization": f"Bearer {key}".encode()}
    assert ask(app, PATH, {"input": "a"}, headers=headers).is_success


def test_health_needs_no_key(model):
    assert ask(create_app(model, api_key="secret"), "/health").is_success


def test_an_error_of_the_model_is_not_disclosed_to_the_client(app, monkeypatch, caplog):
    def fail(*_):
        raise MemoryError("at 0x1234")

    monkeypatch.setattr(Embedder, "run", fail)
    with caplog.at_level(logging.CRITICAL, "simdformer"):
        answer = ask(app, PATH, {"input": "a"})
    assert_error(answer, 500, "internal error", type="server_error")
    assert "0x1234" not in answer.text


def test_results_that_are_not_finite_are_not_sent(app, monkeypatch):
    rows = np.full((1, 20), np.nan, np.float32)
    monkeypatch.setattr(Embedder, "run", lambda *_: (rows, [1]))
    assert_error(ask(app, PATH, {"input": "a"}), 500, "not finite", code="not_finite")


def test_a_request_that_would_overfill_the_queue_is_told_to_retry(model, monkeypatch):
    """The first request is computed, the second waits, and the third does not fit."""
    release = threading.Event()
    run = Embedder.run
    monkeypatch.setattr(Embedder, "run", lambda *args: release.wait(60) and run(*args))
    app = create_app(model, max_queue=3, max_client_batch=3)

    async def check(scope, receive, send):
        await app(scope, receive, send)
        release.set()  # the request that is answered first was refused

    body = {"json": {"input": ["a", "b"]}}
    answers = ask_all(check, *[("POST", PATH, body)] * 3)
    assert sorted(answer.status_code for answer in answers) == [200, 200, 429]
    (refused,) = (answer for answer in answers if answer.status_code == 429)
    assert_error(refused, 429, "try again", type="rate_limit_error")
    assert int(refused.headers["retry-after"]) > 0


def test_a_client_that_disconnects_removes_its_texts_from_the_queue(model, monkeypatch):
    release, computed = threading.Event(), []

    def run(_, items, *__):
        computed.extend(items)
        release.wait(60)
        return np.zeros((len(items), 20), np.float32), [1] * len(items)

    monkeypatch.setattr(Embedder, "run", run)
    app = create_app(model)

    async def both():
        first = asyncio.ensure_future(status(app, "stays", goes=False))
        await asyncio.sleep(0)
        gone = await status(app, "goes", goes=True)
        await asyncio.sleep(0)
        waiting = app.state.batcher.num_waiting
        release.set()
        return gone, waiting, await first

    assert asyncio.run(both()) == (499, 0, 200)
    assert computed == ["stays"]


async def status(app, text, *, goes):
    """The status of the response to a client that stays, or disconnects after sending."""
    scope = {"type": "http", "method": "POST", "path": PATH, "headers": [], "query_string": b""}
    messages = [{"type": "http.request", "body": json.dumps({"input": text}).encode()}]
    sent = []

    async def receive():
        if messages:
            return messages.pop()
        if not goes:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"]


def test_an_unsuitable_model_is_refused_at_the_start(tmp_path, model):
    several = CrossEncoder(write_cross_encoder(tmp_path / "several", 3))
    with pytest.raises(ValueError, match="gives 3 scores per pair; rerank needs a model with one"):
        create_app(model, several)
    with pytest.raises(ValueError, match="max_queue must be at least max_client_batch, got 5 and"):
        create_app(model, max_queue=5)
    with pytest.raises(ValueError, match="max_bytes_in_flight must be at least max_body_bytes"):
        create_app(model, max_bytes_in_flight=5)


@pytest.mark.parametrize("key", ["", "  ", "secret\n", " secret", "sec\nret", "sec\0ret"])
def test_a_key_that_no_client_can_send_is_refused_at_the_start(model, key):
    with pytest.raises(ValueError, match="must be printable, without spaces or line ends"):
        create_app(model, api_key=key)


@pytest.mark.parametrize(
    ("path", "body", "places"),
    [
        ("/score", {"text_1": ["a", "b"], "text_2": ["c", "d"]}, 4),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": ["b", "c", "d"]}}, 4),
    ],
)
def test_a_request_that_never_fits_the_queue_is_not_told_to_retry(model, path, body, places):
    answer = ask(create_app(model, max_queue=3, max_client_batch=3), path, body)
    assert answer.status_code == 400
    assert f"the request needs {places} places in the queue, which has 3" in answer.text
