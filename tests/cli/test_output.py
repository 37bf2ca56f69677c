"""Writing files: a file appears complete or not at all, and reading it returns the same bits."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from simdformer.cli.errors import CliError, UsageError
from simdformer.cli.output import AtomicFile, open_output
from simdformer.cli.records import Record
from simdformer.cli.writers import JsonlWriter, NpyWriter
from tests.support import assert_same_bits


def records(count):
    return [Record(f"text {i}", i + 1) for i in range(count)]


def write_npy(path, chunks, dim):
    with AtomicFile(str(path)) as file:
        writer = NpyWriter(file, dim)
        for chunk in chunks:
            writer.write(records(len(chunk)), chunk)
        writer.finish()


@pytest.mark.parametrize("sizes", [[], [1], [3, 1, 7], [9_999, 1, 100_000]])
def test_npy_holds_all_chunks(tmp_path, rng, sizes):
    chunks = [rng.standard_normal((n, 3)).astype(np.float32) for n in sizes]
    write_npy(tmp_path / "out.npy", chunks, 3)
    assert_same_bits(
        np.load(tmp_path / "out.npy"), np.concatenate([np.empty((0, 3), np.float32), *chunks])
    )


def test_files_of_killed_runs_are_removed_and_those_of_running_ones_are_kept(tmp_path):
    out = tmp_path / "out.npy"
    orphan, other = tmp_path / ".out.npy.0123abcd.tmp", tmp_path / ".other.npy.0123abcd.tmp"
    ours = tmp_path / ".out.npy.tmp"
    for path in (orphan, other, ours):
        path.write_bytes(b"x")
    with AtomicFile(str(out)) as first, AtomicFile(str(out)) as second:
        first.write(b"first")
        second.write(b"second")
        assert not orphan.exists()
        assert len(list(tmp_path.glob(".out.npy.*.tmp"))) == 2
    assert out.read_bytes() == b"first"
    assert set(tmp_path.iterdir()) == {out, other, ours}


def test_a_file_removed_as_an_orphan_before_it_is_locked_is_created_again(tmp_path, monkeypatch):
    lock, taken = fcntl.flock, []

    def flock(file, operation):
        if not taken:
            taken.append(file.name)
            Path(file.name).unlink()
        return lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with AtomicFile(str(tmp_path / "out.npy")) as file:
        file.write(b"whole")
    assert len(taken) == 1
    assert (tmp_path / "out.npy").read_bytes() == b"whole"


def test_npy_can_be_memory_mapped(tmp_path, rng):
    """The data after the header is aligned and has the length given in the header."""
    chunk = rng.standard_normal((5, 4)).astype(np.float32)
    write_npy(tmp_path / "out.npy", [chunk], 4)
    assert_same_bits(np.asarray(np.load(tmp_path / "out.npy", mmap_mode="r")), chunk)


def test_jsonl_restores_every_float32(tmp_path, rng):
    bits = rng.integers(0, 2**32, 4000, dtype=np.uint32).view(np.float32)
    chunk = bits[np.isfinite(bits)][:3000].reshape(1000, 3)
    with AtomicFile(str(tmp_path / "out.jsonl")) as file:
        JsonlWriter(file, 3).write(records(1000), chunk)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert_same_bits(np.array([line["embedding"] for line in lines], np.float32), chunk)


def test_jsonl_keeps_text_and_line(tmp_path):
    text = 'quote " newline \n é \u2028 end'
    with AtomicFile(str(tmp_path / "out.jsonl")) as file:
        JsonlWriter(file, 1).write([Record(text, 17)], np.ones((1, 1), np.float32))
    assert json.loads((tmp_path / "out.jsonl").read_bytes()) == {
        "line": 17,
        "text": text,
        "embedding": [1],
    }


def test_the_file_does_not_exist_before_the_end(tmp_path):
    with AtomicFile(str(tmp_path / "out.npy")) as file:
        file.write(b"part")
        assert not (tmp_path / "out.npy").exists()
    assert (tmp_path / "out.npy").read_bytes() == b"part"
    assert os.listdir(tmp_path) == ["out.npy"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, error):
    (tmp_path / "out.npy").write_bytes(b"old")
    with contextlib.suppress(error), AtomicFile(str(tmp_path / "out.npy")) as file:
        file.write(b"new")
        raise error
    assert (tmp_path / "out.npy").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out.npy"]


def test_the_old_files_mode_is_kept(tmp_path):
    (tmp_path / "out.npy").write_bytes(b"old")
    (tmp_path / "out.npy").chmod(0o640)
    with AtomicFile(str(tmp_path / "out.npy")) as file:
        file.write(b"new")
    assert stat.S_IMODE((tmp_path / "out.npy").stat().st_mode) == 0o640


def test_a_new_file_obeys_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        with AtomicFile(str(tmp_path / "out.npy")) as file:
            file.write(b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out.npy").stat().st_mode) == 0o640


def test_a_symlink_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "real.npy").write_bytes(b"old")
    (tmp_path / "out.npy").symlink_to(tmp_path / "there" / "real.npy")
    with AtomicFile(str(tmp_path / "out.npy")) as file:
        file.write(b"new")
    assert (tmp_path / "out.npy").is_symlink()
    assert (tmp_path / "there" / "real.npy").read_bytes() == b"new"


def test_a_full_disk_is_reported_with_path_and_free_space(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with (
        pytest.raises(CliError, match=r"out.npy: No space left on device \([\d,]+ bytes are free"),
        AtomicFile(str(tmp_path / "out.npy")) as file,
    ):
        file.write(b"new")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("path", "reason"), [("missing/out.npy", "No such file or directory"), ("", "is a directory")]
)
def test_an_unwritable_path_is_reported_at_once(tmp_path, path, reason):
    with pytest.raises(CliError, match=reason), AtomicFile(str(tmp_path / path)):
        pytest.fail("the block must not be entered")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_file_never_replaces_a_pipe(tmp_path):
    pipe = tmp_path / "out.jsonl"
    os.mkfifo(pipe)
    with pytest.raises(CliError, match="is not a regular file"), AtomicFile(str(pipe)):
        pytest.fail("the block must not be entered")
    assert pipe.is_fifo()


@pytest.mark.parametrize("path", ["out.txt", "out", "out.npz"])
def test_an_unknown_output_format_is_a_usage_error(path):
    with pytest.raises(UsageError, match=r"must end in .npy, .jsonl, .parquet, or be -"):
        open_output(path)
