"""What is said of the figures on curvature: what is seen, how it was computed, what it does not show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lossatlas.drawing.style import labels
from lossatlas.results.captions import basis, count, joined, listed, sentence, sentences
from lossatlas.results.groups import distinct
from lossatlas.results.provenance import Provenance
from lossatlas.results.uncertainty import number, plus_minus
from lossatlas.results.values import value

if TYPE_CHECKING:
    import xarray as xr

Datasets = Sequence["xr.Dataset"]
Told = dict[str, Any]  # the keywords of a Picture

UPWARD = (
    "A subset's largest eigenvalue is biased upwards: networks compare at equal numbers of examples only, and the data "
    "given stand to the population as a subset does to them."
)


def matrix(dataset: xr.Dataset) -> str:
    """Whose eigenvalues they are: "Hessian", "Gauss-Newton matrix", or "matrix" where it is not recorded."""
    return str(dataset.attrs.get("matrix", "Hessian" if dataset.attrs["kind"] == "spectrum" else "matrix"))


def restricted(dataset: xr.Dataset) -> str:
    """What to add to the matrix's name where only some parameters vary."""
    return f" restricted to the parameters {dataset.attrs['parameters']!r}" if "parameters" in dataset.attrs else ""


def on_batches(dataset: xr.Dataset) -> str:
    """On what power iteration ran: "changing batches of 256"."""
    kind = {"changing": "changing batches", "fixed": "one fixed batch"}[str(dataset.attrs["batches"])]
    return f"{kind} of {int(dataset.attrs['batch_size']):,}" if "batch_size" in dataset.attrs else kind


def batches(dataset: xr.Dataset) -> str:
    """Whose power iteration it is: "network A, changing batches of 256"."""
    return f"{Provenance.of(dataset).label}, {on_batches(dataset)}"


def each(datasets: Datasets, texts: Sequence[str]) -> str:
    """A number of each network: "0.25 ± 0.07 for network A and 0.31 ± 0.08 for network B"."""
    return listed([f"{text} for {label}" for text, label in zip(texts, labels(datasets), strict=True)])


def _on(datasets: Datasets) -> str:
    """On which data: " on digits train, 1,000 examples"."""
    data = distinct(datasets, "data")
    return f" on {data}" if data else ""


def _outermost(datasets: Datasets, end: str) -> str:
    found = [dataset for dataset in datasets if end in dataset["end"].to_numpy()]
    return each(found, [value(dataset.sel(end=end), "eigenvalue", rank=0) for dataset in found]) if found else ""


def spectrum(datasets: Datasets) -> Told:
    which = [name for end, name in (("top", "largest"), ("bottom", "smallest")) if _outermost(datasets, end)]
    each = "" if (ranks := datasets[0].sizes["rank"]) == 1 else f"{ranks} "
    return {
        "caption": f"The {each}{listed(which)} eigenvalue{'s' if each or len(which) > 1 else ''} of the "
        f"Hessian{restricted(datasets[0])} at the trained point{_on(datasets)}, with the solver's residual (thick "
        "bars, mostly within the marker) and one standard error of the data (thin bars).",
        "how": joined(
            "Lanczos with full reorthogonalisation",
            sentence(datasets, "tol", "to a relative residual of {}", lambda tol: number(float(tol), 2)),
        )
        + ".",
        "pitfall": "The standard error leaves out that few examples bias the largest eigenvalue upwards.",
        "method": sentences(
            sentence(datasets, "products_eigenpairs", "Hessian-vector products for the eigenpairs: {}."),
            sentence(datasets, "trace_method", "Trace, {}."),
            *_reasons(datasets, "trace_reason", "the trace"),
            sentence(datasets, "route", "Products: {}."),
            *basis(datasets),
        ),
        "alt": joined(*(f"The {name} eigenvalue is {_outermost(datasets, end)}." for end, name in _ends(which))),
    }


def _ends(which: Sequence[str]) -> list[tuple[str, str]]:
    return [({"largest": "top", "smallest": "bottom"}[name], name) for name in which]


def _reasons(datasets: Datasets, key: str, what: str) -> list[str]:
    """Why a trace is not exact, where it is not."""
    found = [dataset for dataset in datasets if dataset.attrs.get(key)]
    reasons = dict.fromkeys(str(dataset.attrs[key]).rstrip(".") for dataset in found)
    return [f"{what[0].upper()}{what[1:]} is an estimate: {reason}." for reason in reasons]


def density(datasets: Datasets) -> Told:
    width = distinct(datasets, "smoothing", lambda value: number(float(value), 3))
    known = any("eigenvalue" in dataset for dataset in datasets)
    ranked = [dataset for dataset in datasets if "effective_rank" in dataset]
    of = f"{matrix(datasets[0])}{restricted(datasets[0])}"
    return {
        "caption": f"How the eigenvalues of the {of} are distributed{_on(datasets)}: their density (left), and their "
        "share in bins of the magnitude (right), with those that are known one by one as dots."
        if known
        else f"Density of the eigenvalues of the {of}{_on(datasets)} (left), and their share in bins of the magnitude "
        "(right).",
        "how": "Stochastic Lanczos quadrature; bands and bars are 95 % intervals.",
        "pitfall": "Within a dense cluster, such as the one about 0, the quadrature knows the mass, not the spread.",
        "method": sentences(
            f"Each eigenvalue of the density is smoothed by a Gaussian kernel of standard deviation {width}."
            if width
            else "",
            "The bins have equal width in the logarithm of the magnitude.",
            "Eigenvalues known one by one have a mass of 1/n each, and the quadrature is of the others."
            if known
            else "",
            "The intervals hold the errors of the random directions and of the quadrature.",
            *quadrature(datasets),
            *basis(datasets),
        ),
        "alt": f"Effective rank {each(ranked, [value(dataset, 'effective_rank') for dataset in ranked])}, of "
        f"{distinct(datasets, 'n_parameters', count)} eigenvalues."
        if ranked
        else "",
    }


def quadrature(datasets: Datasets) -> tuple[str, ...]:
    """How a density was computed."""
    return sentences(
        sentence(datasets, "steps", "Lanczos steps: {}.", count),
        sentence(datasets, "probes", "Probes: {}.", count),
        sentence(datasets, "seed", "Seed: {}."),
        sentence(datasets, "products_density", "Products for the density: {}.", count),
    )


def trend(datasets: Datasets) -> Told:
    return {
        "caption": "The largest eigenvalue of the Hessian of random subsets of the data: of each subset (faint) and in "
        "the mean ± one standard error over the subsets of a size (line). Dashed is that of all the data, with the "
        "solver's residual and one standard error as a band.",
        "how": "Lanczos on the mean loss of each subset.",
        "pitfall": UPWARD,
        "method": sentences(
            sentence(datasets, "products_trend", "Products for the subsets: {}.", count),
            sentence(datasets, "seed", "Seed: {}."),
            sentence(datasets, "data", "Data: {}."),
        ),
        "alt": joined("The largest eigenvalue of all the data is", _outermost(datasets, "top")) + ".",
    }


def layers(datasets: Datasets) -> Told:
    sharpest = [str(d["layer"].to_numpy()[_top_of_layers(d).argmax()]) for d in datasets]
    return {
        "caption": "The Hessian restricted to the parameters of one layer at a time: its smallest and its largest "
        "eigenvalue with the solver's residual, and its trace ± one standard error.",
        "how": "Lanczos on the block of each layer.",
        "pitfall": "Blocks leave out the curvature between layers; no block's eigenvalue lies outside those of the "
        "whole Hessian.",
        "method": sentences(
            "The traces of blocks that share no parameter add up to that of the Hessian.",
            sentence(datasets, "products_layers", "Products for the layers: {}.", count),
            sentence(datasets, "data", "Data: {}."),
        ),
        "alt": f"The layer of the largest eigenvalue is {each(datasets, sharpest)}.",
    }


def _top_of_layers(dataset: xr.Dataset) -> Any:
    return np.nan_to_num(dataset["layer_eigenvalue"].sel(end="top").isel(rank=0).to_numpy(), nan=-np.inf)


def gauss_newton_split(datasets: Datasets) -> Told:
    return {
        "caption": "The curvature of the Hessian H and of its Gauss-Newton part G along the leading eigenvectors v of "
        "H (left), and their ratio, 1 where G is all of H (right).",
        "how": "Products with H and with G at the eigenvectors, traces and norms from random probes.",
        "pitfall": "Along other directions than the leading ones the rest H − G can be a larger part.",
        "method": sentences(
            "Traces and norms are given ± one standard error over the probes where they were estimated.",
            sentence(datasets, "trace_method", "Trace of H, {}."),
            sentence(datasets, "trace_method_gauss_newton", "Trace of G, {}."),
            *_reasons(datasets, "trace_reason", "the trace of H"),
            *_reasons(datasets, "trace_reason_gauss_newton", "the trace of G"),
            sentence(datasets, "probes", "Probes: {}.", count),
            sentence(datasets, "seed", "Seed: {}."),
            sentence(datasets, "data", "Data: {}."),
        ),
        "alt": f"The cosine of H and G is {each(datasets, [value(dataset, 'cosine') for dataset in datasets])}.",
    }


def gabdullin(datasets: Datasets) -> Told:
    last = [value(dataset, "r_e", step=dataset.sizes["step"] - 1) for dataset in datasets]
    return {
        "caption": "Gabdullin's criteria, small where the spectrum is mainly positive, against the number of Lanczos "
        "steps, ± one standard error over the probes.",
        "how": "Nodes and weights of stochastic Lanczos quadrature.",
        "pitfall": "The author's exponent n = 0.5 makes the criterion depend on the number of steps, so it is compared "
        f"at equal steps only; for n = 1 it estimates a property of the {matrix(datasets[0])}.",
        "method": sentences(
            "The criteria are the ratio of negative to positive nodes, each times its weight and to the power n, and "
            "the ratio of the outermost negative to the largest eigenvalue, all of the quadrature's nodes.",
            *quadrature(datasets),
            sentence(datasets, "data", "Data: {}."),
        ),
        "alt": f"The ratio r_e after the last step is {each(datasets, last)}.",
    }


def power_iteration(datasets: Datasets, spectra: Datasets) -> Told:
    certified = [plus_minus(*outermost(dataset)[:2]) for dataset in spectra]
    against = f", against {each(spectra, certified)} by Lanczos" if certified else ""
    last = listed([f"{number(float(d['eigenvalue'][-1]), 3)} ({batches(d)})" for d in datasets])
    dashed = " Dashed is the largest eigenvalue by Lanczos, with its residual and one standard error as a band."
    return {
        "caption": "Rayleigh quotients of power iteration, on one fixed batch or on another batch at each "
        f"product.{dashed if spectra else ''}",
        "how": "Repeated products with the Hessian and normalisation.",
        "pitfall": "Power iteration carries no error and, on changing batches, converges to nothing; it is a baseline.",
        "method": sentences(
            sentence(datasets, "batch_size", "Batch size: {}."),
            sentence(spectra, "data", "Data of the Lanczos run: {}."),
        ),
        "alt": f"Power iteration ends at {last}{against}.",
    }


def outermost(dataset: xr.Dataset, end: str = "top") -> tuple[float, float, float]:
    """The outermost eigenvalue of one end, its data-sampling standard error (or NaN) and its residual."""
    first = dataset.sel(end=end).isel(rank=0)
    return float(first["eigenvalue"]), float(first["eigenvalue_stderr"]), float(first["residual"])
