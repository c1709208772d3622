"""What the steps of a study share: the data, the trained networks, objectives on them."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch.nn.functional as F
import xarray as xr
from torch import Tensor, nn

from lossatlas import zoo
from lossatlas.model.checkpoints import read_state
from lossatlas.objective import Objective
from lossatlas.study.config import StudyConfig

Pair = tuple[Tensor, Tensor]
NETWORKS = ("a", "b")


class Material:
    """The data, the two networks (trained when they are first needed), objectives on them, and where files are kept."""

    def __init__(self, config: StudyConfig, data: zoo.LabelledData, folder: Path, progress: bool) -> None:
        self.config = config
        self.data = data
        self.progress = progress
        self.networks = folder / "networks"

    def folder(self, which: str) -> Path:
        return self.networks / which

    def weights(self, which: str) -> Path:
        """The file of a network's weights after its training."""
        return self.folder(which) / "weights.safetensors"

    @property
    def aligned(self) -> Path:
        """The file of network B's weights after its alignment."""
        return self.folder("b") / "aligned.safetensors"

    @property
    def curve(self) -> Path:
        """The file of the points of the curve from A to B."""
        return self.networks / "curve.safetensors"

    def fresh(self, which: str) -> nn.Module:
        """The network before training, its weights drawn from its seed."""
        train = self.config.train
        return zoo.network(train.network, shape=self.data.shape, **train.options, seed=self.seed(which))

    def seed(self, which: str) -> int:
        return self.config.train.seeds[NETWORKS.index(which)]

    @cached_property
    def train_set(self) -> Pair:
        return self._part("train", self.config.train.examples)

    def trained(self, network: nn.Module, which: str, folder: Path, **options: Any) -> zoo.History:
        """``network`` trained in place with the seed of ``which``, as the configuration says; resumed in ``folder``."""
        train = self.config.train
        return zoo.fit(
            network,
            self.train_set,
            epochs=train.epochs,
            seed=self.seed(which),
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

    def objective(self, which: str, split: str, examples: int | None, batch_size: int = 128) -> Objective:
        """L of a trained network on (a class-stratified subset of) the training or test set."""
        part = self._part(split, examples)
        network = self.fresh(which)
        network.load_state_dict(dict(read_state(self.weights(which))))
        label = f"{self.config.dataset} {split}, {len(part[1]):,} examples"
        return Objective(network, F.cross_entropy, part, batch_size=batch_size, name=label)

    def _part(self, split: str, examples: int | None) -> Pair:
        part = self.data.train if split == "train" else self.data.test
        return part if examples is None else zoo.subset(part, min(examples, len(part[1])), seed=0)


Step = Callable[[Material], xr.Dataset]


def total_steps(config: StudyConfig, data: zoo.LabelledData) -> int:
    """How many steps the training of a network has."""
    n = len(data.train[1])
    return math.ceil(min(config.train.examples or n, n) / config.train.batch_size) * config.train.epochs
