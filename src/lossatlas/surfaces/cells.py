"""What is measured at the points of a region: a row of numbers each, evaluated, taken from a store, or known before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from lossatlas.errors import InputError
from lossatlas.evaluation.points.tuning import Evaluator
from lossatlas.geometry.region import Region
from lossatlas.model.data.strata import Strata
from lossatlas.model.loss.samples import Sample
from lossatlas.surfaces.interpolation import Floats, Pixels
from lossatlas.surfaces.store import BLOCK, Store

LOSS = 0  # the position of the loss among the columns


@dataclass(frozen=True)
class Column:
    """One number of every point: a quantity, or with ``label`` the mean of a quantity over the examples of a class.

    ``str`` gives the name under which a store holds it.
    """

    name: str
    label: int | None = None

    def __str__(self) -> str:
        return self.name if self.label is None else f"{self.name}_{self.label}"


class Row:
    """From the samples at a point to its numbers: means, standard errors, rises, class means."""

    def __init__(self, center: Sample, strata: Strata | None, labels: Tensor | None) -> None:
        if center.over != "examples" and (labels is not None or strata is not None):
            raise InputError("subset= and by_class= need a loss with one value an example; this one has one a batch.")
        self._center, self._strata, self._labels = self._weighed(center, strata), strata, labels
        self._classes: list[int] = [] if labels is None else labels.unique().tolist()

    def __call__(
        self, samples: Mapping[str, Sample], others: Mapping[str, Mapping[str, Sample]] | None = None
    ) -> dict[Column, float]:
        """The columns of a point; ``others`` are what further objectives have there, by their names."""
        weighed = {name: self._weighed(sample, self._strata) for name, sample in samples.items()}
        row = _means(weighed)
        loss = weighed["loss"]
        row[Column("loss_rise_stderr")] = loss.combined(self._center, -1).stderr
        if self._strata is not None:
            row[Column("loss_subset_stderr")] = self._strata.stderr(loss.values)
        row |= {Column("class_loss", c): float(loss.values[self._labels == c].mean()) for c in self._classes}
        for name, further in (others or {}).items():
            row |= _means({f"{name}_{quantity}": sample for quantity, sample in further.items()})
        return row

    @staticmethod
    def _weighed(sample: Sample, strata: Strata | None) -> Sample:
        return sample if strata is None else Sample(sample.values, strata.weights * sample.weights, sample.over)


def _means(samples: Mapping[str, Sample]) -> dict[Column, float]:
    row = {Column(name): sample.mean for name, sample in samples.items()}
    return row | {Column(f"{name}_stderr"): sample.stderr for name, sample in samples.items()}


class Cells:
    """Rows by pixel, a flat index into the region's grid; a point is evaluated once, wherever it is asked for."""

    def __init__(
        self,
        evaluate: Evaluator,
        further: Mapping[str, Evaluator],
        region: Region,
        row: Row,
        columns: list[Column],
        store: Store | None,
    ) -> None:
        self.region, self.columns = region, columns
        self._evaluate, self._further, self._row, self._store = evaluate, further, row, store
        self._rows: dict[tuple[float, ...], Floats] = {}
        self._next_block = 0
        self.evaluations = 0

    def know(self, rows: Mapping[tuple[float, ...], Floats]) -> None:
        """Rows that were evaluated before, by the weights of their points."""
        self._rows |= rows

    def __call__(self, pixels: Pixels, done: Callable[[int], object]) -> Floats:
        """``(pixels, columns)``; ``done`` is told of every so many points that are finished."""
        places = {self._weights(int(p)): int(p) for p in pixels}  # the innermost pixels of a polar region are one point
        missing = [pixel for weights, pixel in places.items() if weights not in self._rows]
        for start in range(0, len(missing), BLOCK):
            block = np.array(missing[start : start + BLOCK], dtype=np.intp)
            for pixel, row in zip(block, self._block(block), strict=True):
                self._rows[self._weights(int(pixel))] = row
            self.evaluations += len(block)
            done(len(block))
        return self.rows(pixels)

    def rows(self, pixels: Pixels) -> Floats:
        """``(pixels, columns)`` of pixels that were evaluated."""
        return np.array([self._rows[self._weights(int(p))] for p in pixels])

    def points(self) -> Pixels:
        """``(pixels,)``: for each pixel the first one that is the same point; on polar axes several pixels are."""
        count = int(np.prod(self.region.shape))
        if self.region.chart == "flat":
            return np.arange(count)
        first: dict[tuple[float, ...], int] = {}
        return np.array([first.setdefault(self._weights(pixel), pixel) for pixel in range(count)])

    def _block(self, pixels: Pixels) -> Floats:
        stored = self._store.read(self._next_block, pixels) if self._store else None
        if stored is None:
            rows = [self._measured(self._weights(int(p))) for p in pixels]
            stored = np.array([[row[column] for column in self.columns] for row in rows])
            if self._store:
                self._store.write(self._next_block, pixels, stored)
        self._next_block += 1
        return stored

    def _measured(self, weights: tuple[float, ...]) -> dict[Column, float]:
        return self._row(self._evaluate(weights), {name: other(weights) for name, other in self._further.items()})

    def _weights(self, pixel: int) -> tuple[float, ...]:
        index = np.unravel_index(pixel, self.region.shape)
        place = (float(axis[i]) for axis, i in zip(self.region.coordinates, index, strict=True))
        return self.region.weights(*place)
