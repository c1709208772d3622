"""One look for all figures: type legible at column width, colours that survive print and colour blindness."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ParamSpec, TypeVar

import matplotlib as mpl
from matplotlib.figure import Figure

from lossatlas.errors import InputError
from lossatlas.results.provenance import Provenance

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]

RC: dict[Any, Any] = {
    "figure.autolayout": False,
    "figure.constrained_layout.use": False,  # each figure names its own layout
    "font.family": "DejaVu Sans",  # it comes with matplotlib, so a figure looks the same everywhere
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "image.cmap": "viridis",
    "pdf.fonttype": 42,  # TrueType: text stays text, as publishers ask
    "svg.hashsalt": "lossatlas",  # the same figure is the same file
    "savefig.dpi": 200,
}
WIDTH = 6.3  # inches: the text width of an A4 page
# In a paper a figure is as wide as a column or the page, so that its text is printed in its own size.
PAPER: dict[Any, Any] = RC | {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "lines.linewidth": 1.2,
}
WIDTHS = {"column": 3.3, "page": 6.8}  # inches: of a paper in two columns
NARROWEST = 2.0  # inches: of a panel
LETTER = 0.056  # inches: the width of one in a legend
_asked: ContextVar[float | None] = ContextVar("width", default=None)  # of the figures, where one is asked for
# Okabe and Ito's palette, told apart with any colour vision.
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
)
COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
MARKERS = ("o", "s", "^", "D", "v", "P")
GREY = "#777777"
# Attributes that tell apart what one network has several of, in the order in which they are tried.
DIFFERENCES = {
    "data": "{}",
    "relative": "{}",
    "batches": "{}",
    "region": "{}",
    "directions": "{}",
    "seed": "seed {}",
    "name": "{}",
}
PATH_COLOURS = {"line": BLUE, "line after alignment": VERMILLION, "Bezier curve": GREEN}

P = ParamSpec("P")
R = TypeVar("R")


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """`draw` under this style, whatever the caller's matplotlib settings are; they are left as they were."""

    @wraps(draw)
    def under_style(*args: P.args, **kwargs: P.kwargs) -> R:
        with mpl.rc_context(RC if _asked.get() is None else PAPER):
            return draw(*args, **kwargs)

    return under_style


def inches(width: str | float) -> float:
    """A width of figures in inches, from the name of one or a number."""
    if isinstance(width, str) and width in WIDTHS:
        return WIDTHS[width]
    if isinstance(width, str) or not NARROWEST <= width <= 20:
        raise InputError(f'width={width!r}: choose "column" (3.3), "page" (6.8), or inches from {NARROWEST:g} to 20.')
    return float(width)


@contextmanager
def paper(width: str | float) -> Iterator[None]:
    """The settings of a paper; figures that are drawn meanwhile have this width."""
    token = _asked.set(inches(width))
    try:
        with mpl.rc_context(PAPER | {"figure.figsize": (inches(width), min(0.75 * inches(width), 3.4))}):
            yield
    finally:
        _asked.reset(token)


def asked_width() -> float | None:
    """The width that is asked for; None where each figure has its own."""
    return _asked.get()


def sized(width: float, height: float, rows: int = 1, **look: Any) -> Figure:
    """A figure of this size; where another width is asked for, a part of the height goes with it, none of the text.

    ``rows`` of panels that the height is meant for one of.
    """
    asked = _asked.get()
    share = 1.0 if asked is None else min(max(asked / width, 0.75), 1.1)
    tall = height * (1 + 0.85 * (rows - 1))
    return Figure(figsize=(asked or width, tall * share), **({"layout": "constrained"} | look))


def columns_of(n: int, narrowest: float = NARROWEST) -> int:
    """How many of n panels stand side by side: all, or as many as the width that is asked for holds, in full rows."""
    asked = _asked.get()
    if asked is None:
        return n
    rows = -(-n // max(1, int(asked / narrowest)))
    return -(-n // rows)


def panels(
    n: int, *, height: float = 2.6, width: float = WIDTH, across: int | None = None
) -> tuple[Figure, list[Axes]]:
    """A figure of n panels side by side, or so many ``across``; in more rows where a width is asked for that is too
    small for them. It belongs to no pyplot state; ``height`` is that of a figure of one row.
    """
    most = across or n
    across = columns_of(most)
    rows = -(-n // across)
    figure = sized(width * across / most, height, rows)
    axes = figure.subplots(rows, across, squeeze=False, gridspec_kw={"wspace": 0.06}).ravel()
    for unused in axes[n:]:
        unused.remove()
    return figure, list(axes[:n])


@styled
def save(figure: Figure, target: str | Path | IO[bytes], file_format: str) -> None:
    """Write a figure as svg, pdf or png, without a date in it: the same figure gives the same bytes."""
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
    figure.savefig(target, format=file_format, metadata=undated[file_format])


def labels(datasets: Iterable[xr.Dataset]) -> list[str]:
    """One label a Dataset: the network, with what else is needed to tell them apart."""
    several = list(datasets)
    found = [Provenance.of(dataset).label for dataset in several]
    for extra, template in DIFFERENCES.items():
        if len(set(found)) == len(found):
            break
        if len({str(dataset.attrs.get(extra)) for dataset in several}) > 1:
            added = [template.format(dataset.attrs.get(extra, "?")) for dataset in several]
            found = [f"{label}, {more}" for label, more in zip(found, added, strict=True)]
    return found


def path_colours(names: Iterable[str]) -> dict[str, str]:
    """A colour for each path, the same on every figure for the usual ones."""
    every = dict.fromkeys(names)
    others = (colour for colour in COLOURS if colour not in PATH_COLOURS.values() or not PATH_COLOURS.keys() & every)
    return {name: PATH_COLOURS[name] if name in PATH_COLOURS else next(others, "black") for name in every}


def errors(dataset: xr.Dataset, name: str) -> FloatArray | None:
    """The standard errors of a variable, or None where the Dataset has none."""
    if f"{name}_stderr" not in dataset:
        return None
    return dataset[f"{name}_stderr"].to_numpy().astype(float)


def band(
    axes: Axes, x: FloatArray, dataset: xr.Dataset, name: str, colour: str, *, errors_wide: float = 1.0, **line: Any
) -> None:
    """A curve with a band of so many standard errors on either side."""
    y = dataset[name].to_numpy().astype(float)
    axes.plot(x, y, color=colour, **line)
    stderr = errors(dataset, name)
    if stderr is not None:
        half = errors_wide * stderr
        axes.fill_between(x, y - half, y + half, color=colour, alpha=0.25, linewidth=0)


def legend_above(figure: Figure, axes: Axes, columns: int = 4) -> None:
    """One legend for the whole figure, above its panels, so that it never covers a curve."""
    legend_over(figure, *axes.get_legend_handles_labels(), columns)


def legend_over(figure: Figure, handles: Sequence[Any], names: Sequence[str], columns: int, **look: Any) -> None:
    """A legend above the panels, in fewer columns where the width that is asked for has no room for them."""
    n = min(columns, len(names))
    asked = _asked.get()
    if asked is None:
        figure.legend(handles, names, loc="outside upper center", ncols=n, **look)
        return
    names = [textwrap.fill(name, int((asked - 0.5) / LETTER)) if name.strip() else name for name in names]
    for across in range(n, 0, -1):
        legend = figure.legend(handles, names, loc="outside upper center", ncols=across, **look)
        if across == 1 or legend.get_window_extent().width < figure.bbox.width:
            break
        legend.remove()
    more = legend.get_window_extent().height / figure.dpi - 0.16 * -(-len(names) // n)
    figure.set_figheight(figure.get_figheight() + max(0.0, more))
