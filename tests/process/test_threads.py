"""Threads: their number and its source, many callers at once, and Ctrl-C during a call."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from simdformer import _core
from tests.support import ROOT, assert_same_bits, output_of
from tests.support.tiny_bert import Config, native_encoder, random_batch

# The number of threads


COUNT = """
import os
{before}
from simdformer import _core
print(_core.num_threads(), _core.num_threads_source())
"""


def count(before="", **environment):
    number, _, source = output_of(COUNT.format(before=before), **environment).partition(" ")
    return int(number), source


ONE_CPU = "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"


def test_the_default_is_at_most_the_cpus_of_the_affinity_mask():
    number, source = count()
    assert 1 <= number <= len(os.sched_getaffinity(0))
    assert source


def test_an_affinity_mask_of_one_cpu_gives_one_thread():
    number, source = count(ONE_CPU)
    assert number == 1
    assert "affinity" in source


@pytest.mark.parametrize("name", ["SIMDFORMER_NUM_THREADS", "OMP_NUM_THREADS"])
def test_the_environment_lowers_the_number(name):
    assert count(**{name: "1"}) == (1, f"{name}=1")


def test_the_librarys_own_variable_has_precedence_over_openmps():
    available, _ = count()
    number, _ = count(SIMDFORMER_NUM_THREADS=str(available), OMP_NUM_THREADS="1")
    assert number == available


def test_the_environment_does_not_raise_the_number_above_the_cpus():
    number, source = count(ONE_CPU, SIMDFORMER_NUM_THREADS="64")
    assert number == 1
    assert "affinity" in source


def test_the_first_of_openmps_list_of_numbers_is_used():
    assert count(OMP_NUM_THREADS="1,4")[0] == 1


V1, V2 = "sys/fs/cgroup/cpu,cpuacct", "sys/fs/cgroup"
GROUPS = "proc/self/cgroup"
CGROUPS = {  # files in an artificial /proc and /sys -> CPUs, 0 for no limit
    "v2 quota": ({GROUPS: "0::/", f"{V2}/cpu.max": "150000 100000"}, 1.5),
    "v2 without a limit": ({GROUPS: "0::/", f"{V2}/cpu.max": "max 100000"}, 0),
    "v2 tightest of the ancestors": (
        {
            GROUPS: "0::/a/b",
            f"{V2}/cpu.max": "max 100000",
            f"{V2}/a/cpu.max": "200000 100000",
            f"{V2}/a/b/cpu.max": "400000 100000",
        },
        2,
    ),
    "v1 quota": (
        {
            GROUPS: "5:memory:/x\n4:cpu,cpuacct:/x\n",
            f"{V1}/x/cpu.cfs_quota_us": "50000",
            f"{V1}/x/cpu.cfs_period_us": "100000",
        },
        0.5,
    ),
    "v1 without a limit": (
        {
            GROUPS: "4:cpu,cpuacct:/",
            f"{V1}/cpu.cfs_quota_us": "-1",
            f"{V1}/cpu.cfs_period_us": "100000",
        },
        0,
    ),
    "no cgroup at all": ({}, 0),
    "nonsense": ({GROUPS: "0::/\n::\n4\n", f"{V2}/cpu.max": "a b"}, 0),
    "a period of nothing": ({GROUPS: "0::/", f"{V2}/cpu.max": "100000 0"}, 0),
}


@pytest.mark.parametrize(("files", "expected"), CGROUPS.values(), ids=CGROUPS)
def test_cgroup_quota_is_read(tmp_path, files, expected):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert _core.cgroup_cpu_limit(str(tmp_path)) == expected


# Many callers


def test_sixteen_python_threads_share_one_encoder():
    encoder = native_encoder(Config(hidden_size=64, num_heads=4, intermediate_size=256))
    batches = [random_batch([1 + i, 40, 3 * i + 1], seed=i) for i in range(16)]
    expected = [encoder.encode(*batch) for batch in batches]
    together = threading.Barrier(16)

    def work(i):
        together.wait()
        return [encoder.encode(*batches[i]) for _ in range(20)]

    with ThreadPoolExecutor(16) as pool:
        for i, results in enumerate(pool.map(work, range(16))):
            for result in results:
                assert_same_bits(result, expected[i])


def test_layers_may_be_built_in_many_threads():
    batch = random_batch([30, 7])
    expected = native_encoder().encode(*batch)
    with ThreadPoolExecutor(8) as pool:
        encoders = pool.map(lambda _: native_encoder(), range(24))
    for encoder in encoders:
        assert_same_bits(encoder.encode(*batch), expected)


def test_other_python_threads_run_during_a_forward_pass():
    encoder = native_encoder(Config(hidden_size=256, num_heads=4, intermediate_size=1024))
    batch = random_batch([100] * 100)
    running = threading.Event()
    turns = 0

    def forward():
        running.set()
        encoder.encode(*batch, num_threads=1)
        running.clear()

    thread = threading.Thread(target=forward)
    thread.start()
    running.wait()
    while running.is_set():
        threading.Event().wait(0.001)
        turns += 1
    thread.join()
    # If the GIL were held throughout, this loop would run once before and once after.
    assert turns >= 10


def test_a_thread_may_end_while_another_continues():
    # Scratch that belongs to a thread must not be freed while the next one uses it.
    encoder, batch = native_encoder(), random_batch([30, 7])
    expected = encoder.encode(*batch)
    results = []
    for _ in range(20):
        thread = threading.Thread(target=lambda: results.append(encoder.encode(*batch)))
        thread.start()
        thread.join()
    assert len(results) == 20
    for result in results:
        assert_same_bits(result, expected)


# Threads that start late, or never

MANY_ON_ONE_CPU = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from tests.support.tiny_bert import native_encoder, random_batch
encoder = native_encoder()
batches = [random_batch(lengths, seed=7) for lengths in ([3], [30, 7], [100] * 9, [1] * 40)]
expected = [encoder.encode(*batch, num_threads=1).tobytes() for batch in batches]
for _ in range(50):
    for batch, bits in zip(batches, expected):
        assert encoder.encode(*batch, num_threads=16).tobytes() == bits
print("done")
"""

NO_THREADS_TO_HAVE = """
import os, resource
from tests.support.tiny_bert import native_encoder, random_batch
encoder, batch = native_encoder(), random_batch([5])
expected = encoder.encode(*batch, num_threads=1).tobytes()
with open("/proc/self/statm") as statm:
    used = int(statm.read().split()[0]) * resource.getpagesize()
limit = used + 900_000  # less than a worker's stack
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
assert encoder.encode(*batch, num_threads=2).tobytes() == expected
print(len(os.listdir("/proc/self/task")))
"""


def test_sixteen_threads_on_one_cpu_compute_the_same_bits():
    # Most members start after others have taken all shares, and must find the end correctly.
    assert output_of(MANY_ON_ONE_CPU) == "done"


@pytest.mark.skipif(
    "libasan" in os.environ.get("LD_PRELOAD", ""), reason="AddressSanitizer needs address space"
)
def test_a_caller_without_workers_does_all_shares():
    tasks = output_of(NO_THREADS_TO_HAVE, OPENBLAS_NUM_THREADS="1", RAYON_NUM_THREADS="1")
    assert tasks == "1"


# Pinned workers

WORKERS_MASKS = """
import os, time
from tests.support.tiny_bert import native_encoder, random_batch
encoder, batch = native_encoder(), random_batch([30] * 9)
before = set(os.listdir("/proc/self/task"))
encoder.encode(*batch, num_threads=4)
workers = set(os.listdir("/proc/self/task")) - before
everything = os.sched_getaffinity(0)
deadline = time.monotonic() + {wait}
while time.monotonic() < deadline:
    masks = [os.sched_getaffinity(int(worker)) for worker in workers]
    if all(mask != everything for mask in masks):
        break
    time.sleep(0.01)
print(sorted(map(sorted, masks)) == sorted([sorted(everything)[i % len(everything)]] for i in (1, 2, 3)))
"""

of_the_pool = pytest.mark.skipif(_core.thread_provider() != "pool", reason="OpenMP has OMP_PLACES")


@of_the_pool
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU")
@pytest.mark.parametrize(("value", "wait", "pinned"), [("1", 60, "True"), ("0", 0.2, "False")])
def test_workers_are_bound_to_a_cpu_each_if_asked_for(value, wait, pinned):
    script = WORKERS_MASKS.format(wait=wait)
    assert output_of(script, SIMDFORMER_PIN_THREADS=value, RAYON_NUM_THREADS="1") == pinned


# Ctrl-C

LONG_FORWARD = """
from tests.support.tiny_bert import MINILM, native_encoder, random_batch
encoder = native_encoder(MINILM)
batch = random_batch([512] * 1000, MINILM.vocab_size)
print("ready", flush=True)
try:
    encoder.encode(*batch)
except KeyboardInterrupt:
    out = encoder.encode(*random_batch([5], MINILM.vocab_size))  # and it still works
    print("interrupted", out.shape)
else:
    print("finished")
"""


def test_ctrl_c_interrupts_a_long_forward_pass():
    # The pass takes minutes; only an interruption can end it before the time limit.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    with subprocess.Popen(
        [sys.executable, "-c", LONG_FORWARD], env=environment, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout.readline() == "ready\n"
            threading.Event().wait(0.3)  # during the pass
            child.send_signal(signal.SIGINT)
            output, _ = child.communicate(timeout=20)
        finally:
            child.kill()
    assert output == "interrupted (5, 384)\n"


# The stack

SMALL_STACK = """
import sys, threading
import numpy as np
from simdformer._core import KernelTable, quantize_weight
table, ones = KernelTable(sys.argv[1]), np.ones((200, 800), np.float32)
outliers = np.arange(0, 384, 6, dtype=np.int32)
values, scale = quantize_weight(ones, outliers)
calls = {
    "gemm": lambda: table.gemm(ones, ones),
    "gemm_bf16": lambda: table.gemm_bf16(ones, ones),
    "gemm_s8": lambda: table.gemm_s8(ones, values, scale, None, outliers, ones[:, outliers]),
    "attention": lambda: table.attention(ones, ones, ones, softmax_scale=1.0),
    "attention_s16": lambda: table.attention_s16(ones, ones, ones, softmax_scale=1.0),
}
threading.stack_size(256 * 1024)
thread = threading.Thread(target=lambda: print(calls[sys.argv[2]]().shape))
thread.start()
thread.join()
"""


@pytest.mark.parametrize("kernel", ["gemm", "gemm_bf16", "gemm_s8", "attention", "attention_s16"])
def test_kernels_need_at_most_256_kb_of_stack(isa, kernel):
    assert output_of(SMALL_STACK, isa, kernel).startswith("(200, ")
