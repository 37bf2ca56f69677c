"""Fixtures of the whole suite. A test with the fixture `isa` runs once per level that this CPU supports."""

from __future__ import annotations

import os
import signal
import sys

import numpy as np
import pytest
from hypothesis import settings

# The quick suite always tests the same examples, so that failures are reproducible.
# HYPOTHESIS_PROFILE=thorough tests more examples, different ones each time.
settings.register_profile("quick", deadline=None, max_examples=50, derandomize=True, database=None)
settings.register_profile("thorough", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

# A shell starts background processes with SIGINT ignored. The child processes that tests interrupt would
# inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# These test features of Linux: /proc, CPU masks, forks, /dev/full, named pipes.
if sys.platform != "linux":
    collect_ignore_glob = [
        "checkpoint/test_regular_files.py",
        "cli/test_output.py",
        "cli/test_process.py",
        "int8/test_memory.py",
        "layers/test_memory.py",
        "process/*",
    ]


# Folders whose tests compute at the active level. Tests with the fixture `isa` run at every level anyway.
LEVEL_FOLDERS = {"functional", "int8", "layers", "models", "nn", "pipeline"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        # Errors and the handling of arguments are the same at every level.
        checks = item.path.stem.endswith(("errors", "arguments"))
        if item.path.parent.name in LEVEL_FOLDERS and "isa" not in item.fixturenames and not checks:
            item.add_marker("level")


def pytest_generate_tests(metafunc):
    if "isa" in metafunc.fixturenames:
        from simdformer import _core

        metafunc.parametrize("isa", _core.available_isas(), scope="module")


@pytest.fixture(scope="module")
def table(isa):
    """The kernels of one level."""
    from simdformer import _core

    return _core.KernelTable(isa)


@pytest.fixture
def active_isa(isa):
    """Layers that are built and run in the test use this level. The old level is restored afterwards."""
    from simdformer import _core

    before = _core.active_isa()
    _core.set_active_isa(isa)
    yield isa
    _core.set_active_isa(before)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny BERT with mean pooling. Files that test other models override this fixture."""
    from simdformer import SentenceTransformer
    from tests.support.model_fixtures import write_model

    return SentenceTransformer(write_model(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture
def rng():
    return np.random.default_rng(20170612)
