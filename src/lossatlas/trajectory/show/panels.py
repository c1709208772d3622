"""A training in one small panel: the trajectory on its plane; without one, the losses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from matplotlib.ticker import MaxNLocator

from lossatlas.drawing.axes import log_if_wide, values
from lossatlas.drawing.contours import draw_contours, pale
from lossatlas.drawing.grids import colour_scale, grid
from lossatlas.drawing.style import COLOURS, labels
from lossatlas.results.blocks import Panel
from lossatlas.results.provenance import Provenance
from lossatlas.surfaces.show import SURFACE
from lossatlas.trajectory.show import TRAJECTORY
from lossatlas.trajectory.show.reading import known, one_each
from lossatlas.trajectory.show.trajectories import owner

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

    from lossatlas.results.catalogue import Catalogue


def of_trajectories(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[Panel]:
    """The first trajectory that has a plane."""
    for plane in catalogue.of(SURFACE):
        trajectory = owner(plane, datasets)
        if trajectory is not None:
            yield Panel(f"Trajectory of {Provenance.of(trajectory).label}", partial(on_plane, plane, trajectory))
            return


def on_plane(plane: xr.Dataset, trajectory: xr.Dataset, axes: Axes) -> None:
    """The trajectory over pale contours of the loss on its plane."""
    across, up, loss = grid(plane)
    logarithmic, levels = colour_scale(loss)
    draw_contours(axes, plane, logarithmic, levels, pale(), lines_in="#444444", labels=0, lines=5)
    alpha, beta = (values(trajectory, name) for name in ("alpha", "beta"))
    axes.plot(alpha, beta, "-o", color="black", linewidth=0.7, markersize=1.8)
    for k, marker, name in ((0, "s", "start"), (-1, "*", "end")):
        axes.plot(alpha[k], beta[k], marker, color="white", markeredgecolor="black", markersize=6, label=name)
    axes.set(xlim=(across[0], across[-1]), ylim=(up[0], up[-1]), xlabel="PC 1", ylabel="PC 2")
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.legend(loc="best", handlelength=1, frameon=True, framealpha=0.7, edgecolor="none")


def of_histories(datasets: Sequence[xr.Dataset], catalogue: Catalogue) -> Iterator[Panel]:
    """The losses after each epoch, where no trajectory has a plane to be drawn on."""
    shown = [history for history in one_each(datasets) if known(history, "train_loss", "epoch")]
    if shown and not list(of_trajectories(catalogue.of(TRAJECTORY), catalogue)):
        yield Panel("Training", partial(losses, shown))


def losses(datasets: Sequence[xr.Dataset], axes: Axes) -> None:
    """The loss on training data (dashed) and on test data (solid)."""
    for k, (dataset, label) in enumerate(zip(datasets, labels(datasets), strict=True)):
        for name, line in (("train_loss", "--"), ("test_loss", "-")):
            if known(dataset, name, "epoch"):
                text = f"{label}, {name.split('_')[0]}"
                look: dict[str, Any] = {"color": COLOURS[k % len(COLOURS)], "linestyle": line}
                axes.plot(values(dataset, "epoch"), values(dataset, name), label=text, **look)
    axes.set(xlabel="epoch", ylabel="loss")
    log_if_wide(axes, *(values(d, n) for d in datasets for n in ("train_loss", "test_loss") if known(d, n, "epoch")))
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.legend(loc="best", handlelength=1.4)
