"""The steps of a study: each measurement on each network, or pair of networks, with what its verb is given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import xarray as xr

from lossatlas.results.catalogue import Catalogue
from lossatlas.results.kind import Input
from lossatlas.study.config import Data, Measurement, StudyConfig
from lossatlas.study.folder import StudyFolder
from lossatlas.study.material import Material

Results = dict[str, xr.Dataset]


@dataclass(frozen=True)
class Step:
    """A measurement on the networks with these labels."""

    name: str
    measurement: Measurement
    labels: tuple[str, ...]

    @property
    def label(self) -> str:
        """What the step is called: ``spectrum_a``, ``connect_ab``."""
        return _with_networks(self.name, self.labels)

    def run(self, material: Material, folder: StudyFolder, before: Results) -> Results:
        """The results by name: each is computed once and kept in the folder."""
        kind, found = self.measurement.kind, Results()

        def keep(name: str, compute: Any) -> xr.Dataset:
            own = name if self.name == kind.verb_name else f"{self.name}_{name}"
            label = _with_networks(own, self.labels)
            found[label] = folder.once(label, compute)
            return found[label]

        assert kind.verb is not None, "verbs only are measurements"
        call = partial(self._measured, material, folder, before, keep)
        if any(given.type == "keep" for given in kind.inputs):
            call()
        else:
            found[self.label] = folder.once(self.label, call)
        return found

    def _measured(self, material: Material, folder: StudyFolder, before: Results, keep: Any) -> Any:
        kind = self.measurement.kind
        assert kind.verb is not None
        inputs = {given.name: self._given(given, material, folder, before, keep) for given in kind.inputs}
        options = dict(self.measurement.chosen)
        given = {name: value for name, value in inputs.items() if value is not None}
        return kind.verb(**given, **options, progress=material.progress)

    def _given(self, given: Input, material: Material, folder: StudyFolder, before: Results, keep: Any) -> Any:
        """What the verb is given as one of its inputs; None for data that the measurement does not name."""
        if given.type == "objective":
            data = self.measurement.data.get(given.name, None if given.optional else Data())
            return None if data is None else material.objective(self.labels, data)
        if given.type == "weights":
            weights = [each.name for each in self.measurement.kind.inputs if each.type == "weights"]
            return material.weights(self.labels[weights.index(given.name)])
        makers: Mapping[str, Any] = {
            "snapshots": lambda: material.snapshots(self.labels[0]),
            "training": lambda: material.spawn(self.labels[0]),
            "catalogue": lambda: Catalogue(before.values()),
            "folder": lambda: material.networks / self.label,
            "keep": lambda: keep,
        }
        return makers[given.type]()


def steps(config: StudyConfig) -> list[Step]:
    """What a study of this configuration measures, in the order it is run."""
    return [step for name, one in config.measure.items() if one is not None for step in _steps(name, one, config)]


def _steps(name: str, one: Measurement, config: StudyConfig) -> Iterator[Step]:
    types = [given.type for given in one.kind.inputs]
    networks = one.networks or config.labels
    if "weights" in types:
        yield from (Step(name, one, pair) for pair in combinations(networks, types.count("weights")))
    elif set(types) <= {"catalogue"}:
        yield Step(name, one, ())
    else:
        yield from (Step(name, one, (label,)) for label in networks)


def _with_networks(name: str, labels: tuple[str, ...]) -> str:
    return "_".join([name, "".join(labels).lower()]) if labels else name
