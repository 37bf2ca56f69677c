"""The command as a process: signals, closed pipes, full disks. Every wait has a timeout."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from tests.support import ROOT

# Much more work than can be finished during these tests.
ENDLESS = "the quick brown fox jumps over the lazy dog and runs on\n" * 400_000
WATCHDOG = 60
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "endless.txt"
    path.write_text(ENDLESS)
    return str(path)


@contextmanager
def simdformer(*arguments, stdout=subprocess.DEVNULL, **options):
    """The running command. It is killed if it outlives the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "simdformer.cli", *arguments],
        env=ENVIRONMENT,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_temporary(folder):
    """Wait until vectors are written: the temporary file exists and is larger than a header."""
    deadline = time.monotonic() + WATCHDOG
    while not any(f.stat().st_size > 1000 for f in folder.glob(".out.npy.*.tmp")):
        assert time.monotonic() < deadline, "no vector was written"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("number", "code", "message"),
    [(signal.SIGINT, 130, "simdformer: interrupted\n"), (signal.SIGTERM, 143, "")],
)
def test_a_signal_ends_it_and_leaves_no_files(tmp_path, endless, number, code, message):
    (tmp_path / "out.npy").write_bytes(b"old")
    with simdformer("embed", endless, "-o", str(tmp_path / "out.npy")) as process:
        wait_for_temporary(tmp_path)
        process.send_signal(number)
        assert process.wait(WATCHDOG) == code
        assert process.stderr.read() == message
    assert (tmp_path / "out.npy").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out.npy"]


def test_ctrl_c_ends_it_while_it_waits_for_standard_input(tmp_path):
    with simdformer(
        "embed", "-", "-o", str(tmp_path / "out.npy"), stdin=subprocess.PIPE
    ) as process:
        deadline = time.monotonic() + WATCHDOG
        while not os.listdir(tmp_path):
            assert time.monotonic() < deadline, "it did not open its output"
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert process.wait(WATCHDOG) == 130
        assert process.stderr.read() == "simdformer: interrupted\n"
    assert os.listdir(tmp_path) == []


LOST_SIGNAL = """
import os, sys, weakref
from simdformer.cli import embedding, entry_point

number = int(sys.argv.pop(1))

class Lock:
    pass

def callback(_):
    os.kill(os.getpid(), number)
    for _ in range(10_000):
        pass  # here the signal's handler raises, and Python ignores it

def load_model(args, load=embedding.load_model):
    lock = Lock()
    reference = weakref.ref(lock, callback)
    del lock
    return load(args)

embedding.load_model = load_model
entry_point()
"""


SWALLOWED_SIGNAL = """
import os, signal, sys, time
from simdformer.cli import embedding, entry_point

number = int(sys.argv.pop(1))

def load_model(args, load=embedding.load_model):
    try:
        os.kill(os.getpid(), number)
        time.sleep(60)
    except KeyboardInterrupt:
        pass  # as a library might
    return load(args)

embedding.load_model = load_model
entry_point()
"""


@pytest.mark.parametrize("program", [LOST_SIGNAL, SWALLOWED_SIGNAL])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_that_other_code_swallowed_still_ends_it(tmp_path, program, number, code):
    arguments = [str(int(number)), "embed", "-", "-o", str(tmp_path / "out.npy")]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        try:
            assert process.wait(WATCHDOG) == code
        finally:
            process.kill()
    assert os.listdir(tmp_path) == []


def test_a_closed_pipe_ends_it_quietly(endless):
    with simdformer("embed", endless, "-o", "-", stdout=subprocess.PIPE) as process:
        assert process.stdout.readline().startswith('{"line": 1, ')
        process.stdout.close()
        assert process.wait(WATCHDOG) == 141
        assert process.stderr.read() == ""


@pytest.mark.parametrize("command", [["embed", "-", "-o", "-"], ["search", "x", "--in", "-"]])
def test_a_full_standard_output_is_reported(command):
    with open("/dev/full", "w") as full, open("/dev/null") as nothing:  # noqa: PTH123
        text = subprocess.PIPE if command[0] == "embed" else nothing
        with simdformer(*command, stdin=text, stdout=full) as process:
            if process.stdin:
                process.stdin.write("a text\n")
                process.stdin.close()
            assert process.wait(WATCHDOG) == 1
            assert process.stderr.read() == (
                "simdformer: error: cannot write to standard output: No space left on device\n"
            )


def test_a_file_at_its_size_limit_is_reported_and_removed(tmp_path, endless):
    """RLIMIT_FSIZE makes a write fail in the middle, as on a full disk."""
    (tmp_path / "out.npy").write_bytes(b"old")
    with simdformer(
        "embed",
        endless,
        "-o",
        str(tmp_path / "out.npy"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    ) as process:
        assert process.wait(WATCHDOG) == 1
        shown = process.stderr.read()
    assert shown.startswith(f"simdformer: error: cannot write {tmp_path}/out.npy: File too large (")
    assert (tmp_path / "out.npy").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out.npy"]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_input(tmp_path):
    """100,000 texts, including whole batches of long ones, need the weights and at most 300 MB, including the
    interpreter."""
    long = "some words that fill a whole batch up to its limit of tokens " * 30
    lines = [long] * 200 + [f"line {i}" for i in range(99_800)]
    (tmp_path / "in.txt").write_text("\n".join(lines))
    # Started by a small intermediate process, because the peak of a child starts with the size of its parent,
    # and this process may have grown in earlier tests.
    code = (
        "import resource, subprocess, sys\n"
        "subprocess.run([sys.executable, '-m', 'simdformer.cli', *sys.argv[1:]], check=True)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )
    peak = subprocess.run(
        [sys.executable, "-c", code, "embed", tmp_path / "in.txt", "-o", tmp_path / "out.npy"],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    assert int(peak) * 1024 < 91e6 + 300e6
