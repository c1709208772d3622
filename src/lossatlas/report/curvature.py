"""The parts of the results on the Hessian: its ends, its density, its layers, its Gauss-Newton part."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lossatlas import plot
from lossatlas.report import captions, observations
from lossatlas.report import curvature_captions as caption
from lossatlas.report.blocks import Datasets, Results, alike, numbered, observed
from lossatlas.report.document import Block, Picture, Table
from lossatlas.report.observations import largest_gap, share_below_0
from lossatlas.report.values import value
from lossatlas.results.uncertainty import number, percent

if TYPE_CHECKING:
    import xarray as xr

Row = tuple[str, Callable[["xr.Dataset"], str]]


def spectra(datasets: Datasets, results: Results) -> list[Block]:
    """Both ends, the numbers and the density of the whole spectrum, its dependence on the data, the layers."""
    blocks: list[Block] = []
    for k, group in enumerate(alike(datasets, "data")):
        context = [*group, *results.by_kind.get("history", [])]
        blocks += [
            Picture(numbered("spectrum", k), plot.spectrum(*group), caption.spectrum(group)),
            *_scalar_tables(group),
            *_pictures(k, group),
            observed(observations.spectrum, group),
            results.interpretation("spectrum", context),
            *(_eigenvalue_table(dataset) for dataset in group),
        ]
    return blocks


def _pictures(k: int, group: Datasets) -> list[Block]:
    """The figures beyond the ends, each of the Datasets that have what it draws."""
    dense, grown, layered = (
        [dataset for dataset in group if name in dataset]
        for name in ("density", "trend_eigenvalue", "layer_eigenvalue")
    )
    blocks: list[Block] = []
    if dense:
        blocks += [Picture(numbered("density", k), plot.spectral_density(*dense), caption.density(dense))]
    if grown:
        width = 1.0 if len(grown) > 1 else 0.7
        blocks += [Picture(numbered("trend", k), plot.trend(*grown), caption.trend(grown), width)]
    if layered:
        blocks += [Picture(numbered("layers", k), plot.layers(*layered), caption.layers(layered))]
    return blocks


def _share(name: str) -> Callable[[xr.Dataset], str]:
    return lambda d: percent(float(d[name])) if name in d else number(float("nan"))


SCALARS: tuple[tuple[str, Row], ...] = (
    ("trace", ("trace", lambda d: value(d, "trace"))),
    ("frobenius_norm", ("Frobenius norm", lambda d: value(d, "frobenius_norm"))),
    ("negative_mass", ("share of the eigenvalues below 0", share_below_0)),
    ("undecided_mass", ("share of the eigenvalues not told from 0", _share("undecided_mass"))),
    ("negative_share", ("share of |λ| below 0", lambda d: value(d, "negative_share"))),
    ("effective_rank", ("effective rank", lambda d: value(d, "effective_rank"))),
    ("largest_gap", ("largest gap between leading eigenvalues", largest_gap)),
)
COSTS = {
    "eigenpairs": "products for the eigenpairs",
    "density": "products for the density",
    "trace": "products for the trace",
    "errors": "products for the errors of the data",
    "trend": "products for the subsets",
    "layers": "products for the layers",
}


def _scalar_tables(datasets: Datasets) -> list[Block]:
    """A table for each two Datasets with numbers of the whole spectrum."""
    whole = [dataset for dataset in datasets if any(name in dataset for name, _ in SCALARS)]
    return [_scalar_table(whole[k : k + 2]) for k in range(0, len(whole), 2)]


def _scalar_table(datasets: Datasets) -> Table:
    rows = [row for name, row in SCALARS if any(name in dataset for dataset in datasets)]
    rows += [_cost(f"products_{part}", spelt) for part, spelt in COSTS.items()]
    rows += [_cost("products", "Hessian-vector products in all"), ("seconds", lambda d: _attribute(d, "seconds", 3))]
    body = [(name, *(cell(dataset) for dataset in datasets)) for name, cell in rows]
    said = tuple(row for row in body if any(cell != number(float("nan")) for cell in row[1:]))
    header = ("quantity", *(captions.who(dataset) for dataset in datasets))
    return Table(caption.scalars(datasets), header, said)


def _cost(name: str, spelt: str) -> Row:
    return spelt, lambda dataset: f"{int(dataset.attrs[name]):,}" if name in dataset.attrs else number(float("nan"))


def _attribute(dataset: xr.Dataset, name: str, digits: int) -> str:
    return number(float(dataset.attrs.get(name, float("nan"))), digits)


def _eigenvalue_table(dataset: xr.Dataset) -> Table:
    ends = [end for end in ("top", "bottom") if end in dataset["end"].to_numpy()]
    rows = []
    for k in range(dataset.sizes["rank"]):
        cells = [str(k + 1)]
        for end in ends:
            at = dataset.sel(end=end).isel(rank=k)
            cells += [
                value(at, "eigenvalue"),
                number(float(at["residual"]), 2) if "residual" in at else value(at, "residual"),
            ]
        rows.append(tuple(cells))
    names = {"top": "from the largest", "bottom": "from the smallest"}
    header = ("rank", *(cell for end in ends for cell in (names[end], "residual")))
    error = "± one data-sampling standard error " if "eigenvalue_stderr" in dataset else ""
    return Table(
        f"Eigenvalues of the Hessian of {captions.who(dataset)} {error}with the solver's residuals.",
        header,
        tuple(rows),
    )


def densities(datasets: Datasets, results: Results) -> list[Block]:
    blocks: list[Block] = []
    for k, group in enumerate(alike(datasets, "data")):
        blocks += [
            Picture(numbered("spectral-density", k), plot.spectral_density(*group), caption.density(group)),
            *_scalar_tables(group),
            observed(observations.spectral_density, group),
            results.interpretation("spectral_density", group),
        ]
    return blocks


def splits(datasets: Datasets, results: Results) -> list[Block]:
    blocks: list[Block] = []
    for k, group in enumerate(alike(datasets, "data")):
        figure = plot.gauss_newton_split(*group)
        blocks += [
            *(_split_table(group[j : j + 2]) for j in range(0, len(group), 2)),
            Picture(numbered("gauss-newton", k), figure, caption.gauss_newton_split(group)),
            observed(observations.gauss_newton_split, group),
            results.interpretation("gauss_newton_split", group),
        ]
    return blocks


PARTS = {"hessian": "H", "gauss_newton": "G", "residual": "R"}


def _split_table(datasets: Datasets) -> Table:
    rows = [
        (f"{quantity} of {symbol}", *(value(dataset, f"{prefix}_{part}") for dataset in datasets))
        for prefix, quantity in (("trace", "trace"), ("frobenius", "Frobenius norm"))
        for part, symbol in PARTS.items()
    ]
    rows.append(("cosine of H and G", *(value(dataset, "cosine") for dataset in datasets)))
    header = ("quantity", *(captions.who(dataset) for dataset in datasets))
    return Table(caption.gauss_newton_table(datasets), header, tuple(rows))


def criteria(datasets: Datasets, results: Results) -> list[Block]:
    blocks: list[Block] = []
    for k, group in enumerate(alike(datasets, "data")):
        blocks += [
            Picture(numbered("gabdullin", k), plot.gabdullin(*group), caption.gabdullin(group)),
            observed(observations.gabdullin, group),
            results.interpretation("gabdullin", group),
        ]
    return blocks


def power(datasets: Datasets, results: Results) -> list[Block]:
    networks = {dataset.attrs.get("network") for dataset in datasets}
    spectra = tuple(d for d in results.by_kind.get("spectrum", []) if d.attrs.get("network") in networks)
    figure = plot.power_iteration(*datasets, spectra=spectra)
    return [
        Picture("power-iteration", figure, caption.power_iteration(datasets, spectra), 0.8),
        observed(observations.power_iteration, datasets),
        results.interpretation("power_iteration", datasets),
    ]
