"""The page as a browser sees it: read, printed, in the dark, at 400 pixels, by keyboard, without a script."""

from __future__ import annotations

import gzip
import re
from base64 import b64decode
from pathlib import Path

import pytest
from browser import pages
from browser.chromium import Browser
from browser.looking import drawn, is_blank

import lossatlas as la

pytestmark = pytest.mark.needs("chromium")


def test_text_and_stills_are_there_without_a_script(page: Path, session: Browser) -> None:
    session.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        session.open(page)
        assert not is_blank(session, "#figure-lead .still")
        assert (
            session.run("getComputedStyle(document.querySelector('#figure-lead .view') ?? document.head).display")
            == "none"
        )
    finally:
        session.send("Emulation.setScriptExecutionDisabled", value=False)
        session.send("Page.navigate", url="about:blank")  # so that the next test opens the page with its script


def test_a_network_whose_name_is_code_is_text_everywhere(browser: Browser) -> None:
    figure = drawn(browser, "lead")
    assert browser.run("document.title") == f"Report on {pages.HOSTILE}"
    shown = browser.run("document.querySelector('main').innerText")
    assert shown.count(pages.HOSTILE) >= 6
    titles = browser.run(f"[...document.querySelectorAll('{figure} .gtitle')].map((title) => title.textContent)")
    assert titles == [pages.HOSTILE] * 2
    assert (
        browser.run("[...document.querySelectorAll('script')].filter((s) => s.textContent === 'alert(1)').length") == 0
    )


def test_a_page_400_wide_has_no_horizontal_scroll_bar(browser: Browser) -> None:
    browser.size(400)
    browser.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    for name in ("lead", "moving", "hidden"):
        drawn(browser, name)
    assert browser.run("document.documentElement.scrollWidth") == 400
    assert browser.run(
        "[...document.querySelectorAll('.panel')].every((panel) => panel.getBoundingClientRect().right <= 400)"
    )


CONTRAST = """(() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => parts(colour).slice(0, 3).map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
  const ground = (element) => {
    const card = element.closest(".legend")?.querySelector(".bg");
    if (card && card.style.fillOpacity !== "0") return getComputedStyle(card).fill;
    for (let at = element; at; at = at.parentElement) {
      const found = getComputedStyle(at).backgroundColor;
      if (parts(found)[3] !== 0) return found;
    }
  };
  const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const holdsText = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  const texts = [...document.querySelectorAll("body *")].filter(holdsText);
  const inside = texts.filter((e) => !e.closest("script, style") && e.getClientRects().length);
  return inside.map((e) => {
    const style = getComputedStyle(e);
    const colour = e.closest("svg") && style.fill !== "none" ? style.fill : style.color;
    return [ratio(light(colour), light(ground(e))), e.tagName, e.className.baseVal ?? e.className];
  });
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(browser: Browser, scheme: str) -> None:
    browser.prefer(scheme)
    browser.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    drawn(browser, "lead")
    browser.wait("getComputedStyle(document.querySelector('.gtitle')).fill === getComputedStyle(document.body).color")
    found = browser.run(CONTRAST)
    assert len(found) > 60
    assert [each for each in found if each[0] < 4.5] == []
    ground = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (scheme == "light")


def test_the_page_is_used_by_keyboard_alone(browser: Browser) -> None:
    drawn(browser, "lead")
    drawn(browser, "moving")
    at = "document.activeElement"
    assert browser.run("document.querySelector('a, button, summary, input, select').className") == "skip"
    browser.run("document.querySelector('.skip').focus()")
    seen = []
    while browser.run(f"{at} !== document.body") and len(seen) < 100:
        seen.append(browser.run(f"{at}.tagName + '.' + {at}.className"))
        assert browser.run(f"getComputedStyle({at}).outlineStyle") != "none", seen[-1]
        browser.press("Tab")
    tags = {each.partition(".")[0] for each in seen}
    assert {"A", "BUTTON", "SELECT", "INPUT", "SUMMARY"} <= tags
    assert sum(each.startswith("DIV.panel") for each in seen) >= 2  # those in space
    browser.run("document.querySelector('#more-landscape').open = false")
    browser.run("document.querySelector('#more-landscape > summary').focus()")
    browser.press("Enter")
    assert browser.run("document.querySelector('#more-landscape').open")


def test_a_link_into_closed_details_opens_them(browser: Browser) -> None:
    browser.run("location.hash = '#ref-li2018'")
    browser.wait("document.querySelector('#references').open")
    browser.wait("Math.abs(document.querySelector('#ref-li2018').getBoundingClientRect().top) < innerHeight")


def test_the_contents_follow_the_reading_and_every_picture_has_words(browser: Browser) -> None:
    for anchor in ("connected", "landscape"):
        browser.run(f"document.querySelector('#{anchor}').scrollIntoView({{behavior: 'instant'}})")
        browser.wait(f"document.querySelector('nav [aria-current]')?.hash === '#{anchor}'")
    assert browser.run("document.querySelectorAll('nav [aria-current]').length") == 1
    assert sorted(browser.run("[...document.images].map((image) => image.alt)")) == [
        "glance",
        "hidden",
        "lead",
        "moving",
    ]


def test_figures_and_numbers_are_saved_from_the_page(browser: Browser, tmp_path: Path) -> None:
    browser.send("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    browser.run("document.querySelectorAll('#figure-glance .downloads button').forEach((button) => button.click())")
    dataset = pages.document().glance.datasets[0]
    stem = pages.stem(dataset)
    names = {"glance.png", "glance.svg", "glance.pdf", f"{stem}.csv", f"{stem}.nc"}
    browser.wait_for(lambda: {path.name for path in tmp_path.iterdir()} == names)
    assert la.load(tmp_path / f"{stem}.nc").equals(dataset)
    assert (tmp_path / "glance.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "glance.svg").read_text().rstrip().endswith("</svg>")
    assert (tmp_path / "glance.png").read_bytes()[:4] == b"\x89PNG"
    assert str(float(dataset["loss"][0, 0]))[:6] in (tmp_path / f"{stem}.csv").read_text()


def test_a_printed_page_shows_the_stills_and_all_details(browser: Browser) -> None:
    drawn(browser, "lead")
    browser.run("document.querySelector('#claims').open = false; dispatchEvent(new Event('beforeprint'))")
    assert browser.run("[...document.querySelectorAll('main details.more')].every((each) => each.open)")
    browser.run("dispatchEvent(new Event('afterprint'))")
    assert not browser.run("document.querySelector('#claims').open")
    browser.send("Emulation.setEmulatedMedia", media="print")
    try:
        shown = "getComputedStyle(document.querySelector('#figure-lead {}')).display"
        assert [browser.run(shown.format(part)) for part in (".sheet", ".view")] == ["block", "none"]
    finally:
        browser.send("Emulation.setEmulatedMedia", media="")


def test_what_is_packed_is_held_once(page: Path) -> None:
    source = page.read_text(encoding="utf-8")
    keys = re.findall(r'<script type="text/plain" id="([^"]+)">([A-Za-z0-9+/=]+)<', source)
    assert len({key for key, _ in keys}) == len(keys)
    data = [key for key, _ in keys if key.startswith("nc-")]
    assert len(data) == 3  # four figures show numbers of three Datasets
    assert gzip.decompress(b64decode(dict(keys)["plotly"])).count(b"plotly.js") > 0
