"""simdformer.ray.embed on a cluster of two nodes on this machine (`make ray`)."""

from __future__ import annotations

import contextlib
import doctest
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from simdformer import SentenceTransformer
from tests.support import ROOT, assert_same_bits

pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("default"),  # Ray's own
]

WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "and",
    "runs",
    "on",
    "through",
    "the",
    "wood",
]
TEXTS = [f"{i} {' '.join(WORDS[: i % 15])}" for i in range(240)]
MANY = [f"{i} {' '.join(WORDS)}" for i in range(1200)]
PATIENCE = 120


@pytest.fixture(scope="module")
def expected():
    return SentenceTransformer("all-MiniLM-L6-v2").encode(TEXTS)


@pytest.fixture(scope="module")
def ray():
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    from ray.cluster_utils import Cluster

    arguments = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=arguments)
    cluster.add_node(num_cpus=2, object_store_memory=100 * 2**20)
    ray.init(address=cluster.address, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield ray
    ray.shutdown()
    cluster.shutdown()


def dataset(ray, texts=TEXTS, blocks=8):
    table = pa.table({"key": range(len(texts)), "text": pa.array(texts, pa.string())})
    return ray.data.from_arrow(table).repartition(blocks)


def matrix(table):
    """The vectors in the order of the keys."""
    table = table.sort_by("key")
    assert table["key"].to_pylist() == list(range(len(table)))
    column = table["embedding"].combine_chunks()
    assert column.type == pa.list_(pa.float32(), 384)
    return column.flatten().to_numpy().reshape(len(table), -1)


def embedded(ray, data, **options):
    import simdformer.ray

    refs = simdformer.ray.embed(data, "all-MiniLM-L6-v2", **options).to_arrow_refs()
    return pa.concat_tables(ray.get(refs))


@pytest.mark.parametrize("blocks", [1, 8])
def test_vectors_of_two_actors_have_the_bits_of_encode(ray, expected, blocks):
    table = embedded(ray, dataset(ray, blocks=blocks))
    assert_same_bits(matrix(table), expected)
    assert table.sort_by("key")["text"].to_pylist() == TEXTS


@pytest.mark.usefixtures("ray")
def test_the_example_of_the_docstring_runs(tmp_path):
    import simdformer.ray

    (example,) = doctest.DocTestFinder(recurse=False).find(simdformer.ray.embed, globs={})
    last = example.examples[-1]  # a relative path is one of the workers' folder
    last.source = last.source.replace('"vectors"', repr(str(tmp_path / "vectors")))
    assert doctest.DocTestRunner().run(example).failed == 0
    texts = ["A cat.", "A kitten."]
    files = [pq.read_table(path) for path in (tmp_path / "vectors").iterdir()]
    vectors = {row["text"]: row["embedding"] for file in files for row in file.to_pylist()}
    found = np.array([vectors[text] for text in texts], np.float32)
    assert_same_bits(found, SentenceTransformer("all-MiniLM-L6-v2").encode(texts))


def test_all_actors_run_at_the_requested_level(ray, tmp_path):
    code = (
        "import numpy, sys; from simdformer import SentenceTransformer;"
        "numpy.save(sys.argv[1], SentenceTransformer('all-MiniLM-L6-v2').encode(sys.argv[2:]))"
    )
    path = tmp_path / "generic.npy"
    environment = {**os.environ, "SIMDFORMER_ISA": "generic"}
    subprocess.run([sys.executable, "-c", code, path, *TEXTS[:9]], env=environment, check=True)
    table = embedded(ray, dataset(ray, TEXTS[:9], 2), level="generic", num_actors=1)
    assert_same_bits(matrix(table), np.load(path))


def kill_an_actor_that_computes(killed):
    """Send SIGKILL to the first process of this test's cluster that embeds."""
    import psutil

    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and not killed:
        for process in psutil.Process().children(recursive=True):
            try:
                title = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if title.startswith("ray::") and "EmbeddingActor" in title and "submit" in title:
                time.sleep(0.2)
                process.send_signal(signal.SIGKILL)
                killed.append(process.pid)
                break
        time.sleep(0.05)


def test_a_killed_actor_does_not_change_the_result(ray):
    killed = []
    watcher = threading.Thread(target=kill_an_actor_that_computes, args=(killed,))
    watcher.start()
    table = embedded(ray, dataset(ray, MANY, 12), batch_size=100)
    watcher.join()
    assert len(killed) == 1
    expected = SentenceTransformer("all-MiniLM-L6-v2").encode(MANY)
    assert_same_bits(matrix(table), expected)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"column": "body"}, ValueError, 'no column "body" \\(there: key, text\\)'),
        ({"output_column": "text"}, ValueError, 'a column "text" already'),
        ({"level": "none"}, ValueError, "no level 'none'"),
        ({"num_actors": 0}, ValueError, "num_actors must be at least 1"),
    ],
)
def test_invalid_arguments_are_refused_before_any_work(ray, options, error, message):
    with pytest.raises(error, match=message):
        embedded(ray, dataset(ray, TEXTS[:2], 1), **options)


def test_other_types_are_refused(ray):
    import simdformer.ray

    with pytest.raises(TypeError, match=r"dataset must be a ray\.data\.Dataset, got list"):
        simdformer.ray.embed(TEXTS, "all-MiniLM-L6-v2")
    with pytest.raises(TypeError, match="model must be a name or a folder, got int"):
        simdformer.ray.embed(dataset(ray, TEXTS[:2], 1), 1)


def test_the_error_names_a_model_that_a_node_does_not_have(ray):
    import simdformer.ray

    with pytest.raises(FileNotFoundError, match="no model 'no-such-model'"):
        simdformer.ray.embed(dataset(ray, TEXTS[:2], 1), "no-such-model")


def test_a_column_without_strings_fails_the_job(ray):
    import simdformer.ray

    data = ray.data.from_arrow(pa.table({"key": [1], "text": [1]}))
    with pytest.raises(Exception, match='column "text" must hold strings, got int'):
        simdformer.ray.embed(data, "all-MiniLM-L6-v2", num_actors=1).materialize()


@pytest.fixture
def example(tmp_path):
    """Run examples/ray_embed.py in a separate cluster, with two actors."""
    (tmp_path / "texts").mkdir()
    for start in range(0, len(MANY), 50):
        keys = pa.array(range(start, start + 50), pa.int64())
        table = pa.table({"key": keys, "text": MANY[start : start + 50]})
        pq.write_table(table, tmp_path / "texts" / f"{start:04}.parquet")
    arguments = [sys.executable, ROOT / "examples" / "ray_embed.py", "texts", "vectors"]
    arguments += ["--id", "key", "--checkpoints", str(tmp_path / "checkpoints")]
    arguments += ["--actors", "2", "--block-bytes", "16384", "--batch-size", "50", "--cpus", "4"]

    def start(*more):
        with (tmp_path / "log").open("w") as log:
            return subprocess.Popen(
                [*arguments, *more],
                cwd=tmp_path,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    return start


def kill_session(number):
    """Send SIGKILL to a process and to all processes that Ray started in its session."""
    import psutil

    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.Error):
            if os.getsid(process.pid) == number:
                process.kill()


def committed(folder):
    """The checkpoints of completely written rows."""
    return [path for path in folder.glob("*.parquet") if ".pending" not in path.name]


def test_the_example_writes_the_vectors_of_encode(tmp_path, example):
    process = example("--block-bytes", "100000")
    assert process.wait(PATIENCE) == 0, (tmp_path / "log").read_text()
    expected = SentenceTransformer("all-MiniLM-L6-v2").encode(MANY)
    assert_same_bits(matrix(pq.read_table(tmp_path / "vectors")), expected)


def test_the_example_continues_after_a_kill(tmp_path, example):
    process = example()
    deadline = time.monotonic() + PATIENCE
    while len(committed(tmp_path / "checkpoints")) < 2:
        waits = time.monotonic() < deadline and process.poll() is None
        assert waits, (tmp_path / "log").read_text()
        time.sleep(0.02)
    process.kill()
    kill_session(process.pid)
    process.wait()
    done = sum(len(pq.read_table(path)) for path in committed(tmp_path / "checkpoints"))
    assert 0 < done < len(MANY)
    process = example()
    assert process.wait(PATIENCE) == 0, (tmp_path / "log").read_text()
    expected = SentenceTransformer("all-MiniLM-L6-v2").encode(MANY)
    assert_same_bits(matrix(pq.read_table(tmp_path / "vectors")), expected)
