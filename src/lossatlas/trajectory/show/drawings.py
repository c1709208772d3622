"""The trajectory of training, drawn: on its principal plane, and how much of it that plane shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from lossatlas.drawing.axes import log_if_wide, values
from lossatlas.drawing.contours import draw_contours, loss_bar, pale
from lossatlas.drawing.grids import colour_scale, grid, missing_note
from lossatlas.drawing.style import BLUE, GREY, ORANGE, PURPLE, VERMILLION, legend_above, panels, sized, styled
from lossatlas.trajectory.show.reading import sharpness_of

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection


@styled
def on_plane(plane: xr.Dataset, trajectory: xr.Dataset) -> Figure:
    """The loss over the principal plane, with the snapshots projected on it, coloured by their step.

    The trajectory lies near the plane, not on it: `explained` shows how far away.
    """
    across, up, loss = grid(plane)
    logarithmic, levels = colour_scale(loss)
    shape = float(np.ptp(up) / np.ptp(across))
    figure = sized(5.6, float(np.clip(4.4 * shape + 1.2, 2.4, 5.6)))
    axes = figure.add_subplot()
    filled = draw_contours(axes, plane, logarithmic, levels, pale(), lines_in="#444444")
    dots = _snapshots(axes, trajectory)
    shares = trajectory["explained_variance_ratio"].to_numpy()
    named = [f"PC {k + 1} ({100 * share:.1f} % of the variance)" for k, share in enumerate(shares[:2])]
    axes.set(xlabel=named[0], ylabel=named[-1], aspect="equal")
    axes.set(xlim=(across[0], across[-1]), ylim=(up[0], up[-1]))  # a plane that was zoomed shows a part of it
    axes.set_title("\n".join(missing_note(plane)))
    loss_bar(figure, filled, [axes], logarithmic)
    figure.colorbar(dots, ax=axes, location="bottom", aspect=40, pad=0.02).set_label("training step")
    legend_above(figure, axes)
    return figure


def _snapshots(axes: Axes, trajectory: xr.Dataset) -> PathCollection:
    """The snapshots as dots, coloured by their step, on one line; the first and the last marked."""
    alpha, beta, step = (values(trajectory, name) for name in ("alpha", "beta", "step"))
    axes.plot(alpha, beta, color="black", linewidth=0.8)
    dots = axes.scatter(alpha, beta, c=step, cmap="magma", s=18, edgecolor="black", linewidth=0.4, zorder=3)
    for k, marker, name in ((0, "s", "start"), (-1, "*", "end")):
        axes.scatter(alpha[k], beta[k], marker=marker, s=90, color="white", edgecolor="black", zorder=4, label=name)
    return dots


@styled
def explained(trajectory: xr.Dataset) -> Figure:
    """How much the principal plane shows: explained variance and a random walk's, distance off it, loss.

    Panels: shares of the variance; distance of each snapshot from the plane and from the end; true loss of
    each snapshot and the loss of its projection (where the Dataset has them).
    """
    has_loss = "loss" in trajectory and "plane_loss" in trajectory
    figure, axes = panels(2 + has_loss, height=2.8)
    _shares(axes[0], trajectory)
    step = values(trajectory, "step")
    axes[1].plot(step, values(trajectory, "distance"), "--", color=GREY, label="from the end")
    axes[1].plot(step, values(trajectory, "off_plane_distance"), "o-", color=VERMILLION, label="off the plane")
    axes[1].set(xlabel="training step", ylabel="distance in parameter space")
    if has_loss:
        axes[2].plot(step, values(trajectory, "loss"), "o-", color=BLUE, label="true loss")
        axes[2].plot(step, values(trajectory, "plane_loss"), "--", color=ORANGE, label="on the plane")
        axes[2].set(xlabel="training step", ylabel="loss of the snapshot")
        log_if_wide(axes[2], values(trajectory, "loss"), values(trajectory, "plane_loss"))
    for panel in axes:
        panel.legend(loc="upper right")
    return figure


@styled
def sharpness(trajectory: xr.Dataset) -> Figure:
    """lambda_max at the snapshots where it was measured, with its residual."""
    figure = sized(4.2, 2.7)
    axes = figure.add_subplot()
    steps, found = sharpness_of(trajectory)
    residual = values(trajectory, "lambda_max_residual")
    axes.errorbar(steps, found, yerr=residual[np.isfinite(residual)], color=PURPLE, marker="o", markersize=3.5)
    axes.set(xlabel="training step", ylabel=r"$\lambda_{\max}$ of the Hessian")
    log_if_wide(axes, found)
    return figure


def _shares(axes: Axes, trajectory: xr.Dataset) -> None:
    """Explained variance of the first six components, and a random walk's."""
    ratio, walk = (100 * values(trajectory, f"{name}_ratio")[:6] for name in ("explained_variance", "random_walk"))
    component = np.arange(1, len(ratio) + 1)
    axes.bar(component - 0.2, ratio, 0.4, color=BLUE, label="training")
    axes.bar(component + 0.2, walk, 0.4, color="white", edgecolor=GREY, hatch="////", label="random walk")
    axes.set(xlabel="principal component", ylabel="explained variance (%)", xticks=component)
