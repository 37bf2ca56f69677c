"""simdformer.ray: checkpoints of another job are refused. No cluster is needed."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from simdformer.ray.job import Job, check_checkpoint

JOB = Job(
    model="m",
    digest="0",
    version="1",
    level="avx2",
    compute_type="float32",
    max_batch_tokens=16384,
    num_threads=2,
    column="text",
    output_column="embedding",
    options={"prompt": None},
)


@pytest.fixture
def ray(tmp_path):
    """Ray; only the settings of this process are used."""
    fs = pytest.importorskip("pyarrow.fs")
    folder = str(tmp_path / "new" / "checkpoints")
    config = SimpleNamespace(filesystem=fs.LocalFileSystem(), checkpoint_path=folder)
    context = SimpleNamespace(checkpoint_config=config)
    data = SimpleNamespace(DataContext=SimpleNamespace(get_current=lambda: context))
    return SimpleNamespace(data=data)


def note_that_rows_are_done(tmp_path):
    folder = tmp_path / "new" / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rows.parquet").write_bytes(b"rows")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"level": "generic"}, "level was 'avx2', is 'generic'"),
        ({"digest": "1"}, "digest was '0', is '1'"),
        ({"version": "2"}, "version was '1', is '2'"),
        ({"compute_type": "int8"}, "compute_type was 'float32', is 'int8'"),
        (
            {"options": {"prompt": "query: "}},
            "options was {'prompt': None}, is {'prompt': 'query: '}",
        ),
    ],
)
def test_the_error_for_another_job_names_the_difference(ray, tmp_path, changes, message):
    check_checkpoint(ray, JOB)
    note_that_rows_are_done(tmp_path)
    with pytest.raises(ValueError, match="of another job") as error:
        check_checkpoint(ray, replace(JOB, **changes))
    assert message in str(error.value)


@pytest.mark.parametrize("changes", [{}, {"num_threads": 8, "model": "elsewhere/m"}])
def test_the_same_job_continues(ray, tmp_path, changes):
    check_checkpoint(ray, JOB)
    note_that_rows_are_done(tmp_path)
    check_checkpoint(ray, replace(JOB, **changes))


def test_another_job_may_start_if_no_row_is_stored(ray, tmp_path):
    check_checkpoint(ray, JOB)
    check_checkpoint(ray, replace(JOB, level="generic"))
    note_that_rows_are_done(tmp_path)
    with pytest.raises(ValueError, match="level was 'generic'"):
        check_checkpoint(ray, JOB)


def test_rows_of_an_unknown_job_are_refused(ray, tmp_path):
    note_that_rows_are_done(tmp_path)
    with pytest.raises(ValueError, match=r"checkpoints\.simdformer\.json is missing"):
        check_checkpoint(ray, JOB)


def test_without_checkpoints_no_job_is_stored(ray, tmp_path):
    ray.data.DataContext.get_current().checkpoint_config = None
    check_checkpoint(ray, JOB)
    assert list(tmp_path.iterdir()) == []
