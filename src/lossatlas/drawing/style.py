"""One look for all figures: type legible at column width, colours that survive print and colour blindness."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ParamSpec, TypeVar

import matplotlib as mpl
from matplotlib.figure import Figure

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
        with mpl.rc_context(RC):
            return draw(*args, **kwargs)

    return under_style


def panels(n: int, *, height: float = 2.6, width: float = WIDTH) -> tuple[Figure, list[Axes]]:
    """A figure of n panels side by side. It belongs to no pyplot state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, n, squeeze=False, gridspec_kw={"wspace": 0.06})
    return figure, list(axes[0])


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
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=min(columns, len(names)))
