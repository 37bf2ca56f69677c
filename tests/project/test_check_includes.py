"""tools/check_includes.py accepts this tree and detects each kind of violation."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support import ROOT


def check(root):
    script = ROOT / "tools" / "check_includes.py"
    return subprocess.run(
        [sys.executable, script, root], capture_output=True, text=True, check=False
    )


def test_this_tree_has_no_violations():
    done = check(ROOT)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


VIOLATIONS = {
    "simd knows kernels": ("cpp/simd/vec.h", '#include "kernels/kernels.h"', "kernels/kernels.h"),
    "kernels know layers": ("cpp/kernels/a.inl.h", '#include "layers/norm.h"', "layers/norm.h"),
    "kernels know base": ("cpp/kernels/a.inl.h", '  # include  "base/check.h"', "base/check.h"),
    "a header of std in a kernel": ("cpp/kernels/a.inl.h", "#include <algorithm>", "<algorithm>"),
    "a name of std in a kernel": ("cpp/kernels/a.inl.h", "size_t n = std::min(a, b);", "std::"),
    "std in an ISA object": ("cpp/isa/avx2.cpp", "#include <vector>", "<vector>"),
    "base in an ISA object": ("cpp/isa/avx2.cpp", '#include "base/buffer.h"', "base/buffer.h"),
    "layers know a kernel": (
        "cpp/layers/linear.cpp",
        '#include "kernels/gemm.inl.h"',
        "kernels/gemm.inl.h",
    ),
    "layers know Python": ("cpp/layers/linear.cpp", '#include "bindings/numpy.h"', "numpy.h"),
    "OpenMP in a layer": ("cpp/layers/linear.cpp", "#pragma omp parallel for", "threads"),
    "a thread in a layer": ("cpp/layers/linear.cpp", "std::thread worker(work);", "threads"),
    "a pause of x86 in base": ("cpp/base/spin.h", "__builtin_ia32_pause();", "one architecture"),
    "dispatch knows x86": (
        "cpp/isa/dispatch.cpp",
        '#include "base/arch_x86.h"',
        "one architecture",
    ),
    "a POSIX thread in base": ("cpp/base/arch_x86.cpp", "pthread_create(&t, a, f, x);", "threads"),
    "a folder of its own": ("cpp/misc/x.cpp", "", "no folder"),
    "the command line knows _core": (
        "python/simdformer/cli/embed.py",
        "from simdformer._core import TransformerStack",
        "_core",
    ),
    "the checkpoint knows nn": (
        "python/simdformer/checkpoint/folder.py",
        "def f():\n    from simdformer import nn",
        "simdformer.nn",
    ),
    "a model knows the tokenizer": (
        "python/simdformer/models/bert.py",
        "import simdformer.text.tokenizer",
        "simdformer.text.tokenizer",
    ),
    "nn knows int8": (
        "python/simdformer/nn/linear.py",
        "from simdformer.int8.gptq import f",
        "int8.gptq",
    ),
    "a name that begins with a permitted one": (
        "python/simdformer/generation/scores.py",
        "from simdformer.nnx import f",
        "nnx",
    ),
    "the server uses a private member": (
        "python/simdformer/server/served.py",
        "def f(model):\n    return model._encoder",
        "model._encoder",
    ),
    "a module of its own": ("python/simdformer/misc.py", "", "no folder"),
    "a relative import": ("python/simdformer/models/bert.py", "from ..cli import main", "..cli"),
}


@pytest.mark.parametrize(("path", "text", "message"), VIOLATIONS.values(), ids=VIOLATIONS)
def test_violation_is_caught(tmp_path, path, text, message):
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(text)
    done = check(tmp_path)
    assert done.returncode == 1
    assert done.stdout.startswith(f"{path}: ")
    assert message in done.stdout


def test_comments_and_permitted_directions_pass(tmp_path):
    files = {
        "cpp/simd/vec.h": "#include <immintrin.h>\n#include <cstddef>\n// not std::min",
        "cpp/kernels/a.inl.h": '#include "simd/vec.h"\n#include "kernels/kernels.h"',
        "cpp/isa/avx2.cpp": '#include "isa/tables.h"\n#include "kernels/a.inl.h"',
        "cpp/isa/dispatch.cpp": '#include <vector>\n#include "base/check.h"\n#include "isa/levels.h"',
        "cpp/isa/levels_x86.cpp": '#include "base/arch_x86.h"\n#include "isa/tables.h"',
        "cpp/base/arch_x86.cpp": "#include <cpuid.h>\nvoid wait() { __builtin_ia32_pause(); }",
        "cpp/bindings/bind_kernels.cpp": '#include "kernels/kernels.inc"',
        "cpp/layers/norm.cpp": '#include <vector>\n#include "base/check.h"',
        "cpp/base/system_posix.cpp": "int made = pthread_create(&thread, nullptr, enter, nullptr);",
        "cpp/base/workers_openmp.cpp": "#include <omp.h>\n#pragma omp parallel num_threads(2)",
        "python/simdformer/models/bert.py": "from simdformer._core import TransformerStack\nimport numpy",
        "python/simdformer/cli/embed.py": "from simdformer import SentenceTransformer",
        "python/simdformer/server/app.py": "class A:\n    def f(self):\n        self._x = 1",
        "python/simdformer/int8/quantize_model.py": "from simdformer.folder.loading import f",
    }
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert check(tmp_path).stdout == ""


@pytest.mark.parametrize("guard", ["", "if TYPE_CHECKING:\n    "])
def test_a_cycle_of_modules_is_caught(tmp_path, guard):
    nn = tmp_path / "python" / "simdformer" / "nn"
    nn.mkdir(parents=True)
    (nn / "a.py").write_text("from simdformer.nn import b\n")
    (nn / "b.py").write_text("from simdformer.nn.c import x\n")
    assert check(tmp_path).returncode == 0
    (nn / "c.py").write_text(f"{guard}from simdformer.nn.a import y\n")
    done = check(tmp_path)
    assert done.returncode == 1
    assert "python: an import circle: simdformer.nn." in done.stdout
