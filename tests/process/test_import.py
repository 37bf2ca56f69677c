"""Importing and computing do not change the process: threads, modules, signals, rounding."""

from __future__ import annotations

import pytest

from tests.support import output_of

# Dependencies are imported first, so that only the library's own effects are tested.
PROLOGUE = """
import os, sys, threading
from pathlib import Path
import numpy, safetensors, tokenizers, tqdm

# With a process's first thread the C library sets a handler of its own (SIGSETXID).
thread = threading.Thread(target=int)
thread.start()
thread.join()

def threads():
    return set(os.listdir("/proc/self/task"))  # ids: the one above may still be leaving

def status(*keys):
    lines = Path("/proc/self/status").read_text().splitlines()
    return [line for line in lines if line.partition(":")[0] in keys]
"""

COMPUTE = """
from tests.support.tiny_bert import native_encoder, random_batch
native_encoder().encode(*random_batch([30] * 50), num_threads=2)
"""


def test_import_starts_no_thread():
    code = PROLOGUE + "before = threads()\nimport simdformer\nprint(len(threads() - before))"
    assert output_of(code) == "0"


@pytest.mark.parametrize(
    "module",
    ["torch", "transformers", "sentence_transformers", "huggingface_hub", "onnxruntime", "scipy"],
)
def test_import_does_not_import(module):
    code = "import sys, simdformer, simdformer.functional, simdformer.nn, simdformer.generation\n"
    assert output_of(f"{code}print({module!r} in sys.modules)") == "False"


@pytest.mark.parametrize("module", ["argparse", "simdformer.explain"])
def test_import_does_not_import_rarely_needed_modules(module):
    assert output_of(f"import sys, simdformer\nprint({module!r} in sys.modules)") == "False"


@pytest.mark.parametrize("work", ["import simdformer", COMPUTE], ids=["import", "compute"])
def test_denormals_stay_enabled_after(work):
    # A shared object built with -ffast-math would disable them for the whole process.
    code = PROLOGUE + work + "\nprint(sys.float_info.min / 2 > 0)"
    assert output_of(code) == "True"


@pytest.mark.parametrize("work", ["import simdformer", COMPUTE], ids=["import", "compute"])
def test_signal_handlers_are_unchanged_after(work):
    # SigCgt and the others are the kernel's bit masks, which include handlers set by C code.
    keys = "'SigBlk', 'SigIgn', 'SigCgt'"
    code = (
        PROLOGUE + f"before = status({keys})\n{work}\nprint(before == status({keys}), len(before))"
    )
    assert output_of(code) == "True 3"


@pytest.mark.parametrize("work", ["import simdformer", COMPUTE], ids=["import", "compute"])
def test_affinity_and_directory_are_unchanged_after(work):
    state = "(os.sched_getaffinity(0), os.getcwd(), dict(os.environ))"
    code = PROLOGUE + f"before = {state}\n{work}\nprint(before == {state})"
    assert output_of(code) == "True"


@pytest.mark.parametrize("work", ["import simdformer", COMPUTE], ids=["import", "compute"])
def test_nothing_is_printed_by(work):
    assert output_of(f"import os\nos.dup2(1, 2)\n{work}") == ""


def test_every_name_in_all_is_there():
    code = "import simdformer\nprint(all(hasattr(simdformer, n) for n in simdformer.__all__))"
    assert output_of(code) == "True"


def test_the_older_name_of_util_warns_and_gives_the_same_function():
    code = (
        "import warnings\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    from simdformer.quantization import quantize_embeddings\n"
        "import simdformer.util\n"
        "[warning] = caught\n"
        "print(quantize_embeddings is simdformer.util.quantize_embeddings,"
        " warning.category.__name__, warning.filename, 'simdformer.util' in str(warning.message))"
    )
    assert output_of(code) == "True DeprecationWarning <string> True"


@pytest.mark.parametrize("name", ["SentenceTransformer", "quantize_embeddings"])
def test_what_is_at_the_top_does_not_import_the_older_name(name):
    code = f"import sys, simdformer\nsimdformer.{name}\nprint('simdformer.quantization' in sys.modules)"
    assert output_of(code) == "False"
