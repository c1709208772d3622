"""What the figures read off a surface: its axes, its numbers in the shape that is drawn, its colour scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import MaxNLocator

from lossatlas.drawing.scales import scale_of
from lossatlas.results.uncertainty import number

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.drawing.style import FloatArray

AXES = ("alpha", "beta", "gamma", "angle", "radius")  # across before up
SYMBOLS = {"alpha": r"$\alpha$", "beta": r"$\beta$", "gamma": r"$\gamma$", "angle": "angle", "radius": "radius"}
LETTERS = {"alpha": "α", "beta": "β", "gamma": "γ"}


def axes_of(dataset: xr.Dataset) -> tuple[str, ...]:
    """The dimensions of the picture, the one drawn across first."""
    return tuple(name for name in AXES if name in dataset["loss"].dims)


def is_polar(dataset: xr.Dataset) -> bool:
    """Whether the loss is over radius and angle."""
    return "angle" in dataset["loss"].dims


def is_plain(dataset: xr.Dataset) -> bool:
    """Whether it is one flat region, on which a trajectory can be drawn."""
    return "plane" not in dataset.dims and not is_polar(dataset)


def grid(dataset: xr.Dataset, name: str = "loss") -> tuple[FloatArray, FloatArray, FloatArray]:
    """The coordinates across and up, and a variable in the shape (up, across) that matplotlib draws.

    Values that are not finite are NaN. Angles that go once around are closed: the first is repeated at the end.
    """
    across, up = axes_of(dataset)
    values = dataset[name].transpose(up, across).to_numpy().astype(float)
    x, y = (dataset[axis].to_numpy().astype(float) for axis in (across, up))
    if across == "angle" and len(x) > 2 and np.isclose(x[-1] + (x[1] - x[0]) - x[0], 2 * np.pi):
        x, values = np.append(x, x[0] + 2 * np.pi), np.concatenate([values, values[:, :1]], axis=1)
    return x, y, np.where(np.isfinite(values), values, np.nan)


def mesh(dataset: xr.Dataset, name: str = "loss") -> tuple[FloatArray, FloatArray, FloatArray]:
    """x, y and a variable in one shape (up, across), where they lie on the linear axes of a 3D view.

    In polar coordinates x = r cos(angle), y = r sin(angle).
    """
    across, up, values = grid(dataset, name)
    if is_polar(dataset):
        angle, radius = np.meshgrid(across, up)
        return radius * np.cos(angle), radius * np.sin(angle), values
    x, y = np.meshgrid(scale_of(across).positions(across), scale_of(up).positions(up))
    return x, y, values


def over_planes(dataset: xr.Dataset) -> xr.Dataset:
    """The mean over several planes in the place of the loss, with its relative spread; one plane stays as it is."""
    if "plane" not in dataset.dims:
        return dataset
    spread = dataset["loss_spread"] / dataset["loss_mean"]
    picture = dataset.drop_dims("plane").assign(loss=dataset["loss_mean"], relative_spread=spread)
    return picture.assign_attrs(n_planes=dataset.sizes["plane"])


def has_error_map(dataset: xr.Dataset) -> bool:
    """Whether some pixel was interpolated. Where all were evaluated, the map would be zero throughout."""
    return "loss_error" in dataset and bool((dataset["loss_error"] > 0).any())


def colour_scale(*losses: FloatArray) -> tuple[bool, FloatArray]:
    """Whether to draw log10 of the loss (all finite values are positive), and 25 levels shared by all."""
    finite = np.concatenate([loss[np.isfinite(loss)] for loss in losses])
    if finite.size == 0:
        return False, np.linspace(0, 1, 25)
    logarithmic = bool(finite.min() > 0)
    low, high = (np.log10(finite) if logarithmic else finite).min(), finite.max()
    high = float(np.log10(high) if logarithmic else high)
    margin = max(1e-9, 1e-9 * abs(high)) if high > low else 0.5
    return logarithmic, np.linspace(low - margin, high + margin, 25)


def shown(loss: FloatArray, logarithmic: bool) -> FloatArray:
    """What is drawn: log10 of the loss, NaN where a model of it (a quadratic one) is not positive; or the loss."""
    return np.log10(np.where(loss > 0, loss, np.nan)) if logarithmic else loss


def round_levels(low: float, high: float, most: int = 9) -> list[float]:
    """Round losses (1, 2 and 5 times powers of ten) strictly between two bounds, thinned to `most`.

    Where fewer than two lie between them, equally spaced ones.

    >>> round_levels(0.25, 12), round_levels(2.0, 2.2)
    ([0.5, 1.0, 2.0, 5.0, 10.0], [2.05, 2.1, 2.15])
    """
    tens = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for digits in ((1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        levels = [float(f"{d * 10.0**e:.6g}") for e in tens for d in digits if low < d * 10.0**e < high]
        if len(levels) <= (5 if len(digits) == 6 else most):
            break
    if len(levels) < 2:
        spaced = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(low, high)
        levels = [level for level in (float(f"{each:.6g}") for each in spaced) if low < level < high]
    return levels


def line_levels(drawn: FloatArray, logarithmic: bool, levels: FloatArray, most: int = 9) -> dict[float, str]:
    """Where contour lines lie in what is drawn, and the loss that is written on each."""
    if logarithmic:
        rounds = round_levels(10 ** float(levels[0]), 10 ** float(levels[-1]), most)
        at = {float(np.log10(level)): loss_name(level) for level in rounds}
    else:
        at = {float(level): f"{level:.3g}" for level in levels[3::6]}
    finite = drawn[np.isfinite(drawn)]
    return {level: text for level, text in at.items() if finite.size and finite.min() < level < finite.max()}


def missing_note(dataset: xr.Dataset) -> list[str]:
    """What the hatching means, in a list of no or one line."""
    loss = dataset["loss"].to_numpy()
    missing = int((~np.isfinite(loss)).sum())
    return [f"hatched: {missing} of {loss.size} cells not finite"] if missing else []


def loss_name(level: float) -> str:
    """A round loss on a tick or a line.

    >>> loss_name(0.05), loss_name(1e-5), loss_name(3e-5)
    ('0.05', '10⁻⁵', '3×10⁻⁵')
    """
    return f"{level:g}" if level >= 1e-3 else number(level, 1).removeprefix("1×")


def loss_ticks(logarithmic: bool, low: float, high: float, most: int = 6) -> tuple[list[float], list[str]]:
    """Where ticks lie between two heights of what is drawn, and the losses that they say."""
    if logarithmic:
        at = round_levels(10**low, 10**high, most)
        return [float(np.log10(level)) for level in at], [loss_name(level) for level in at]
    at = [float(level) for level in MaxNLocator(most).tick_values(low, high) if low <= level <= high]
    return at, [f"{level:g}" for level in at]
