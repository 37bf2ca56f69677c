"""simdformer.ray: which nodes may compute together. No cluster is needed."""

from __future__ import annotations

import pytest

from simdformer.ray import _check_columns
from simdformer.ray.cluster import Machine, common_level, cpus_and_threads

LEVELS = ("generic", "avx2", "avx2_vnni", "avx512")


def machine(address="a", levels=LEVELS, **changes):
    fields = {"version": "1", "architecture": "x86_64", "model": "m", **changes}
    return Machine(address=address, levels=tuple(levels), **fields)


def test_the_widest_level_of_all_nodes_is_chosen():
    others = [machine(), machine("b", ("generic", "avx2", "avx512")), machine("c", LEVELS[:3])]
    assert common_level(others, None) == "avx2"
    assert common_level(others[:2], None) == "avx512"


def test_a_level_can_be_requested():
    assert common_level([machine(), machine("b", LEVELS[:2])], "generic") == "generic"


def test_the_error_for_a_missing_level_names_the_nodes():
    with pytest.raises(ValueError, match=r"no level 'avx512' \(a: generic .* b: generic avx2\)"):
        common_level([machine(), machine("b", LEVELS[:2])], "avx512")


def test_nodes_without_a_common_level_are_refused():
    with pytest.raises(ValueError, match="no common instruction set level"):
        common_level([machine(), machine("b", ["other"])], None)


@pytest.mark.parametrize("name", ["version", "architecture", "model"])
def test_the_error_for_unequal_nodes_names_the_difference(name):
    with pytest.raises(ValueError, match=f"one {name}: a has .*, b has other"):
        common_level([machine(), machine("b", **{name: "other"})], None)


def nodes(*cpus):
    return [{"Resources": {"CPU": float(count)}} for count in cpus]


@pytest.mark.parametrize(
    ("cpus", "num_actors", "expected"),
    [
        ([16], 1, (13, 16)),
        ([16, 16], 2, (13, 16)),
        ([16, 8], 2, (5, 8)),
        ([16], 2, (6, 8)),
        ([2], 2, (0.005, 1)),
        ([1], 1, (0.01, 1)),
    ],
)
def test_actors_use_the_cpus_of_a_node_and_leave_some_for_reading(cpus, num_actors, expected):
    assert cpus_and_threads(nodes(*cpus), num_actors, None) == expected


def test_reserved_cpus_are_the_threads():
    assert cpus_and_threads(nodes(16), 2, 4) == (4, 4)
    assert cpus_and_threads(nodes(16), 2, 0.5) == (0.5, 1)


@pytest.mark.parametrize(("num_actors", "num_cpus"), [(0, None), (-1, 2), (1, 0), (1, -1)])
def test_invalid_numbers_are_refused(num_actors, num_cpus):
    with pytest.raises(ValueError, match="must be"):
        cpus_and_threads(nodes(4), num_actors, num_cpus)


def test_a_dataset_without_rows_and_schema_is_refused():
    class Empty:
        def columns(self):
            return None

    with pytest.raises(ValueError, match='no rows and no schema, so no column "text"'):
        _check_columns(Empty(), "text", "embedding")
