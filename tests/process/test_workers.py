"""The worker threads, of the pool or of OpenMP: their effects on a process."""

from __future__ import annotations

import pytest

from tests.support import output_of, run_python

COMMON = """
import os, sys, threading, time
from tests.support.tiny_bert import native_encoder, random_batch
encoder, batch = native_encoder(), random_batch([30, 7, 100] * 20)

def tasks():
    return set(os.listdir("/proc/self/task"))

def compute(num_threads=2):
    return encoder.encode(*batch, num_threads=num_threads).tobytes()

def started_by(function):
    before = tasks()
    function()
    return tasks() - before
"""

ONE_WORKER = "print(len(started_by(compute)), len(started_by(compute)))"

BLOCKED_SIGNALS = """
import signal
(worker,) = started_by(compute)
with open(f"/proc/self/task/{worker}/status") as status:
    (blocked,) = [int(line.split()[1], 16) for line in status if line.startswith("SigBlk")]
print(*(s.name for s in sorted(signal.Signals) if not blocked >> (s - 1) & 1))
print(signal.pthread_sigmask(signal.SIG_BLOCK, []))
"""

SAME_BITS = "print(compute(1) == compute(2) == compute(5))"

CALLERS_COME_AND_GO = """
before = len(tasks())
for _ in range(50):
    caller = threading.Thread(target=compute)
    caller.start()
    caller.join()
deadline = time.monotonic() + 30
while len(tasks()) > before + 1 and time.monotonic() < deadline:
    time.sleep(0.01)
print(len(tasks()) - before)
"""

THREAD_OF_A_CHILD = """
expected = compute()
pid = os.fork()
if pid == 0:
    seen = []

    def work():
        before = tasks()
        same = compute() == expected
        seen.append((same, len(tasks() - before)))

    caller = threading.Thread(target=work)
    caller.start()
    caller.join()
    os._exit(0 if seen == [(True, 1)] else 1)
print(os.waitpid(pid, 0)[1])
"""

ENDS_MEANWHILE = """
def forever():
    while True:
        compute()

for _ in range(3):
    threading.Thread(target=forever, daemon=True).start()
time.sleep(0.2)
print("done")
"""


def test_a_call_on_two_threads_starts_one_worker_and_the_next_call_none():
    assert output_of(COMMON + ONE_WORKER) == "1 0"


def test_a_worker_blocks_every_signal_and_its_caller_none():
    # Signals that cannot be blocked: SIGKILL and SIGSTOP.
    unblocked, callers = output_of(COMMON + BLOCKED_SIGNALS).splitlines()
    assert unblocked == "SIGKILL SIGSTOP"
    assert callers == "set()"


@pytest.mark.parametrize("size", ["64k", "16M"])
def test_a_small_openmp_stack_changes_no_bit(size):
    # Kernels need 256 KB, so a worker with a smaller stack must not run them.
    assert output_of(COMMON + SAME_BITS, OMP_STACKSIZE=size) == "True"


@pytest.mark.parametrize("limit", ["1", "3"])
def test_fewer_threads_than_asked_for_compute_the_same_bits(limit):
    assert output_of(COMMON + SAME_BITS, OMP_THREAD_LIMIT=limit) == "True"


def test_workers_do_not_accumulate_when_callers_start_and_end():
    assert int(output_of(COMMON + CALLERS_COME_AND_GO)) <= 1


def test_a_thread_that_a_forked_child_starts_computes_the_same_bits_with_workers():
    assert output_of(COMMON + THREAD_OF_A_CHILD) == "0"


def test_a_process_may_end_while_its_threads_compute():
    for _ in range(5):
        done = run_python(COMMON + ENDS_MEANWHILE, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
