"""The spectrum of each layer's own block of the Hessian."""

from __future__ import annotations

import glob

import numpy as np
import xarray as xr

from lossatlas.curvature.lanczos import search
from lossatlas.curvature.progress import Budget
from lossatlas.curvature.trace import trace
from lossatlas.model.parameters import ParameterSpace
from lossatlas.objective import Objective

LEAST = 100  # products that a layer may take
SHARE = 0.9  # of the budget, for the pairs


def layer_variables(objective: Objective, k: int, tol: float, seed: int, budget: Budget) -> tuple[xr.Dataset, str]:
    """Variables over ``("layer", "end", "rank")`` and ``("layer",)``, and a note or ``""``.

    A layer is a module with parameters of its own; its block is H restricted to them. Where it has fewer than k, the
    ranks beyond are NaN.
    """
    layers = _layers(objective.space)
    values = np.full((len(layers), 2, k), np.nan)
    residuals = np.full_like(values, np.nan)
    traces, sizes = [], []
    short = f"No spectra of the layers: {budget.describe()} left too little for them."
    for row, names in enumerate(layers.values()):
        if budget.left() < LEAST:
            return xr.Dataset(), short
        part = objective.restricted([glob.escape(name) for name in names])
        operator = budget.hessian(part)
        kept = min(k, part.n_parameters)
        pairs = search(operator, kept, which="both", tol=tol, floor=tol, budget=budget, share=SHARE, seed=seed).pairs
        if budget.left() < LEAST:
            return xr.Dataset(), short
        values[row, :, :kept] = pairs.values.reshape(2, kept).numpy()
        residuals[row, :, :kept] = pairs.residuals.reshape(2, kept).numpy()
        traces.append(trace(operator, max_products=int(min(1000, budget.left())), seed=seed))
        sizes.append(part.n_parameters)
    over = ("layer", "end", "rank")
    variables = {
        "layer": xr.Variable("layer", list(layers)),
        "layer_eigenvalue": xr.Variable(over, values),
        "layer_residual": xr.Variable(over, residuals),
        "layer_trace": xr.Variable("layer", [found.value for found in traces]),
        "layer_trace_stderr": xr.Variable("layer", [found.stderr for found in traces]),
        "layer_trace_reason": xr.Variable("layer", [found.reason for found in traces]),
        "layer_size": xr.Variable("layer", sizes),
    }
    return xr.Dataset(variables), ""


def _layers(space: ParameterSpace) -> dict[str, list[str]]:
    """Module name -> the names of its own parameters."""
    layers: dict[str, list[str]] = {}
    for entry in space:
        layers.setdefault(entry.name.rpartition(".")[0] or entry.name, []).append(entry.name)
    return layers
