"""A page of `simdformer explain` in headless Chromium without network."""

from __future__ import annotations

import json
import shutil
import time
from contextlib import contextmanager

FLAGS = (
    "--headless",
    "--no-sandbox",  # root in a container cannot create another namespace
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1100,1400",
)


@contextmanager
def chromium(profile):
    """A driver whose browser stores its profile in this empty folder. Fails without a browser."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    binary = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    assert None not in (binary, driver), "apt-get install chromium chromium-driver"
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(driver))
    try:
        browser.execute_cdp_cmd("Network.enable", {})
        offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        browser.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
        yield browser
    finally:
        browser.quit()


def open_page(browser, path):
    """Open a page and wait until it is drawn. It must not print anything, nor request anything but itself."""
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(path.as_uri())
    wait_for(browser, "return document.documentElement.dataset.ready")
    check_silence(browser, path)


def wait_for(browser, script, *arguments):
    """Wait until the script returns true, for at most a minute, because events are handled after the
    click."""
    end = time.monotonic() + 60
    while not (found := browser.execute_script(script, *arguments)):
        assert time.monotonic() < end, (script, browser.get_log("browser"))
        time.sleep(0.02)
    return found


def check_silence(browser, path):
    """Check that there were no errors or warnings in the console since the last check, and no request but for
    the page."""
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert {url.partition("#")[0] for url in requests} <= {path.as_uri(), "data:,"}
