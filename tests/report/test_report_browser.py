"""The page in headless Chromium: no violation that axe finds, nothing beyond the edge of a telephone, nothing loaded.

Needs Chromium and its driver, and selenium and axe-core-python, none of which `.[dev]` brings. With PICTURES=FOLDER in
the environment, the pictures of each page are kept there.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lmsys_ray.report.write import write_report
from lmsys_ray.run_directory.layout import RunDirectory
from tests.report.synthetic import make_run
from tests.report.test_report_page import hostile_run

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
axe_core_python = pytest.importorskip("axe_core_python", reason="axe-core-python is not installed")
pytestmark = [
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium and chromedriver are not installed"),
    pytest.mark.slow,
]

WIDTHS, MODES = (1280, 360), ("light", "dark")
BEYOND = """
return [...document.querySelectorAll('body *')].filter(each => !each.closest('.scroll, svg')
    && each.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
    .map(each => each.outerHTML.slice(0, 200))
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunDirectory]:
    folder = tmp_path_factory.mktemp("browser")
    one = {"only": {"kind": "lightgbm", "artifacts": "models/lightgbm"}}
    return {
        "finished": make_run(folder / "finished", rows=2000, shard_rows=200),
        "unfinished": make_run(folder / "unfinished", scored={"llama": 2, "lightgbm": 4}, exit_code=None),
        "plain": make_run(folder / "plain", members=one, carried=()),
        "hostile": hostile_run(folder / "hostile"),
    }


def show(browser: Any, run: RunDirectory, width: int, mode: str) -> None:
    write_report(run, texts=True)
    feature = {"name": "prefers-color-scheme", "value": mode}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get_log("performance")
    browser.get(run.report.as_uri())
    browser.execute_script("document.querySelectorAll('details').forEach(each => each.open = true)")


@pytest.mark.parametrize("name", ["finished", "unfinished", "plain", "hostile"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("width", WIDTHS)
def test_a_page(browser: Any, runs: dict[str, RunDirectory], width: int, mode: str, name: str) -> None:
    show(browser, runs[name], width, mode)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script(BEYOND) == []
    script = Path(axe_core_python.__file__).parent / "axe.min.js"
    browser.execute_script(script.read_text(encoding="utf-8"))
    found = browser.execute_async_script("axe.run(document).then(arguments[arguments.length - 1])")
    told = {each["id"]: [node["html"][:200] for node in each["nodes"]][:3] for each in found["violations"]}
    assert told == {}
    requests = [entry["message"] for entry in browser.get_log("performance") if "requestWillBeSent" in entry["message"]]
    assert all("report.html" in message for message in requests)
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    if folder := os.environ.get("PICTURES"):
        height = browser.execute_script("return document.documentElement.scrollHeight")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.save_screenshot(str(Path(folder) / f"{name}-{width}-{mode}.png"))


def test_no_script_of_a_run_runs(browser: Any, runs: dict[str, RunDirectory]) -> None:
    show(browser, runs["hostile"], 1280, "light")
    assert browser.execute_script("return document.querySelectorAll('script, img, iframe, object, embed').length") == 0
    assert "<script>alert(1)</script>" in browser.execute_script("return document.body.innerText")


def test_the_dark_page_is_dark(browser: Any, runs: dict[str, RunDirectory]) -> None:
    shades = []
    for mode in MODES:
        show(browser, runs["plain"], 1280, mode)
        shades.append(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
    assert shades == ["rgb(255, 255, 255)", "rgb(20, 24, 29)"]
