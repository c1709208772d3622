"""The figure of any result, in a report's size or a paper's; how to save it, and films."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lossatlas.drawing.films import check_film, drawing_itself, turning, write_film
from lossatlas.drawing.style import paper
from lossatlas.drawing.style import save as save
from lossatlas.drawing.tracks import check_on, check_same_data, has_plane, is_track
from lossatlas.errors import InputError
from lossatlas.results.catalogue import Catalogue
from lossatlas.results.discovery import kind_of

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from lossatlas.results.blocks import Picture

__all__ = ["animate", "figure", "pictures", "save", "style"]

Width = Literal["column", "page"] | float


def figure(*datasets: xr.Dataset, width: Width | None = None) -> Figure:
    """The main figure of the first Dataset, together with the others: of its kind next to it, of other kinds where its
    figure shows them.

    ``figure(spectrum_a, spectrum_b)`` compares two networks, ``figure(trajectory, surface)`` draws a trajectory on the
    surface of its own plane, ``figure(power_iteration, spectrum)`` has the eigenvalues that it should converge to.

    ``width="column"`` (3.3 inches), ``"page"`` (6.8 inches) or a number of inches: as wide as a paper prints it, in
    type of 7 to 8 points, panels below each other where they would be too small side by side. Without it each figure
    has its own width, at most that of an A4 page's text; inside ``style("paper")`` that of the style.

    Returns a matplotlib figure that belongs to no global state. Raises ``InputError`` for no Dataset, one
    of no kind, or another width.

    Examples
    --------
    >>> import torch, lossatlas as la
    >>> data = torch.ones(8, 1), torch.zeros(8, 1)
    >>> objective = la.Objective(torch.nn.Linear(1, 1), torch.nn.functional.mse_loss, data)
    >>> line = la.surface(objective, la.line(objective.point, torch.ones(2), steps=3), progress=False)
    >>> la.plot.figure(line).axes[0].get_ylabel()
    'loss'
    >>> float(la.plot.figure(line, width="column").get_figwidth())
    3.3
    """
    with nullcontext() if width is None else paper(width):
        return pictures(*datasets)[0].figure


def style(name: str = "paper", *, width: Width = "column") -> AbstractContextManager[None]:
    """The look of lossatlas for figures of one's own: inside it ``la.plot.figure`` has this width, and what matplotlib
    draws has its type (7 to 8 points), colours, lines and size.

    Raises ``InputError`` for another name or width.

    Examples
    --------
    >>> import matplotlib as mpl, lossatlas as la
    >>> with la.plot.style("paper"):
    ...     mpl.rcParams["font.size"], mpl.rcParams["figure.figsize"][0]
    (8.0, 3.3)
    """
    if name != "paper":
        raise InputError(f'style({name!r}): there is one style, "paper".')
    return paper(width)


def animate(
    dataset: xr.Dataset,
    path: str | Path,
    *,
    trajectory: xr.Dataset | None = None,
    surface: xr.Dataset | None = None,
    seconds: float = 6.0,
    fps: int = 20,
) -> None:
    """A film of a surface that turns, or of a trajectory that draws itself; as GIF or, by ffmpeg, MP4.

    A surface turns once around, with ``trajectory`` on it if one is given. A trajectory is drawn snapshot by snapshot,
    over the loss on ``surface`` if it is given, with its step and loss written above.

    Parameters
    ----------
    dataset : a loss over two axes, or a trajectory.
    path : ends with ``.gif`` or ``.mp4``; the file appears there when it is complete.
    trajectory : of the surface's own plane, with losses on the same data.
    surface : the loss on the plane of the trajectory.
    seconds, fps : length of the film, and pictures a second.

    Raises
    ------
    InputError : another suffix; a Dataset that has neither surface nor trajectory; a trajectory of another plane.
    MissingToolError : an ``.mp4``, where the program ffmpeg is not installed.
    OutputError : the file cannot be written.

    Examples
    --------
    >>> import tempfile, torch, lossatlas as la
    >>> from pathlib import Path
    >>> data = torch.ones(8, 1), torch.zeros(8, 1)
    >>> objective = la.Objective(torch.nn.Linear(1, 1), torch.nn.functional.mse_loss, data)
    >>> plane = la.plane(objective.point, torch.tensor([1.0, 0]), torch.tensor([0, 1.0]), steps=3)
    >>> surface = la.surface(objective, plane, progress=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     la.plot.animate(surface, f"{folder}/surface.gif", seconds=0.2, fps=10)
    ...     Path(folder, "surface.gif").read_bytes()[:6]
    b'GIF89a'
    """
    path = Path(path)
    check_film(path, seconds, fps)
    kind = kind_of(dataset)
    if is_track(dataset) and trajectory is None:
        if surface is not None:
            check_on(surface, dataset)
        write_film(*drawing_itself(dataset, surface), path, seconds, fps)
        return
    if surface is not None or not has_plane(dataset):
        raise InputError(
            f"A result of kind {kind.name} cannot be drawn so: give a surface over two axes, with trajectory= on it, "
            "or a trajectory, with surface= below it."
        )
    turned = _in_space(dataset, trajectory)
    write_film(turned, turning(turned), path, seconds, fps)


def _in_space(surface: xr.Dataset, trajectory: xr.Dataset | None) -> Figure:
    """The picture of a surface, with a trajectory, that has axes in space."""
    if trajectory is not None:
        check_on(surface, trajectory)
        check_same_data(surface, trajectory)
    drawn = pictures(*([surface] if trajectory is None else [trajectory, surface]))
    every = (picture.figure for picture in drawn if not picture.vector)
    return next(figure for figure in every if any(axes.name == "3d" for axes in figure.axes))


def pictures(*datasets: xr.Dataset) -> list[Picture]:
    """Every picture of the first Dataset's kind that these Datasets allow, the main one first, with their captions."""
    if not datasets:
        raise InputError("There is no Dataset to draw: give one, or several that belong together.")
    kind, catalogue = kind_of(datasets[0]), Catalogue(datasets)
    return [picture for group in kind.figures(catalogue.of(kind), catalogue) for picture in group.pictures]
