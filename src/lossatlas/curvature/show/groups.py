"""Which results on curvature belong into one figure, and what is drawn of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from lossatlas.curvature.show import SPECTRUM, captions, tables
from lossatlas.curvature.show.captions import restricted
from lossatlas.curvature.show.densities import spectral_density
from lossatlas.curvature.show.layers import gauss_newton_split, layers
from lossatlas.curvature.show.spectra import power_iteration, spectrum
from lossatlas.curvature.show.trends import gabdullin, trend
from lossatlas.results.blocks import FigureGroup, Picture
from lossatlas.results.groups import alike
from lossatlas.results.provenance import Provenance

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.results.catalogue import Catalogue

Datasets = Sequence["xr.Dataset"]


def spectra(datasets: Datasets, catalogue: Catalogue) -> Iterator[FigureGroup]:
    """A group for each data set and choice of parameters, all of them first."""
    for group in alike(sorted(datasets, key=restricted), "data", "parameters"):
        ends = Picture("spectrum", partial(spectrum, *group), **captions.spectrum(group))
        yield FigureGroup(tuple(group), (ends, *_beyond_the_ends(group)), tuple(map(tables.eigenvalue_table, group)))


def _beyond_the_ends(group: Datasets) -> Iterator[Picture]:
    """The other figures, each of the Datasets that have what it draws."""
    if dense := _having(group, "density"):
        yield Picture("density", partial(spectral_density, *dense), **captions.density(dense))
    if grown := _having(group, "trend_eigenvalue"):
        yield Picture("trend", partial(trend, *grown), **captions.trend(grown), width=1.0 if len(grown) > 1 else 0.7)
    if layered := _having(group, "layer_eigenvalue"):
        yield Picture("layers", partial(layers, *layered), **captions.layers(layered))


def _having(group: Datasets, name: str) -> list[xr.Dataset]:
    return [dataset for dataset in group if name in dataset and dataset[name].size]


def densities(datasets: Datasets, catalogue: Catalogue) -> Iterator[FigureGroup]:
    """A group for each data set and each matrix."""
    for group in alike(datasets, "data", "matrix"):
        picture = Picture("spectral-density", partial(spectral_density, *group), **captions.density(group))
        yield FigureGroup(tuple(group), (picture,))


def splits(datasets: Datasets, catalogue: Catalogue) -> Iterator[FigureGroup]:
    """A group for each data set."""
    for group in alike(datasets, "data"):
        draw = partial(gauss_newton_split, *group)
        picture = Picture("gauss-newton", draw, **captions.gauss_newton_split(group))
        yield FigureGroup(tuple(group), (picture,))


def criteria(datasets: Datasets, catalogue: Catalogue) -> Iterator[FigureGroup]:
    """A group for each data set and each matrix."""
    for group in alike(datasets, "data", "matrix"):
        picture = Picture("gabdullin", partial(gabdullin, *group), **captions.gabdullin(group))
        yield FigureGroup(tuple(group), (picture,))


def power(datasets: Datasets, catalogue: Catalogue) -> Iterator[FigureGroup]:
    """One group, with the spectra of the same networks as a reference."""
    networks = {Provenance.of(dataset).network for dataset in datasets}
    whole = [spectrum for spectrum in catalogue.of(SPECTRUM) if not restricted(spectrum)]
    certified = tuple(spectrum for spectrum in whole if Provenance.of(spectrum).network in networks)
    draw = partial(power_iteration, *datasets, spectra=certified)
    picture = Picture("power-iteration", draw, **captions.power_iteration(datasets, certified), width=0.8)
    yield FigureGroup(tuple(datasets), (picture,))
