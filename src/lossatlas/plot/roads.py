"""The road that training took: on its principal plane, and how much of it that plane shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from lossatlas.plot.contours import draw_contours, loss_bar, pale
from lossatlas.plot.curves import log_if_wide, values
from lossatlas.plot.grids import colour_scale, grid, missing_note
from lossatlas.plot.style import BLUE, GREY, ORANGE, VERMILLION, legend_above, panels, styled

if TYPE_CHECKING:
    import xarray as xr


@styled
def road(surface: xr.Dataset, trajectory: xr.Dataset) -> Figure:
    """The loss over the principal plane, with the snapshots projected on it, coloured by their step.

    The road lies near the plane, not on it: `explained` shows how far away.
    """
    across, up, loss = grid(surface)
    logarithmic, levels = colour_scale(loss)
    shape = float(np.ptp(up) / np.ptp(across))
    figure = Figure(figsize=(5.6, float(np.clip(4.4 * shape + 1.2, 2.4, 5.6))), layout="constrained")
    axes = figure.add_subplot()
    filled = draw_contours(axes, surface, logarithmic, levels, pale(), lines_in="#444444")
    alpha, beta, step = (values(trajectory, name) for name in ("alpha", "beta", "step"))
    axes.plot(alpha, beta, color="black", linewidth=0.8)
    dots = axes.scatter(alpha, beta, c=step, cmap="magma", s=18, edgecolor="black", linewidth=0.4, zorder=3)
    for k, marker, name in ((0, "s", "start"), (-1, "*", "end")):
        axes.scatter(alpha[k], beta[k], marker=marker, s=90, color="white", edgecolor="black", zorder=4, label=name)
    shares = trajectory["explained_variance_ratio"].to_numpy()
    named = [f"PC {k + 1} ({100 * share:.1f} % of the variance)" for k, share in enumerate(shares[:2])]
    axes.set(xlabel=named[0], ylabel=named[-1], aspect="equal")
    axes.set_title("\n".join(missing_note(surface)))
    loss_bar(figure, filled, [axes], logarithmic)
    figure.colorbar(dots, ax=axes, location="bottom", aspect=40, pad=0.02).set_label("training step")
    legend_above(figure, axes)
    return figure


@styled
def explained(trajectory: xr.Dataset) -> Figure:
    """How much the principal plane shows: explained variance beside a random walk's, distance off it, loss.

    Panels: shares of the variance; distance of each snapshot from the plane and from the end; true loss of
    each snapshot beside the loss of its projection (where the Dataset has them).
    """
    has_loss = "loss" in trajectory and "plane_loss" in trajectory
    figure, axes = panels(2 + has_loss, height=2.8)
    ratio = trajectory["explained_variance_ratio"].to_numpy()[:6]
    component = np.arange(1, len(ratio) + 1)
    axes[0].bar(component - 0.2, 100 * ratio, 0.4, color=BLUE, label="training")
    if "random_walk_ratio" in trajectory:
        walk = 100 * trajectory["random_walk_ratio"].to_numpy()[: len(ratio)]
        axes[0].bar(component + 0.2, walk, 0.4, color="white", edgecolor=GREY, hatch="////", label="random walk")
    axes[0].set(xlabel="principal component", ylabel="explained variance (%)", xticks=component)
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
