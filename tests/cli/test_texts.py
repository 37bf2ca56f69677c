"""Reading .txt, .jsonl and .csv: each text has its line number, and errors name the line."""

from __future__ import annotations

import io
import tracemalloc

import pytest

from simdformer.cli import texts
from simdformer.cli.errors import CliError, UsageError
from simdformer.cli.opening import text_format
from simdformer.cli.records import Fields
from simdformer.cli.texts import TextSource


def read(tmp_path, format_, content, field=None):
    path = tmp_path / f"input.{format_}"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with TextSource(str(path), format_, Fields(field)) as source:
        return [(record.text, record.line) for record in source]


@pytest.mark.parametrize("format_", ["txt", "jsonl", "csv"])
def test_a_file_that_becomes_shorter_is_an_error(tmp_path, format_):
    path = tmp_path / f"input.{format_}"
    line = '{"text": "a text"}\n' if format_ == "jsonl" else "text\n"
    path.write_text(line * 10_000)
    with TextSource(str(path), format_) as source:
        records = iter(source)
        next(records)
        path.write_text(line * 2)
        with pytest.raises(CliError, match="became shorter while it was read: "):
            list(records)


def test_a_file_that_grows_is_read_to_its_end(tmp_path):
    path = tmp_path / "input.txt"
    path.write_text("text\n")
    with TextSource(str(path), "txt") as source, path.open("a") as more:
        more.write("more\n")
        more.flush()
        assert [record.text for record in source] == ["text", "more"]


def test_txt_has_one_text_per_line_and_an_empty_line_is_an_empty_text(tmp_path):
    assert read(tmp_path, "txt", "one\n\nthree\n") == [("one", 1), ("", 2), ("three", 3)]


def test_txt_may_lack_the_last_line_end(tmp_path):
    assert read(tmp_path, "txt", "one\ntwo") == [("one", 1), ("two", 2)]


def test_txt_lines_end_with_newline_only(tmp_path):
    """They do not end at U+2028, form feed or a single carriage return, unlike with str.splitlines."""
    line = "a\u2028b\x0cc\rd\x85e"
    assert read(tmp_path, "txt", f"{line}\r\nnext\n") == [(line, 1), ("next", 2)]


def test_txt_drops_a_byte_order_mark(tmp_path):
    assert read(tmp_path, "txt", b"\xef\xbb\xbfone\n") == [("one", 1)]


@pytest.mark.parametrize("format_", ["txt", "jsonl", "csv"])
def test_an_empty_file_has_no_texts(tmp_path, format_):
    assert read(tmp_path, format_, "") == []


def test_jsonl_uses_the_requested_field(tmp_path):
    lines = '{"body": "one", "text": "x"}\n{"body": "zwei \\u00e4"}\n'
    assert read(tmp_path, "jsonl", lines, "body") == [("one", 1), ("zwei ä", 2)]


def test_jsonl_skips_blank_lines_but_counts_them(tmp_path):
    assert read(tmp_path, "jsonl", '{"text": "one"}\n \n{"text": "two"}\n\n') == [
        ("one", 1),
        ("two", 3),
    ]


def test_csv_takes_a_column_by_its_name(tmp_path):
    rows = 'id,text\r\n1,"a, b"\r\n2,"say ""hi"""\r\n'
    assert read(tmp_path, "csv", rows) == [("a, b", 2), ('say "hi"', 3)]


def test_csv_gives_the_line_on_which_a_row_starts(tmp_path):
    rows = 'text\n"two\nlines"\nthird\n'
    assert read(tmp_path, "csv", rows) == [("two\nlines", 2), ("third", 4)]


def test_csv_takes_a_field_of_a_megabyte(tmp_path):
    long = "x" * 2**20
    assert read(tmp_path, "csv", f"text\n{long}\n") == [(long, 2)]


@pytest.mark.parametrize(
    ("format_", "content", "message"),
    [
        ("txt", b"good\nb\xffd\n", "line 2: not UTF-8: byte 0xff at position 1"),
        ("jsonl", '{"text": "good"}\n{"text": \n', "line 2: not valid JSON: "),
        ("jsonl", "[" * 100_000, "line 1: not valid JSON: "),
        ("jsonl", '"text"\n', "line 1: expected a JSON object, got a string"),
        ("jsonl", "[1]\n", "line 1: expected a JSON object, got an array"),
        ("jsonl", '{"a": 1, "b": 2}\n', 'line 1: no field "text" (there: "a", "b"); use --field'),
        ("jsonl", "{}\n", 'line 1: no field "text" (there: none); use --field'),
        ("jsonl", '\n{"text": null}\n', 'line 2: field "text" must be a string, got null'),
        ("jsonl", '{"text": 7.5}\n', 'line 1: field "text" must be a string, got a number'),
        ("jsonl", '{"text": true}\n', 'line 1: field "text" must be a string, got a boolean'),
        ("jsonl", '{"text": {}}\n', 'line 1: field "text" must be a string, got an object'),
        (
            "jsonl",
            '{"text": "a\\ud800"}\n',
            'line 1: field "text" is not Unicode text: lone surrogate \\ud800 at character 1',
        ),
        ("csv", "a,b\n1,2\n", 'line 1: no column "text" (there: "a", "b"); use --field'),
        ("csv", "text,a,text\n1,2,3\n", 'line 1: 2 columns have the name "text"'),
        ("csv", "a,text\n1,2\n\n3\n", "line 4: expected 2 columns, got 1"),
        ("csv", 'text\n"open\n', "line 2: not valid CSV: a quote opens here"),
        ("csv", 'text\nfine\n"open\nmore\nand more\n', "line 3: not valid CSV: a quote opens here"),
        ("csv", 'a,text\n"two\nlines","open\nmore\n', "line 3: not valid CSV: a quote opens here"),
        ("csv", 'text\n"a ""b"" c"\n"open ""d""\n', "line 3: not valid CSV: a quote opens here"),
        ("csv", 'text\n"closed"d\n', "line 2: not valid CSV: ',' expected after"),
        (
            "jsonl",
            '{"text": "a"}\n{"text": "b", "n": %s}\n' % ("9" * 5000),
            "line 2: not valid JSON",
        ),
        ("csv", b"text\ngood\n\xe4\n", "line 3: not UTF-8: byte 0xe4 at position 0"),
    ],
)
def test_a_bad_line_is_named(tmp_path, format_, content, message):
    with pytest.raises(CliError) as caught:
        read(tmp_path, format_, content)
    assert str(caught.value).startswith(f"{tmp_path}/input.{format_}, {message}")


def test_records_before_a_bad_line_are_returned(tmp_path):
    path = tmp_path / "input.jsonl"
    path.write_text('{"text": "good"}\nbad\n')
    with TextSource(str(path), "jsonl") as source:
        records = iter(source)
        assert next(records).text == "good"
        with pytest.raises(CliError, match="line 2"):
            next(records)


def test_a_line_that_never_ends_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "MAX_LINE_BYTES", 1000)
    path = tmp_path / "input.txt"
    path.write_bytes(b"x" * 10**7)
    tracemalloc.start()
    with TextSource(str(path), "txt") as source, pytest.raises(CliError, match="1,000 bytes"):
        list(source)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10**6


@pytest.mark.parametrize("format_", ["txt", "jsonl", "csv"])
def test_a_record_has_the_byte_where_it_ends(tmp_path, format_):
    path = tmp_path / "input"
    header = {"txt": [], "jsonl": [], "csv": ["text"]}[format_]
    texts = ['{"text": "é"}', '{"text": "zwei"}']
    lines = header + (texts if format_ == "jsonl" else ["é", "zwei"])
    path.write_text("\n".join(lines))
    with TextSource(str(path), format_) as source:
        ends = [record.end for record in source]
    assert ends == [len("\n".join([*lines[:-1], ""]).encode()), path.stat().st_size]
    assert source.size == path.stat().st_size


def test_standard_input_is_read(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("één\ntwee\n".encode())))
    with TextSource("-", "txt") as source:
        assert [record.text for record in source] == ["één", "twee"]
        assert source.size is None


@pytest.mark.parametrize("path", ["missing.txt", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path, path):
    with pytest.raises(CliError, match=f"cannot read {tmp_path}"):
        TextSource(str(tmp_path / path), "txt")


@pytest.mark.parametrize(
    ("path", "chosen", "expected"),
    [
        ("a.txt", None, "txt"),
        ("a.b.JSONL", None, "jsonl"),
        ("a.csv", None, "csv"),
        ("-", None, "txt"),
        ("-", "csv", "csv"),
        ("a.txt", "jsonl", "jsonl"),
        ("a.dat", "txt", "txt"),
    ],
)
def test_the_format_is_the_one_chosen_or_the_suffix(path, chosen, expected):
    assert text_format(path, chosen) == expected


@pytest.mark.parametrize("path", ["a.docx", "README", "a.docx.gz"])
def test_an_unknown_suffix_is_a_usage_error(path):
    with pytest.raises(UsageError, match=r"use --format"):
        text_format(path, None)
