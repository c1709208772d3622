"""What the steps of a study share: the data, the trained networks, objectives on them."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from typing import Any

import torch.nn.functional as F
import xarray as xr
from torch import Tensor, nn

from lossatlas import zoo
from lossatlas.model.checkpoints import read_state, write_state
from lossatlas.objective import Objective
from lossatlas.study.config import Data, Split, StudyConfig
from lossatlas.trajectory.recorder import Recorder

Pair = tuple[Tensor, Tensor]


class Material:
    """The data, the networks by their labels, objectives on them, and where files are kept."""

    def __init__(self, config: StudyConfig, data: zoo.LabelledData, folder: Path, progress: bool) -> None:
        self.config = config
        self.data = data
        self.progress = progress
        self.networks = folder / "networks"

    def folder(self, label: str) -> Path:
        """Where the files of a network are."""
        return self.networks / label.lower()

    def weights(self, label: str) -> Path:
        """The file of a network's weights after its training."""
        return self.folder(label) / "weights.safetensors"

    def snapshots(self, label: str) -> Path:
        """The folder of the snapshots of its training."""
        return self.folder(label) / "snapshots"

    def train(self, label: str) -> xr.Dataset:
        """Train one network with snapshots; the history of every step and every epoch."""
        train, network = self.config.train, self.fresh(label)
        recorder = Recorder(network, every=train.snapshot_every, folder=self.snapshots(label), resume=True)
        fitted = self._fitted(network, label, self.folder(label) / "checkpoint", test=self.data.test, on_step=recorder)
        write_state(network.state_dict(), self.weights(label))
        return fitted.to_dataset(network=label)

    def spawn(self, label: str) -> Spawn:
        """Trainings that share the first steps of a network's own."""
        return Spawn(self, label)

    def fork(self, label: str, k: int, order: int) -> nn.Module:
        """The network trained with its own seed for k steps, and with the data in another order from there on."""
        network = self.fresh(label)
        self._fitted(network, label, self.folder(label) / "forks" / f"k{k}-order{order}", fork=(k, order))
        return network

    def objective(self, labels: tuple[str, ...], data: Data) -> Objective:
        """L of the first of the networks on (a class-stratified subset of) the training or test set."""
        label = labels[0]
        part = self._part(data.split, data.examples)
        network = self.fresh(label)
        network.load_state_dict(dict(read_state(self.weights(label))))
        name = f"{self.config.dataset} {data.split}, {len(part[1]):,} examples"
        of = " and ".join(labels)
        return Objective(network, F.cross_entropy, part, batch_size=data.batch_size, name=name, network=of)

    @cached_property
    def total_steps(self) -> int:
        """How many steps the training of a network has."""
        train, n = self.config.train, len(self.data.train[1])
        return math.ceil(min(train.examples or n, n) / train.batch_size) * train.epochs

    def fresh(self, label: str) -> nn.Module:
        """The network before training, its weights drawn from its seed."""
        train = self.config.train
        return zoo.network(train.network, shape=self.data.shape, **train.options, seed=self._seed(label))

    def _seed(self, label: str) -> int:
        return self.config.train.seeds[self.config.labels.index(label)]

    def _fitted(self, network: nn.Module, label: str, folder: Path, **options: Any) -> zoo.History:
        """``network`` trained in place with its seed, as the configuration says; resumed in ``folder``."""
        train = self.config.train
        return zoo.fit(
            network,
            self._part("train", train.examples),
            epochs=train.epochs,
            seed=self._seed(label),
            optimizer=train.optimizer,
            learning_rate=train.learning_rate,
            momentum=train.momentum,
            weight_decay=train.weight_decay,
            batch_size=train.batch_size,
            channels_last=True,  # faster on a CPU; every network of the zoo allows it
            schedule=train.schedule,
            folder=folder,
            progress=self.progress,
            **options,
        )

    def _part(self, split: Split, examples: int | None) -> Pair:
        part = self.data.train if split == "train" else self.data.test
        return part if examples is None else zoo.subset(part, min(examples, len(part[1])), seed=0)


class Spawn:
    """``spawn(k, order)``: a network trained as another one for k steps, on the data in its own order after them."""

    def __init__(self, material: Material, label: str) -> None:
        self._material, self._label = material, label
        self.total_steps = material.total_steps

    def __call__(self, k: int, order: int) -> nn.Module:
        return self._material.fork(self._label, k, order)
