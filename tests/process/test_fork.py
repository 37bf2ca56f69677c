"""Forks of a process that has used the library. Worker threads do not survive a fork; a child that waited for
them would hang."""

from __future__ import annotations

import os

import pytest

from tests.support import output_of

COMMON = """
import multiprocessing, os, sys
from tests.support.tiny_bert import Config, native_encoder, random_batch

batch = random_batch([30, 7, 100] * 20)

def bits(encoder):
    return encoder.encode(*batch, num_threads=2).tobytes()
"""

FIFTY_FORKS = (
    COMMON
    + """
encoder = native_encoder()
expected = bits(encoder)
for i in range(50):
    pid = os.fork()
    if pid == 0:
        os._exit(0 if bits(encoder) == expected else 1)
    assert os.waitpid(pid, 0)[1] == 0, f"child {i}"
    assert bits(encoder) == expected, f"parent after child {i}"
print("done")
"""
)

GRANDCHILD = (
    COMMON
    + """
encoder = native_encoder()
expected = bits(encoder)
if os.fork() == 0:
    same = bits(encoder) == expected
    pid = os.fork()
    if pid == 0:
        os._exit(0 if bits(encoder) == expected else 1)
    os._exit(0 if same and os.waitpid(pid, 0)[1] == 0 else 1)
print(os.wait()[1])
"""
)

FORK_DURING_A_CALL = (
    COMMON
    + """
import threading
encoder = native_encoder()
expected = bits(encoder)
stop = threading.Event()
def work():
    while not stop.is_set():
        assert bits(encoder) == expected
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads:
    thread.start()
for i in range(20):
    pid = os.fork()
    if pid == 0:
        os._exit(0 if bits(encoder) == expected else 1)
    assert os.waitpid(pid, 0)[1] == 0, f"child {i}"
stop.set()
for thread in threads:
    thread.join()
print("done")
"""
)

POOL = (
    COMMON
    + """
def in_child(seed):
    return native_encoder().encode(*batch, num_threads=2).tobytes()

if __name__ == "__main__":
    expected = bits(native_encoder())
    context = multiprocessing.get_context(sys.argv[1])
    with context.Pool(2) as pool:
        results = pool.map(in_child, range(8))
    assert all(result == expected for result in results)
    assert bits(native_encoder()) == expected
    print("done")
"""
)


def test_fifty_children_in_a_row_compute_the_same_bits():
    assert output_of(FIFTY_FORKS, timeout=60) == "done"


def test_a_childs_child_computes_the_same_bits():
    assert output_of(GRANDCHILD, timeout=60) == "0"


# Only since LLVM 17 does libasan hold its allocator's locks during a fork. Before, a child may wait forever
# for a lock that another thread held.
@pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""), reason="libasan's own locks")
def test_a_fork_during_another_threads_call_leaves_a_child_that_computes():
    assert output_of(FORK_DURING_A_CALL, timeout=120) == "done"


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_multiprocessing_computes_the_same_bits(tmp_path, method):
    # forkserver and spawn import the program again, so it must be a file.
    program = tmp_path / "program.py"
    program.write_text(POOL)
    assert output_of(program, method, timeout=120) == "done"
