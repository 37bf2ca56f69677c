"""Limits for clients of the server: connections, headers, bodies, time. Uses sockets in one process."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("httptools")

from simdformer.server import create_app, running
from simdformer.server.connections import ConnectionLimits
from simdformer.server.served import Embedder

WATCHDOG = 30
SHORT = ConnectionLimits(header_seconds=0.1, body_seconds=0.1, answer_seconds=0.1, idle_seconds=0.1)


@contextmanager
def serving(app, limits=SHORT, grace_seconds=10):
    """The server and its port, during the block."""
    started = threading.Event()
    server = running.Server(app, limits, grace_seconds=grace_seconds, on_start=started.set)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    thread = threading.Thread(target=running.run_server, args=(server, listener))
    thread.start()
    try:
        assert started.wait(WATCHDOG)
        yield server, listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(WATCHDOG)
        listener.close()
    assert not thread.is_alive()


@pytest.fixture(autouse=True)
def checks_often(monkeypatch):
    monkeypatch.setattr(running, "CHECK_SECONDS", 0.02)


@pytest.fixture(scope="module")
def app(model):
    return lambda **options: create_app(model, **options)


def connect(port):
    return socket.create_connection(("127.0.0.1", port), WATCHDOG)


def read_all(client):
    """Everything that the server sends until it closes the connection."""
    parts = []
    try:
        while part := client.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def status(answer):
    return int(answer.split(b" ", 2)[1])


def request(body=b"", path="/v1/embeddings", length=None, headers=b"Connection: close\r\n"):
    """The bytes of a POST request."""
    length = len(body) if length is None else length
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % (path.encode(), length)
    return head + headers + b"\r\n" + body


def asked(port, data):
    """The response to these bytes."""
    with connect(port) as client:
        client.sendall(data)
        return read_all(client)


GOOD = request(b'{"input": "deed"}')


def test_a_silent_connection_is_closed(app):
    with serving(app()) as (_, port), connect(port) as client:
        assert read_all(client) == b""


@pytest.mark.parametrize(
    "beginning", [b"POST /embed HTTP/1.1\r\nHost: x\r\nX: ", request(b"{", length=999)]
)
def test_a_slow_request_is_answered_with_408_and_closed(app, beginning):
    """The rest is sent byte by byte, which does not extend the time."""
    with serving(app()) as (_, port), connect(port) as client:
        client.sendall(beginning)
        stop = threading.Event()

        def trickle():
            while not stop.wait(0.01):
                try:
                    client.sendall(b"a")
                except OSError:
                    return

        thread = threading.Thread(target=trickle)
        thread.start()
        answer = read_all(client)
        stop.set()
        thread.join()
    assert status(answer) == 408
    assert b"was not received in" in answer


def test_a_connection_is_kept_for_the_next_request_for_a_limited_time(app):
    with serving(app()) as (_, port), connect(port) as client:
        for _ in range(2):
            client.sendall(request(b'{"input": "deed"}', headers=b""))
            answer = b""
            while not answer.endswith(b"}}"):
                answer += client.recv(65536)
            assert status(answer) == 200
        assert read_all(client) == b""


def test_a_client_that_does_not_read_the_response_is_closed(app):
    big = request(json.dumps({"input": ["a"] * 2048}).encode())
    with serving(app()) as (server, port), connect(port) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for _ in range(20):  # more than the kernel buffers
            client.sendall(big.replace(b"Connection: close\r\n", b""))
        wait_until(lambda: not server.server_state.connections)


def wait_until(condition):
    end = time.monotonic() + WATCHDOG
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize(
    "parts",
    [
        [b"X: " + b"a" * 70000],
        [b"X%d: " % i + b"a" * 1000 + b"\r\n" for i in range(70)],
        [b"X%d: " % i + b"a" * 1000 + b"\r\n" for i in range(70)] + [b"\r\n"],
    ],
    ids=["one without end", "many without end", "complete"],
)
def test_headers_over_64_kb_are_answered_with_431(app, parts):
    with serving(app()) as (_, port):
        answer = asked(port, b"POST /embed HTTP/1.1\r\nHost: x\r\n" + b"".join(parts))
        assert status(answer) == 431
        assert status(asked(port, GOOD)) == 200


def test_a_header_without_end_is_not_stored(app):
    """431 is sent although the client continues; further data is discarded."""
    with serving(app()) as (server, port), connect(port) as client:
        client.sendall(b"GET / HTTP/1.1\r\n" + b"X: " + b"a" * 100_000)
        wait_until(lambda: [c.state for c in server.server_state.connections] == ["closing"])
        for _ in range(20):
            client.sendall(b"a" * 100_000)
        (connection,) = server.server_state.connections
        assert connection._overhead < 500_000
        assert status(client.recv(100)) == 431


def test_a_client_that_resets_its_connection_does_not_affect_others(app):
    """The refusal cannot be sent."""
    with serving(app()) as (server, port):
        for beginning in (b"POST /embed HTTP/1.1\r\nX: ", request(b"a" * 50_000, length=60_000)):
            for _ in range(20):
                with connect(port) as client:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    client.sendall(beginning)
                    time.sleep(0.008)
        wait_until(lambda: not server.server_state.connections)
        assert status(asked(port, GOOD)) == 200


@pytest.mark.parametrize("tail", [b"0\r\n", b""], ids=["trailers", "tiny chunks"])
def test_the_overhead_of_a_chunked_body_is_bounded(app, tail):
    head = b"POST /embed HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    rest = b"X: " + b"a" * 80000 if tail else b"1\r\na\r\n" * 30000
    with serving(app()) as (_, port):
        assert status(asked(port, head + tail + rest)) == 431


def test_a_chunked_body_is_read(app):
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    body = json.dumps({"input": ["deed " * 15] * 2000}).encode()
    chunks = [body[i : i + 1000] for i in range(0, len(body), 1000)]
    data = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    with serving(app(), ConnectionLimits()) as (_, port):
        assert status(asked(port, head + data)) == 200


def test_invalid_http_is_answered_with_400_in_the_format_of_all_errors(app):
    with serving(app()) as (_, port):
        answer = asked(port, b"hello\r\n\r\n")
    assert status(answer) == 400
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"]


def test_beyond_the_limit_the_longest_waiting_connection_is_closed(app):
    limits = ConnectionLimits(connections=5)
    with serving(app(), limits) as (server, port):
        clients = [connect(port) for _ in range(5)]
        wait_until(lambda: len(server.server_state.connections) == 5)
        assert status(asked(port, GOOD)) == 200
        assert read_all(clients[0]) == b""
        for client in clients:
            client.close()


def test_idle_connections_do_not_exclude_new_clients(app):
    limits = ConnectionLimits(connections=20)
    with serving(app(), limits) as (server, port):
        clients = [connect(port) for _ in range(200)]
        assert status(asked(port, GOOD)) == 200
        assert len(server.server_state.connections) <= 20
        for client in clients:
            client.close()


def test_a_connection_waiting_for_the_model_is_not_closed_for_another(app, monkeypatch):
    go_on = threading.Event()
    run = Embedder.run
    monkeypatch.setattr(Embedder, "run", lambda *args: go_on.wait(WATCHDOG) and run(*args))
    limits = ConnectionLimits(connections=1)
    with serving(app(), limits) as (server, port), connect(port) as first:
        first.sendall(GOOD)
        wait_until(lambda: [c.state for c in server.server_state.connections] == ["answer"])
        assert status(asked(port, GOOD)) == 503
        go_on.set()
        assert status(read_all(first)) == 200


def test_no_connection_is_closed_whose_bytes_are_unread(app):
    limits = ConnectionLimits(connections=1)
    with serving(app(), limits) as (server, port), connect(port) as first:
        wait_until(lambda: len(server.server_state.connections) == 1)
        (waiting,) = server.server_state.connections
        # As in a busy event loop: the bytes have arrived, but are not read yet.
        waiting.loop.call_soon_threadsafe(waiting.transport.pause_reading)
        first.sendall(GOOD)
        wait_until(waiting.has_unread_bytes)
        refused = asked(port, GOOD)
        assert status(refused) == 503
        assert b"\r\nretry-after: 1\r\n" in refused.lower()
        waiting.loop.call_soon_threadsafe(waiting.transport.resume_reading)
        assert status(read_all(first)) == 200


def test_the_server_waits_for_a_pass_longer_than_any_deadline(app, monkeypatch):
    run = Embedder.run
    monkeypatch.setattr(Embedder, "run", lambda *args: (time.sleep(0.4), run(*args))[1])
    with serving(app()) as (_, port):
        assert status(asked(port, GOOD)) == 200


def test_stopping_waits_for_the_running_pass(app, monkeypatch):
    started, run = threading.Event(), Embedder.run

    def slow(*args):
        started.set()
        time.sleep(0.5)
        return run(*args)

    monkeypatch.setattr(Embedder, "run", slow)
    with (
        serving(app(), ConnectionLimits()) as (server, port),
        connect(port) as first,
        connect(port) as second,
    ):
        first.sendall(GOOD)
        assert started.wait(WATCHDOG)
        second.sendall(GOOD)
        wait_until(lambda: server._batcher.num_waiting == 1)
        server.should_exit = True
        assert status(read_all(second)) == 503
        assert status(read_all(first)) == 200


def test_stopping_does_not_wait_longer_than_the_grace(app, monkeypatch):
    go_on, started = threading.Event(), threading.Event()

    def stuck(_, items, *__):
        started.set()
        go_on.wait(WATCHDOG)
        return np.zeros((len(items), 20), np.float32), [1] * len(items)

    monkeypatch.setattr(Embedder, "run", stuck)
    with (
        serving(app(), ConnectionLimits(), grace_seconds=0.2) as (server, port),
        connect(port) as client,
    ):
        client.sendall(GOOD)
        assert started.wait(WATCHDOG)
        server.should_exit = True
        assert status(read_all(client)) == 503
    go_on.set()


def test_large_bodies_share_bounded_memory(app):
    """Two unfinished bodies fill it. Small requests continue, and closed connections free their part."""
    options = {"max_body_bytes": 200_000, "max_bytes_in_flight": 300_000}
    beginning = request(b"a" * 140_000, length=150_000)
    with serving(app(**options), ConnectionLimits()) as (_, port):
        clients = [connect(port) for _ in range(2)]
        for client in clients:
            client.sendall(beginning)
        time.sleep(0.2)
        answer = asked(port, request(json.dumps({"input": "a" * 140_000}).encode()))
        assert status(answer) == 429
        assert b"retry-after: 1" in answer
        assert status(asked(port, GOOD)) == 200
        for client in clients:
            client.close()
        end = time.monotonic() + WATCHDOG
        while status(asked(port, request(json.dumps({"input": "a" * 140_000}).encode()))) == 429:
            assert time.monotonic() < end


def test_a_response_that_would_not_fit_into_that_memory_is_refused(app):
    options = {"max_body_bytes": 100_000, "max_bytes_in_flight": 100_000}
    many = request(json.dumps({"input": ["a"] * 2048}).encode())  # a response of 500 KB
    with serving(app(**options), ConnectionLimits()) as (_, port):
        assert status(asked(port, many)) == 413
        assert status(asked(port, GOOD)) == 200


def test_a_long_body_does_not_delay_other_requests(app):
    """Some tenths of a second of JSON, which is read outside the event loop."""
    body = b'{"input": [[' + b"5," * 150_000 + b"5]]}"
    with serving(app(), ConnectionLimits()) as (_, port):
        answers = []
        thread = threading.Thread(target=lambda: answers.append(asked(port, request(body))))
        thread.start()
        health = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        meanwhile = 0
        while not answers:
            assert status(asked(port, health)) == 200
            meanwhile += 1
        thread.join()
        assert status(answers[0]) == 400
        assert meanwhile > 1


def test_a_trailing_slash_does_not_redirect(app):
    with serving(app()) as (_, port):
        head = b"POST /v1/embeddings/ HTTP/1.1\r\nHost: evil\r\nContent-Length: 0\r\n"
        answer = asked(port, head + b"Connection: close\r\n\r\n")
    assert status(answer) == 404
    assert b"evil" not in answer


def test_metrics_count_requests_and_texts(app, model):
    with serving(app()) as (_, port):
        asked(port, GOOD)
        asked(port, request(b"{"))
        answer = asked(
            port, b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        ).decode()
    num_tokens = len(model.pipeline.tokenizer(["deed"]).input_ids[0])
    for line in (
        'simdformer_requests_total{route="/v1/embeddings",status="200"} 1.0',
        'simdformer_requests_total{route="/v1/embeddings",status="400"} 1.0',
        'simdformer_request_seconds_count{route="/v1/embeddings"} 2.0',
        "simdformer_texts_total 1.0",
        f"simdformer_tokens_total {num_tokens}.0",
        "simdformer_texts_waiting 0.0",
        "simdformer_texts_running 0.0",
        "simdformer_large_bytes 0.0",
    ):
        assert line in answer.splitlines()
