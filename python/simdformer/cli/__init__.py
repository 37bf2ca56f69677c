# SPDX-License-Identifier: Apache-2.0
"""The `simdformer` command: embed, search, rerank and classify texts, explain
vectors, inspect, quantize, export and serve models.

Exit codes: 0 success; 1 failure (one line on standard error has the reason); 2 wrong usage; 130 stopped by
Ctrl-C; 141 standard output was closed; 143 stopped by SIGTERM. A server that is stopped exits with 0.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import warnings
from typing import TYPE_CHECKING, NoReturn, TextIO

from simdformer.cli import (
    classify,
    embed,
    explain,
    export,
    info,
    quantize,
    rerank,
    search,
    serve,
    signals,
)
from simdformer.cli.errors import CliError, UsageError, one_line, say

if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_FAILURE = 1
EXIT_INTERRUPTED = 128 + signal.SIGINT
EXIT_BROKEN_PIPE = 128 + getattr(signal, "SIGPIPE", 13)  # Windows has no such signal
EXIT_TERMINATED = 128 + signal.SIGTERM

# Python hides this warning by default. Interrupting an import leaves a file open, which causes a
# ResourceWarning.
_FOR_DEVELOPERS = (
    DeprecationWarning,
    PendingDeprecationWarning,
    ImportWarning,
    ResourceWarning,
)

_EPILOG = """\
examples:
  simdformer embed docs.txt -o docs.npy
  simdformer search "open a file" --in docs.txt
  simdformer rerank "open a file" --in docs.txt --model cross-encoder/ms-marco-MiniLM-L6-v2
  simdformer classify reviews.txt --model distilbert-base-uncased-finetuned-sst-2-english
  simdformer explain "A cat sleeps." "A kitten naps." -o report.html
  simdformer info all-MiniLM-L6-v2
  simdformer quantize all-MiniLM-L6-v2 -o minilm-int8
  simdformer export all-MiniLM-L6-v2 -o minilm.simdformer
  simdformer serve all-MiniLM-L6-v2

See `simdformer COMMAND --help` for details.
"""


class _VersionAction(argparse.Action):
    """Print the version, which is only read when needed."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from simdformer import __version__

        print(f"simdformer {__version__}")
        parser.exit()


class _Parser(argparse.ArgumentParser):
    """Reports wrong usage in one line, without the list of all options."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {one_line(message)} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """The command line parser; each subcommand's module adds its part."""
    parser = _Parser(
        prog="simdformer",
        description="Sentence embeddings, reranking and classification on CPUs.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action=_VersionAction, nargs=0, help="show the version and exit"
    )
    parser.set_defaults(run=lambda _args: parser.print_help())
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in (embed, search, rerank, classify, explain, info, quantize, export, serve):
        command.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: sys.argv[1:]) and return its exit code. Without a command it
    prints the help.

    argparse raises SystemExit as usual (2 for wrong usage, 0 after --help).
    """
    parser = build_parser()
    if "_ARGCOMPLETE" in os.environ:
        _complete(parser)
    args = parser.parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            for category in _FOR_DEVELOPERS:
                warnings.simplefilter("ignore", category)
            # embed, search, rerank and classify report these at the end; serve truncates without a warning
            warnings.filterwarnings("ignore", message="texts longer than max_seq_length")
            warnings.showwarning = _show_warning
            args.run(args)
            sys.stdout.flush()
    except UsageError as error:
        args.parser.error(str(error))
    except BrokenPipeError:
        return EXIT_BROKEN_PIPE
    except (CliError, OSError) as error:  # OSError: such as a working directory that was deleted
        say(f"error: {one_line(error)}")
        return EXIT_FAILURE
    except KeyboardInterrupt as error:
        return _stopped_by(error)
    except RuntimeError as error:
        # before 3.12, Python raises this instead if the signal arrives while an import creates a class
        if not isinstance(error.__cause__, KeyboardInterrupt):
            raise
        return _stopped_by(error.__cause__)
    except MemoryError as error:
        say(f"error: out of memory{': ' if str(error) else ''}{one_line(error)}")
        return EXIT_FAILURE
    return 0


def _complete(parser: argparse.ArgumentParser) -> None:
    """Answer a shell that completes a command line, and exit; argcomplete made the shell ask."""
    try:
        import argcomplete
    except ImportError:
        return
    argcomplete.autocomplete(parser)


def entry_point() -> NoReturn:
    """The console script: main() as a process of its own."""
    signals.watch()
    code = main()
    if code == 0:
        sys.exit(0)
    # not sys.exit: it waits for threads, and reports a closed standard output a second time
    sys.stderr.flush()
    os._exit(code)


def _stopped_by(error: KeyboardInterrupt) -> int:
    signals.stopping()
    if isinstance(error, signals.Terminated):
        return EXIT_TERMINATED
    say("interrupted")
    return EXIT_INTERRUPTED


def _show_warning(
    message: Warning | str,
    category: type[Warning],  # noqa: ARG001
    filename: str,  # noqa: ARG001
    lineno: int,  # noqa: ARG001
    file: TextIO | None = None,  # noqa: ARG001
    line: str | None = None,  # noqa: ARG001
) -> None:
    """warnings.showwarning without the source line of the library."""
    say(f"warning: {one_line(message)}")
