"""The calculations of the benchmarks: texts, numbers of flops, statistics and verdicts. Nothing is timed."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest

from tests.support import ROOT

BENCH = ROOT / "bench"


@pytest.fixture(autouse=True)
def bench_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))


@dataclass
class Encoding:
    ids: list[int]


class WordTokenizer:
    """One token per word and two special tokens."""

    def encode_batch(self, texts):
        return [Encoding(list(range(len(text.split()) + 2))) for text in texts]


@pytest.fixture
def docstrings():
    """Enough texts of each kind: 1,200 short ones, 700 with a body, 200 too long for the limit of 64."""
    short = [f"Return item {i} " + "word " * (i % 11) for i in range(1200)]
    mixed = [f"Summary {i}.\n\n" + "body " * (i % 50) for i in range(700)]
    long = [f"Summary {i}.\n\n" + "body " * (100 + i) for i in range(200)]
    return short + mixed + long


@pytest.fixture
def make_sets(docstrings):
    import texts

    return lambda: texts.make_sets(docstrings, WordTokenizer(), max_length=64)


def result_with(rates, *, peak=100.0, name="mixed/simdformer"):
    text_set, engine = name.split("/")
    row = {"name": name, "set": text_set, "engine": engine}
    return {"kind": "encode", "rows": [{**row, "rates": rates, "peak_rates": [peak] * len(rates)}]}


def verdict_of(before, after, threshold=0.1):
    import compare_results

    return compare_results.compare({"row": before}, {"row": after}, threshold)[0].verdict


def test_the_same_texts_are_drawn_every_time(make_sets):
    assert make_sets() == make_sets()


def test_short_texts_have_at_most_16_tokens(make_sets):
    short = make_sets()["short"]
    assert len(short.texts) == 512
    assert max(short.token_counts) <= 16


def test_long_texts_are_cut_to_exactly_the_limit(make_sets):
    assert make_sets()["long"].token_counts == (64,) * 64


def test_token_counts_follow_the_cut_at_the_limit(make_sets):
    mixed = make_sets()["mixed"]
    expected = [min(len(text.split()) + 2, 64) for text in mixed.texts]
    assert list(mixed.token_counts) == expected
    assert mixed.total_tokens == sum(expected)


def test_stream_is_mixed_in_another_order_and_small_calls(make_sets):
    sets = make_sets()
    assert sets["stream"].texts != sets["mixed"].texts
    assert sorted(sets["stream"].texts) == sorted(sets["mixed"].texts)
    assert sets["stream"].call_size == 32
    assert sets["mixed"].call_size is None


def test_too_few_texts_are_an_error_with_both_numbers():
    import texts

    with pytest.raises(ValueError, match="at least 512 texts to draw from, got 0"):
        texts.make_sets(["one short text"], WordTokenizer(), max_length=64)


def test_docstrings_come_from_sources_but_not_from_tests(tmp_path):
    import texts

    (tmp_path / "module.py").write_text('"""Module."""\ndef f():\n    """Function."""\n')
    (tmp_path / "broken.py").write_text("def f(:\n")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "case.py").write_text('"""Left out."""\n')
    assert list(texts.iter_docstrings(tmp_path)) == ["Module.", "Function."]


def test_encoder_flops_count_each_product_of_a_layer():
    import encode

    hidden, intermediate, length = 6, 10, 4
    config = {"hidden_size": hidden, "intermediate_size": intermediate, "num_hidden_layers": 3}
    linears = [(3 * hidden, hidden), (hidden, hidden), (intermediate, hidden)]
    linears.append((hidden, intermediate))
    layer = sum(2 * length * n * k for n, k in linears) + 2 * (2 * length * length * hidden)
    assert encode.encoder_flops(config, [length, length]) == 2 * 3 * layer


def test_one_wrong_vector_lowers_fidelity():
    import encode

    reference = np.eye(3, 8, dtype=np.float32)
    vectors = reference.copy()
    vectors[1] = np.roll(vectors[1], 1)
    found = encode.fidelity(vectors, reference)
    assert found == {
        "min_cosine": 0.0,
        "mean_cosine": pytest.approx(2 / 3),
        "max_abs_difference": 1.0,
    }


def test_every_kernel_of_the_table_has_a_benchmark():
    import kernels
    from simdformer import _core

    for name in _core.KernelTable(_core.active_isa()).names():
        assert kernels.cases_of(name)


def test_a_kernel_without_a_benchmark_is_refused():
    import kernels

    with pytest.raises(SystemExit, match="no case for the kernel 'unheard_of'"):
        kernels.cases_of("unheard_of")


@pytest.mark.parametrize(
    ("after", "verdict"),
    [
        ([0.50, 0.51, 0.52], "same"),
        ([0.46, 0.47, 0.48], "same"),  # 8% slower
        ([0.43, 0.44, 0.45], "lost"),  # 14% slower
        ([0.60, 0.61, 0.62], "won"),
        ([0.20, 0.44, 0.70], "unsure"),  # slower in the median, but the rounds disagree
    ],
)
def test_verdict(after, verdict):
    assert verdict_of([0.50, 0.51, 0.52], after) == verdict


def test_a_removed_row_is_missing_and_an_added_one_is_new():
    import compare_results

    found = compare_results.compare({"a": [1.0]}, {"b": [1.0]}, 0.1)
    assert [(c.name, c.verdict) for c in found] == [("a", "missing"), ("b", "new")]


def test_a_slower_machine_is_not_reported_as_a_loss():
    import compare_results

    before = compare_results.relative_rates(result_with([50.0, 51.0], peak=100.0), "peak")
    after = compare_results.relative_rates(result_with([25.0, 25.5], peak=50.0), "peak")
    assert before == after


def test_a_peer_can_be_the_reference():
    import compare_results

    result = result_with([60.0, 80.0])
    result["rows"] += result_with([30.0, 20.0], name="mixed/openvino")["rows"]
    assert compare_results.relative_rates(result, "openvino") == {"mixed/simdformer": [2.0, 4.0]}


def test_an_unknown_reference_lists_the_known_ones():
    import compare_results

    with pytest.raises(ValueError, match=r"'peak' or one of \['simdformer'\], got 'nobody'"):
        compare_results.relative_rates(result_with([1.0]), "nobody")


@pytest.mark.parametrize(("rate", "code"), [(50.0, 0), (40.0, 1)])
def test_compare_results_exits_with_1_only_after_a_loss(tmp_path, capsys, rate, code):
    import compare_results

    for name, rates in (("before", [50.0, 50.5]), ("after", [rate, rate])):
        (tmp_path / name).write_text(json.dumps(result_with(rates)))
    assert compare_results.main([str(tmp_path / "before"), str(tmp_path / "after")]) == code
    assert "mixed/simdformer" in capsys.readouterr().out


def test_spread_is_half_the_interquartile_range_of_the_median():
    import report

    assert report.spread([8.0, 9.0, 10.0, 11.0, 12.0]) == pytest.approx(0.1)
    assert report.spread([3.0]) == 0.0


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    import report

    path = tmp_path / "result.json"
    report.write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        report.write_text(path, "\ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_padding_puts_each_row_at_the_left():
    from engines.base import mean_pool, pad

    ids, mask = pad([[5, 6, 7], [8]], np.int64)
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    hidden_states = ids[:, :, None].astype(np.float32) + 100 * (1 - mask[:, :, None])
    assert mean_pool(hidden_states.astype(np.float32), mask).tolist() == [[6.0], [8.0]]


def test_the_error_of_a_failing_engine_has_its_name(tmp_path):
    from engines.process import EngineProcess
    from worker_process import WorkerError

    process = EngineProcess("no-such-engine", 1, None, None)
    try:
        with pytest.raises(WorkerError, match=r"(?s)no-such-engine: .*ModuleNotFoundError"):
            process.request(
                "load", options={"model": str(tmp_path), "converted": str(tmp_path)}, sets={}
            )
    finally:
        process.close()


def unit_rows(count, seed=0):
    rows = np.random.default_rng(seed).normal(size=(count, 8)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_cosines_are_of_rows_in_pairs():
    import similarity

    found = similarity.cosines(np.array([[2.0, 0], [1, 1]]), np.array([[5.0, 0], [0, 1]]))
    assert found == pytest.approx([1, np.sqrt(0.5)])


def test_the_nearest_rows_are_those_of_a_full_sort_without_the_row_itself():
    import similarity

    rows = unit_rows(1500)  # more than a block
    similarities = rows @ rows.T
    np.fill_diagonal(similarities, -np.inf)
    expected = np.sort(np.argsort(-similarities, axis=1)[:, :10], axis=1)
    assert np.array_equal(np.sort(similarity.nearest(rows), axis=1), expected)


def test_all_neighbours_of_equal_vectors_are_kept():
    import similarity

    assert similarity.neighbours_kept(unit_rows(40), unit_rows(40)) == 1


def test_few_neighbours_of_other_vectors_are_kept():
    import similarity

    assert similarity.neighbours_kept(unit_rows(200), unit_rows(200, seed=1)) < 0.2


def test_peers_are_shown_with_our_results_of_the_same_precision():
    import report

    ours, int8 = ["simdformer", "simdformer-int8", "simdformer-bfloat16"], "simdformer-int8"
    assert report.of_one_precision([*ours, "openvino"]) == ["simdformer", "openvino"]
    assert report.of_one_precision([*ours, "openvino-int8"]) == [int8, "openvino-int8"]


@pytest.mark.parametrize(
    ("vendor", "family", "model", "expected"),
    [
        ("AuthenticAMD", 25, 1, "zen3"),
        ("AuthenticAMD", 25, 17, "zen4"),
        ("GenuineIntel", 6, 173, "granite-rapids"),
        ("GenuineIntel", 6, 1, "genuineintel-6-1"),
    ],
)
def test_results_belong_to_the_cpus_class(monkeypatch, vendor, family, model, expected):
    import machine

    found = {"vendor_id": vendor, "cpu family": str(family), "model\t": str(model)}
    monkeypatch.setattr(machine, "_first_value", lambda _, key: found[key])
    assert machine.results("encode").parts[-2:] == (expected, "encode")


def test_the_table_of_all_classes_is_made_of_their_results():
    import side_by_side

    page = (side_by_side.RESULTS / "README.md").read_text()
    assert page == side_by_side.to_markdown(side_by_side.RESULTS)


def test_the_load_of_the_server_is_compared_with_encode():
    import serve

    class Server:
        name, clock = "x", iter((10.0, 13.0))

        def cpu_seconds(self):
            return next(self.clock)

        def request(self, text, model):
            return f"{model} {text}".encode()

    async def answered(load):
        load.times = {"short": [0.01, 0.03], "long": [0.2]}
        load.failed = 1

    server = Server()
    load = serve.Load(server, "m", {"short": ["a"], "long": ["b"]})
    row = serve.run(load, server, "closed", answered(load), {"short": 0.5, "long": 1.0})
    assert row["cpu_beside_encode"] == pytest.approx(1.5)  # 3 s where encode takes 2 s
    assert row["cpu_ms_per_text"] == pytest.approx(1000)
    assert row["short_p50_ms"] == pytest.approx(20)
    assert (row["failed"], row["long_p99_ms"]) == (1, pytest.approx(200))
