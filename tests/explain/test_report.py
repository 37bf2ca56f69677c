"""Reports: their contents, and that a page contains any text safely. test_pages.py opens them in a
browser."""

from __future__ import annotations

import base64
import json
import re
import zlib

import numpy as np
import pytest

from simdformer import SentenceTransformer
from simdformer.explain import (
    Report,
    explain_texts,
    head_importance,
    leave_one_out,
    token_similarity,
)
from simdformer.explain.figures import packed_maps, plain
from simdformer.text.tokenizer import Tokenizer
from tests.support.model_fixtures import TINY, write_model

TEXT, OTHER = "the quick brown fox", "a lazy dog"
SCRIPT = '</script><script>alert("x")</script><img src=x onerror=alert(1)>'


def page_data(report):
    [data] = re.findall(
        r'<script type="application/json" id="report">(.*?)</script>', report.to_html()
    )
    return json.loads(data)


def figures(content):
    return {figure["title"]: figure for part in content["sections"] for figure in part["figures"]}


@pytest.mark.parametrize("other", [None, OTHER])
def test_a_page_has_the_numbers_of_the_json(model, other):
    report = explain_texts(model, TEXT, other)
    content = page_data(report)
    for part in content["sections"]:
        for figure in part["figures"]:
            assert ("maps" in figure) == (figure["kind"] == "heads")
            figure.pop("maps", None)
    assert content == json.loads(report.to_json()) == report.to_dict()


def test_numbers_are_those_of_the_functions(model):
    found = figures(explain_texts(model, TEXT, OTHER).to_dict())
    pairs = found["Share of each pair of tokens"]["values"]
    losses = found["Tokens of the text"]["series"]["leave-one-out"]
    importance = found["Heads on the second text"]["measures"]["importance"]
    assert pairs == plain(token_similarity(model, TEXT, OTHER))
    assert losses == plain(leave_one_out(model, TEXT, OTHER))
    assert importance == plain(head_importance(model, OTHER))


def test_numbers_are_printed_as_float32_is():
    assert plain(np.array([0.1, np.nan, 1e-9], np.float32)) == [0.1, None, 1e-9]
    assert json.dumps(plain(1 / 3)) == "0.33333334"
    assert plain(np.eye(2, dtype=int)) == [[1, 0], [0, 1]]


def test_each_attribution_has_its_faithfulness(model):
    bars = figures(explain_texts(model, TEXT).to_dict())["Tokens of the text"]
    first, *others = bars["series"]
    assert first == "leave-one-out"
    assert others[-1] == "rollout"
    assert others == list(bars["facts"])
    for facts in bars["facts"].values():
        low, high = facts["95% interval"]
        assert low <= facts["Rank correlation with leave-one-out"] <= high


def test_maps_are_a_byte_per_weight(model):
    content = figures(page_data(explain_texts(model, TEXT)))["Heads on the text"]
    raw = zlib.decompress(base64.b64decode(content["maps"]))
    weights = np.array(model.outputs(TEXT, output_attentions=True).attentions)
    stored = np.frombuffer(raw, np.uint8).reshape(weights.shape)
    np.testing.assert_allclose(stored / 255, weights, rtol=0, atol=0.002)


def test_the_strongest_weight_of_each_head_is_named(model):
    output = model.outputs(TEXT, output_attentions=True)
    found = figures(explain_texts(model, TEXT).to_dict())["Heads on the text"]["strongest"]
    for layer, head in np.ndindex(TINY.num_layers, TINY.num_heads):
        query, key, weight = found[layer][head]
        assert weight == plain(output.attentions[layer][head].max())
        assert {query, key} <= set(output.tokens)


def test_a_text_cannot_escape_its_element_in_the_page(model):
    report = explain_texts(model, SCRIPT, "<!--")
    html = report.to_html()
    assert html.count("<script") == 2
    assert "<img" not in html
    assert "<!--" not in html
    assert page_data(report)["facts"]["Text"] == SCRIPT


def test_a_page_contains_no_other_address(model):
    html = explain_texts(model, TEXT).to_html()
    assert not re.search(r"https?:|\bsrc=|url\(|@import", html)
    assert "default-src 'none'" in html


def test_the_same_text_gives_the_same_page(model):
    assert explain_texts(model, TEXT).to_html() == explain_texts(model, TEXT).to_html()


def test_a_notebook_shows_the_page_in_a_frame(model):
    shown = explain_texts(model, 'a "b" <c>')._repr_html_()
    assert shown.startswith('<iframe srcdoc="&lt;!DOCTYPE html&gt;')
    assert shown.count('"') == 4


def test_a_notebook_shows_a_section_alone(model):
    section = explain_texts(model, TEXT).sections[0]
    assert section._repr_html_() == Report(section.title, {}, [section])._repr_html_()


@pytest.mark.parametrize(("text", "tokens"), [("", 2), ("a", 3)])
def test_texts_of_no_or_one_token(model, text, tokens):
    found = figures(explain_texts(model, text, text).to_dict())
    assert len(found["Tokens of the text"]["labels"]) == tokens
    facts = found["Tokens of the text"]["facts"]["rollout"]
    assert facts["Rank correlation with leave-one-out"] is None


def test_a_text_without_any_token_has_no_pictures(tmp_path):
    model = SentenceTransformer(write_model(tmp_path / "m"))
    files = model.pipeline.tokenizer.files
    model.pipeline.tokenizer = Tokenizer(files, max_seq_length=100, add_special_tokens=False)
    assert model.outputs("").tokens == ()
    for other in (None, "a"):
        report = explain_texts(model, "", other)
        titles = {
            figure["title"] for part in page_data(report)["sections"] for figure in part["figures"]
        }
        assert not titles & {"Tokens of the text", "Heads on the text"}


def test_another_pooling_explains_why_there_are_no_pairs(tmp_path):
    pooling = {"word_embedding_dimension": TINY.hidden_size, "pooling_mode": "cls"}
    folder = write_model(tmp_path / "m", files={"1_Pooling/config.json": pooling})
    section = explain_texts(SentenceTransformer(folder), TEXT, OTHER).to_dict()["sections"][0]
    assert section["figures"] == []
    assert "needs mean pooling, the model has cls" in section["paragraphs"][-1]


def test_a_page_of_230_tokens_is_below_one_and_a_half_megabytes():
    model = SentenceTransformer("all-MiniLM-L6-v2")
    words = [
        "the",
        "cat",
        "sat",
        "on",
        "a",
        "mat",
        "because",
        "it",
        "was",
        "tired",
        "and",
        "then",
        "slept",
        "all",
        "day",
        "long",
    ]
    rng = np.random.default_rng(0)
    text = " ".join(rng.choice(words, 228))
    output = model.outputs(text, output_attentions=True)
    assert len(output.tokens) == 230
    # The rest of a page is some kilobytes per hundred tokens.
    assert len(packed_maps(output.attentions)) < 1.4e6
