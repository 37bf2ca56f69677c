"""simdformer embed --resume: finished work is kept, and the output is that of an uninterrupted run."""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from simdformer.cli import embedding, journal, main

TEXTS = [f"Text number {i} of some." for i in range(60)]


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "_ROWS", 7)
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in enumerate(TEXTS)))
    return path


def embed(corpus, out, *arguments):
    return main(["embed", str(corpus), "--resume", "--id", "id", "-o", str(out), *arguments])


def folder_of(out):
    return out.with_name(f".{out.name}.resume")


def stop_after(monkeypatch, count, error=KeyboardInterrupt):
    """Make the model embed `count` texts and then fail."""
    whole = embedding.embed_records

    def part(model, records, **options):
        import itertools

        yield from whole(model, itertools.islice(records, count), **options)
        raise error

    monkeypatch.setattr(embedding, "embed_records", part)
    return whole


@pytest.mark.parametrize("suffix", ["npy", "jsonl", "parquet"])
def test_a_run_continues_where_the_previous_one_ended(tmp_path, monkeypatch, corpus, suffix):
    whole, out = tmp_path / f"whole.{suffix}", tmp_path / f"out.{suffix}"
    assert embed(corpus, whole) == 0
    embed_records = stop_after(monkeypatch, 20)
    assert embed(corpus, out) == 130
    assert not out.exists()
    computed = []

    def counted(model, records, **options):
        for chunk in embed_records(model, records, **options):
            computed.extend(chunk.records)
            yield chunk

    monkeypatch.setattr(embedding, "embed_records", counted)
    assert embed(corpus, out) == 0
    assert len(computed) == len(TEXTS) - 20
    assert out.read_bytes() == whole.read_bytes()


def test_nothing_is_left_after_the_end(tmp_path, corpus):
    assert embed(corpus, tmp_path / "out.npy") == 0
    assert sorted(os.listdir(tmp_path)) == ["corpus.jsonl", "out.npy"]


@pytest.mark.parametrize(
    "arguments", [["--normalize"], ["--compute-type", "bfloat16"], ["--chunk", "5"]]
)
def test_other_settings_are_refused_by_name(tmp_path, monkeypatch, capsys, corpus, arguments):
    out = tmp_path / "out.npy"
    with monkeypatch.context() as patch:
        stop_after(patch, 20)
        embed(corpus, out)
    assert embed(corpus, out, *arguments) == 1
    name = arguments[0].removeprefix("--").replace("-", "_")
    said = capsys.readouterr().err
    assert f"cannot resume: {name} was " in said
    assert str(folder_of(out)) in said


def test_another_input_is_refused(tmp_path, monkeypatch, capsys, corpus):
    out = tmp_path / "out.npy"
    with monkeypatch.context() as patch:
        stop_after(patch, 20)
        embed(corpus, out)
    corpus.write_text(corpus.read_text().replace("number 3 ", "number three "))
    assert embed(corpus, out) == 1
    assert "the input has changed since the previous run" in capsys.readouterr().err


def test_texts_may_have_been_added_to_the_input(tmp_path, monkeypatch, corpus):
    out = tmp_path / "out.npy"
    with monkeypatch.context() as patch:
        stop_after(patch, 20)
        embed(corpus, out)
    with corpus.open("a") as file:
        file.write('{"id": "new", "text": "more"}\n')
    assert embed(corpus, out) == 0
    assert len(np.load(out)) == len(TEXTS) + 1


@pytest.mark.parametrize("damage", [b"", b"no tensors", None])
def test_a_damaged_part_is_an_error_that_names_it(tmp_path, monkeypatch, capsys, corpus, damage):
    out = tmp_path / "out.npy"
    with monkeypatch.context() as patch:
        stop_after(patch, 20)
        embed(corpus, out)
    part = min(folder_of(out).glob("part-*"))
    content = part.read_bytes()
    part.write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if damage is None else damage)
    assert embed(corpus, out) == 1
    assert str(part) in capsys.readouterr().err


def test_two_runs_with_the_same_output_are_refused(tmp_path, capsys, corpus):
    out = tmp_path / "out.npy"
    with journal.Journal(str(out)) as running:
        running.begin({})
        assert embed(corpus, out) == 1
    assert "another run writes the same output" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--part-rows", "30"]])
def test_the_progress_is_kept_until_the_output_is_complete(
    tmp_path, monkeypatch, corpus, arguments
):
    out, replace, rename = tmp_path / "out.npy", Path.replace, Path.rename
    kept = []

    def watched(move):
        def moved(path, target):
            if target == out:
                kept.append(any(folder_of(out).glob("part-*")))
            return move(path, target)

        return moved

    monkeypatch.setattr(Path, "replace", watched(replace))
    monkeypatch.setattr(Path, "rename", watched(rename))
    assert embed(corpus, out, *arguments) == 0
    assert kept == [True]
    assert not folder_of(out).exists()


def test_an_output_that_cannot_be_completed_keeps_the_progress(tmp_path, monkeypatch, corpus):
    out, replace = tmp_path / "out.npy", Path.replace

    def full(path, target):
        if target == out:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", full)
    assert embed(corpus, out) == 1
    assert any(folder_of(out).glob("part-*"))


def test_a_removal_that_is_stopped_leaves_the_first_parts(tmp_path, monkeypatch, corpus):
    out, removed = tmp_path / "out.npy", []
    with monkeypatch.context() as patch:
        stop_after(patch, 20)
        embed(corpus, out)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda path, **_: removed.append(path.name))
        patch.setattr(journal.shutil, "rmtree", lambda *_, **__: removed.append("folder"))
        embed(corpus, out)
    parts = [name for name in removed if name.startswith("part-")]
    assert parts == ["part-00000001.safetensors", "part-00000000.safetensors"]
    assert removed[-1] == "folder"


@pytest.mark.slow
def test_after_thirty_kills_the_output_is_that_of_an_uninterrupted_run(tmp_path):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("".join(f"{'word ' * (i % 20)}number {i}\n" for i in range(800)))
    start = (
        "from simdformer.cli import journal, main; journal._ROWS = 64; import sys; sys.exit(main())"
    )

    def command(name):
        out = tmp_path / name
        return out, [sys.executable, "-c", start, "embed", str(corpus), "--resume", "-o", str(out)]

    whole, arguments = command("whole.jsonl")
    began = time.monotonic()
    subprocess.run(arguments, check=True)
    seconds = time.monotonic() - began
    out, arguments = command("out.jsonl")
    rng = random.Random(0)
    for _ in range(30):
        process = subprocess.Popen(arguments)
        try:
            process.wait(rng.uniform(0.1, 1) * seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.returncode == 0 or out.exists():  # it may be killed after it has finished
            assert out.read_bytes() == whole.read_bytes()
            out.unlink()
    subprocess.run(arguments, check=True)
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["corpus.txt", "out.jsonl", "whole.jsonl"]
