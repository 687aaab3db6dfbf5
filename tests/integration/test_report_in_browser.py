"""The report in a real browser: no request to the network, no word on the console, nothing sticks out."""

import os
import shutil
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
SCREENSHOTS = os.environ.get("TCVQ_SCREENSHOTS")  # a folder to look at them


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright: uv sync --group browser")
    if CHROMIUM is None:
        pytest.skip("needs Chromium: on Debian apt-get install chromium")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("what", ["finished", "event_run", "event_study"])
def test_a_report_opens_without_requests_and_errors_and_fits_the_screen(browser, what, width, scheme, request):
    folder = request.getfixturevalue(what)
    requests, problems = [], []
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.on("request", lambda asked: requests.append(asked.url))
    page.on("console", lambda message: problems.append(message.text) if message.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto((folder / "report.html").as_uri())
    page.wait_for_load_state("networkidle")
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert problems == []
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(c) for c in background[4:-1].split(",")) < 200) == (scheme == "dark")
    if SCREENSHOTS:
        page.screenshot(path=Path(SCREENSHOTS) / f"{what}-{width}-{scheme}.png", full_page=True)
    page.close()
