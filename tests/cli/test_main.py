"""The command line as a whole: its help, errors in one line, completion by a shell."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from simdformer.cli import main
from simdformer.cli.errors import one_line
from tests.support import ROOT

COMMANDS = ["embed", "search", "rerank", "explain", "info", "quantize", "serve"]


def test_alone_it_prints_the_help(capsys):
    assert main([]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert all(f"    {name} " in shown.out for name in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "program"),
    [
        (["no-such-command"], "simdformer"),
        (["--no-such-option"], "simdformer"),
        (["embed"], "simdformer embed"),
        (["embed", "a.txt", "-o", "a.npy", "--overlap", "2"], "simdformer embed"),
        (["search", "x", "--in", "a.txt", "--top", "0"], "simdformer search"),
        (["serve", "--port", "no"], "simdformer serve"),
    ],
    ids=str,
)
def test_wrong_usage_is_one_line_that_names_the_help(capsys, arguments, program):
    with pytest.raises(SystemExit) as leaving:
        main(arguments)
    assert leaving.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"{program}: error: ")
    assert said.endswith(f"(see {program} --help)\n")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["info", "no-such-model"],
        ["embed", "in.txt", "-o", "a.npy", "--model", "no-such-model"],
        ["embed", "no-such-file.txt", "-o", "a.npy"],
        ["embed", "in.txt", "-o", "no-such-folder/a.npy"],
        ["search", "x", "--in", "in.txt", "--model", "in.txt"],
        ["quantize", "no-such-model", "-o", "q"],
        ["explain", "x", "--model", "no-such-model", "-o", "a.html"],
    ],
    ids=str,
)
def test_a_failure_is_one_line(tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "in.txt").write_text("A cat.\n")
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert said.startswith("simdformer: error: ")
    assert said.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="there it cannot be deleted")
def test_a_deleted_working_directory_is_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(["embed", str(tmp_path / "a.txt"), "-o", "a.npy"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("simdformer: error: ")


def test_memory_that_runs_out_is_one_line(monkeypatch, capsys):
    def run(_name):
        raise MemoryError("of 8 GB")

    monkeypatch.setattr("simdformer.cli.info.describe_model", run)
    assert main(["info", "x"]) == 1
    assert capsys.readouterr().err == "simdformer: error: out of memory: of 8 GB\n"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("one", "one"),
        ("", ""),
        (
            "no model; looked for:\n  a folder: none\n  the hub",
            "no model; looked for: a folder: none; the hub",
        ),
    ],
)
def test_lines_of_a_message_are_joined(message, expected):
    assert one_line(message) == expected


# A shell sets these variables to ask for completions (protocol of argcomplete). The answer goes to descriptor
# 8.
ASK = """
import os, sys
os.dup2(1, 8)
os.environ.update(_ARGCOMPLETE="1", COMP_LINE=sys.argv[1], COMP_POINT=str(len(sys.argv[1])), IFS="\\n")
from simdformer.cli import main
sys.exit(main([]))
"""


def completions(line, **environment):
    done = subprocess.run(
        [sys.executable, "-c", ASK, line],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), **environment},
        capture_output=True,
        check=True,
    )
    return [word.rstrip() for word in done.stdout.decode().replace("\v", "\n").splitlines()]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("simdformer se", {"search", "serve"}),
        ("simdformer embed --chu", {"--chunk"}),
        ("simdformer embed a.txt --compute-type b", {"bfloat16"}),
        ("simdformer search x --em", {"--embeddings"}),
    ],
)
def test_a_shell_is_told_commands_options_and_choices(line, expected):
    pytest.importorskip("argcomplete")
    assert set(completions(line)) == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_a_command_by_the_documented_setup(tmp_path, shell):
    pytest.importorskip("argcomplete")
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    (tmp_path / "simdformer").write_text(
        f"#!{sys.executable}\nfrom simdformer_command import entry_point\nentry_point()\n"
    )
    (tmp_path / "simdformer").chmod(0o755)
    environment = {
        **os.environ,
        "PATH": os.pathsep.join(
            [str(tmp_path), str(Path(sys.executable).parent), os.environ["PATH"]]
        ),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
        "HOME": str(tmp_path),
    }
    done = subprocess.run(
        [shell, "-c", textwrap.dedent(SHELLS[shell])],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert {word.split("\t")[0].strip() for word in done.stdout.split("\n") if word} == {
        "search",
        "serve",
    }, done.stderr


# The line that users add to the start file of their shell, and then a press of the Tab key.
SHELLS = {
    "bash": """
        eval "$(register-python-argcomplete simdformer)"
        COMP_LINE="simdformer se" COMP_POINT=13 COMP_WORDS=(simdformer se) COMP_CWORD=1 COMP_TYPE=9
        _python_argcomplete simdformer se simdformer
        printf '%s\\n' "${COMPREPLY[@]}"
    """,
    "zsh": """
        autoload -U +X compinit && compinit -u
        _describe() { print -l -- ${(P)2%%:*} }
        eval "$(register-python-argcomplete simdformer)"
        words=(simdformer se) CURRENT=2 BUFFER="simdformer se" CURSOR=13 service=simdformer
        _python_argcomplete
    """,
    "fish": """
        register-python-argcomplete --shell fish simdformer | source
        complete -C "simdformer se"
    """,
}
