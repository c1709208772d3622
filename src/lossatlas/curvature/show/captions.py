"""Captions of the figures and tables on curvature: what they show and how it was computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lossatlas.results.captions import count, data_basis, joined, sentence
from lossatlas.results.groups import distinct
from lossatlas.results.provenance import Provenance
from lossatlas.results.uncertainty import number

if TYPE_CHECKING:
    import xarray as xr


def matrix(dataset: xr.Dataset) -> str:
    """Whose eigenvalues they are: "Hessian", "Gauss-Newton matrix", or "matrix" where it is not recorded."""
    return str(dataset.attrs.get("matrix", "Hessian" if dataset.attrs["kind"] == "spectrum" else "matrix"))


def restricted(dataset: xr.Dataset) -> str:
    """What to add to the matrix's name where only some parameters vary."""
    return f" restricted to the parameters {dataset.attrs['parameters']!r}" if "parameters" in dataset.attrs else ""


def batches(dataset: xr.Dataset) -> str:
    """On what power iteration ran: "network A, changing batches of 256"."""
    kind = {"changing": "changing batches", "fixed": "one fixed batch"}[str(dataset.attrs["batches"])]
    size = f" of {int(dataset.attrs['batch_size']):,}" if "batch_size" in dataset.attrs else ""
    return f"{Provenance.of(dataset).label}, {kind}{size}"


def examples(datasets: Sequence[xr.Dataset]) -> str:
    """On which examples, and how batch normalisation was done."""
    return joined(sentence(datasets, "data", "Data: {}."), sentence(datasets, "batch_norm", "Batch normalisation: {}."))


def spectrum(datasets: Sequence[xr.Dataset]) -> str:
    return joined(
        f"The largest and the smallest eigenvalues of the Hessian{restricted(datasets[0])} at the trained point, by "
        "Lanczos with full reorthogonalisation. Thick bars: residual of the solver (mostly within the marker); thin "
        "bars: one standard error from the sampling of the data.",
        sentence(datasets, "tol", "Relative tolerance asked: {}.", lambda value: number(float(value), 2)),
        sentence(datasets, "products_eigenpairs", "Hessian-vector products: {}."),
        data_basis(datasets),
    )


def scalars(datasets: Sequence[xr.Dataset]) -> str:
    share = any("negative_mass" in d for d in datasets)
    gap = any("largest_gap" in d for d in datasets)
    return joined(
        "Numbers of the whole spectrum ± one standard error, from the random directions and the quadrature; a quantity "
        "without an error was computed exactly.",
        "The interval of the share below 0 is a 95 % one." if share else "",
        "The error of the largest gap is the sum of the two residuals." if gap else "",
        sentence(datasets, "trace_method", "Trace, {}."),
        sentence(datasets, "route", "Products: {}."),
    )


def quadrature(datasets: Sequence[xr.Dataset]) -> str:
    """How a density was computed."""
    return joined(
        sentence(datasets, "steps", "Lanczos steps: {}.", count),
        sentence(datasets, "probes", "Probes: {}.", count),
        sentence(datasets, "seed", "Seed: {}."),
        sentence(datasets, "products_density", "Products for the density: {}.", count),
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
        f"How the eigenvalues of the {matrix(datasets[0])}{restricted(datasets[0])} are distributed, by stochastic "
        "Lanczos quadrature with full reorthogonalisation. Left: the density, each eigenvalue smoothed by a Gaussian "
        f"kernel{kernel}. Right: the share of the eigenvalues in bins of equal width in the logarithm of their "
        f"magnitude, the negative ones mirrored about 0, and one bin about 0.{known} Bands and bars: 95 % "
        "intervals, from the random directions and the quadrature. Both vertical axes are logarithmic.",
        quadrature(datasets),
        examples(datasets),
    )


def trend(datasets: Sequence[xr.Dataset]) -> str:
    return joined(
        "The largest eigenvalue of the Hessian of random subsets of the data. Faint: each subset; line: their mean, "
        "with a band of one standard error over the subsets of a size. Dashed: all the data, with the solver's "
        "residual and one data-sampling standard error as a band. A subset's largest eigenvalue is biased upward: its "
        "expectation is never below the value of all the data. So networks are compared at equal numbers of examples "
        "only, and the data given stand to the population as a subset does to them.",
        sentence(datasets, "products_trend", "Products: {}.", count),
        sentence(datasets, "seed", "Seed: {}."),
        sentence(datasets, "data", "Data: {}."),
    )


def layers(datasets: Sequence[xr.Dataset]) -> str:
    return joined(
        "The Hessian restricted to the parameters of one layer at a time: its smallest and its largest eigenvalue with "
        "the solver's residual, and its trace with one standard error (mostly within the marker). No block's "
        "eigenvalue lies outside those of the whole Hessian, and the traces of blocks that share no parameter add up.",
        sentence(datasets, "data", "Data: {}."),
    )


def gauss_newton_split(datasets: Sequence[xr.Dataset]) -> str:
    return joined(
        "The Hessian H and its Gauss-Newton part G along the leading eigenvectors v of H. Left: the curvature of "
        "each along v. Right: their ratio, 1 where G is all of H.",
        sentence(datasets, "data", "Data: {}."),
    )


def gauss_newton_table(datasets: Sequence[xr.Dataset]) -> str:
    return joined(
        "The Hessian H, its Gauss-Newton part G and the rest R = H − G: traces, Frobenius norms, and the cosine of H "
        "and G, their Frobenius inner product over the product of the norms; ± one standard error over the probes "
        "where it was estimated.",
        sentence(datasets, "trace_method", "Trace of H, {}."),
        sentence(datasets, "trace_method_gauss_newton", "Trace of G, {}."),
        sentence(datasets, "products", "Products: {}.", count),
        sentence(datasets, "seed", "Seed: {}."),
    )


def gabdullin(datasets: Sequence[xr.Dataset]) -> str:
    return joined(
        "Gabdullin's criteria, small where the spectrum is mainly positive, against the number of Lanczos steps: the "
        "ratio of negative to positive nodes, each times its weight and to the power n, for n = 1 and for the author's "
        "n = 0.5, and the ratio of the outermost negative to the largest eigenvalue, all of the quadrature's nodes. "
        f"For n = 1 it estimates a property of the {matrix(datasets[0])}; for n = 0.5 it also depends on the number of "
        "steps, so it is compared at equal steps only. Bands: ± one standard error over the probes.",
        quadrature(datasets),
        sentence(datasets, "data", "Data: {}."),
    )


def power_iteration(datasets: Sequence[xr.Dataset], spectra: Sequence[xr.Dataset]) -> str:
    dashed = "Dashed: the largest eigenvalue by Lanczos, with its residual and one standard error as a band."
    return joined(
        "Rayleigh quotients of power iteration, on one fixed batch or on another batch at each product; kept as a "
        "baseline, since it carries no error.",
        dashed if spectra else "",
        sentence(datasets, "batch_size", "Batch size: {}."),
        sentence(spectra, "data", "Data of the Lanczos run: {}."),
    )
