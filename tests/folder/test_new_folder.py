"""new_folder and new_file: what is written appears whole or not at all."""

from __future__ import annotations

import os

import pytest

from simdformer.folder.new_folder import new_file, new_folder


def test_a_failure_leaves_the_old_folder_as_it_was(tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    (target / "old").write_text("x")

    def interrupted():
        with new_folder(target) as temporary:
            (temporary / "new").write_text("y")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [path.name for path in tmp_path.rglob("*")] == ["target", "old"]


def test_a_folder_of_a_process_killed_between_two_renames_is_restored(tmp_path):
    old = tmp_path / ".target.0123abcd.old"
    old.mkdir()
    (old / "weights").write_text("x")
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "target"):
        raise KeyboardInterrupt
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["target", "weights"]


def test_a_replaced_folder_that_a_killed_process_left_is_removed(tmp_path):
    for name in ("target", ".target.0123abcd.old", ".other.0123abcd.old"):
        (tmp_path / name).mkdir()
    with new_folder(tmp_path / "target") as temporary:
        (temporary / "new").write_text("y")
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        ".other.0123abcd.old",
        "new",
        "target",
    ]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_file_never_replaces_a_pipe(tmp_path):
    pipe = tmp_path / "model.simdformer"
    os.mkfifo(pipe)
    with pytest.raises(FileExistsError, match="is not a regular file"), new_file(pipe):
        pytest.fail("the block must not be entered")
    assert pipe.is_fifo()
