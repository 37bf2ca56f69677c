# SPDX-License-Identifier: Apache-2.0
"""`simdformer serve`: embeddings and rankings over HTTP."""

from __future__ import annotations

import argparse
import os
import socket
from typing import TYPE_CHECKING

from simdformer.cli.errors import CliError, UsageError, say
from simdformer.cli.options import DEFAULT_MODEL, add_execution_arguments, positive_int

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from simdformer.cli.options import SubParsers

API_KEY_VARIABLE = "SIMDFORMER_API_KEY"

_EPILOG = f"""\
It answers OpenAI's /v1/embeddings and /v1/models, Cohere's and Jina's /v1/rerank (with --reranker),
and /health; docs/server.md says more. Ctrl-C or SIGTERM: what is being computed is answered, then it ends.

An API key is better given in the variable {API_KEY_VARIABLE}: arguments can be seen by others.

examples:
  simdformer serve
  simdformer serve ./minilm-int8 --host 0.0.0.0 --port 8000
  simdformer serve --reranker cross-encoder/ms-marco-MiniLM-L6-v2
"""

# How long answers may take to be sent after a signal.
_GRACE_SECONDS = 2


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
    _add_server_arguments(parser.add_argument_group("server"))
    parser.set_defaults(run=run, parser=parser)


def _add_model_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    parser.add_argument(
        "model",
        nargs="?",
        default=DEFAULT_MODEL,
        metavar="MODEL",
        help="what embeds: a model's folder or name (default: %(default)s)",
    )
    group.add_argument(
        "--reranker", metavar="M", help="what ranks: a cross-encoder's folder or name"
    )
    add_execution_arguments(group)


def _add_server_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--host", default="127.0.0.1", metavar="H", help="where to listen (default: %(default)s)"
    )
    group.add_argument(
        "--port",
        type=_port,
        default=8080,
        metavar="P",
        help="the port, 0 for any (default: %(default)s)",
    )
    group.add_argument(
        "--max-queue",
        type=positive_int,
        default=8192,
        metavar="N",
        help="texts that may wait; what comes then is told to try again (default: %(default)s)",
    )
    group.add_argument(
        "--max-client-batch",
        type=positive_int,
        default=2048,
        metavar="N",
        help="texts that a request may have (default: %(default)s)",
    )
    group.add_argument(
        "--api-key",
        metavar="KEY",
        help=f"what requests must carry as a bearer token (default: {API_KEY_VARIABLE}, else none)",
    )


def run(args: argparse.Namespace) -> None:
    """Load, listen, serve until a signal comes."""
    if args.max_queue < args.max_client_batch:
        raise UsageError(
            f"--max-queue must be at least --max-client-batch ({args.max_client_batch})"
        )
    api_key = os.environ.get(API_KEY_VARIABLE) if args.api_key is None else args.api_key
    if api_key == "":
        raise UsageError(f"--api-key and {API_KEY_VARIABLE} must not be empty")
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise CliError(
            "serve needs starlette and uvicorn (pip install 'simdformer[server]')"
        ) from error
    # Before the models are loaded, which takes longer; connections are taken after that.
    with _bound(args.host, args.port) as listener:
        _serve(_application(args, api_key), listener)


def _application(args: argparse.Namespace, api_key: str | None) -> Starlette:
    from simdformer.cli.embedding import load_cross_encoder, load_model
    from simdformer.server import create_app

    model = load_model(args)
    reranker = None
    if args.reranker is not None:
        reranker = load_cross_encoder(argparse.Namespace(**{**vars(args), "model": args.reranker}))
    try:
        return create_app(
            model,
            reranker,
            max_queue=args.max_queue,
            max_client_batch=args.max_client_batch,
            api_key=api_key,
        )
    except ValueError as error:
        raise CliError(f"{args.reranker}: {error}") from error


def _bound(host: str, port: int) -> socket.socket:
    """A socket at the address, not listening yet. CliError says why there is none."""
    listener = None
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise CliError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listener


def _serve(app: Starlette, listener: socket.socket) -> None:
    import uvicorn

    host, port = listener.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            say(f"serving on {address}")

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            # First of all: what waits is refused at once, or uvicorn would wait for all of it.
            app.state.batcher.stop()
            await super().shutdown(sockets)

    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="error",  # not a line for whatever knocks at the port
        access_log=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    server = Server(config)
    try:
        server.run([listener])
    except KeyboardInterrupt:
        # uvicorn sends itself the signal once more when all is done; to be told to stop is a
        # server's ordinary end.
        if not server.started:
            raise


def _port(text: str) -> int:
    """An argparse type: a TCP port, or 0."""
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"expected a port, 0 to 65535, got {value}")
    return value
