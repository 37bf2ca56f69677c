"""The documentation site in headless Chromium without network. `make pages` builds it first."""

from __future__ import annotations

import pytest

from tests.support import ROOT
from tests.support.browser import chromium, wait_for

pytestmark = pytest.mark.pages

SITE = ROOT / "build" / "docs"
PAGES = [
    "index.html",
    "tutorial.html",
    "faq.html",
    "howto/threads.html",
    "models.html",
    "explain.html",
    "performance.html",
    "development/capabilities.html",
    "reference/simdformer.html",
    "reference/nn.html",
    "reference/cli.html",
]
WIDTHS = {"desktop": 1280, "phone": 390}
# Pictures further down load when they are scrolled to, so only their addresses can be tested.
BROKEN = """
return Array.from(document.images).filter((i) => i.complete && !i.naturalWidth).map((i) => i.src);
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


def show(browser, name, width):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get_log("browser")
    path, _, query = name.partition("?")
    browser.get(f"{(SITE / path).as_uri()}?{query}")


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_its_window_without_errors_and_broken_pictures(browser, name, width):
    show(browser, name, width)
    assert browser.get_log("browser") == []
    assert browser.execute_script(BROKEN) == []
    wide = browser.execute_script("return document.documentElement.scrollWidth")
    assert wide <= width


def test_the_search_finds_a_page(browser):
    show(browser, "search.html?q=cross-encoder", 1280)
    wait_for(browser, "return document.querySelector('#search-results li a')?.text")
