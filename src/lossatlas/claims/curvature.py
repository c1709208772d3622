"""Claims on the Hessian: the signs of its eigenvalues, its sharpness, its Gauss-Newton part."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from scipy import stats

from lossatlas.claims.claim import LEVEL, UNKNOWN, Claim, Interval, data_of, scalar, verdict, who
from lossatlas.results.uncertainty import normal_interval, number, percent, plus_minus

if TYPE_CHECKING:
    import xarray as xr


def no_negative_curvature(dataset: xr.Dataset) -> Claim:
    """Whether the smallest Hessian eigenvalue is above 0: [lambda - residual, lambda + residual]."""
    value, _, residual = eigenvalue(dataset, "bottom")
    bounds = (value - residual, value + residual)
    return Claim(
        hypothesis=f"The Hessian at the trained point of {who(dataset)} has no negative eigenvalue",
        statistic="smallest eigenvalue, threshold 0",
        value=value,
        interval=bounds,
        verdict=verdict(bounds, 0.0),
        detail="For the loss of the examples given, not for the population. The interval surely contains an "
        "eigenvalue (residual bound), so a wholly negative one proves a negative eigenvalue; a positive one is as "
        f"good as the solver's reach to the end of the spectrum. On {data_of(dataset)}.",
        kind="spectrum",
        basis="solver's residual bound",
    )


def few_negative_eigenvalues(dataset: xr.Dataset, share: float = 0.01) -> Claim:
    """Whether at most this share of the Hessian's eigenvalues is negative, from the density's own interval."""
    bounds = (scalar(dataset, "negative_mass_low"), scalar(dataset, "negative_mass_high"))
    known = {"steps": "Lanczos steps", "probes": "probes"}
    how = ", ".join(f"{dataset.attrs[key]} {name}" for key, name in known.items() if key in dataset.attrs)
    return Claim(
        hypothesis=f"At most {100 * share:g} % of the eigenvalues of the Hessian at the trained point of "
        f"{who(dataset)} are negative",
        statistic=f"share of the eigenvalues below 0, threshold {share:g}",
        value=scalar(dataset, "negative_mass"),
        interval=bounds,
        verdict=verdict(bounds, share, "below"),
        detail=f"By stochastic Lanczos quadrature{f' ({how})' if how else ''}, for the loss of the examples given. It "
        "counts eigenvalues whatever their size; many of them may be negative and none far from 0. On "
        f"{data_of(dataset)}.",
        kind=str(dataset.attrs.get("kind", "spectrum")),
        basis="95 % interval from the probes and the quadrature",
    )


def sharpness_difference(a: xr.Dataset, b: xr.Dataset) -> Claim:
    """Whether |lambda_max(A) - lambda_max(B)| exceeds the data-sampling error and the residuals together."""
    (first, error_a, residual_a), (second, error_b, residual_b) = eigenvalue(a, "top"), eigenvalue(b, "top")
    known = math.isfinite(error_a) and math.isfinite(error_b)
    stderr = math.hypot(error_a, error_b) if known else 0.0
    value = abs(first - second)
    bounds = normal_interval(value, stderr, residual_a + residual_b)
    scope = (
        "The standard errors of the two networks are added as if their examples were different ones."
        if known
        else "No data-sampling error was given: the interval is the solver's, and the verdict holds for these "
        "examples only."
    )
    return Claim(
        hypothesis=f"{_capital(who(a))} and {who(b)} differ in sharpness (largest Hessian eigenvalue)",
        statistic="absolute difference of the largest eigenvalues, threshold 0",
        value=value,
        interval=bounds,
        verdict=verdict(bounds, 0.0),
        detail=f"{plus_minus(first, error_a)} and {plus_minus(second, error_b)}; residuals {number(residual_a, 2)} "
        f"and {number(residual_b, 2)} widen the interval. {scope}",
        kind="spectrum",
        basis="normal 95 % interval widened by the residuals" if known else "solver's residual bound",
    )


def gauss_newton_dominates(dataset: xr.Dataset, share: float = 0.5) -> Claim:
    """Whether |H - G|_F is less than this share of |H|_F, H the Hessian and G its Gauss-Newton part.

    The interval of the ratio is made of 97.5 % intervals of the two norms, so it needs nothing of how their errors
    hang together.
    """
    rest, whole = (
        _bounds(dataset, f"frobenius_{part}", float(stats.norm.isf(LEVEL / 4))) for part in ("residual", "hessian")
    )
    value, bounds = math.nan, UNKNOWN
    if whole[0] > 0:
        value = scalar(dataset, "frobenius_residual") / scalar(dataset, "frobenius_hessian")
        bounds = (max(rest[0], 0.0) / whole[1], rest[1] / whole[0])
    return Claim(
        hypothesis=f"The Hessian at the trained point of {who(dataset)} is dominated by its Gauss-Newton part: what is "
        f"left has less than {100 * share:g} % of its Frobenius norm",
        statistic=f"Frobenius norm of the rest over that of the Hessian, threshold {share:g}",
        value=value,
        interval=bounds,
        verdict=verdict(bounds, share, "below"),
        detail="Where the loss is convex in the outputs the Gauss-Newton part is positive semidefinite, and the "
        f"Hessian lies within {percent(value)} of a positive semidefinite matrix in this norm. For the loss of the "
        f"examples given, on {data_of(dataset)}.",
        kind="gauss_newton_split",
        basis="95 % interval of a ratio (Bonferroni)",
    )


def _bounds(dataset: xr.Dataset, name: str, quantile: float) -> Interval:
    value, half = scalar(dataset, name), quantile * scalar(dataset, f"{name}_stderr")
    return value - half, value + half


def eigenvalue(dataset: xr.Dataset, end: str) -> tuple[float, float, float]:
    """The outermost eigenvalue of one end, its data-sampling standard error (or NaN) and its residual."""
    first = dataset.sel(end=end).isel(rank=0)
    residual = scalar(first, "residual")
    return float(first["eigenvalue"]), scalar(first, "eigenvalue_stderr"), residual


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
