"""From evaluated cells to a Dataset: the grid, the evaluated points, the evidence; several surfaces as one."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import xarray as xr

from lossatlas.errors import InputError
from lossatlas.geometry.regions import Region
from lossatlas.surfaces.adaptive import Picture
from lossatlas.surfaces.cells import CLASS_LOSS, LOSS, Cells
from lossatlas.surfaces.interpolation import Floats, Polyharmonic, positions


def drawn(cells: Cells, found: Picture | None) -> xr.Dataset:
    """The grid with every column: evaluated where it was, interpolated elsewhere."""
    region = cells.region
    rows = _filled(cells, found)
    grid = {name: rows[:, i].reshape(region.shape) for i, name in enumerate(cells.columns)}
    classes = [name for name in grid if name.startswith(CLASS_LOSS)]
    stacked = [grid.pop(name) for name in classes]
    dataset = xr.Dataset(
        {name: (region.dims, values) for name, values in grid.items()},
        coords=dict(zip(region.dims, region.coordinates, strict=True)),
    )
    if stacked:
        numbers = [int(name.removeprefix(CLASS_LOSS)) for name in classes]
        dataset["class_loss"] = ((*region.dims, "class"), np.stack(stacked, axis=-1))
        dataset = dataset.assign_coords({"class": numbers})
    evaluated = np.ones(region.shape, dtype=bool)
    if found is not None:
        points = cells.points()
        evaluated = np.isin(points, points[found.evaluated]).reshape(region.shape)
        dataset = dataset.assign(_evaluated(cells, found))
        error = np.where(evaluated, 0, found.error.reshape(region.shape))
        if "loss_subset_stderr" in dataset:
            error = np.hypot(error, dataset["loss_subset_stderr"] / np.abs(dataset["loss"]))
        dataset["loss_error"] = (region.dims, np.asarray(error))
    dataset["evaluated"] = (region.dims, evaluated.astype(np.int8))
    return dataset


def evidence(found: Picture, tol: float, coverage: float, confidence: float, dataset: xr.Dataset) -> dict[str, Any]:
    """What was asked and what was shown, for ``attrs``; the data's own error beside it."""
    with np.errstate(invalid="ignore", divide="ignore"):
        errors = np.asarray(np.abs(dataset["loss_stderr"] / dataset["loss"]))
    noise = float(np.median(errors[np.isfinite(errors)])) if np.isfinite(errors).any() else math.nan
    notes = [found.note] if found.note else []
    if noise > tol:
        notes.append(
            f"the data's own standard error is {noise:.1%} of the loss (median): a tolerance of {tol:.2g} shows more "
            "than these examples say about others"
        )
    return {
        "method": found.method,
        "tolerance": tol,
        "coverage": coverage,
        "confidence": confidence,
        "coverage_bound": found.coverage,
        "held_out": len(found.held_out),
        "held_out_beyond": int((found.surprises > tol).sum()),
        "error_estimate": found.error_estimate,
        "data_error": noise,
        "note": "; ".join(notes),
    }


def quadratic(region: Region, center: float) -> Floats:
    """The second-order model on the grid, from the loss at the center and the region's slopes and curvatures."""
    places = (map(float, place) for place in itertools.product(*region.coordinates))
    return np.reshape([center + region.quadratic_rise(*place) for place in places], region.shape)


def together(surfaces: list[xr.Dataset]) -> xr.Dataset:
    """Several surfaces over one grid, along ``plane``, with the mean and the standard deviation of their losses."""
    first = surfaces[0]
    for other in surfaces[1:]:
        if other["loss"].dims != first["loss"].dims or not all(other[d].equals(first[d]) for d in first["loss"].dims):
            raise InputError("The regions have different axes: give several of one span and one number of steps.")
    evaluations = [name for name, v in first.items() if "evaluation" in v.dims]  # as many as each of them needed
    joined = xr.concat([one.drop_vars(evaluations) for one in surfaces], dim="plane", combine_attrs="override")
    joined = joined.assign_coords(plane=np.arange(len(surfaces)))
    joined["loss_mean"] = joined["loss"].mean("plane")
    joined["loss_spread"] = joined["loss"].std("plane", ddof=1)
    for name in ("n_evaluations", "n_nonfinite", "seconds", "held_out", "held_out_beyond"):
        if name in first.attrs:
            joined.attrs[name] = type(first.attrs[name])(sum(one.attrs[name] for one in surfaces))
    for name in ("error_estimate", "coverage_bound"):
        if name in first.attrs:
            worst = max if name == "error_estimate" else min
            joined.attrs[name] = worst(one.attrs[name] for one in surfaces)
    for name in ("method", "note"):
        if name in first.attrs:
            joined.attrs[name] = "; ".join(dict.fromkeys(one.attrs[name] for one in surfaces if one.attrs[name]))
    joined.attrs["n_planes"] = len(surfaces)
    return joined


def _filled(cells: Cells, found: Picture | None) -> Floats:
    """``(pixels, columns)``; what is interpolated stays within the range of what was evaluated."""
    if found is None or found.power == 0:
        return cells.rows(np.arange(math.prod(cells.region.shape)))
    places = positions(cells.region.shape)
    ground = cells.rows(found.nodes)
    if found.logarithmic:
        ground[:, LOSS] = np.log(ground[:, LOSS])
    rows = Polyharmonic(places[found.nodes], ground, found.power)(places)
    if found.logarithmic:
        rows[:, LOSS] = np.exp(rows[:, LOSS])
    exact, others = cells.rows(found.evaluated), np.arange(rows.shape[1]) != LOSS
    # An accuracy above 1 or a negative standard error would be the spline's invention.
    lowest, highest = np.fmin.reduce(exact[:, others]), np.fmax.reduce(exact[:, others])
    rows[:, others] = np.clip(rows[:, others], lowest, highest)
    points = cells.points()
    rows = rows[points]
    rows[points[found.evaluated]] = exact
    return rows[points]


def _evaluated(cells: Cells, found: Picture) -> dict[str, Any]:
    """The points at which the model was evaluated: where, what came out, what for."""
    region, rows = cells.region, cells.rows(found.evaluated)
    places = np.unravel_index(found.evaluated, region.shape)
    role = np.where(np.isin(found.evaluated, found.nodes), "node", "pixel").astype("<U8")
    role[np.isin(found.evaluated, found.held_out)] = "held-out"
    surprise = np.full(len(rows), np.nan)
    surprise[np.searchsorted(found.evaluated, found.held_out)] = found.surprises
    columns = {f"evaluation_{d}": axis[i] for d, axis, i in zip(region.dims, region.coordinates, places, strict=True)}
    columns |= {f"evaluation_{name}": rows[:, cells.columns.index(name)] for name in ("loss", "loss_stderr")}
    columns |= {"evaluation_role": role, "evaluation_surprise": surprise}
    return {name: ("evaluation", values) for name, values in columns.items()}
