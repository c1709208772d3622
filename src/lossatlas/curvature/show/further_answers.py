"""What results on curvature other than spectra say to the chapter's question."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lossatlas.curvature.show import SPECTRUM
from lossatlas.curvature.show.captions import matrix, on_batches
from lossatlas.curvature.show.claims import few_negative_eigenvalues, gauss_newton_dominates
from lossatlas.curvature.show.numbers import share_below_0, shares_of_curvature
from lossatlas.results.blocks import Answer
from lossatlas.results.claim import Verdict
from lossatlas.results.provenance import Provenance
from lossatlas.results.uncertainty import number, percent, with_interval
from lossatlas.results.values import value

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.results.catalogue import Catalogue

Datasets = Sequence["xr.Dataset"]


def _without_spectrum(datasets: Datasets, catalogue: Catalogue) -> list[xr.Dataset]:
    """Those of networks of which no spectrum says more."""
    known = {_network(dataset) for dataset in catalogue.of(SPECTRUM)}
    return [dataset for dataset in datasets if _network(dataset) not in known and _is_known(dataset)]


def _is_known(dataset: xr.Dataset) -> bool:
    """Whether what it measured is numbers."""
    named = {"spectral_density": "effective_rank", "gabdullin": "k_h1", "power_iteration": "eigenvalue"}
    return bool(dataset[named[str(dataset.attrs["kind"])]].notnull().all())


def _network(dataset: xr.Dataset) -> tuple[str | None, str]:
    of = Provenance.of(dataset)
    return of.network, of.model_fingerprint


def of_densities(datasets: Datasets, catalogue: Catalogue) -> Iterator[Answer]:
    """The effective rank and the share of negative eigenvalues, of networks without a spectrum."""
    for dataset in _without_spectrum(datasets, catalogue):
        who, hessian = Provenance.of(dataset).who, matrix(dataset) == "Hessian"
        rank = f"{value(dataset, 'effective_rank')} of {int(dataset.attrs['n_parameters']):,}"
        yield Answer(
            sentence=f"The {matrix(dataset)} of {who} has the effective rank {rank} and the trace "
            f"{value(dataset, 'trace')}; {share_below_0(dataset)} of its eigenvalues are below 0.",
            short=f"The effective rank of the {matrix(dataset)} is {rank}, with {share_below_0(dataset)} of the "
            "eigenvalues negative.",
            claim=few_negative_eigenvalues(dataset) if hessian else None,
            finding="at most 1 % of the eigenvalues negative" if hessian else "",
            quantity="share of the eigenvalues below 0" if hessian else "",
            limit="A density counts eigenvalues whatever their size, and does not resolve those about 0.",
        )


def of_splits(datasets: Datasets, catalogue: Catalogue) -> Iterator[Answer]:
    """How much of the Hessian is its Gauss-Newton part."""
    told = {
        Verdict.SUPPORTED: "is mostly its Gauss-Newton part",
        Verdict.CONTRADICTED: "is not mostly its Gauss-Newton part",
        Verdict.UNDECIDED: "may or may not be mostly its Gauss-Newton part",
    }
    for dataset in datasets:
        claim, least = gauss_newton_dominates(dataset), min(shares_of_curvature(dataset), default=math.nan)
        if math.isnan(claim.value):
            continue
        rest = with_interval(claim.value, claim.interval)
        leading = f"; along its leading eigenvectors that part has at least {percent(least)} of the curvature"
        yield Answer(
            sentence=f"The Hessian of {Provenance.of(dataset).who} {told[claim.verdict]}: what is left has "
            f"{rest} times its Frobenius norm{leading if math.isfinite(least) else ''}.",
            short=f"The Hessian {told[claim.verdict]}, the rest having {rest} times its norm.",
            claim=claim,
            finding="mostly its Gauss-Newton part",
            quantity="norm of the rest over the Hessian's",
            limit="That the Gauss-Newton part has no negative eigenvalue takes a loss that is convex in the outputs.",
        )


def of_criteria(datasets: Datasets, catalogue: Catalogue) -> Iterator[Answer]:
    """The ratio of the ends and of the sums of the spectrum's two sides, of networks without a spectrum."""
    for dataset in _without_spectrum(datasets, catalogue):
        last = dataset.sizes["step"] - 1
        ends, sums = (value(dataset, name, step=last) for name in ("r_e", "k_h1"))
        steps = f"{dataset['step'].to_numpy()[last]:g} Lanczos steps"
        yield Answer(
            sentence=f"For {Provenance.of(dataset).who} the most negative eigenvalue is {ends} times the largest after "
            f"{steps}, and all negative ones add up to {sums} times all positive ones.",
            short=f"Negative eigenvalues add up to {sums} times the positive ones.",
            limit="The criterion with the exponent 0.5 depends on the number of Lanczos steps.",
        )


def of_power(datasets: Datasets, catalogue: Catalogue) -> Iterator[Answer]:
    """Where power iteration ended, of networks without a spectrum."""
    for dataset in _without_spectrum(datasets, catalogue):
        values = dataset["eigenvalue"].to_numpy()
        late = f"{number(values[-5:].min(), 3)} to {number(values[-5:].max(), 3)}"
        yield Answer(
            sentence=f"Power iteration on {on_batches(dataset)} of {Provenance.of(dataset).who} estimates the largest "
            f"eigenvalue of the Hessian as {number(values[-1], 3)} after {len(values)} products, the last five giving "
            f"{late}.",
            short=f"Power iteration puts the largest Hessian eigenvalue at {late}, with no error known.",
            limit="Power iteration has no error of its own, and on changing batches it converges to nothing.",
        )
