"""The gallery of docs/explain.md contains what is measured."""

from __future__ import annotations

import re

import pytest

from simdformer import SentenceTransformer
from simdformer.explain import explain_texts
from tests.support import ROOT

PAGE = ROOT / "docs" / "explain.md"
TEXT = PAGE.read_text(encoding="utf-8")
GALLERY = TEXT.partition("<!-- gallery -->\n")[2].partition("<!-- end of the gallery -->")[0]


def test_every_picture_exists_and_is_shown():
    shown = re.findall(r"!\[.*?\]\((.*?)\)", TEXT)
    assert {PAGE.parent / name for name in shown} == set((PAGE.parent / "gallery").iterdir())


def test_the_gallery_has_every_section_of_a_report_of_two_texts():
    report = explain_texts(SentenceTransformer("all-MiniLM-L6-v2"), "a cat", "a dog")
    headings = re.findall(r"^### (.*)$", GALLERY, re.MULTILINE)
    assert headings[:3] == [section.title for section in report.sections]


@pytest.mark.parametrize("number", range(1, 9))
def test_the_gallery_has_every_point(number):
    assert re.search(rf"^### {number}\. .*\n\nThe article", GALLERY, re.MULTILINE)
