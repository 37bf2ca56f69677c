"""Code blocks of Markdown pages: found, run in order, their output compared."""

from __future__ import annotations

import doctest
import io
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from simdformer.cli import main
from tests.support import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# What nobody can run: directives of Sphinx, output, and text that is laid out by hand.
SHOWN = {"output", "text", "json"}
_RAISED = re.compile(r"\w+Error: ")
COMMENT = re.compile(r"<!-- (not run|run by|needs): (.+?) -->")


@dataclass(frozen=True)
class Block:
    """A fenced block, its language, and the comment on the line above it, such as `not run: why`."""

    language: str
    code: str
    line: int
    comment: tuple[str, str] | None

    @property
    def runs(self) -> bool:
        return self.comment is None and self.language in {"python", "sh"}


def blocks(page: Path) -> list[Block]:
    lines = page.read_text(encoding="utf-8").splitlines()
    found, start, above = [], None, ""
    for number, line in enumerate(lines, 1):
        if start is None and line.startswith("```"):
            start, language = number, line.strip("`").strip()
        elif start is not None and line.startswith("```"):
            code = "".join(f"{text}\n" for text in lines[start : number - 1])
            comment = COMMENT.fullmatch(above)
            found.append(Block(language, code, start, comment.groups() if comment else None))
            start = None
        if line and start is None:
            above = line
    assert start is None, f"{page.name}:{start}: the block has no end"
    return found


def run(page: Path, *, path: str, package: str | None = None) -> int:
    """Run a page's blocks in one namespace, in the current folder; how many ran.

    An `output` block is what the block before it prints, with `...` for anything. `path` is where
    the shell finds `python`. `package` is a package: blocks that need it run too.
    """
    names: dict[str, object] = {"__name__": page.stem}
    printed, ran = None, 0
    all_blocks = blocks(page)
    for block, following in zip(all_blocks, [*all_blocks[1:], None], strict=True):
        where = f"{page.name}:{block.line}"
        if block.language == "output" and printed is not None:
            flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            same = doctest.OutputChecker().check_output(block.code, printed, flags)
            assert same, f"{where}: expected\n{block.code}\ngot\n{printed}"
            continue
        if not (block.runs or (package and block.comment == ("needs", package))):
            printed = None
            continue
        ran += 1
        out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
        with redirect_stdout(out):
            if block.language == "python":
                code = compile("\n" * block.line + block.code, str(page), "exec")
                may_raise = following is not None and _RAISED.match(following.code)
                with _printed_error() if may_raise else nullcontext():
                    exec(code, names)  # noqa: S102
            else:
                for line in block.code.splitlines():
                    _run_command(line, where, path)
        printed = out.buffer.getvalue().decode()
    return ran


@contextmanager
def _printed_error() -> Iterator[None]:
    """An error as the last line of a traceback shows it."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  (whatever the page shows)
        print(f"{type(error).__name__}: {error}")


def _run_command(line: str, where: str, path: str) -> None:
    """Run a line of a shell: our own program in this process, which saves its imports."""
    program, *arguments = shlex.split(line)
    if program == "simdformer":
        assert main(arguments) == 0, where
        return
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", line],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{where}: {done.stderr}"
    print(done.stdout)
