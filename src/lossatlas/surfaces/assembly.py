"""From evaluated cells to a Dataset: the grid, the evaluated points, the evidence; several surfaces as one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from lossatlas.errors import InputError
from lossatlas.geometry.region import Region
from lossatlas.surfaces.adaptive import AdaptiveSurface
from lossatlas.surfaces.cells import LOSS, Cells, Column
from lossatlas.surfaces.interpolation import Floats, Polyharmonic, positions
from lossatlas.surfaces.options import SurfaceOptions


def grid(cells: Cells, found: AdaptiveSurface | None) -> xr.Dataset:
    """The grid with every column: evaluated where it was, interpolated elsewhere."""
    region = cells.region
    rows = _filled(cells, found)
    dataset = xr.Dataset(coords=dict(zip(region.dims, region.coordinates, strict=True)))
    for column, values in zip(cells.columns, rows.T, strict=True):
        if column.label is None:
            dataset[column.name] = (region.dims, values.reshape(region.shape))
    dataset = dataset.assign(_by_class(cells, rows))
    evaluated = np.ones(region.shape, dtype=bool)
    if found is not None:
        points = cells.points()
        evaluated = np.isin(points, points[found.evaluated]).reshape(region.shape)
        dataset = dataset.assign(_evaluated(cells, found))
        dataset["loss_error"] = (region.dims, _errors(dataset, found, evaluated))
    dataset["evaluated"] = (region.dims, evaluated.astype(np.int8))
    return dataset


def _by_class(cells: Cells, rows: Floats) -> dict[str, xr.DataArray]:
    """The columns of classes, by their names, each over one more dimension ``class``."""
    found = {}
    for name in {column.name for column in cells.columns if column.label is not None}:
        own = [(column.label, i) for i, column in enumerate(cells.columns) if column.name == name]
        values = rows[:, [i for _, i in own]].reshape(*cells.region.shape, len(own))
        coords = {"class": [label for label, _ in own]}
        found[name] = xr.DataArray(values, dims=(*cells.region.dims, "class"), coords=coords)
    return found


def _errors(dataset: xr.Dataset, found: AdaptiveSurface, evaluated: NDArray[np.bool_]) -> Floats:
    """The relative error map: that of the interpolation, and of the subset where one was drawn."""
    error = np.where(evaluated, 0, found.error.reshape(evaluated.shape))
    if "loss_subset_stderr" in dataset:
        error = np.hypot(error, dataset["loss_subset_stderr"] / np.abs(dataset["loss"]))
    return np.asarray(error)


def evidence(found: AdaptiveSurface, options: SurfaceOptions, tol: float, dataset: xr.Dataset) -> dict[str, Any]:
    """What was asked and what was shown, for ``attrs``, and the data's own error for comparison."""
    noise = _median_noise(dataset)
    notes = [found.note] if found.note else []
    if noise > tol:
        notes.append(
            f"the data's own standard error is {noise:.1%} of the loss (median): a tolerance of {tol:.2g} shows more "
            "than these examples say about others"
        )
    return {
        "method": found.method,
        "tolerance": tol,
        "coverage": options.coverage,
        "confidence": options.confidence,
        "coverage_bound": found.coverage,
        "held_out": len(found.held_out),
        "held_out_beyond": int((found.held_out_errors > tol).sum()),
        "error_estimate": found.error_estimate,
        "data_error": noise,
        "note": "; ".join(notes),
    }


def _median_noise(dataset: xr.Dataset) -> float:
    """The median of the relative standard errors of the loss; NaN where none is finite."""
    with np.errstate(invalid="ignore", divide="ignore"):
        errors = np.asarray(np.abs(dataset["loss_stderr"] / dataset["loss"]))
    return float(np.median(errors[np.isfinite(errors)])) if np.isfinite(errors).any() else math.nan


def quadratic(region: Region, center: float) -> Floats:
    """The second-order model on the grid, from the loss at the center and the region's slopes and curvatures."""
    places = (map(float, place) for place in itertools.product(*region.coordinates))
    return np.reshape([center + region.quadratic_rise(*place) for place in places], region.shape)


def joined(surfaces: list[xr.Dataset]) -> xr.Dataset:
    """Several surfaces over one grid, along ``plane``, with the mean and the standard deviation of their losses."""
    first = surfaces[0]
    for other in surfaces[1:]:
        if other["loss"].dims != first["loss"].dims or not all(other[d].equals(first[d]) for d in first["loss"].dims):
            raise InputError("The regions have different axes: give several of one span and one number of steps.")
    evaluations = [name for name, v in first.items() if "evaluation" in v.dims]  # as many as each of them needed
    dataset = xr.concat([one.drop_vars(evaluations) for one in surfaces], dim="plane", combine_attrs="override")
    dataset = dataset.assign_coords(plane=np.arange(len(surfaces)))
    dataset["loss_mean"] = dataset["loss"].mean("plane")
    dataset["loss_spread"] = dataset["loss"].std("plane", ddof=1)
    dataset.attrs |= _joined_attributes([one.attrs for one in surfaces]) | {"n_planes": len(surfaces)}
    return dataset


def _joined_attributes(every: list[dict[str, Any]]) -> dict[str, Any]:
    """What is not the first surface's alone: sums, worst cases, notes, and the list of seeds where they differ."""
    combined: dict[str, Callable[[list[Any]], Any]] = {
        **dict.fromkeys(("n_evaluations", "n_nonfinite", "seconds", "held_out", "held_out_beyond"), sum),
        **dict.fromkeys(("method", "note"), lambda values: "; ".join(dict.fromkeys(filter(None, values)))),
        "error_estimate": max,
        "coverage_bound": min,
        "seed": lambda values: values[0] if len(set(values)) == 1 else values,
    }
    return {
        name: combine([attrs[name] for attrs in every])
        for name, combine in combined.items()
        if all(name in attrs for attrs in every)
    }


def _filled(cells: Cells, found: AdaptiveSurface | None) -> Floats:
    """``(pixels, columns)``; what is interpolated stays within the range of what was evaluated."""
    if found is None or found.power == 0:
        return cells.rows(np.arange(math.prod(cells.region.shape)))
    rows = _interpolated(cells, found)
    exact, others = cells.rows(found.evaluated), np.arange(rows.shape[1]) != LOSS
    # An accuracy above 1 or a negative standard error would be an artefact of the spline.
    lowest, highest = np.fmin.reduce(exact[:, others]), np.fmax.reduce(exact[:, others])
    rows[:, others] = np.clip(rows[:, others], lowest, highest)
    points = cells.points()
    rows = rows[points]
    rows[points[found.evaluated]] = exact
    return rows[points]


def _interpolated(cells: Cells, found: AdaptiveSurface) -> Floats:
    """``(pixels, columns)`` of the spline through the nodes, of log loss where it is logarithmic."""
    places, nodes = positions(cells.region.shape), cells.rows(found.nodes)
    if found.logarithmic:
        nodes[:, LOSS] = np.log(nodes[:, LOSS])
    rows = Polyharmonic(places[found.nodes], nodes, found.power)(places)
    if found.logarithmic:
        rows[:, LOSS] = np.exp(rows[:, LOSS])
    return rows


def _evaluated(cells: Cells, found: AdaptiveSurface) -> dict[str, Any]:
    """The points at which the model was evaluated: coordinates, loss, role in the search."""
    region, rows = cells.region, cells.rows(found.evaluated)
    places = np.unravel_index(found.evaluated, region.shape)
    role = np.where(np.isin(found.evaluated, found.nodes), "node", "pixel").astype("<U8")
    role[np.isin(found.evaluated, found.held_out)] = "held-out"
    errors = np.full(len(rows), np.nan)
    errors[np.searchsorted(found.evaluated, found.held_out)] = found.held_out_errors
    columns = {f"evaluation_{d}": axis[i] for d, axis, i in zip(region.dims, region.coordinates, places, strict=True)}
    columns |= {f"evaluation_{name}": rows[:, cells.columns.index(Column(name))] for name in ("loss", "loss_stderr")}
    columns |= {"evaluation_role": role, "evaluation_surprise": errors}
    return {name: ("evaluation", values) for name, values in columns.items()}
