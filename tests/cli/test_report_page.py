"""`madtp report`: one page about finished runs, also in a browser."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import madtp_cli
from tests.reporting.test_html import Reader, forbidden


@pytest.fixture(scope="session")
def page(madtp, compressed, tmp_path_factory) -> Path:
    """The page of two folders, with pictures."""
    folder = tmp_path_factory.mktemp("report")
    other = shutil.copytree(compressed[0], folder / "other")
    done = madtp("report", compressed[0], other, "-o", folder / "page.html", "--pictures", 8)
    assert done.exit_code == 0, done.stderr
    return folder / "page.html"


def test_the_page_shows_figures_plots_and_samples(page, compressed) -> None:
    """Both images of a pair have pictures, and the fine-tune and the record are there."""
    reader, report = Reader(page.read_text("utf-8")), compressed[1]
    assert forbidden(reader) == []
    assert f"{report['quality']['pruned']:.2f}" in reader.text
    assert "Loss of the fine-tune" in reader.text
    assert reader.elements.count("article") == 8
    labels = [value for name, value in reader.attributes if name == "aria-label"]
    assert sum(label.startswith("The right image after block") for label in labels) >= 8
    for field in ("settings.batch_size", "environment.torch", "threshold_scale"):
        assert field in reader.text


def test_a_page_is_replaced_and_another_file_is_not(madtp, compressed, tmp_path) -> None:
    """The default is report.html in the folder."""
    folder = shutil.copytree(compressed[0], tmp_path / "pruned")
    for _ in range(2):
        done = madtp("report", folder, "--pictures", 0, "--json")
        assert (done.exit_code, json.loads(done.stdout)["file"]) == (0, str(folder / "report.html"))
    (folder / "report.html").write_text("mine")
    assert madtp("report", folder, "--pictures", 0).exit_code == 6


def test_without_data_or_records_there_is_a_page_without_pictures(madtp, compressed, tmp_path) -> None:
    """The folder came from another machine. Data that the user names must be right."""
    folder = shutil.copytree(compressed[0], tmp_path / "pruned")
    report = json.loads((folder / "report.json").read_text())
    (folder / "report.json").write_text(json.dumps(report | {"settings": report["settings"] | {"data": "/nowhere"}}))
    done = madtp("report", folder)
    assert done.exit_code == 0, done.stderr
    assert "There are no pictures of pruned" in done.stderr
    assert "There are no pictures of pruned" in (folder / "report.html").read_text("utf-8")
    assert madtp("report", folder, "--data", tmp_path / "missing").exit_code == 3
    (folder / "samples.jsonl").unlink()
    assert madtp("report", folder).exit_code == 0


def test_a_folder_without_a_report_is_refused(madtp, checkpoint, compressed, tmp_path) -> None:
    """A dense checkpoint has none; a wrong one is named with the field."""
    assert madtp("report", checkpoint.parent).exit_code == 3
    folder = shutil.copytree(compressed[0], tmp_path / "pruned")
    (folder / "report.json").write_text("{}")
    done = madtp("report", folder)
    assert done.exit_code == 3
    assert "is not a report of madtp compress" in done.stderr


def test_python_returns_the_path(compressed, tmp_path) -> None:
    """Like the command."""
    file = madtp_cli.report(compressed[0], output=tmp_path / "page.html", pictures=0)
    assert file == tmp_path / "page.html"
    assert file.is_file()


@pytest.fixture(scope="session")
def browser() -> Any:
    """Headless Chromium; the tests are skipped where it is missing."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install '.[dev]'")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.mark.parametrize(("width", "scheme"), [(1100, "light"), (1100, "dark"), (360, "light")])
def test_a_browser_shows_the_page(browser, page, width: int, scheme: str) -> None:
    """No message in the console, no request, every picture drawn, no scrolling to the side, no barrier (axe)."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    look = dict(viewport={"width": width, "height": 800}, color_scheme=scheme)
    messages: list[str] = []
    requests: list[str] = []
    context = browser.new_context(**look)
    shown = context.new_page()
    shown.on("console", lambda message: messages.append(message.text))
    shown.on("pageerror", lambda error: messages.append(str(error)))
    shown.on("request", lambda request: requests.append(request.url))
    shown.goto(page.as_uri())
    assert messages == []
    assert [url for url in requests if not url.startswith("data:")] == [page.as_uri()]
    drawn = shown.evaluate("[...document.images].map(image => image.complete && image.naturalWidth > 0)")
    assert len(drawn) >= 7
    assert all(drawn)
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    paper = shown.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(13, 17, 23)" if scheme == "dark" else "rgb(255, 255, 255)")
    context.close()
    # The policy of the page would also stop the checker.
    checked = browser.new_context(**look, bypass_csp=True).new_page()
    checked.goto(page.as_uri())
    found = axe.Axe().run(checked).response["violations"]
    assert [rule["id"] for rule in found if rule["impact"] in ("serious", "critical")] == []
