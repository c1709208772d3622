"""The steps of a study: the training of each network, then each measurement on each network, or pair of networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import xarray as xr

from lossatlas.errors import ConfigError
from lossatlas.results.catalogue import Catalogue
from lossatlas.results.kind import Input
from lossatlas.study.config import TRAINING, Data, Measurement, StudyConfig
from lossatlas.study.folder import StudyFolder
from lossatlas.study.material import Material

Results = dict[str, xr.Dataset]
Keep = Callable[[str, Callable[[], xr.Dataset]], xr.Dataset]


@dataclass(frozen=True)
class Training:
    """The training of the network with this label."""

    network: str

    @property
    def label(self) -> str:
        """What the step and its result are called: ``training_a``."""
        return _with_networks(TRAINING, (self.network,))

    def run(self, material: Material, folder: StudyFolder, before: Results) -> Results:
        """The history by its name."""
        return {self.label: folder.once(self.label, partial(material.train, self.network))}


@dataclass(frozen=True)
class Step:
    """A measurement on the networks with these labels."""

    name: str
    measurement: Measurement
    networks: tuple[str, ...]

    @property
    def label(self) -> str:
        """What the step is called: ``spectrum_a``, ``connect_ab``."""
        return _with_networks(self.name, self.networks)

    def run(self, material: Material, folder: StudyFolder, before: Results) -> Results:
        """The results by name: each is computed once and kept in the folder.

        A verb with several results is called each time and asks for all of them in turn, so that one that was
        interrupted goes on. ``before`` are the results of earlier steps.
        """
        found = Results()

        def keep(name: str, compute: Callable[[], xr.Dataset]) -> xr.Dataset:
            if name in before or name in found:
                raise ConfigError(f"measure.{self.name} gives a second result {name!r}: give it another name.")
            found[name] = folder.once(name, compute)
            return found[name]

        def keep_one_of_several(name: str, compute: Callable[[], xr.Dataset]) -> xr.Dataset:
            own = name if self.name == self.measurement.verb else f"{self.name}_{name}"
            return keep(_with_networks(own, self.networks), compute)

        call = partial(self._measured, material, before, keep_one_of_several)
        if any(given.type == "keep" for given in self.measurement.kind.inputs):
            call()
        else:
            keep(self.label, call)
        return found

    def _measured(self, material: Material, before: Results, keep: Keep) -> Any:
        kind = self.measurement.kind
        assert kind.verb is not None, "verbs only are measurements"
        inputs = {given.name: self._given(given, material, before, keep) for given in kind.inputs}
        given = {name: value for name, value in inputs.items() if value is not None}
        return kind.verb(**given, **dict(self.measurement.chosen), progress=material.progress)

    def _given(self, given: Input, material: Material, before: Results, keep: Keep) -> Any:
        """What the verb is given as one of its inputs; None for data that the measurement does not name."""
        makers: Mapping[str, Callable[[], Any]] = {
            "objective": lambda: self._objective(given, material),
            "weights": lambda: material.weights(self.networks[self._weights().index(given.name)]),
            "snapshots": lambda: material.snapshots(self.networks[0]),
            "training": lambda: material.spawn(self.networks[0]),
            "catalogue": lambda: Catalogue(before.values()),
            "folder": lambda: material.networks / self.label,
            "keep": lambda: keep,
        }
        return makers[given.type]()

    def _objective(self, given: Input, material: Material) -> Any:
        data = self.measurement.data.get(given.name, None if given.optional else Data())
        return None if data is None else material.objective(self.networks, data)

    def _weights(self) -> list[str]:
        return [each.name for each in self.measurement.kind.inputs if each.type == "weights"]


def steps(config: StudyConfig) -> list[Training | Step]:
    """What a study of this configuration does, in this order: the networks first, since all else needs them."""
    measured = {name: one for name, one in config.measure.items() if one is not None}
    return [
        *map(Training, config.labels),
        *(
            Step(name, one, networks)
            for name, one in measured.items()
            for networks in combinations(one.networks or config.labels, one.together)
        ),
    ]


def _with_networks(name: str, networks: tuple[str, ...]) -> str:
    return "_".join([name, "".join(networks).lower()]) if networks else name
