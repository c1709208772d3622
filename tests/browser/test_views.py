"""Views as a reader plays with them: they are drawn when they are near, moved, turned and asked for numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from browser import pages
from browser.chromium import Browser
from browser.looking import drawn, is_blank

pytestmark = pytest.mark.needs("chromium")


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


def test_the_button_turns_dark_colours_on_in_page_and_views(browser: Browser) -> None:
    figure = drawn(browser, "moving")
    browser.run("document.querySelector('#theme').click()")
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(21, 25, 29)"
    line = f"document.querySelectorAll('{figure} .panel')[1]._fullData[0].line.color"
    browser.wait(f"{line} === getComputedStyle(document.body).color")
    browser.run("document.querySelector('#theme').click()")
