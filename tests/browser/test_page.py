"""The page as a browser sees it: headless Chromium runs its scripts, and is told to act as a reader does."""

from __future__ import annotations

import gzip
import re
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import pages
from browser.chromium import Browser, chromium

import lossatlas as la
from lossatlas.report import html

WINDOW = 1250, 700

pytestmark = pytest.mark.needs("chromium")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html.render(pages.document()), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        browser.size(*WINDOW)
        yield browser


@pytest.fixture(scope="module")
def opened(session: Browser, page: Path) -> Browser:
    session.open(page)
    return session


@pytest.fixture
def browser(opened: Browser, page: Path) -> Iterator[Browser]:
    """The page, opened once for all. Whatever a test does there: no message of the console, no request."""
    session = opened
    session.size(*WINDOW)
    session.prefer("light")
    yield session
    assert session.messages == []
    assert {address.partition(":")[0] for address in session.requests} <= {"file", "data", "blob"}
    assert [address for address in session.requests if address.startswith("file:")] == [page.as_uri()]


def drawn(browser: Browser, name: str) -> str:
    """The selector of a figure, scrolled to and drawn."""
    figure = f"#figure-{name}"
    browser.run(f"document.querySelector('{figure}').scrollIntoView({{behavior: 'instant'}})")
    browser.wait(f"document.querySelector('{figure}.drawn')")
    return figure


def is_blank(browser: Browser, selector: str) -> bool:
    """Whether there is nothing but a ground and hardly any ink on it."""
    colours = np.round(browser.pixels(selector) * 255).astype(int) @ (1, 256, 65536)
    _, counts = np.unique(colours, return_counts=True)
    return bool(counts.max() > 0.985 * colours.size)


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


def test_plotly_waits_until_a_view_is_near_and_only_so_many_scenes_are_kept(
    page: Path, session: Browser, tmp_path: Path
) -> None:
    source = page.read_text(encoding="utf-8")
    below = tmp_path / "below.html"
    few = source.replace("const MANY = 10", "const MANY = 2").replace("<header>", '<header style="height: 5000px">')
    below.write_text(few, encoding="utf-8")
    session.open(below)
    assert session.run("document.fonts.ready.then(() => typeof Plotly)") == "undefined"
    drawn(session, "lead")
    assert session.run("typeof Plotly") == "object"
    session.run("document.querySelector('#more-landscape').open = true")
    drawn(session, "hidden")
    session.wait("!document.querySelector('#figure-lead.drawn')")
    assert not is_blank(session, "#figure-lead .still")
    assert not is_blank(session, drawn(session, "lead") + " .panels")


def test_every_figure_is_seen_once_it_was_scrolled_to(browser: Browser) -> None:
    browser.run("document.querySelector('nav a[href=\"#landscape\"]').click()")
    browser.run("document.querySelector('#more-landscape').open = true")
    for name in ("lead", "moving", "hidden"):
        figure = drawn(browser, name)
        assert not is_blank(browser, f"{figure} .panels"), name
        assert browser.run(f"getComputedStyle(document.querySelector('{figure} .sheet')).display") == "none"
    assert not is_blank(browser, "#figure-glance .still")


def test_the_slider_moves_the_markers_and_says_where_they_are(browser: Browser) -> None:
    figure = drawn(browser, "moving")
    view, k = pages.along(), 5
    browser.run(f"document.querySelector('{figure} input').focus()")
    for _ in range(k):
        browser.press("ArrowRight")
    browser.wait(
        f"document.querySelector('{figure} input').getAttribute('aria-valuetext') === '{view.slider.labels[k]}'"
    )
    data = (
        f"[...document.querySelectorAll('{figure} .panel')].map((panel) => panel.data.map((t) => [[...t.x], [...t.y]]))"
    )
    browser.wait(f"{data}[0][2][0].length === {k + 1}")
    found = browser.run(data)
    for move in view.slider.moves:
        for values, name in zip(found[move.panel][move.trace], "xy", strict=True):
            assert values == pytest.approx(np.ravel(move.values[name][k]).tolist(), rel=1e-6, abs=1e-9)
    assert browser.run(f"document.querySelector('{figure} output').textContent") == view.slider.readouts[k]


def test_a_choice_changes_numbers_and_titles_and_linked_cameras_turn_together(browser: Browser) -> None:
    figure = drawn(browser, "lead")
    panels = f"[...document.querySelectorAll('{figure} .panel')]"
    browser.run(
        f"(() => {{ const select = document.querySelector('{figure} select'); select.value = '1';"
        "select.dispatchEvent(new Event('change')); })()"
    )
    browser.wait(f"{panels}.every((panel) => panel.layout.scene.zaxis.title?.text === 'log loss')")
    z = pages.surfaces().panels[1].data[0].z
    found = browser.run(f"{panels}.map((panel) => [...panel.data[0].z].map((row) => [...row]))")
    np.testing.assert_allclose(found, [np.log10(z)] * 2, rtol=1e-6)
    browser.run(f"{panels}[0].focus()")
    eyes = f"{panels}.map((panel) => panel._fullLayout.scene.camera.eye)"
    before = browser.run(eyes)
    browser.press("ArrowRight")
    browser.wait(f"{eyes}[1].x !== {before[1]['x']}")
    first, second = browser.run(eyes)
    assert first == second != before[0]


def test_the_pointer_is_told_the_loss_of_the_cell_below_it(browser: Browser) -> None:
    figure = drawn(browser, "moving")
    loss = pages.measured.results()["plane"]["loss"].transpose("beta", "alpha")
    j, i = 3, 1
    place = browser.run(
        f"(() => {{ const panel = document.querySelector('{figure} .panel');"
        "const {xaxis: x, yaxis: y} = panel._fullLayout, corner = panel.getBoundingClientRect();"
        f"return [corner.x + x._offset + x.l2p({float(loss.alpha[i])}),"
        f"corner.y + y._offset + y.l2p({float(loss.beta[j])})]; }})()"
    )
    told = f"document.querySelector('{figure} .hovertext')"
    browser.wait_for(lambda: browser.point_at(*place) or browser.run(f"Boolean({told})"))
    assert f"loss {float(loss[j, i]):.4f}" in browser.run(f"{told}.textContent")


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


def test_the_button_turns_dark_colours_on_in_page_and_views(browser: Browser) -> None:
    figure = drawn(browser, "moving")
    browser.run("document.querySelector('#theme').click()")
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(21, 25, 29)"
    line = f"document.querySelectorAll('{figure} .panel')[1]._fullData[0].line.color"
    browser.wait(f"{line} === getComputedStyle(document.body).color")
    browser.run("document.querySelector('#theme').click()")


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
