"""Captions of the figures and tables on the Hessian: what they show and how it was computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lossatlas.report.captions import basis, count, distinct, joined, said
from lossatlas.results.uncertainty import number

if TYPE_CHECKING:
    import xarray as xr


def spectrum(datasets: Sequence[xr.Dataset]) -> str:
    has_stderr = any("eigenvalue_stderr" in d for d in datasets)
    thin = "; thin bars: one standard error from the sampling of the data" if has_stderr else ""
    counted = "products_eigenpairs" if any("products_eigenpairs" in d.attrs for d in datasets) else "products"
    return joined(
        "The largest and the smallest eigenvalues of the Hessian at the trained point, by Lanczos with full "
        f"reorthogonalisation. Thick bars: residual of the solver (mostly within the marker){thin}.",
        said(datasets, "tol", "Relative tolerance asked: {}.", lambda value: number(float(value), 2)),
        said(datasets, counted, "Hessian-vector products: {}."),
        basis(datasets),
    )


def scalars(datasets: Sequence[xr.Dataset]) -> str:
    share = any("negative_mass" in d for d in datasets)
    gap = any("largest_gap" in d for d in datasets)
    return joined(
        "Numbers of the whole spectrum ± one standard error over the probes; a quantity without an error was computed "
        "exactly.",
        "The interval of the share below 0 is a 95 % one, from the probes and the quadrature." if share else "",
        "The error of the largest gap is the sum of the two residuals." if gap else "",
        said(datasets, "trace_method", "Trace, {}."),
        said(datasets, "route", "Products: {}."),
    )


def quadrature(datasets: Sequence[xr.Dataset]) -> str:
    """How a density was computed."""
    return joined(
        said(datasets, "steps", "Lanczos steps: {}.", count),
        said(datasets, "probes", "Probes: {}.", count),
        said(datasets, "seed", "Seed: {}."),
        said(datasets, "products_density", "Products for the density: {}.", count),
    )


def density(datasets: Sequence[xr.Dataset]) -> str:
    width = distinct(datasets, "smoothing", lambda value: number(float(value), 3))
    kernel = f" of standard deviation {width}" if width else ""
    known = (
        " Markers: the eigenvalues of the figure before, each of mass 1/n; the quadrature is of the others."
        if any("eigenvalue" in d for d in datasets)
        else ""
    )
    return joined(
        "How the eigenvalues of the Hessian are distributed, by stochastic Lanczos quadrature with full "
        f"reorthogonalisation. Left: the density, each eigenvalue smoothed by a Gaussian kernel{kernel}. Right: the "
        "share of the eigenvalues in bins of equal width in the logarithm of their magnitude, the negative ones "
        f"mirrored about 0, and one bin about 0.{known} Bands and bars: 95 % over the probes. Both vertical axes are "
        "logarithmic.",
        quadrature(datasets),
        said(datasets, "data", "Data: {}."),
        said(datasets, "batch_norm", "Batch normalisation: {}."),
    )


def trend(datasets: Sequence[xr.Dataset]) -> str:
    return joined(
        "The largest eigenvalue of the Hessian of random subsets of the data. Faint: each subset; line: their mean, "
        "with a band of one standard error over the subsets of a size. Dashed: all the data, with the solver's "
        "residual and one data-sampling standard error as a band. A subset's largest eigenvalue is biased upward: its "
        "expectation is never below the value of all the data. So networks are compared at equal numbers of examples "
        "only, and the data given stand to the population as a subset does to them.",
        said(datasets, "products_trend", "Products: {}.", count),
        said(datasets, "seed", "Seed: {}."),
        said(datasets, "data", "Data: {}."),
    )


def layers(datasets: Sequence[xr.Dataset]) -> str:
    return joined(
        "The Hessian restricted to the parameters of one layer at a time: its smallest and its largest eigenvalue with "
        "the solver's residual, and its trace with one standard error (mostly within the marker). No block's "
        "eigenvalue lies outside those of the whole Hessian, and the traces of blocks that share no parameter add up.",
        said(datasets, "data", "Data: {}."),
    )


def gauss_newton_split(datasets: Sequence[xr.Dataset]) -> str:
    return joined(
        "The Hessian H and its Gauss-Newton part G along the leading eigenvectors v of H. Left: the curvature of "
        "each along v. Right: their ratio, 1 where G is all of H.",
        said(datasets, "data", "Data: {}."),
    )


def gauss_newton_table(datasets: Sequence[xr.Dataset]) -> str:
    return joined(
        "The Hessian H, its Gauss-Newton part G and the rest R = H − G: traces, Frobenius norms, and the cosine of H "
        "and G, their Frobenius inner product over the product of the norms; ± one standard error over the probes "
        "where it was estimated.",
        said(datasets, "products", "Products: {}.", count),
        said(datasets, "seed", "Seed: {}."),
    )


def gabdullin(datasets: Sequence[xr.Dataset]) -> str:
    return joined(
        "Gabdullin's criteria, small where the spectrum is mainly positive, against the number of Lanczos steps: the "
        "ratio of negative to positive nodes, each times its weight and to the power n, for n = 1 and for the author's "
        "n = 0.5, and the ratio of the outermost negative to the largest eigenvalue, all of the quadrature's nodes. "
        "For n = 1 it estimates a property of the Hessian; for n = 0.5 it also depends on the number of steps, so it "
        "is compared at equal steps only. Bands: ± one standard error over the probes.",
        quadrature(datasets),
        said(datasets, "data", "Data: {}."),
    )


def power_iteration(datasets: Sequence[xr.Dataset], spectra: Sequence[xr.Dataset]) -> str:
    line_there = (
        " Dashed: the largest eigenvalue by Lanczos, with its residual and one standard error as a band."
        if spectra
        else ""
    )
    return joined(
        "Rayleigh quotients of power iteration, on one fixed batch or on another batch at each product; kept as a "
        f"baseline, since it carries no error.{line_there}",
        said(datasets, "batch_size", "Batch size: {}."),
        said(spectra, "data", "Data of the Lanczos run: {}."),
    )
