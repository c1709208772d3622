"""Loss surfaces: an objective on a region."""

from __future__ import annotations

import time

import numpy as np
import torch
import xarray as xr
from tqdm.auto import tqdm

from lossatlas.directions import cosine, normalisation
from lossatlas.measures import Sample
from lossatlas.objective import Objective
from lossatlas.regions import Region


def surface(objective: Objective, region: Region, *, progress: bool = True) -> xr.Dataset:
    """L(center + alpha d_1 + beta d_2) at every point of the region's grid, with the metrics.

    Returns
    -------
    Dataset over ``("alpha",)`` or ``("alpha", "beta")``: ``loss`` and each metric with their standard errors over the
    data's examples, and ``loss_rise_stderr``, the standard error of the loss's *difference* from the region's center:
    every point sees the same examples, so differences are surer than the two errors together suggest. A cell whose
    loss is not finite holds that NaN or infinity, and ``attrs["n_nonfinite"]`` counts them. ``attrs`` also tell how
    the directions are normalised (measured, not asserted), their lengths and their cosine.

    Raises ``NonFiniteLoss`` when the loss is not finite at the model's own point, ``DirectionError`` for a region of
    another model.
    """
    objective.space.check(region.center, "region's center")
    objective.require_finite()
    started = time.perf_counter()
    center = objective.samples(region.center)["loss"]
    cells = [
        _cell(objective.samples(region.point(*index)), center)
        for index in tqdm(
            region.indices(),
            total=int(np.prod(region.shape)),
            desc="surface",
            disable=not progress,
            leave=False,
        )
    ]
    dataset = xr.Dataset(
        {name: (region.dims, np.reshape([cell[name] for cell in cells], region.shape)) for name in cells[0]},
        coords=dict(zip(region.dims, region.coordinates, strict=True)),
        attrs={"kind": "surface"} | objective.provenance() | _geometry(objective, region),
    )
    dataset.attrs["stderr_over"] = center.over
    dataset.attrs["n_evaluations"] = len(cells)
    dataset.attrs["n_nonfinite"] = int((~np.isfinite(dataset["loss"])).sum())
    dataset.attrs["seconds"] = time.perf_counter() - started
    return dataset


def _cell(samples: dict[str, Sample], center: Sample) -> dict[str, float]:
    values = {name: sample.mean for name, sample in samples.items()}
    errors = {f"{name}_stderr": sample.stderr for name, sample in samples.items()}
    return values | errors | {"loss_rise_stderr": samples["loss"].combined(center, -1).stderr}


def _geometry(objective: Objective, region: Region) -> dict[str, object]:
    norms = torch.linalg.vector_norm(region.directions.double(), dim=1)
    center = torch.linalg.vector_norm(region.center.double())
    measured = {normalisation(objective.space, region.center, direction) for direction in region.directions}
    scaling, one_d = measured.pop() if len(measured) == 1 else ("none", "scaled")
    found: dict[str, object] = {
        "region": ("line", "plane")[len(norms) - 1],
        "normalisation": scaling,
        "one_d": one_d,
        "direction_norms": norms.tolist(),
        "relative_norms": (norms / center).tolist(),
        "center_is_model": int(torch.equal(region.center, objective.point)),
    }
    if len(norms) == 2:
        found["cosine"] = cosine(*region.directions)
    return found
