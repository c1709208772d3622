"""Hessian axes: the plane in which the loss bends most, upward and downward."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
import xarray as xr

from lossatlas.errors import InputError
from lossatlas.geometry.axes import Span
from lossatlas.geometry.region import Region
from lossatlas.geometry.regions import plane


def eigen_plane(
    spectrum: xr.Dataset,
    *,
    rise: float = 1.0,
    span: Span | tuple[Span, Span] | None = None,
    steps: int | tuple[int, int] = 51,
) -> Region:
    """theta(alpha, beta) = theta_0 + alpha v_max + beta v_min: unit eigenvectors of H's two extreme eigenvalues.

    The axes are orthonormal, so the picture is undistorted; the region knows the ``slopes`` and ``curvatures`` along
    them, and its ``quadratic_rise`` is the second-order model. The expected curvature along a random direction is a
    weighted mean of the eigenvalues, so that a random plane can hide a saddle; this one shows it.

    Parameters
    ----------
    spectrum : from ``spectrum(objective, vectors=True)``: it brings the point theta_0 and the eigenvectors.
    rise : without ``span`` each axis reaches to sqrt(2 ``rise`` / |lambda|) on either side, where the curvature alone
        has changed the loss by ``rise``.
    span, steps : as for ``plane``.

    Raises
    ------
    InputError : a spectrum without its eigenvectors, and, without ``span``, an eigenvalue that is not told from 0 by
        its residual: it sets no scale.

    Source: Böttcher & Wheeler 2022, "Visualizing High-Dimensional Loss Landscapes with Hessian Directions"; Gabdullin
    2024 recommends Hessian axes too.

    Examples
    --------
    >>> import lossatlas as la
    >>> model, data = torch.nn.Linear(2, 1, bias=False), (torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.zeros(2, 1))
    >>> objective = la.Objective(model, torch.nn.functional.mse_loss, data)
    >>> region = eigen_plane(la.spectrum(objective, k=1, vectors=True), steps=3)
    >>> [round(curvature, 3) for curvature in region.curvatures], region.provenance()["directions"]
    ([4.0, 1.0], 'Hessian axes')
    """
    if (
        not isinstance(spectrum, xr.Dataset)
        or "eigenvector" not in spectrum
        or set(np.atleast_1d(spectrum["end"])) != {"top", "bottom"}
    ):
        raise InputError(
            "The Dataset lacks the eigenvectors of both ends of a spectrum: "
            "measure it with spectrum(objective, vectors=True)."
        )
    if not 0 < rise < math.inf:
        raise InputError(f"rise={rise}: give the change of loss that the axes should reach, a positive number.")
    ends = spectrum.sel(end=["top", "bottom"], rank=1)
    spans = _spans(ends, rise) if span is None else span
    center = torch.tensor(spectrum["point"].to_numpy())
    first, second = torch.tensor(ends["eigenvector"].transpose("end", "parameter").to_numpy())
    return replace(
        plane(center, first, second, span=spans, steps=steps),
        slopes=tuple(ends["slope"].to_numpy().tolist()),
        curvatures=tuple(ends["eigenvalue"].to_numpy().tolist()),
        origin=_origin(spectrum),
    )


def _origin(spectrum: xr.Dataset) -> dict[str, object]:
    named = {"spectrum_id": spectrum.attrs.get("id"), "network": spectrum.attrs.get("network")}
    return {"directions": "Hessian axes"} | {name: value for name, value in named.items() if value is not None}


def _spans(ends: xr.Dataset, rise: float) -> tuple[Span, Span]:
    widths = []
    for value, residual in zip(ends["eigenvalue"].to_numpy(), ends["residual"].to_numpy(), strict=True):
        if not abs(value) > residual:
            raise InputError(
                f"The eigenvalue {value:.3g} is not told from 0 (residual {residual:.1g}) and sets no scale: "
                "give span=, the half-width of the axes."
            )
        widths.append(math.sqrt(2 * rise / abs(value)))
    return (-widths[0], widths[0]), (-widths[1], widths[1])
