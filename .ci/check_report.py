"""Open a report in headless Chromium, as a phone, a desktop, in the dark and on paper, and check what a reader sees.

    python .ci/check_report.py REPORT.html [--screenshots FOLDER]

Fails if the console shows an error, something is fetched from a network, a figure is invisible, the page is wider than
a phone, or text does not stand out from the page.
"""

from __future__ import annotations

import argparse
import base64
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
]

# What stands on the page that a reader looks at as a picture.
FIGURES = "figure svg, figure img, .bar"

INVISIBLE = """
return [...document.querySelectorAll(arguments[0])].filter(element => {
  const box = element.getBoundingClientRect(), style = getComputedStyle(element);
  return box.width < 3 || box.height < 3 || style.visibility !== 'visible' || style.opacity === '0'
    || (element.tagName === 'IMG' && element.naturalWidth === 0);
}).map(element => element.outerHTML.slice(0, 120));
"""

FAINT = """
const luminance = text => {
  const [r, g, b] = text.match(/[\\d.]+/g).map(Number).slice(0, 3)
    .map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = element => {
  for (; element; element = element.parentElement) {
    const colour = getComputedStyle(element).backgroundColor;
    if (!/, 0\\)$|transparent/.test(colour)) return colour;
  }
  return 'rgb(255, 255, 255)';
};
const places = 'h1, h2, h3, h4, p, a, li, th, td, span, figcaption, dt, dd, summary, pre, footer, svg text';
return [...document.querySelectorAll(places)]
  .map(element => {
    const style = getComputedStyle(element);
    const ink = element.namespaceURI.endsWith('svg') ? style.fill : style.color;
    const [a, b] = [luminance(ink), luminance(behind(element))].sort((x, y) => y - x);
    return [(a + 0.05) / (b + 0.05), element.textContent.trim().slice(0, 60)];
  }).filter(([contrast, text]) => text && contrast < 4.5);
"""


@contextmanager
def browser(width: int, height: int) -> Iterator[Any]:
    """A headless Chromium with a window of that size."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    driver, chromium = shutil.which("chromedriver"), shutil.which("chromium") or shutil.which("google-chrome")
    if driver is None or chromium is None:
        sys.exit("check_report: install chromium and chromium-driver first")
    with tempfile.TemporaryDirectory() as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        page = webdriver.Chrome(options=options, service=Service(driver))
        try:
            page.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride",
                {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
            )
            yield page
        finally:
            page.quit()


def look(
    report: Path, width: int, height: int, *, dark: bool, medium: str = "screen", picture: Path | None
) -> list[str]:
    """The faults that a reader with such a screen would meet."""
    with browser(width, height) as page:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": medium, "features": [scheme]})
        page.get(report.resolve().as_uri())
        page.execute_script("document.querySelectorAll('details').forEach(element => element.open = true)")
        faults = [f"console: {entry['message']}" for entry in page.get_log("browser") if entry["level"] != "INFO"]
        fetched = page.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
        faults += [f"fetched {name}" for name in fetched if not name.startswith("data:")]
        count = page.execute_script("return document.querySelectorAll(arguments[0]).length", FIGURES)
        if count == 0:
            faults.append("the page has no figure")
        faults += [f"invisible: {element}" for element in page.execute_script(INVISIBLE, FIGURES)]
        ids = page.execute_script("return [...document.querySelectorAll('[id]')].map(element => element.id)")
        if len(ids) != len(set(ids)):
            faults.append("two elements share an id")
        wide = page.execute_script("return document.documentElement.scrollWidth")
        if wide > width:
            faults.append(f"the page is {wide} pixels wide on a screen of {width}")
        faults += [f"faint text ({contrast:.1f}:1): {text}" for contrast, text in page.execute_script(FAINT)]
        if medium == "print":
            paper = page.execute_script("return getComputedStyle(document.body).backgroundColor")
            faults += [] if paper == "rgb(255, 255, 255)" else [f"paper is {paper}"]
        if picture is not None:
            shot = page.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
            picture.write_bytes(base64.b64decode(shot["data"]))
        return faults


def bytes_on_paper(report: Path) -> int:
    """The number of bytes of the report as a PDF."""
    with browser(1200, 900) as page:
        page.get(report.resolve().as_uri())
        return len(base64.b64decode(page.execute_cdp_cmd("Page.printToPDF", {})["data"]))


def main() -> int:
    """Check the report; 0 if nothing is wrong with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("--screenshots", type=Path, help="keep a picture of each view in this folder")
    options = parser.parse_args()
    if not options.report.is_file():
        sys.exit(f"check_report: no such file: {options.report}")
    if options.screenshots is not None:
        options.screenshots.mkdir(parents=True, exist_ok=True)
    wrong = 0
    for name, width, height, dark, medium in (
        ("desktop", 1200, 900, False, "screen"),
        ("dark", 1200, 900, True, "screen"),
        ("phone", 390, 844, False, "screen"),
        ("phone-dark", 390, 844, True, "screen"),
        # Paper is white, whatever the screen is.
        ("print", 900, 1200, True, "print"),
    ):
        picture = None if options.screenshots is None else options.screenshots / f"{name}.png"
        faults = look(options.report, width, height, dark=dark, medium=medium, picture=picture)
        sys.stdout.write(f"{name}: {'good' if not faults else f'{len(faults)} faults'}\n")
        for fault in faults[:20]:
            sys.stdout.write(f"  {fault}\n")
        wrong += len(faults)
    printed = bytes_on_paper(options.report)
    sys.stdout.write(f"paper: {printed} bytes of PDF\n")
    return 1 if wrong or printed < 10_000 else 0


if __name__ == "__main__":
    sys.exit(main())
