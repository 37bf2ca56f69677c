"""URIs of inputs, and inputs that the output would replace."""

from __future__ import annotations

import pytest

from simdformer.cli import main
from simdformer.cli.corpus import Corpus
from simdformer.cli.opening import expand, known_format
from simdformer.cli.records import Fields

pytest.importorskip("pyarrow")


def embed(*arguments, out):
    return main(["embed", *map(str, arguments), "-o", str(out)])


@pytest.mark.parametrize("name", ["a b.txt", "a%41.txt", "a#b.txt", "日本.txt", "sub dir/x.txt"])
def test_a_file_of_any_name_is_read_below_a_uri(tmp_path, name):
    (tmp_path / "in folder" / name).parent.mkdir(parents=True)
    (tmp_path / "in folder" / name).write_text("text\n")
    found = Corpus([(tmp_path / "in folder").as_uri()], None, Fields())
    with found:
        assert [record.text for record in found] == ["text"]


@pytest.mark.parametrize("end", ["", "/"])
def test_the_query_of_a_uri_follows_each_name(tmp_path, end):
    (tmp_path / "a.txt").write_text("text\n")
    found, _ = expand([f"{tmp_path.as_uri()}{end}?region=x"], None)
    assert found == [f"{tmp_path.as_uri()}/a.txt?region=x"]


def test_the_format_of_a_uri_does_not_depend_on_its_query():
    assert known_format("s3://bucket/a.jsonl.gz?endpoint_override=localhost:9000") == "jsonl"


def test_a_uri_of_the_output_is_refused(tmp_path, capsys):
    path = tmp_path / "a b.jsonl"
    path.write_text('{"text": "a"}\n')
    with pytest.raises(SystemExit):
        embed(path.as_uri(), out=path)
    assert "INPUT and OUTPUT are the same file" in capsys.readouterr().err


def test_parts_of_an_earlier_run_are_not_read_as_input(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("text\n")
    part = tmp_path / "out.jsonl" / "part-00000.jsonl"
    part.parent.mkdir()
    part.write_text('{"text": "a"}\n')
    with pytest.raises(SystemExit):
        embed(".", "--part-rows", "5", out="out.jsonl")
    assert "part-00000.jsonl lies in OUTPUT, out.jsonl" in capsys.readouterr().err


def test_the_list_of_skipped_records_may_not_lie_in_the_output(tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    options = ["--part-rows", "5", "--on-error", "skip", "--errors", str(out / "part-bad.jsonl")]
    (tmp_path / "a.txt").write_text("text\n")
    with pytest.raises(SystemExit):
        embed(tmp_path / "a.txt", *options, out=out)
    assert "part-bad.jsonl lies in OUTPUT" in capsys.readouterr().err
