"""Hessian axes: the plane in which the loss bends most, upward and downward."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
import xarray as xr

from lossatlas.errors import InputError
from lossatlas.geometry.regions import Region, Span, plane


def eigen_plane(
    spectrum: xr.Dataset,
    *,
    rise: float = 1.0,
    span: Span | tuple[Span, Span] | None = None,
    steps: int | tuple[int, int] = 51,
) -> Region:
    """theta(alpha, beta) = theta_0 + alpha v_max + beta v_min: unit eigenvectors of H's two extreme eigenvalues.

    ``spectrum`` comes from ``spectrum(objective, vectors=True)`` and brings the point theta_0. The axes are
    orthonormal, so the picture is undistorted; the region knows the ``slopes`` and ``curvatures`` along them, and its
    ``quadratic_rise`` is the second-order model. Without ``span`` each axis reaches to sqrt(2 ``rise`` / |lambda|) on
    either side, where the curvature alone has changed the loss by ``rise``.

    The expected curvature along a random direction is a weighted mean of the eigenvalues, so that a random plane can
    hide a saddle; this one shows it (Böttcher & Wheeler 2022; Gabdullin 2024 recommends Hessian axes too).

    Raises ``InputError`` for a spectrum without its eigenvectors, and, without ``span``, for an eigenvalue that is not
    told from 0 by its residual: it sets no scale.
    """
    if "eigenvector" not in spectrum or set(np.atleast_1d(spectrum["end"])) != {"top", "bottom"}:
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
    )


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
