"""The page in a real browser: Chromium, driven by Playwright.

Skipped where one of them is missing.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from client.report.cases import CASES

CHROMIUM = (
    os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
)
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]

if not CHROMIUM:
    pytest.skip(
        "there is no chromium: apt-get install chromium, or CHROMIUM=path", allow_module_level=True
    )
playwright = pytest.importorskip("playwright.sync_api")

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def show(browser: Any, pages: dict[str, str], tmp_path: Path) -> Iterator[Open]:
    """Return a function that opens the page of a case.

    Complaints and requests of any page fail the test.
    """
    contexts, complaints, requests = [], [], []

    def show(case: str, *, width: int = 1280, scheme: str = "light", script: bool = True) -> Any:
        file = tmp_path / f"{case}.html"
        file.write_text(pages[case], encoding="utf-8")
        context = browser.new_context(
            viewport={"width": width, "height": 800},
            color_scheme=scheme,
            java_script_enabled=script,
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(file.as_uri())
        return page

    yield show
    for context in contexts:
        context.close()
    assert not complaints
    assert {url.rpartition("/")[0] for url in requests} <= {tmp_path.as_uri()}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_is_wider_than_the_window(show: Open, case: str, width: int) -> None:
    page = show(case, width=width)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    wide = page.evaluate(
        """width => [...document.querySelectorAll('main *')]
             .filter(one => !one.closest('.scroll') && !one.closest('svg'))
             .filter(one => one.getBoundingClientRect().right > width + 1)
             .map(one => one.outerHTML.slice(0, 80))""",
        width,
    )
    assert wide == []


@pytest.mark.parametrize("case", CASES)
def test_headings_are_in_order(show: Open, case: str) -> None:
    levels = [
        int(name[1])
        for name in show(case).evaluate(
            "[...document.querySelectorAll('h1,h2,h3,h4')].map(e => e.tagName)"
        )
    ]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(levels))


def _accessible(page: Any) -> list[tuple[str, str, str]]:
    """Return role, name and description of everything that a screen reader meets."""
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    return [
        (
            node.get("role", {}).get("value", ""),
            node.get("name", {}).get("value", ""),
            node["nodeId"],
        )
        for node in nodes
        if not node.get("ignored")
    ]


@pytest.mark.parametrize("width", [360, 1280])
def test_every_drawing_has_a_name_that_tells_its_fact(show: Open, width: int) -> None:
    images = [
        name
        for role, name, _ in _accessible(show("troubled", width=width))
        if role in ("image", "img")
    ]
    assert len(images) == 7
    assert all(re.match(r"[A-Z][\w ]+\. .*\d.*\.$", name) for name in images)


def test_a_screen_reader_finds_landmarks_and_tables(show: Open) -> None:
    page = show("troubled")
    roles = [role for role, _, _ in _accessible(page)]
    assert roles.count("main") == 1
    assert {"heading", "table", "columnheader", "rowheader", "region"} <= set(roles)
    assert all(
        name for role, name, _ in _accessible(page) if role in ("table", "region", "heading")
    )
    assert "SvgRoot" not in roles  # a drawing is one image, not a heap of its parts


CONTRAST = """() => {
  const rgb = text => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const light = colour => {
    const [r, g, b] = colour.map(v => v / 255)
      .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = one => {
    for (; one; one = one.parentElement) {
      const colour = getComputedStyle(one).backgroundColor;
      if (!/rgba\\(.*, 0\\)|transparent/.test(colour)) return rgb(colour);
    }
    return [255, 255, 255];
  };
  const found = [];
  const page = getComputedStyle(document.querySelector('.inference-report')).backgroundColor;
  for (const one of document.querySelectorAll('main *')) {
    if (![...one.childNodes].some(node => node.nodeType === 3 && node.data.trim())) continue;
    if (one.closest('defs') || !one.getClientRects().length) continue;
    const style = getComputedStyle(one);
    const inside = one.closest('svg') !== null;
    if (inside && style.fill === page) continue; // on a bar
    const [a, b] = [light(rgb(inside ? style.fill : style.color)), light(ground(one))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push([one.tagName, one.textContent.slice(0, 40), ratio]);
  }
  return found;
}"""


@pytest.mark.parametrize("case", ["healthy", "troubled", "unasked"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(show: Open, case: str, scheme: str) -> None:
    page = show(case, scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert page.evaluate(CONTRAST) == []


def test_dark_and_light_differ_also_in_the_drawings(show: Open) -> None:
    colours = """() => [document.querySelector('.inference-report'),
      document.querySelector('svg.wide text'),
      document.querySelector('svg.wide [style*="--one"]')].map(one => {
        const style = getComputedStyle(one);
        return [style.backgroundColor, style.color, style.fill, style.stroke].join(' ')
      })"""
    light, dark = (show("healthy", scheme=scheme).evaluate(colours) for scheme in ("light", "dark"))
    assert all(one != other for one, other in zip(light, dark, strict=True))


@pytest.mark.parametrize(
    ("width", "shown", "hidden"), [(360, "narrow", "wide"), (1280, "wide", "narrow")]
)
def test_a_phone_gets_a_drawing_of_its_own(show: Open, width: int, shown: str, hidden: str) -> None:
    page = show("healthy", width=width)
    assert page.locator(f"svg.{shown}").first.is_visible()
    assert not page.locator(f"svg.{hidden}").first.is_visible()
    sizes = page.evaluate(
        f"""[...document.querySelectorAll('svg.{shown} text')].map(one => {{
              const matrix = one.getScreenCTM();
              return parseFloat(getComputedStyle(one).fontSize) * Math.hypot(matrix.a, matrix.b);
            }})"""
    )
    assert min(sizes) >= 9.5


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("case", ["healthy", "troubled", "hostile"])
def test_labels_stay_within_their_drawing(show: Open, case: str, width: int) -> None:
    outside = show(case, width=width).evaluate(
        """() => [...document.querySelectorAll('svg text')]
           .filter(one => one.getClientRects().length).filter(one => {
             const box = one.getBoundingClientRect();
             const edge = one.closest('svg').getBoundingClientRect();
             return box.left < edge.left - 1 || box.right > edge.right + 2;
           }).map(one => one.textContent)"""
    )
    assert outside == []


def test_what_is_hostile_is_only_text(show: Open) -> None:
    page = show("hostile")
    page.wait_for_timeout(100)
    assert (
        page.evaluate("document.querySelectorAll('script, img, title').length") == 1
    )  # the page's own title
    assert page.title() == "Inference report"
    assert "<script>alert(1)</script>" in page.locator("h2.server").first.inner_text()


def test_it_is_read_without_a_script(show: Open) -> None:
    page = show("troubled", script=False)
    assert page.locator("summary").count() >= 7
    table = page.locator("details table").first
    assert not table.is_visible()
    page.locator("summary").first.click()
    assert table.is_visible()
    page.keyboard.press("Tab")


def test_tables_and_switches_are_reached_by_keyboard(show: Open) -> None:
    page = show("troubled")
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("document.activeElement.tagName + '.' + document.activeElement.className")
        )
    assert {"SUMMARY.", "DIV.scroll"} <= reached
