"""Figures as wide as a paper prints them: of every kind, nothing cut off, nothing too small."""

from __future__ import annotations

import matplotlib as mpl
import measured
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

import lossatlas as la
from lossatlas.drawing.style import panels

RESULTS = measured.results()
WIDTHS = {"column": 3.3, "page": 6.8}
SLACK = 0.03  # inches that a text may reach over the edge: the white around its letters


def texts(figure: Figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]


def outside(figure: Figure) -> list[str]:
    """The titles, axis labels and legends that reach over the edge of the figure."""
    FigureCanvasAgg(figure).draw()
    named = [*(axes.xaxis.label for axes in figure.axes), *(axes.yaxis.label for axes in figure.axes)]
    named += [axes.title for axes in figure.axes] + [t for legend in figure.legends for t in legend.get_texts()]
    page, slack = figure.bbox, SLACK * figure.dpi
    boxes = {text.get_text(): text.get_window_extent() for text in named if text.get_text().strip()}
    over = [t for t, b in boxes.items() if b.x0 < -slack or b.x1 > page.x1 + slack or b.y0 < -slack]
    return over + [t for t, b in boxes.items() if b.y1 > page.y1 + slack]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", sorted(RESULTS))
def test_the_main_figure_of_every_kind_fits_a_paper(name, width):
    figure = la.plot.figure(RESULTS[name], width=width)
    assert figure.get_figwidth() == WIDTHS[width]
    assert figure.get_figheight() < 9
    assert outside(figure) == []
    sizes = {text.get_text(): text.get_fontsize() for text in texts(figure)}
    assert {text: size for text, size in sizes.items() if not 6.9 <= size <= 9} == {}


def test_figures_of_several_fit_a_column_too():
    curves = [RESULTS[name] for name in ("barrier", "barrier_aligned", "barrier_curve")]
    networks = [[RESULTS[f"{kind} {label}"] for label in "AB"] for kind in ("history", "spectrum", "robustness")]
    for datasets in (curves, *networks, [RESULTS["trajectory"], RESULTS["trajectory_plane"]]):
        assert outside(la.plot.figure(*datasets, width="column")) == []


def test_panels_stand_below_each_other_where_they_are_too_small_side_by_side():
    def rows(width: float | None) -> int:
        if width is None:
            return len({axes.get_subplotspec().rowspan.start for axes in panels(3)[1]})
        with la.plot.style("paper", width=width):
            return len({axes.get_subplotspec().rowspan.start for axes in panels(3)[1]})

    assert [rows(width) for width in (None, 6.8, 4.5, 3.3)] == [1, 1, 2, 3]


def test_the_style_of_a_paper_holds_inside_it_only():
    before = dict(mpl.rcParams)
    own = la.plot.figure(RESULTS["line"]).get_size_inches().tolist()
    with la.plot.style("paper", width=5):
        assert la.plot.figure(RESULTS["line"]).get_figwidth() == 5
        assert (mpl.rcParams["font.size"], mpl.rcParams["figure.figsize"][0]) == (8, 5)
    assert dict(mpl.rcParams) == before
    assert la.plot.figure(RESULTS["line"]).get_size_inches().tolist() == own


@pytest.mark.parametrize("width", ["wide", 0.5, 100.0])
def test_another_width_or_style_is_refused_with_those_there_are(width):
    with pytest.raises(la.LossAtlasError, match=r'"column" \(3.3\), "page" \(6.8\)'):
        la.plot.figure(RESULTS["line"], width=width)
    with pytest.raises(la.LossAtlasError, match='there is one style, "paper"'):
        la.plot.style("poster")
