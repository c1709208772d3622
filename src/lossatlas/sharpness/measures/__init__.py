"""The measures, by name. A file each declares those of one idea as ``MEASURES``."""

from __future__ import annotations

from lossatlas.sharpness.measure import Measure
from lossatlas.sharpness.measures import (
    average,
    batches,
    critical,
    density,
    flatness,
    geodesic,
    keskar,
    llc,
    pac_bayes,
    spectral,
    worst,
)

_FILES = (worst, average, batches, keskar, spectral, density, flatness, pac_bayes, critical, llc, geodesic)
MEASURES: dict[str, Measure] = {measure.name: measure for file in _FILES for measure in file.MEASURES}
