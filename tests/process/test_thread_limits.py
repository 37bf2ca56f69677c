"""Limits for the threads of all calls of a process, also set by threadpoolctl."""

from __future__ import annotations

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from simdformer import _core
from tests.support import assert_same_bits, output_of
from tests.support.tiny_bert import native_encoder, random_batch

pytestmark = pytest.mark.skipif(_core.num_threads() < 2, reason="one thread can't be limited")

COMMON = """
import os
from simdformer import _core
from tests.support.tiny_bert import native_encoder, random_batch
encoder, batch = native_encoder(), random_batch([30, 7] * 9)

def started_by(num_threads):
    before = set(os.listdir("/proc/self/task"))
    bits = encoder.encode(*batch, num_threads=num_threads).tobytes()
    return len(set(os.listdir("/proc/self/task")) - before), bits
"""

LIMITED_CALLS = (
    COMMON
    + """
_core.limit_threads(1)
print([started_by(n)[0] for n in (0, 2, 8)])
"""
)

IMPORTED_FIRST = "import threadpoolctl, simdformer\n"
IMPORTED_LATER = "import simdformer, threadpoolctl\nsimdformer.register_threadpoolctl()\n"
LISTED = """
import json
print(json.dumps([info for info in threadpoolctl.threadpool_info() if info["user_api"] == "simdformer"]))
"""
CONTEXT = (
    COMMON
    + """
import simdformer
with threadpoolctl.threadpool_limits(1, user_api="simdformer"):
    inside = _core.num_threads(), started_by(2)
after = _core.num_threads(), started_by(2)
assert inside[1][1] == after[1][1]
print(inside[0], inside[1][0], after[0], after[1][0])
"""
)


@pytest.fixture
def limit_threads():
    yield _core.limit_threads
    _core.limit_threads(1024)


def test_a_limit_is_the_number_of_threads_and_is_reported(limit_threads):
    limit_threads(1)
    assert _core.num_threads() == 1
    assert _core.num_threads_source() == "a limit of 1 set in this process"


def test_a_limit_of_the_default_number_or_more_has_no_effect(limit_threads):
    default = _core.num_threads(), _core.num_threads_source()
    for limit in (default[0], default[0] + 1, 2**31 - 1):
        limit_threads(1)
        limit_threads(limit)
        assert (_core.num_threads(), _core.num_threads_source()) == default


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(limit):
    with pytest.raises(ValueError, match=f"limit must be at least 1, got {limit}"):
        _core.limit_threads(limit)


def test_calls_under_a_limit_of_one_start_no_worker():
    assert output_of(LIMITED_CALLS) == "[0, 0, 0]"


def test_bits_do_not_change_while_another_thread_changes_the_limit(limit_threads):
    encoder, batch = native_encoder(), random_batch([30, 7, 100] * 5)
    expected = encoder.encode(*batch)
    done = threading.Event()

    def move():
        while not done.is_set():
            limit_threads(1)
            limit_threads(1024)

    mover = threading.Thread(target=move)
    mover.start()
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda n: encoder.encode(*batch, num_threads=n % 4), range(200)))
    done.set()
    mover.join()
    for result in results:
        assert_same_bits(result, expected)


# threadpoolctl


@pytest.mark.parametrize("imports", [IMPORTED_FIRST, IMPORTED_LATER], ids=["first", "later"])
def test_threadpoolctl_lists_the_extension(imports):
    (info,) = json.loads(output_of(imports + LISTED))
    assert info["internal_api"] == "simdformer"
    assert info["num_threads"] == _core.num_threads()
    assert info["threading_layer"] == _core.thread_provider()
    assert info["filepath"].endswith(_core.__file__.rpartition("/")[2])


@pytest.mark.parametrize("imports", [IMPORTED_FIRST, IMPORTED_LATER], ids=["first", "later"])
def test_threadpoolctl_limits_calls_until_its_context_ends(imports):
    default = _core.num_threads()
    assert output_of(imports + CONTEXT) == f"1 0 {default} 1"


def test_registering_twice_lists_the_extension_once():
    code = f"{IMPORTED_LATER}simdformer.register_threadpoolctl()\n{LISTED}"
    assert len(json.loads(output_of(code))) == 1


def test_another_packages_core_is_not_mistaken_for_ours(tmp_path):
    other = str(shutil.copy(np.random.mtrand.__file__, tmp_path / "_core.so"))
    code = f"import ctypes\nctypes.CDLL({other!r}, os.RTLD_NOW)\n{IMPORTED_FIRST}{LISTED}"
    (info,) = json.loads(output_of(f"import os\n{code}"))
    assert info["filepath"] != other


def test_importing_simdformer_does_not_import_threadpoolctl():
    assert output_of("import sys, simdformer\nprint('threadpoolctl' in sys.modules)") == "False"
