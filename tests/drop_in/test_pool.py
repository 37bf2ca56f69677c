"""Pools of processes: the results have the bits of a single process. Real processes are started."""

from __future__ import annotations

import os

import pytest

from simdformer import CrossEncoder, SentenceTransformer
from simdformer.drop_in.pool import run_in_pool
from tests.support import assert_same_bits, output_of
from tests.support.model_fixtures import TEXTS, write_cross_encoder, write_model

PAIRS = [("abc", "de"), ("f", "ghi"), ("j", "k")]


@pytest.fixture(scope="module")
def pool(model):
    pool = model.start_multi_process_pool(["cpu", "cpu"])
    yield pool
    model.stop_multi_process_pool(pool)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"chunk_size": 2},
        {"chunk_size": 99},
        {"normalize_embeddings": True, "truncate_dim": 3},
        {"prompt": "ab ", "chunk_size": 1},
        {"precision": "int8", "chunk_size": 2},
        {"precision": "binary"},
        {"show_progress_bar": False, "batch_size": 2},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:int8 ranges")
def test_vectors_have_the_bits_of_one_process(model, pool, arguments):
    alone = {name: value for name, value in arguments.items() if name != "chunk_size"}
    found, expected = model.encode(TEXTS, pool=pool, **arguments), model.encode(TEXTS, **alone)
    assert found.dtype == expected.dtype
    assert found.tobytes() == expected.tobytes()


def test_other_values_come_too(model, pool):
    rows = model.encode(TEXTS, pool=pool, output_value="token_embeddings", chunk_size=2)
    for row, expected in zip(
        rows, model.encode(TEXTS, output_value="token_embeddings"), strict=True
    ):
        assert_same_bits(row, expected)
    dicts = model.encode(TEXTS, pool=pool, output_value=None)
    assert len(dicts) == len(TEXTS)
    assert_same_bits(dicts[1]["sentence_embedding"], model.encode(TEXTS[1]))


def test_a_single_text_and_none(model, pool):
    assert_same_bits(model.encode("abc", pool=pool), model.encode("abc"))
    assert model.encode([], pool=pool).shape == (0,)
    assert model.encode([], device=["cpu", "cpu"]).shape == (0,)


def test_the_older_name_of_encoding_in_a_pool(model, pool):
    assert_same_bits(model.encode_multi_process(TEXTS, pool), model.encode(TEXTS))


def test_the_processes_compute_not_the_caller(model, pool):
    before = model.num_tokens
    model.encode(TEXTS, pool=pool)
    assert model.num_tokens == before
    assert len({process.pid for process in pool["processes"]} - {os.getpid()}) == 2


def test_errors_are_those_of_a_single_process_and_the_pool_keeps_working(model, pool):
    with pytest.raises(TypeError, match=r"texts\[0\] must be a str, got int"):
        model.encode(["a", "b", 3], pool=pool, chunk_size=1)
    assert_same_bits(model.encode(TEXTS, pool=pool), model.encode(TEXTS))


class Unreadable:
    """An object whose pickle cannot be read, as of a class that the process cannot import."""

    def __reduce__(self):
        return int, ("no number",)


@pytest.mark.parametrize("value", [lambda: 0, Unreadable()], ids=["written", "read"])
def test_arguments_that_cannot_be_sent_are_refused_and_the_pool_keeps_working(model, pool, value):
    with pytest.raises(TypeError, match="arguments of a call cannot be sent to a process of the"):
        run_in_pool(pool, "compute", ["a"], None, None, prompt=value)
    assert_same_bits(model.encode(TEXTS, pool=pool), model.encode(TEXTS))


def test_an_ended_process_is_an_error_without_waiting(model):
    pool = model.start_multi_process_pool(["cpu"])
    try:
        pool["processes"][0].kill()
        with pytest.raises(RuntimeError, match="processes of the pool have ended"):
            model.encode(TEXTS, pool=pool)
    finally:
        model.stop_multi_process_pool(pool)


def test_a_removed_folder_gives_the_error_of_loading(tmp_path):
    model = SentenceTransformer(write_model(tmp_path / "m"))
    (tmp_path / "m").rename(tmp_path / "n")
    pool = model.start_multi_process_pool(["cpu"])
    try:
        with pytest.raises(FileNotFoundError, match="no model"):
            model.encode(TEXTS, pool=pool)
    finally:
        model.stop_multi_process_pool(pool)


def test_a_cross_encoder_scores_in_processes(tmp_path):
    model = CrossEncoder(write_cross_encoder(tmp_path / "m"))
    alone = model.predict(PAIRS, activation_fn=abs)
    assert_same_bits(
        model.predict(PAIRS, activation_fn=abs, device=["cpu", "cpu"], chunk_size=1), alone
    )


def test_a_program_needs_no_main_guard_and_leaves_no_process(tmp_path):
    folder = write_model(tmp_path / "m")
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from simdformer import SentenceTransformer\n"
        "print(SentenceTransformer(sys.argv[1]).encode(['a', 'b'], device=['cpu', 'cpu']).shape)\n"
    )
    code = f"import runpy, sys; sys.argv = ['x', {str(folder)!r}]; runpy.run_path({str(script)!r})"
    assert output_of(code) == "(2, 20)"


@pytest.mark.parametrize("devices", [[], ["cuda"]])
def test_unsupported_devices_are_refused(model, devices):
    with pytest.raises(ValueError, match="device"):
        model.start_multi_process_pool(devices)
