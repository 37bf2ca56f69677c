"""POST /v1/embeddings and /embed: the formats of OpenAI and TEI, with the vectors of encode."""

from __future__ import annotations

import asyncio
import base64
import json

import numpy as np
import pytest

from tests.support import assert_same_bits
from tests.support.model_fixtures import TEXTS, tokenizer_json, write_model

pytest.importorskip("starlette")
pytest.importorskip("httpx")

from simdformer import SentenceTransformer
from simdformer.server import create_app, passes
from simdformer.server.served import Embedder
from tests.support.server_client import ask, ask_all, assert_error, vectors

PATH = "/v1/embeddings"
WORDS = TEXTS  # a blank text is a text
PROMPTS = {"prompts": {"query": "ask ", "cluster": "c "}, "default_prompt_name": "cluster"}


@pytest.fixture(scope="module")
def app(model):
    return create_app(model, name="org/tiny")


@pytest.mark.parametrize("form", ["float", "base64", None])
def test_vectors_have_the_bits_of_encode(model, app, form):
    answer = ask(app, PATH, {"input": WORDS, "encoding_format": form})
    assert_same_bits(vectors(answer), model.encode(WORDS))


def test_the_response_has_openais_format(model, app):
    answer = ask(app, PATH, {"input": WORDS, "model": "org/tiny", "user": "me"}).json()
    tokens = sum(map(len, model.pipeline.tokenizer(WORDS).input_ids))
    assert set(answer) == {"object", "data", "model", "usage"}
    assert answer["object"] == "list"
    assert answer["model"] == "org/tiny"
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert [row["index"] for row in answer["data"]] == list(range(len(WORDS)))
    assert {row["object"] for row in answer["data"]} == {"embedding"}


def test_a_request_of_the_official_client_is_answered(model, app):
    """The exact bytes that openai's package sends for embeddings.create(input=..., model=...)."""
    content = b'{"input":["a cab","deed"],"model":"tiny","encoding_format":"base64"}'
    headers = {"authorization": "Bearer none", "content-type": "application/json"}
    answer = ask(app, PATH, method="POST", content=content, headers=headers).json()
    rows = [np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in answer["data"]]
    assert_same_bits(np.array(rows), model.encode(["a cab", "deed"]))


def test_a_single_text_is_a_list_of_one(model, app):
    assert_same_bits(vectors(ask(app, PATH, {"input": "deed"})), model.encode(["deed"]))


@pytest.mark.parametrize("wrap", [lambda ids: ids[0], list], ids=["one", "several"])
def test_token_ids_give_the_vectors_of_their_texts(model, app, wrap):
    value = wrap(model.pipeline.tokenizer(WORDS).input_ids)
    expected = model.encode(WORDS[:1] if value[0] == 2 else WORDS)
    assert_same_bits(vectors(ask(app, PATH, {"input": value})), expected)


def test_dimensions_truncate_and_renormalize(model, app):
    expected = model.encode(WORDS, truncate_dim=7, normalize_embeddings=True)
    assert_same_bits(vectors(ask(app, PATH, {"input": WORDS, "dimensions": 7})), expected)


def test_requesting_all_dimensions_returns_the_unchanged_vectors(model, app):
    answer = ask(app, PATH, {"input": WORDS, "dimensions": 20})
    assert_same_bits(vectors(answer), model.encode(WORDS))


def test_more_dimensions_than_the_model_truncates_to_are_refused(tmp_path):
    model = SentenceTransformer(write_model(tmp_path / "m"), truncate_dim=6)
    app = create_app(model)
    assert_same_bits(vectors(ask(app, PATH, {"input": WORDS})), model.encode(WORDS))
    assert_error(ask(app, PATH, {"input": "a", "dimensions": 7}), 400, "1 to 6", param="dimensions")


def test_an_empty_text_is_a_text(model, app):
    for texts in ("", ["a cab", ""], [" "]):
        expected = model.encode([texts] if isinstance(texts, str) else texts)
        assert_same_bits(vectors(ask(app, PATH, {"input": texts})), expected)


def test_fields_without_effect_are_accepted(model, app):
    body = {"input": WORDS, "truncate_prompt_tokens": -1, "truncate": "END", "input_type": "query"}
    assert_same_bits(vectors(ask(app, PATH, body)), model.encode(WORDS))
    rows = ask(app, "/embed", {"inputs": WORDS, "truncate": False, "truncation_direction": "Left"})
    expected = model.encode(WORDS, normalize_embeddings=True)
    assert_same_bits(np.array(rows.json(), np.float32), expected)


@pytest.mark.parametrize("unit", [True, False])
def test_embed_truncates_dimensions(model, app, unit):
    answer = ask(app, "/embed", {"inputs": WORDS, "normalize": unit, "dimensions": 7})
    expected = model.encode(WORDS, truncate_dim=7, normalize_embeddings=unit)
    assert_same_bits(np.array(answer.json(), np.float32), expected)


@pytest.mark.parametrize(
    ("input_type", "method"),
    [
        ("query", "encode_query"),
        ("search_query", "encode_query"),
        ("passage", "encode_document"),
        ("search_document", "encode_document"),
    ],
)
@pytest.mark.parametrize("prompts", [{"query": "q ", "document": "d "}, {"cluster": "c "}])
def test_input_type_selects_the_prompt_of_encode_query_or_document(
    tmp_path, prompts, input_type, method
):
    files = {"config_sentence_transformers.json": {"prompts": prompts}}
    model = SentenceTransformer(write_model(tmp_path / "m", files=files))
    answer = ask(create_app(model), PATH, {"input": WORDS, "input_type": input_type})
    assert_same_bits(vectors(answer), getattr(model, method)(WORDS))


def test_ids_cannot_be_checked_without_special_tokens(tmp_path):
    files = {
        "tokenizer.json": tokenizer_json() | {"post_processor": None},
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"},
    }
    model = SentenceTransformer(write_model(tmp_path / "m", files=files))
    answer = ask(create_app(model), PATH, {"input": [5, 6]})
    assert_error(answer, 400, "cannot be distinguished from another tokenizer's", param="input[0]")


@pytest.mark.parametrize("include_prompt", [True, False])
def test_prompts_are_those_of_encode(tmp_path, include_prompt):
    pooling = {"word_embedding_dimension": 20, "include_prompt": include_prompt}
    files = {"config_sentence_transformers.json": PROMPTS, "1_Pooling/config.json": pooling}
    model = SentenceTransformer(write_model(tmp_path / "m", files=files))
    names = ["query", "cluster", None, "document"]
    bodies = [{"input": WORDS, "prompt_name": name} for name in names]
    answers = ask_all(create_app(model), *(("POST", PATH, {"json": body}) for body in bodies))
    for name, answer in zip(names, answers, strict=True):
        assert_same_bits(vectors(answer), model.encode(WORDS, prompt_name=name))


def test_concurrent_requests_get_the_bits_of_encode(model, app, monkeypatch):
    passes = []
    run = Embedder.run
    monkeypatch.setattr(Embedder, "run", lambda *args: passes.append(1) or run(*args))
    texts = [[f"{word} number {i}" for word in WORDS[: 1 + i % 4]] for i in range(40)]
    answers = ask_all(app, *(("POST", PATH, {"json": {"input": text}}) for text in texts))
    for text, answer in zip(texts, answers, strict=True):
        for one, row in zip(text, vectors(answer), strict=True):
            assert_same_bits(row, model.encode(one))
    assert len(passes) < len(texts)  # they were computed together


def test_a_request_of_several_passes_keeps_its_order(model, app, monkeypatch):
    monkeypatch.setattr(passes, "PASS_CHARACTERS", 100)
    texts = [f"{word} {i}" for i in range(20) for word in WORDS]
    one, two = ask_all(app, *(("POST", PATH, {"json": {"input": t}}) for t in (texts, texts[::-1])))
    assert_same_bits(vectors(one), model.encode(texts))
    assert_same_bits(vectors(two), model.encode(texts[::-1]))


def test_a_long_answer_is_complete(model, app):
    texts = ["deed"] * 2048  # written in another thread
    answer = vectors(ask(app, PATH, {"input": texts}))
    assert_same_bits(answer, np.tile(model.encode("deed"), (2048, 1)))


def test_a_text_that_is_too_long_is_truncated_as_by_encode(model, app):
    long = "a " * 300
    answer = ask(app, PATH, {"input": [long, "deed"]})
    assert answer.json()["usage"]["total_tokens"] == 100 + len(
        model.pipeline.tokenizer(["deed"])[0][0]
    )
    fresh = SentenceTransformer(model.name_or_path)
    with pytest.warns(UserWarning, match="truncated"):
        expected = fresh.encode([long, "deed"])
    assert_same_bits(vectors(answer), expected)


@pytest.mark.parametrize("unit", [True, False])
def test_embed_has_teis_format(model, app, unit):
    answer = ask(app, "/embed", {"inputs": WORDS, "normalize": unit, "truncate": True})
    rows = np.array(answer.json(), np.float32)
    assert_same_bits(rows, model.encode(WORDS, normalize_embeddings=unit))


def test_embed_normalizes_unless_told_otherwise(model, app):
    rows = np.array(ask(app, "/embed", {"inputs": "deed"}).json(), np.float32)
    assert_same_bits(rows, model.encode(["deed"], normalize_embeddings=True))


def test_models_are_listed(app):
    (entry,) = ask(app, "/v1/models").json()["data"]
    assert entry["id"] == "org/tiny"
    assert entry["object"] == "model"


@pytest.mark.parametrize("asked", ["org/tiny", "tiny", None])
def test_a_model_is_found_by_its_name_and_the_last_part_of_it(app, asked):
    assert ask(app, PATH, {"input": "a", "model": asked}).status_code == 200


@pytest.mark.parametrize(
    ("name", "served", "others"),
    [
        ("all-MiniLM-L6-v2", "all-MiniLM-L6-v2", ["sentence-transformers/all-MiniLM-L6-v2"]),
        ("BAAI/bge-small-en", "BAAI/bge-small-en", ["bge-small-en"]),
    ],
)
def test_a_model_is_found_by_its_full_name_on_the_hub(model, name, served, others):
    app = create_app(model, name=name)
    assert ask(app, "/v1/models").json()["data"][0]["id"] == served
    for asked in (served, *others):
        assert ask(app, PATH, {"input": "a", "model": asked}).status_code == 200
    assert ask(app, PATH, {"input": "a", "model": "other/" + others[0]}).status_code == 404


def test_a_folder_of_the_hubs_cache_has_the_hubs_name(model, tmp_path):
    folder = tmp_path / "models--BAAI--bge-small--en" / "snapshots" / "0123abc"
    folder.mkdir(parents=True)
    app = create_app(model, name=str(folder))
    assert ask(app, "/v1/models").json()["data"][0]["id"] == "BAAI/bge-small--en"
    for asked in ("BAAI/bge-small--en", "bge-small--en", None):
        assert ask(app, PATH, {"input": "a", "model": asked}).status_code == 200


def test_the_path_of_a_folder_is_not_disclosed(model):
    assert ask(create_app(model), "/v1/models").json()["data"][0]["id"] == "tiny"


def test_name_version_and_health_are_reported(app):
    assert set(ask(app, "/").json()) == {"name", "version"}
    assert ask(app, "/health").json() == {"status": "ok"}


def test_health_fails_after_the_application_ends(model):
    app = create_app(model)

    async def live():
        async with app.router.lifespan_context(app):
            pass

    asyncio.run(live())
    assert_error(ask(app, "/health"), 503, "stopping")
    assert_error(ask(app, PATH, {"input": "a"}), 503, "stopping", type="server_error")


def test_unknown_fields_that_are_null_are_accepted(app):
    assert ask(app, PATH, json.loads('{"input": "a", "dimensions": null, "x": null}')).is_success
