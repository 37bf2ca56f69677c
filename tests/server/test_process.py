"""`simdformer serve` as a process: start, requests, signals. Every wait has a timeout."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from simdformer import CrossEncoder, SentenceTransformer
from simdformer.cli import main, serve
from tests.support import ROOT
from tests.support.docs import blocks
from tests.support.model_fixtures import write_cross_encoder, write_model
from tests.support.tiny_sparse import write_sparse

WATCHDOG = 60
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
ENVIRONMENT.pop("SIMDFORMER_API_KEY", None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(write_model(tmp_path_factory.mktemp("models") / "tiny"))


@contextmanager
def serving(*arguments, program=("-m", "simdformer.cli"), **environment):
    """The process and its address, after it reports that it listens. It is killed if it outlives the
    block."""
    process = subprocess.Popen(
        [sys.executable, *program, "serve", *arguments, "--port", "0"],
        env={**ENVIRONMENT, **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    watchdog = threading.Timer(WATCHDOG, process.kill)
    watchdog.start()
    with process:
        try:
            said = process.stderr.readline()
            assert said.startswith("simdformer: serving on http://"), said + process.stderr.read()
            yield process, said.split()[-1]
        finally:
            process.kill()
            watchdog.cancel()


def post(url, body, **headers):
    """The JSON of the response, also for errors."""
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=WATCHDOG) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return json.load(error)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_answers_until_a_signal_ends_it(folder, number):
    with serving(folder) as (process, url):
        (row,) = post(f"{url}/v1/embeddings", {"input": "deed", "model": "tiny"})["data"]
        process.send_signal(number)
        assert process.wait(WATCHDOG) == 0
        assert process.stderr.read() == ""
    expected = SentenceTransformer(folder).encode("deed")
    np.testing.assert_array_equal(np.array(row["embedding"], np.float32), expected)


def test_a_reranker_is_served_too(folder, tmp_path):
    ranks = str(write_cross_encoder(tmp_path / "ranks"))
    documents = ["a cab", "deed", "z"]
    with serving(folder, "--reranker", ranks) as (_, url):
        results = post(f"{url}/v1/rerank", {"query": "fox", "documents": documents})["results"]
    expected = CrossEncoder(ranks).rank("fox", documents)
    assert [(r["index"], r["relevance_score"]) for r in results] == [
        (hit["corpus_id"], hit["score"]) for hit in expected
    ]


def test_the_folder_determines_the_kind_of_a_served_model(folder, tmp_path):
    ranks = write_cross_encoder(tmp_path / "r")
    sparse = write_sparse(tmp_path / "s")
    models = {"one": folder, "rank": ranks, "sparse": sparse}
    arguments = [part for name, path in models.items() for part in ("--model", f"{name}={path}")]
    with serving(*arguments) as (_, url):
        with urllib.request.urlopen(f"{url}/v1/models", timeout=WATCHDOG) as answer:
            assert [entry["id"] for entry in json.load(answer)["data"]] == list(models)
        assert len(post(f"{url}/embed", {"inputs": "a"})[0]) == 20
        assert post(f"{url}/embed_sparse", {"inputs": "a"})[0][0]["value"] > 0
        assert post(f"{url}/predict", {"inputs": ["a", "b"]})[0]["label"] == "LABEL_0"


def test_a_page_can_send_requests_if_its_origin_is_allowed(folder):
    origin = "https://page.example"
    with serving(folder, "--cors-origin", origin) as (_, url):
        request = urllib.request.Request(f"{url}/ready", headers={"Origin": origin})
        with urllib.request.urlopen(request, timeout=WATCHDOG) as answer:
            assert answer.headers["access-control-allow-origin"] == origin


@pytest.mark.parametrize("by", ["argument", "environment"])
def test_the_key_is_required(folder, by):
    arguments = ["--api-key", "secret"] if by == "argument" else []
    environment = {"SIMDFORMER_API_KEY": "secret"} if by == "environment" else {}
    with serving(folder, *arguments, **environment) as (_, url):
        body = {"input": "deed"}
        assert post(f"{url}/v1/embeddings", body)["error"]["code"] == "invalid_api_key"
        assert "data" in post(f"{url}/v1/embeddings", body, Authorization="Bearer secret")


def test_a_signal_during_work_ends_the_server_soon(folder):
    """Waiting requests are refused, running ones may be answered, and every client gets a response."""
    answers = []
    with serving(folder) as (process, url):
        body = {"input": ["the quick brown fox jumps over the lazy dog"] * 2048}
        clients = [
            threading.Thread(target=lambda: answers.append(post(f"{url}/v1/embeddings", body)))
            for _ in range(4)
        ]
        for client in clients:
            client.start()
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(WATCHDOG) == 0
        for client in clients:
            client.join(WATCHDOG)
    assert len(answers) == 4
    codes = {answer["error"]["code"] for answer in answers if "error" in answer}
    assert codes <= {"stopping"}


SLOW_MODEL = """
import time
from simdformer.cli import entry_point
from simdformer.server.served import Embedder
run = Embedder.run
Embedder.run = lambda *arguments: (time.sleep(1), run(*arguments))[1]
entry_point()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_pass_that_takes_long_is_answered_after_a_signal(folder, number):
    answers = []
    with serving(folder, program=("-c", SLOW_MODEL)) as (process, url):
        client = threading.Thread(
            target=lambda: answers.append(post(f"{url}/v1/embeddings", {"input": "deed"}))
        )
        client.start()
        time.sleep(0.2)
        process.send_signal(number)
        assert process.wait(WATCHDOG) == 0
        client.join(WATCHDOG)
    assert "data" in answers[0]


def test_a_second_ctrl_c_ends_it_without_a_word(folder):
    with serving(folder, program=("-c", SLOW_MODEL)) as (process, url):
        client = threading.Thread(target=ask_and_forget, args=(url,))
        client.start()
        time.sleep(0.2)
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(0.1)
        assert process.wait(WATCHDOG) == 0
        assert process.stderr.read() == ""
        client.join(WATCHDOG)


def ask_and_forget(url):
    with contextlib.suppress(OSError):
        post(f"{url}/v1/embeddings", {"input": "deed"})


def test_a_public_address_without_a_key_causes_a_warning(folder):
    process = subprocess.Popen(
        [sys.executable, "-m", "simdformer.cli", "serve", folder, "--port=0", "--host=0.0.0.0"],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            said = process.stderr.readline()
        finally:
            process.kill()
    assert said.startswith(
        "simdformer: warning: without an API key everyone who can reach 0.0.0.0:"
    )


def test_another_server_that_listened_earlier_is_reported(folder, capsys, monkeypatch):
    """Both have bound the port before one of them listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    other = socket.socket()
    other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    load = serve._application
    monkeypatch.setattr(serve, "_application", lambda *args: other.listen() or load(*args))
    with other:
        other.bind(("127.0.0.1", port))
        assert main(["serve", folder, "--port", str(port)]) == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in capsys.readouterr().err


def test_a_client_in_the_middle_of_its_body_does_not_delay_the_end(folder):
    with serving(folder) as (process, url):
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), WATCHDOG) as client:
            client.sendall(b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
            assert "data" in post(f"{url}/v1/embeddings", {"input": "deed"})  # it has arrived now
            process.send_signal(signal.SIGTERM)
            assert client.recv(100).startswith(b"HTTP/1.1 503 ")
            assert process.wait(WATCHDOG) == 0
        assert "Traceback" not in process.stderr.read()


def test_an_address_in_use_is_reported(folder, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", folder, "--port", str(port)]) == 1
    shown = capsys.readouterr().err
    assert shown == (
        f"simdformer: error: cannot listen on 127.0.0.1:{port}: Address already in use\n"
    )


def test_an_unknown_host_is_reported(folder, capsys):
    assert main(["serve", folder, "--host", "no such host"]) == 1
    assert "cannot listen on no such host:8080" in capsys.readouterr().err


def test_a_missing_model_is_reported(tmp_path, capsys):
    assert main(["serve", str(tmp_path / "none"), "--port", "0"]) == 1
    assert "no model" in capsys.readouterr().err


def test_the_error_names_a_model_of_another_kind(tmp_path, capsys):
    files = {"config_sentence_transformers.json": {"model_type": "MultiVectorEncoder"}}
    folder = write_model(tmp_path / "m", files=files)
    assert main(["serve", "--model", f"m={folder}", "--port", "0"]) == 1
    assert "a MultiVectorEncoder is not served" in capsys.readouterr().err


def test_an_error_of_the_model_does_not_name_the_reranker(folder, tmp_path, capsys):
    reranker = str(write_cross_encoder(tmp_path / "reranker"))
    arguments = [folder, "--reranker", reranker, "--model", f"reranker={folder}", "--port", "0"]
    assert main(["serve", *arguments]) == 1
    assert capsys.readouterr().err.startswith("simdformer: error: two models have the name")


def test_a_reranker_with_several_scores_is_reported(folder, tmp_path, capsys):
    several = str(write_cross_encoder(tmp_path / "several", 3))
    assert main(["serve", folder, "--port", "0", "--reranker", several]) == 1
    assert f"{several} gives 3 scores per pair" in capsys.readouterr().err


def test_an_error_about_a_model_does_not_name_the_reranker(folder, tmp_path, capsys):
    ranks = str(write_cross_encoder(tmp_path / "ranks"))
    models = [folder, "--reranker", ranks, "--model", f"{folder}={folder}"]
    assert main(["serve", "--port", "0", *models]) == 1
    error = capsys.readouterr().err
    assert "error: two models have the name" in error
    assert ranks not in error


@pytest.mark.parametrize("missing", ["httptools", "prometheus_client", "starlette", "uvicorn"])
def test_a_missing_package_names_the_extra(folder, capsys, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    assert main(["serve", folder]) == 1
    assert "pip install 'simdformer[server]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-queue", "5"], "--max-queue must be at least --max-client-batch (2048)"),
        (["--api-key", ""], "must be printable"),
        (["--api-key", "secret\n"], "without spaces or line ends around it"),
        (["--port", "70000"], "expected a port, 0 to 65535"),
        (["--model", "all-MiniLM-L6-v2"], "expected NAME=M, got 'all-MiniLM-L6-v2'"),
        (["--model", "a=x", "--model", "a=y", "--port=0"], "gives the name 'a' twice"),
    ],
)
def test_wrong_usage_is_reported(arguments, message, capsys):
    with pytest.raises(SystemExit) as leaving:
        main(["serve", *arguments])
    assert leaving.value.code == 2
    assert message in capsys.readouterr().err


def shown(language):
    """The block of docs/howto/server.md that is run by this file."""
    mark = ("run by", "tests/server/test_process.py")
    (code,) = (
        block.code
        for block in blocks(ROOT / "docs/howto/server.md")
        if block.language == language and block.comment == mark
    )
    return code


def test_the_commands_of_the_how_to_work():
    program, curl = map(shlex.split, shown("sh").splitlines())
    assert program[:2] == ["simdformer", "serve"]
    assert curl[0] == "curl"
    assert curl[1].startswith("http://127.0.0.1:8080/")  # its default address
    with serving(*program[2:]) as (_, url):
        answer = post(curl[1].replace("http://127.0.0.1:8080", url), json.loads(curl[3]))
    assert len(answer["data"][0]["embedding"]) == 384


@pytest.mark.parity
def test_the_client_of_the_how_to_works(capsys):
    pytest.importorskip("openai")
    with serving("all-MiniLM-L6-v2") as (_, url):
        exec(shown("python").replace("http://127.0.0.1:8080", url))  # noqa: S102
    assert capsys.readouterr().out == "384\n"


@pytest.mark.parity
def test_openais_package_gets_the_vectors_and_its_exceptions(folder):
    openai = pytest.importorskip("openai")
    model = SentenceTransformer(folder)
    texts = ["deed", "a cab"]
    with (
        serving(folder, "--api-key", "secret") as (_, url),
        openai.OpenAI(base_url=f"{url}/v1", api_key="secret") as client,
    ):
        answer = client.embeddings.create(input=texts, model="tiny")
        rows = np.array([row.embedding for row in answer.data], np.float32)
        np.testing.assert_array_equal(rows, model.encode(texts))
        assert [entry.id for entry in client.models.list()] == ["tiny"]
        assert client.models.retrieve("tiny").id == "tiny"
        with openai.OpenAI(base_url=url, api_key="secret") as short:  # without /v1
            assert short.models.retrieve("tiny").owned_by == "simdformer"
            assert short.embeddings.create(input="deed", model="tiny", dimensions=7).usage
        with pytest.raises(openai.NotFoundError, match="unknown model"):
            client.embeddings.create(input=texts, model="gpt")
        with pytest.raises(openai.BadRequestError, match="empty"):
            client.embeddings.create(input=[], model="tiny")
        with (
            openai.OpenAI(base_url=f"{url}/v1", api_key="wrong") as stranger,
            pytest.raises(openai.AuthenticationError),
        ):
            stranger.models.list()


@pytest.mark.parity
def test_azures_client_sends_its_key_and_deployment(folder):
    openai = pytest.importorskip("openai")
    options = {"api_key": "secret", "api_version": "2024-10-21"}
    with (
        serving(folder, "--api-key", "secret") as (_, url),
        openai.AzureOpenAI(azure_endpoint=url, **options) as client,
    ):
        answer = client.embeddings.create(input="deed", model="tiny")
    expected = SentenceTransformer(folder).encode("deed")
    np.testing.assert_array_equal(np.array(answer.data[0].embedding, np.float32), expected)


def test_hugging_faces_client_sends_requests_without_a_path(monkeypatch, folder, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    # Offline mode forbids local servers too.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    model = SentenceTransformer(folder)
    texts = ["deed", "a cab"]
    with serving(folder) as (_, url):
        client = hub.InferenceClient(model=url)
        rows = client.feature_extraction(texts, normalize=False, truncate=True, dimensions=7)
        np.testing.assert_array_equal(rows, model.encode(texts, truncate_dim=7))
        similar = client.sentence_similarity("deed", other_sentences=texts)
        expected = model.similarity(model.encode("deed"), model.encode(texts))[0]
        np.testing.assert_allclose(similar, expected, atol=1e-6)
    several = str(write_cross_encoder(tmp_path / "classes", 3))
    with serving("--model", f"classes={several}") as (_, url):
        found = hub.InferenceClient(model=url).text_classification("deed", top_k=2)
    assert len(found) == 2
    assert found[0].score > found[1].score
