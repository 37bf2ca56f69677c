"""The interpreter exits while threads are in native code, ours or that of tokenizers."""

from __future__ import annotations

import sys

import pytest

from tests.support import output_of, run_python
from tests.support.model_fixtures import write_model

FOREVER = """
import atexit, os, sys, threading, time
from simdformer import SentenceTransformer

model = SentenceTransformer(sys.argv[1])
tokenizer = model.pipeline.tokenizer
texts = ["the quick brown fox jumps over the lazy dog " * 40] * 64
busy = {"compute": lambda: model.encode(texts[:16]), "tokenize": lambda: tokenizer(texts)}

def forever(work):
    while True:
        work()

for name in sys.argv[3:]:
    threading.Thread(target=forever, args=[busy[name]], daemon=True).start()
time.sleep(float(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(write_model(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.mark.parametrize("work", [["compute"] * 3, ["tokenize"] * 2, ["compute", "tokenize"]])
@pytest.mark.parametrize("seconds", ["0.03", "0.1"])
def test_a_process_ends_while_threads_are_in_native_code(folder, work, seconds):
    done = run_python(FOREVER + "print('done')", folder, seconds, *work)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_atexit_functions_may_compute(folder):
    code = FOREVER + "atexit.register(lambda: print(model.encode(texts[0]).shape))"
    assert output_of(code, folder, "0.05", "compute", "tokenize") == "(20,)"


def test_a_forked_child_exits_although_it_lacks_the_parents_threads(folder):
    code = """
pid = os.fork()
if pid == 0:
    model.encode("a cab")
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    assert output_of(FOREVER + code, folder, "0.05", "compute", timeout=30) == "7"


def test_a_subinterpreter_is_refused_by_name():
    name = "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
    pytest.importorskip(name)
    inner = "import sys; sys.path[:] = {sys.path!r}; import simdformer._core"
    code = f"import sys, {name} as interpreters\n"
    code += f"print(interpreters.run_string(interpreters.create(), f{inner!r}))"
    done = run_python(code, timeout=30)
    assert "ImportError" in done.stderr + done.stdout
