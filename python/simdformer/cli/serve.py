# SPDX-License-Identifier: Apache-2.0
"""`simdformer serve`: embeddings and rankings over HTTP."""

from __future__ import annotations

import argparse
import ipaddress
import os
import socket
import sys
from typing import TYPE_CHECKING

from simdformer.cli import signals
from simdformer.cli.errors import CliError, UsageError, reported, say
from simdformer.cli.options import DEFAULT_MODEL, add_execution_arguments, positive_int

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from simdformer.cli.options import SubParsers

API_KEY_VARIABLE = "SIMDFORMER_API_KEY"

_EPILOG = f"""\
It answers the clients of OpenAI, Hugging Face's Text Embeddings Inference, Cohere, Jina, vLLM and Ollama;
/docs lists the routes, see also docs/server.md. After Ctrl-C or SIGTERM running requests are answered, then it exits.

With --model, which may be repeated, several models are served; the folder says of what kind each is.
A request without a model's name is answered by the first model that can.

Prefer to pass an API key in the variable {API_KEY_VARIABLE}: other users can see arguments.

examples:
  simdformer serve
  simdformer serve ./minilm-int8 --host 0.0.0.0 --port 8000
  simdformer serve --reranker cross-encoder/ms-marco-MiniLM-L6-v2
  simdformer serve --model small=all-MiniLM-L6-v2 --model sparse=./splade --model rank=./reranker
"""


def add_parser(commands: SubParsers) -> None:
    """Add the subcommand and its arguments."""
    parser = commands.add_parser(
        "serve",
        help="answer requests for embeddings and rankings over HTTP",
        description="Answer requests for embeddings and rankings over HTTP.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_model_arguments(parser)
    group = parser.add_argument_group("server")
    _add_access_arguments(group)
    _add_limit_arguments(group)
    parser.set_defaults(run=run, parser=parser)


def _add_model_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help=f"folder or name of the embedding model (default: {DEFAULT_MODEL}; none with --model)",
    )
    group.add_argument(
        "--model",
        dest="models",
        action="append",
        type=_named_model,
        default=[],
        metavar="NAME=M",
        help="serve the model M, a folder or a name, under NAME; may be repeated",
    )
    group.add_argument(
        "--reranker", metavar="M", help="folder or name of a cross-encoder for rankings"
    )
    add_execution_arguments(group)


def _add_access_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="H",
        help="address to listen on (default: %(default)s)",
    )
    group.add_argument(
        "--port",
        type=_port,
        default=8080,
        metavar="P",
        help="port, 0 for any free one (default: %(default)s)",
    )
    group.add_argument(
        "--api-key",
        metavar="KEY",
        help=f"bearer token that requests must send (default: {API_KEY_VARIABLE}, else none)",
    )
    group.add_argument(
        "--cors-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="let web pages of this origin send requests, * for all; may be repeated (default: none)",
    )


def _add_limit_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--max-queue",
        type=positive_int,
        default=8192,
        metavar="N",
        help="texts that may wait; further requests are told to retry (default: %(default)s)",
    )
    group.add_argument(
        "--max-wait",
        type=positive_int,
        default=10,
        metavar="S",
        help="seconds of work that may wait; further requests are told to retry (default: %(default)s)",
    )
    group.add_argument(
        "--max-connections",
        type=positive_int,
        default=1024,
        metavar="N",
        help="open connections; beyond this an idle one is closed (default: %(default)s)",
    )
    group.add_argument(
        "--grace",
        type=positive_int,
        default=30,
        metavar="S",
        help="seconds for running requests after a signal (default: %(default)s)",
    )
    group.add_argument(
        "--max-client-batch",
        type=positive_int,
        default=2048,
        metavar="N",
        help="texts per request (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> None:
    """Load, listen, and serve until a signal arrives."""
    if args.max_queue < args.max_client_batch:
        raise UsageError(
            f"--max-queue must be at least --max-client-batch ({args.max_client_batch})"
        )
    api_key = os.environ.get(API_KEY_VARIABLE) if args.api_key is None else args.api_key
    try:
        import httptools  # noqa: F401
        import prometheus_client  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise CliError(f"serve needs {error.name} (pip install 'simdformer[server]')") from error
    from simdformer.server import checked_key

    try:
        checked_key(api_key)
    except ValueError as error:
        raise UsageError(f"--api-key and {API_KEY_VARIABLE}: {error}") from error
    # The address is bound before the models are loaded, which takes longer. Connections are accepted
    # afterwards.
    with _bound(args.host, args.port) as listener:
        host, port = listener.getsockname()[:2]
        if api_key is None and not ipaddress.ip_address(host).is_loopback:
            say(
                f"warning: without an API key everyone who can reach {host}:{port} can use the models"
            )
        _serve(args, _application(args, api_key), listener)


def _application(args: argparse.Namespace, api_key: str | None) -> Starlette:
    from simdformer.cli.embedding import load_any, load_cross_encoder, load_model
    from simdformer.server import create_app

    def named(model: str) -> argparse.Namespace:
        return argparse.Namespace(**{**vars(args), "model": model})

    alone = args.model or (None if args.models else DEFAULT_MODEL)
    with reported():
        return create_app(
            None if alone is None else load_model(named(alone)),
            None if args.reranker is None else load_cross_encoder(named(args.reranker)),
            models={name: load_any(named(model)) for name, model in _unique(args.models)},
            max_queue=args.max_queue,
            max_wait=args.max_wait,
            max_client_batch=args.max_client_batch,
            api_key=api_key,
            cors_origins=args.cors_origin,
        )


def _unique(models: list[tuple[str, str]]) -> list[tuple[str, str]]:
    names = [name for name, _ in models]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"--model gives the name {twice[0]!r} twice")
    return models


def _bound(host: str, port: int) -> socket.socket:
    """A socket bound to the address, not listening yet. CliError with the reason if the address cannot be
    used."""
    listener = None
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        # With SO_REUSEADDR, several servers could use the same port on Windows.
        option = socket.SO_REUSEADDR
        if sys.platform == "win32":
            option = socket.SO_EXCLUSIVEADDRUSE
        listener.setsockopt(socket.SOL_SOCKET, option, 1)
        listener.bind(address)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise CliError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listener


def _serve(args: argparse.Namespace, app: Starlette, listener: socket.socket) -> None:
    from simdformer.server.connections import ConnectionLimits
    from simdformer.server.running import Server, run_server

    host, port = listener.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    server = Server(
        app,
        ConnectionLimits(connections=args.max_connections),
        grace_seconds=args.grace,
        on_start=lambda: say(f"serving on {address}"),
        on_stop=signals.stopping,
    )
    try:
        run_server(server, listener)
    except OSError as error:
        if server.started:
            raise
        # Another server bound the same port in the meantime.
        raise CliError(f"cannot listen on {host}:{port}: {error.strerror}") from error


def _named_model(text: str) -> tuple[str, str]:
    """An argparse type: NAME=M."""
    name, _, model = text.partition("=")
    if not name or not model:
        raise argparse.ArgumentTypeError(f"expected NAME=M, got {text!r}")
    return name, model


def _port(text: str) -> int:
    """An argparse type: a TCP port, or 0."""
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"expected a port, 0 to 65535, got {value}")
    return value
