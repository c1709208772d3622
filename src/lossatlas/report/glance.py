"""The report at a glance: its abstract, one figure of panels, one line a question."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from string import ascii_lowercase

from matplotlib.figure import Figure

from lossatlas.drawing.style import WIDTH, styled
from lossatlas.report.document import Chapter, Row
from lossatlas.results import chapters as questions
from lossatlas.results.blocks import Panel, Picture
from lossatlas.results.catalogue import Catalogue
from lossatlas.results.groups import distinct

SENTENCES, WORDS = 8, 150  # of an abstract, at most
PANELS, ACROSS = 6, 3
HEIGHT = 2.0  # inches, of a panel


def abstract(catalogue: Catalogue, chapters: Sequence[Chapter]) -> tuple[str, ...]:
    """Whom the report is about, then each chapter's answer, as far as an abstract reaches."""
    answers = [answer for kind in catalogue.present() for answer in kind.answers(catalogue.of(kind), catalogue)]
    opening = [answer.short for answer in answers if answer.opening][:1] or [_subject(catalogue)]
    first = [chapter.answers[0] for chapter in chapters if chapter.answers]
    sentences = [*opening, *(answer.short for answer in first if not answer.opening)]
    lengths = [len(sentence.split()) for sentence in sentences]
    fitting = [k for k in range(len(sentences)) if sum(lengths[: k + 1]) <= WORDS]
    return tuple(sentences[k] for k in fitting[:SENTENCES])


def _subject(catalogue: Catalogue) -> str:
    """What the Datasets say of the network and its data, where no training was recorded."""
    model = distinct(list(catalogue), "model") or "a network"
    size = distinct(list(catalogue), "n_parameters", lambda n: f"{int(n):,}")
    data = distinct(list(catalogue), "data")
    return f"The loss of {model}{f' ({size} parameters)' if size else ''}{f' on {data}' if data else ''} was measured."


def rows(chapters: Sequence[Chapter]) -> Iterator[Row]:
    """A line for each chapter that has an answer."""
    for chapter in chapters:
        answer = next((each for each in chapter.answers if each.claim), next(iter(chapter.answers), None))
        if answer:
            yield Row(chapter.question, chapter.anchor, answer.finding, answer.quantity, answer.claim)


def glance(catalogue: Catalogue) -> Picture | None:
    """The panels of all kinds in one figure; None where there are fewer than two."""
    kinds = sorted(catalogue.present(), key=lambda kind: questions.place(kind.chapter))
    panels = [panel for kind in kinds for panel in kind.panels(catalogue.of(kind), catalogue)][:PANELS]
    if len(panels) < 2:
        return None
    named = "; ".join(f"({letter}) {panel.title}" for letter, panel in zip(ascii_lowercase, panels, strict=False))
    return Picture("glance", partial(_figure, panels), f"The report at a glance: {named}.", datasets=tuple(catalogue))


SMALL = {"font.size": 7, "axes.titlesize": 7.5, "axes.labelsize": 7, "xtick.labelsize": 6.5, "ytick.labelsize": 6.5}
SMALL |= {"legend.fontsize": 6.5, "lines.linewidth": 1.1, "lines.markersize": 3}


@styled
def _figure(panels: Sequence[Panel]) -> Figure:
    import matplotlib as mpl

    across = 2 if len(panels) == 4 else min(ACROSS, len(panels))
    down = -(-len(panels) // across)
    with mpl.rc_context(SMALL):  # type: ignore[arg-type]
        figure = Figure(figsize=(WIDTH, HEIGHT * down + 0.2), layout="constrained")
        grid = figure.subplots(down, across, squeeze=False)
        for k, axes in enumerate(grid.flat):
            if k >= len(panels):
                axes.set_axis_off()
                continue
            panels[k].draw(axes)
            axes.set_title(f"({ascii_lowercase[k]}) {panels[k].title}", loc="left")
    return figure
