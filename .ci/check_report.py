"""Open a report in headless Chromium, as a phone, a desktop, in the dark and on paper, and check what a reader sees.

    python .ci/check_report.py REPORT.html [--screenshots FOLDER]
    python .ci/check_report.py REPORT.html --picture FILE

Fails if the console shows an error, something is fetched from a network, a figure is invisible, the page is wider than
a phone, text does not stand out from the page or a word is split inside; if what stands open is higher than 2,500
pixels for up to four cards, or paper takes more than 12 pages; if the number is not on a phone's first screen; if a
click on a heading does not sort, a word does not filter, a curve says nothing, an image does not grow, a link does not
unfold, a choice of one chapter (such as one eps) leaves others in sight, a stranger finds no next step; or if the page
says less without scripts. With --picture only the top of the page is kept, as a README shows it.
"""

from __future__ import annotations

import argparse
import base64
import re
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

# What may stand open for up to four cards, three models and a proof, in pixels of a desktop, and on paper, in pages.
HIGHEST, MOST_PAGES = 2500, 12

# What a page says of things that only scripts can do.
ADDED = {"all", "show", "models", "with"}

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


# A line that starts inside a word: the letter before it and the first of it have no break between them.
SPLIT = """
const found = [], range = document.createRange();
const seen = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let node; (node = seen.nextNode());) {
  if (!node.parentElement.closest('th, td, h1, h2, h3, h4, .card, summary, p')) continue;
  if (node.parentElement.closest('[hidden], code, svg') || !node.textContent.trim()) continue;
  let before = null;
  for (let i = 0; i < node.length; i++) {
    range.setStart(node, i); range.setEnd(node, i + 1);
    const box = range.getBoundingClientRect();
    if (box.width === 0) continue;
    const pair = node.textContent.slice(Math.max(0, i - 1), i + 1);
    if (before !== null && box.top > before + 4 && /^[a-z0-9]{2}$/i.test(pair))
      found.push(node.textContent.trim().slice(0, 60));
    before = box.top;
  }
}
return found;
"""

# What a click, a word and a pointer do. Each returns what is wrong with it.
SORTS = """
const faults = [];
for (const table of document.querySelectorAll('table')) {
  if (table.tBodies[0].rows.length < 2) continue;
  for (const [column, heading] of [...table.tHead.rows[0].cells].entries()) {
    const button = heading.querySelector('button');
    if (!button) { faults.push('no button to sort ' + heading.textContent); continue; }
    const values = () => [...table.tBodies[0].rows].map(row => row.cells[column].dataset.value)
      .filter(value => value !== undefined).map(Number);
    button.click();
    const down = values();
    button.click();
    const up = values();
    if (down.some((v, i) => i && v > down[i - 1]) || up.some((v, i) => i && v < up[i - 1]))
      faults.push('not sorted by ' + heading.textContent);
    if (heading.getAttribute('aria-sort') !== 'ascending') faults.push('not said to be sorted');
  }
}
return faults;
"""
FILTERS = """
const input = document.querySelector('.filter input');
if (!input) return [];
const rows = [...document.querySelector('[data-filtered]').querySelectorAll('tbody tr')];
input.value = rows[0].cells[0].textContent.trim();
input.dispatchEvent(new Event('input'));
const good = !rows[0].hidden && rows.every(row => row.hidden !== row.textContent.includes(input.value));
input.value = '';
input.dispatchEvent(new Event('input'));
return good && rows.every(row => !row.hidden) ? [] : ['the filter does not filter'];
"""
HOVERS = """
return [...document.querySelectorAll('figure[data-series]')].filter(figure => {
  const svg = figure.querySelector('svg'), box = svg.getBoundingClientRect();
  const [name, points] = JSON.parse(figure.dataset.series).find(([, points]) => points.length);
  const [x, y, text] = points[Math.floor(points.length / 2)], scale = box.width / svg.viewBox.baseVal.width;
  svg.dispatchEvent(new PointerEvent('pointermove', {clientX: box.left + x * scale, clientY: box.top + y * scale}));
  const tip = figure.querySelector('.tip'), shown = tip !== null && !tip.hidden && tip.textContent.includes(': ');
  svg.dispatchEvent(new PointerEvent('pointerleave'));
  return !shown || !tip.hidden;
}).map(figure => 'no values on ' + figure.id);
"""
GROWS = """
const image = document.querySelector('.triple img');
if (!image) return [];
image.click();
const dialog = document.querySelector('dialog'), open = dialog.open && dialog.querySelector('img').src === image.src;
dialog.close();
return open ? [] : ['a click does not enlarge an image'];
"""
UNFOLDS = """
const fold = document.querySelector('details[id]');
if (!fold) return [];
fold.open = false;
location.hash = fold.id;
dispatchEvent(new Event('hashchange'));
const open = fold.open;
fold.open = false;
return open ? [] : ['a link into what is folded does not open it'];
"""
# Links at the top show one chapter at a time, such as one eps, and `all` shows all again.
SWITCHES = """
const chapters = [...document.querySelectorAll('.chapter')], links = [...document.querySelectorAll('nav a')];
if (links.length < 2) return [];
const faults = [], shown = () => chapters.filter(chapter => !chapter.hidden);
for (const link of links.slice(0, -1)) {
  link.click();
  if (shown().length !== 1 || `#${shown()[0].id}` !== link.getAttribute('href'))
    faults.push('not switched to ' + link.textContent);
}
links.at(-1).click();
return shown().length === chapters.length ? faults : [...faults, 'all is not all'];
"""

# What next: a card that says it, or a list of steps.
NEXT = """
return /(^|\\n)\\s*Next\\b/.test(document.querySelector('main').innerText) ? [] : ['nothing says what to do next'];
"""


@contextmanager
def browser(width: int, height: int, *, scripts: bool = True) -> Iterator[Any]:
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
            page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not scripts})
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
        faults = first_look(page, width) if medium == "screen" else []
        if picture is not None:
            shoot(page, picture)
        page.execute_script("document.querySelectorAll('details').forEach(element => element.open = true)")
        faults += [f"split inside a word: {text}" for text in page.execute_script(SPLIT)]
        for script in (NEXT, SORTS, FILTERS, HOVERS, GROWS, SWITCHES) if medium == "screen" else ():
            faults += page.execute_script(script)
        faults += [f"console: {entry['message']}" for entry in page.get_log("browser") if entry["level"] != "INFO"]
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
        if medium == "screen":
            faults += page.execute_script(UNFOLDS)
        return faults


def first_look(page: Any, width: int) -> list[str]:
    """The faults of what stands open before anything is clicked."""
    faults = []
    # As many models as there are cards, or rows of the longest table that stands open.
    models = page.execute_script(
        "return Math.max(document.querySelectorAll('.card').length, ...[...document.querySelectorAll('table')]"
        ".filter(table => table.offsetParent).map(table => table.tBodies[0].rows.length))"
    )
    high = page.execute_script("return document.documentElement.scrollHeight")
    if width >= 1000 and 0 < models <= 4 and high > HIGHEST:
        faults.append(f"{high} pixels stand open for {models} models")
    top = page.execute_script(
        "const first = document.querySelector('.card .big, table .strong');"
        "return first ? first.getBoundingClientRect().bottom : -1"
    )
    if not 0 < top < page.execute_script("return innerHeight"):
        faults.append(f"the number is not on the first screen, but {top} pixels down")
    first, second = "thead th:nth-child(1)", "thead th:nth-child(2)"
    for number, table in enumerate(page.find_elements("css selector", "table")):
        if table.is_displayed() and width < 600:
            right = page.execute_script("return arguments[0].getBoundingClientRect().right", _cell(table, second))
            sticky = page.execute_script("return getComputedStyle(arguments[0]).position", _cell(table, first))
            if right > width or sticky != "sticky":
                faults.append(
                    f"table {number}: the first two columns take {right:.0f} of {width} pixels, or slide away"
                )
    return faults


def _cell(table: Any, selector: str) -> Any:
    return table.find_element("css selector", selector)


def shoot(page: Any, picture: Path) -> None:
    """Keep a picture of the page as it opens, its first 10,000 pixels."""
    root = "document.documentElement"
    width, height = page.execute_script(f"return [{root}.clientWidth, Math.min({root}.scrollHeight, 10000)]")
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    shot = page.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    picture.write_bytes(base64.b64decode(shot["data"]))


def top(report: Path, picture: Path) -> None:
    """Keep what a reader sees first, without the browser around it."""
    with browser(1100, 860) as page:
        page.get(report.resolve().as_uri())
        clip = {"x": 0, "y": 0, "width": 1100, "height": 860, "scale": 1}
        shot = page.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip})
    picture.write_bytes(base64.b64decode(shot["data"]))


def words(report: Path, *, scripts: bool) -> list[str]:
    """What stands on the page, folded or not, with or without scripts."""
    with browser(1200, 900, scripts=scripts) as page:
        page.get(report.resolve().as_uri())
        return list(page.find_element("css selector", "main").get_attribute("textContent").split())


def on_paper(report: Path) -> tuple[int, int]:
    """The number of pages, and of bytes, of the report as a PDF."""
    with browser(1200, 900) as page:
        page.get(report.resolve().as_uri())
        pdf = base64.b64decode(page.execute_cdp_cmd("Page.printToPDF", {})["data"])
        return len(re.findall(rb"/Type */Page\b", pdf)), len(pdf)


def main() -> int:
    """Check the report; 0 if nothing is wrong with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("--screenshots", type=Path, help="keep a picture of each view in this folder")
    parser.add_argument("--picture", type=Path, help="keep a picture of the top of the page in this file, and stop")
    options = parser.parse_args()
    if not options.report.is_file():
        sys.exit(f"check_report: no such file: {options.report}")
    if options.picture is not None:
        top(options.report, options.picture)
        return 0
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
    lost = set(words(options.report, scripts=True)) - set(words(options.report, scripts=False)) - ADDED
    if lost:
        sys.stdout.write(f"without scripts: these words are missing: {sorted(lost)[:20]}\n")
    pages, printed = on_paper(options.report)
    sys.stdout.write(f"paper: {pages} pages, {printed} bytes of PDF\n")
    return 1 if wrong or lost or pages > MOST_PAGES or printed < 10_000 else 0


if __name__ == "__main__":
    sys.exit(main())
