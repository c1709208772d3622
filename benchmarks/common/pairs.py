"""Networks of one recipe that differ by their seed alone: trained once, then read; the second aligned to the first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

import lossatlas as la
from lossatlas.connectivity.alignment import Aligned
from lossatlas.model.checkpoints import write_state

Images = tuple[Tensor, Tensor]
SEEDS = (1, 2)
N_SAMPLE = 10_000  # training images of what is not measured on all of them


@dataclass(frozen=True)
class Recipe:
    """How a network is made from a seed and trained, on ``images`` (all where None), and evaluated."""

    name: str
    make: Callable[[int], nn.Module]
    training: dict[str, Any]
    images: int | None = None
    batch_size: int = 128
    """Of the evaluation."""


def mlp(width: int) -> Recipe:
    training = {"epochs": 20, "learning_rate": 0.05, "momentum": 0.9, "batch_size": 500, "schedule": "cosine"}
    return Recipe(f"mlp{width}", lambda seed: la.zoo.mlp(784, (width,) * 3, seed=seed), training, batch_size=500)


CNN = Recipe(
    "cnn6",
    lambda seed: la.zoo.simple_cnn(seed=seed),
    {"epochs": 6, "learning_rate": 0.01, "momentum": 0.9, "batch_size": 128, "channels_last": True},
)
RESNET20 = Recipe(
    "resnet20",
    lambda seed: la.zoo.resnet20(1, seed=seed),
    {"epochs": 1, "learning_rate": 0.05, "momentum": 0.9, "batch_size": 128, "channels_last": True},
    images=5_000,
)


class Pair:
    """The recipe's networks with the seeds 1 and 2, kept in ``folder``; ``most`` images at most are measured on."""

    def __init__(self, recipe: Recipe, data: la.zoo.LabelledData, folder: Path, most: int | None) -> None:
        self.recipe, self._data, self._folder, self._most = recipe, data, folder, most
        self.first, self.second = map(self.file, SEEDS)

    def file(self, seed: int) -> Path:
        """The weights of the network with that seed; trained where there are none, and resumed where that was cut."""
        name, train = f"{self.recipe.name}_{seed}", self._data.train
        file = self._folder / f"{name}.safetensors"
        if not file.is_file():
            images = train if self.recipe.images is None else la.zoo.subset(train, self.recipe.images, seed=0)
            network = self.recipe.make(seed)
            state = self._folder / f"{name}-training"
            la.zoo.fit(network, images, seed=seed, folder=state, progress=False, **self.recipe.training)
            write_state(network.state_dict(), file)
        return file

    def on_train(self, count: int | None = N_SAMPLE) -> la.Objective:
        return self._objective(self._data.train, count, "train")

    def on_test(self, count: int | None = None) -> la.Objective:
        return self._objective(self._data.test, count, "test")

    @cached_property
    def aligned(self) -> Aligned:
        return la.align(self.on_train(), self.first, self.second)

    def _objective(self, images: Images, count: int | None, name: str) -> la.Objective:
        """At the first network, on ``count`` images with each class in its share, or on all."""
        limits = [n for n in (count, self._most) if n is not None and n < len(images[1])]
        if limits:
            images = la.zoo.subset(images, min(limits), seed=0)
        network = self.recipe.make(SEEDS[0])
        network.load_state_dict(load_file(self.first))
        return la.Objective(network, F.cross_entropy, images, batch_size=self.recipe.batch_size, name=name)
