"""simdformer embed --chunk: long texts are split between words, and the output has the limits of chunks."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simdformer import SentenceTransformer
from simdformer.cli import main
from simdformer.cli.chunking import Chunker


@pytest.fixture(scope="module")
def model():
    return SentenceTransformer("all-MiniLM-L6-v2")


@given(
    words=st.lists(
        st.sampled_from(["a", "cat", "unbelievably", "日本", "x1,y;z", "été"]), max_size=60
    ),
    size=st.integers(1, 20),
    data=st.data(),
)
def test_chunks_cover_every_token_in_pieces_of_at_most_the_size(model, words, size, data):
    overlap = data.draw(st.integers(0, size - 1))
    text = " ".join(words)
    spans = Chunker(model, size, overlap, None).spans(text)
    tokens = model.pipeline.tokenizer.offsets(text)
    for start, stop in spans:
        within = [t for t in tokens if start <= t[0] and t[1] <= stop]
        assert len(within) <= size or len(spans) == 1
    covered = {t for t in tokens for start, stop in spans if start <= t[0] and t[1] <= stop}
    assert covered == set(tokens)
    starts = [start for start, _ in spans]
    assert starts == sorted(set(starts))


def test_texts_are_split_between_words(model):
    text = "one two three unbelievably four"
    spans = Chunker(model, 6, 0, None).spans(text)
    words = [text[start:stop] for start, stop in spans]
    assert " ".join(words) == text


def test_chunks_overlap_by_the_given_number_of_tokens(model):
    text = " ".join(["cat", "dog"] * 20)
    spans = Chunker(model, 10, 3, None).spans(text)
    for (_, stop), (start, _) in itertools.pairwise(spans):
        assert len(text[start:stop].split()) == 3


def test_a_short_text_is_its_only_chunk(model):
    assert Chunker(model, 0, 0, None).spans("  a cat ") == [(0, 8)]
    assert Chunker(model, 0, 0, None).spans("") == [(0, 0)]


def test_chunks_of_the_models_length_are_not_truncated(tmp_path, capsys):
    text = "An unbelievably long text of words. " * 300
    (tmp_path / "a.md").write_text(text)
    out = tmp_path / "out.jsonl"
    assert main(["embed", str(tmp_path / "a.md"), "--chunk", "-o", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) > 1
    assert all(row["text"] == text[row["start"] : row["end"]] for row in rows)
    assert (rows[0]["start"], rows[-1]["end"]) == (0, len(text.rstrip()))
    assert "longer than" not in capsys.readouterr().err
