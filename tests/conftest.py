"""Fixtures of the whole suite: every test that asks for `isa` runs once a level this CPU has."""

from __future__ import annotations

import os
import signal
import sys

import numpy as np
import pytest
from hypothesis import settings

# The quick suite tries the same examples each time, so that a failure is never luck;
# HYPOTHESIS_PROFILE=thorough searches further, differently each time.
settings.register_profile("quick", deadline=None, max_examples=50, derandomize=True, database=None)
settings.register_profile("thorough", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

# A shell starts what it runs in the background with SIGINT ignored, and the children that tests
# interrupt would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# What they look at is Linux's: /proc, CPU masks, forks, /dev/full, pipes with names.
if sys.platform != "linux":
    collect_ignore_glob = [
        "checkpoint/test_regular_files.py",
        "cli/test_output.py",
        "cli/test_process.py",
        "int8/test_memory.py",
        "layers/test_memory.py",
        "process/*",
    ]


# Folders whose tests compute at the active level. Those that ask for `isa` visit every level anyway.
LEVEL_FOLDERS = {"functional", "int8", "layers", "models", "nn", "pipeline"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        # What is refused, and how arguments are read, is the same at every level.
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
    """What is built and run inside the test uses this level; afterwards the old one is back."""
    from simdformer import _core

    before = _core.active_isa()
    _core.set_active_isa(isa)
    yield isa
    _core.set_active_isa(before)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny BERT with mean pooling; files about another model have a fixture of their own."""
    from simdformer import SentenceTransformer
    from tests.support.model_fixtures import write_model

    return SentenceTransformer(write_model(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture
def rng():
    return np.random.default_rng(20170612)
