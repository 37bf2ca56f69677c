"""Pages in headless Chromium without network: no requests, no console errors, and pictures as stored."""

from __future__ import annotations

import base64
import zlib

import numpy as np
import pytest

from simdformer import SentenceTransformer
from simdformer.explain import explain_texts, measure_points
from simdformer.explain.figures import Bars, Heads, HeatMap, Lines, Table, plain
from simdformer.explain.points import sequence
from tests.support.bert_weights import Config, random_weights
from tests.support.browser import check_silence, chromium, open_page, wait_for
from tests.support.model_fixtures import config_json, write_model

pytestmark = pytest.mark.pages

TEXT, OTHER = "the quick brown fox", "a lazy dog"
RAMP = {
    "light": ((0xF7, 0xFB, 0xFF), (0x6B, 0xAE, 0xD6), (0x08, 0x30, 0x6B)),
    "dark": ((0x16, 0x1C, 0x24), (0x2A, 0x6F, 0x97), (0xD9, 0xF2, 0xFF)),
}
CELL = """
const [canvas, row, column] = arguments, at = canvas.dataset, dpr = window.devicePixelRatio;
const place = (start, i) => Math.floor((Number(start) + (i + 0.5) * at.cell) * dpr);
// A copy: Chromium warns of reading the page's own again and again.
const copy = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
copy.drawImage(canvas, -place(at.left, column), -place(at.top, row));
const data = copy.getImageData(0, 0, 1, 1).data;
return Array.from(data).slice(0, 3);
"""
GRID = np.array([[0.5, -1, np.nan]])
LABELS = ["a $x$ _{", "b", ""]
FIGURES = [
    HeatMap("t", "x", "y", LABELS, ["q"], GRID, -1, 1, diverging=True),
    Heads("t a $x$", ["a"], {"m": GRID}, [], []),
    Bars("t", "x", "y", LABELS, {"s": GRID[0], "t": GRID[0]}),
    Lines("t a $x$", "x", "y", [1, 10, 100], {"s": GRID[0]}, log_x=True),
    Table("t", ["a $x$", "b"], [["c", 1.5]]),
]
COLORS = """
return Array.from(document.querySelectorAll("figure canvas"), (canvas) => {
  const copy = document.createElement("canvas");
  Object.assign(copy, { width: canvas.width, height: canvas.height });
  const context = copy.getContext("2d", { willReadFrequently: true });
  context.drawImage(canvas, 0, 0);
  const { data } = context.getImageData(0, 0, copy.width, copy.height);
  return new Set(new Uint32Array(data.buffer)).size;
});
"""
CLICK = """
const [canvas, row, column] = arguments, at = canvas.dataset, box = canvas.getBoundingClientRect();
const clientX = box.left + Number(at.left) + (column + 0.5) * at.cell;
const clientY = box.top + Number(at.top) + (row + 0.5) * at.cell;
canvas.dispatchEvent(new MouseEvent("click", { clientX, clientY }));
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture(scope="module")
def long_model(tmp_path_factory):
    config = Config(max_positions=512)
    folder = write_model(
        tmp_path_factory.mktemp("models") / "m",
        weights=random_weights(config),
        files={"config.json": config_json(config), "sentence_bert_config.json": None},
    )
    return SentenceTransformer(folder)


def shown(browser, tmp_path, report, theme="light"):
    features = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", features)
    path = tmp_path / "page.html"
    path.write_text(report.to_html(), encoding="utf-8")
    open_page(browser, path)
    return path


def head_figure(report):
    return next(f for part in report.sections for f in part.figures if isinstance(f, Heads))


def stored_bytes(report):
    figure = head_figure(report)
    return np.rint(np.array(figure.maps) * 255).astype(np.uint8)


def color(byte, theme):
    low, middle, high = RAMP[theme]
    place = byte / 127.5
    start, end, share = (low, middle, place) if place < 1 else (middle, high, place - 1)
    return [int(np.floor(a + (b - a) * share + 0.5)) for a, b in zip(start, end, strict=True)]


def choose_head(browser, figure, layer, head):
    """Select a head by a click. Returns the canvas of its map."""
    grid, weights = figure.find_elements("css selector", ".panes canvas[tabindex]")
    browser.execute_script(CLICK, grid, layer, head)
    return weights


def check_cells(browser, report, theme):
    figure = browser.find_element("css selector", "figure.wide")
    stored = stored_bytes(report)
    rng = np.random.default_rng(0)
    layers, heads, n, _ = stored.shape
    for layer, head in ((0, 0), (layers - 1, heads - 1)):
        canvas = choose_head(browser, figure, layer, head)
        for row, column in [(0, 0), (n - 1, n - 1), *rng.integers(0, n, (6, 2)).tolist()]:
            pixel = browser.execute_script(CELL, canvas, row, column)
            assert pixel == color(int(stored[layer, head, row, column]), theme)


def text_of(browser, selector):
    return [element.text for element in browser.find_elements("css selector", selector)]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_cells_have_the_colors_of_the_stored_bytes(browser, model, tmp_path, theme):
    report = explain_texts(model, TEXT, OTHER)
    path = shown(browser, tmp_path, report, theme)
    check_cells(browser, report, theme)
    browser.find_element("id", "theme").click()
    other = "dark" if theme == "light" else "light"
    check_cells(browser, report, other)
    check_silence(browser, path)


def test_printed_numbers_are_those_of_the_json(browser, model, tmp_path):
    report = explain_texts(model, TEXT, OTHER)
    shown(browser, tmp_path, report)
    content = report.to_dict()
    pairs = content["sections"][0]["figures"][0]["values"]
    bars = content["sections"][1]["figures"][0]
    columns = list(map(list, zip(*bars["series"].values(), strict=True)))
    entropy = content["sections"][2]["figures"][0]["measures"]["entropy / ln n"]
    for i, expected in enumerate((pairs, columns, entropy)):
        section = browser.find_element("id", f"section-{i}")
        section.find_element("css selector", "summary").click()
        wait_for(browser, "return arguments[0].querySelector('tbody tr')", section)
        rows = section.find_elements("css selector", "tbody tr")[: len(expected)]
        printed = [[cell.text for cell in row.find_elements("css selector", "td")] for row in rows]
        for words, numbers in zip(printed, expected, strict=True):
            for word, number in zip(words, numbers, strict=True):
                assert float(word.replace(",", "")) == pytest.approx(number, rel=5.1e-4, abs=1e-12)


def test_a_series_is_shown_with_its_faithfulness(browser, model, tmp_path):
    from selenium.webdriver.support.select import Select

    report = explain_texts(model, TEXT)
    shown(browser, tmp_path, report)
    figure = browser.find_element("css selector", "#section-0 figure")
    Select(figure.find_element("css selector", "select")).select_by_visible_text("rollout")
    facts = report.to_dict()["sections"][0]["figures"][0]["facts"]["rollout"]
    assert [e.text for e in figure.find_elements("css selector", "dt")] == list(facts)
    first = figure.find_element("css selector", "dd").text
    assert float(first) == pytest.approx(facts["Rank correlation with leave-one-out"], rel=5e-4)


def test_arrow_keys_walk_over_heads(browser, model, tmp_path):
    from selenium.webdriver.common.keys import Keys

    report = explain_texts(model, TEXT)
    shown(browser, tmp_path, report)
    figure = browser.find_element("css selector", "figure.wide")
    grid = figure.find_element("css selector", ".panes canvas[tabindex]")
    grid.send_keys(*[Keys.ARROW_UP] * 2, *[Keys.ARROW_LEFT] * 6)
    grid.send_keys(Keys.ARROW_DOWN, *[Keys.ARROW_RIGHT] * 3)
    entropy = plain(head_figure(report).measures["entropy / ln n"])[1][3]
    words = figure.find_element("css selector", ".panes output").text
    assert words.startswith("Head (1, 3): entropy / ln n ")
    assert float(words.rpartition(" ")[2]) == pytest.approx(entropy, rel=5e-4)


def test_a_script_as_a_text_stays_text(browser, model, tmp_path):
    text = '</script><script>document.title="taken"</script><img src=x onerror=alert(1)>'
    report = explain_texts(model, text, "<b>bold</b> &amp; --!>")
    shown(browser, tmp_path, report)
    assert browser.title == report.title
    assert text in text_of(browser, "#facts dd")
    assert "<b>bold</b> &amp; --!>" in text_of(browser, "#facts dd")
    assert browser.find_elements("css selector", "img, b") == []


@pytest.mark.parametrize("text", ["", "a"])
def test_texts_of_no_or_one_token_are_drawn(browser, model, tmp_path, text):
    report = explain_texts(model, text, text)
    path = shown(browser, tmp_path, report)
    check_cells(browser, report, "light")
    check_silence(browser, path)


def test_512_tokens_are_drawn(browser, long_model, tmp_path):
    report = explain_texts(long_model, "a b c d e " * 102)
    assert len(head_figure(report).tokens) == 512
    shown(browser, tmp_path, report)
    check_cells(browser, report, "light")


def test_a_phone_needs_no_horizontal_scrolling(browser, model, tmp_path):
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 3, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        report = explain_texts(model, TEXT, OTHER)
        shown(browser, tmp_path, report)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
        check_cells(browser, report, "light")
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_every_picture_of_the_points_is_drawn(browser, model, tmp_path, monkeypatch):
    monkeypatch.setattr(sequence, "_LENGTHS", (4, 8))
    monkeypatch.setattr(sequence, "find_spec", lambda name: None)  # noqa: ARG005
    report = measure_points(model)
    path = shown(browser, tmp_path, report)
    colors = browser.execute_script(COLORS)
    assert len(colors) >= sum(len(part.figures) for part in report.sections) - 2  # two tables
    assert min(colors) > 2
    check_silence(browser, path)


def test_maps_in_the_page_are_those_of_the_call(browser, model, tmp_path):
    report = explain_texts(model, TEXT)
    shown(browser, tmp_path, report)
    packed = browser.execute_script("return report.sections[1].figures[0].maps")
    found = np.frombuffer(zlib.decompress(base64.b64decode(packed)), np.uint8)
    np.testing.assert_array_equal(found, stored_bytes(report).reshape(-1))


@pytest.mark.parametrize("kind", ["png", "svg"])
@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.kind)
def test_pictures_are_drawn_as_files(kind, figure):
    from simdformer.explain.plots import draw

    first, again = draw(figure, kind), draw(figure, kind)
    assert first.startswith({"png": b"\x89PNG", "svg": b"<?xml"}[kind])
    assert first == again
    if kind == "svg":
        assert "a $x$" in first.decode()


def test_the_command_draws_every_picture(model, tmp_path):
    from simdformer.cli import main

    folder = tmp_path / "figures"
    arguments = ["a cab", "-o", str(tmp_path / "p.html"), "--figures", str(folder)]
    assert main(["explain", *arguments, "--model", str(model.name_or_path)]) == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        "1-1-tokens-of-the-text.png",
        "1-1-tokens-of-the-text.svg",
        "2-1-heads-on-the-text.png",
        "2-1-heads-on-the-text.svg",
    ]
