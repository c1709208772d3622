"""Random noise on the inputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lossatlas.errors import InputError
from lossatlas.evaluation.points.loops import sweep
from lossatlas.model.data.batches import describe, tensors_in
from lossatlas.model.data.containers import mapped
from lossatlas.model.loss.samples import Sample, samples_of
from lossatlas.objective import Objective
from lossatlas.robustness.noise import generator


class InputNoise:
    """The losses and metrics on (x + sigma u_j, y), u ~ N(0, I) for each number of each input; the same u_j at every
    sigma. Inputs are the first part of a pair (inputs, targets); of several tensors in it, those of floating point.
    """

    def __init__(self, objective: Objective, seed: int) -> None:
        self._objective, self._seed = objective, seed
        _require_numbers(next(iter(objective.batches)))

    def __call__(self, size: float, draw: int) -> dict[str, Sample]:
        """On the inputs with noise of this size."""
        objective, batches = self._objective, _Noisy(self._objective, size, generator(self._seed, draw))
        measured = sweep(objective.function, batches, objective.function.point)
        return samples_of(measured, objective.batches.weights)


class _Noisy:
    """The batches of an objective with noise on their inputs, once."""

    def __init__(self, objective: Objective, size: float, source: torch.Generator) -> None:
        self._batches, self._size, self._source = objective.batches, size, source

    def __iter__(self) -> Iterator[Any]:
        for batch in self._batches:
            self._inputs = {id(tensor) for tensor in tensors_in(batch[0])}
            yield mapped(batch, self._moved)

    def _moved(self, tensor: Tensor) -> Tensor:
        if id(tensor) not in self._inputs or not tensor.is_floating_point():
            return tensor
        return tensor + self._size * torch.randn(tensor.shape, generator=self._source).to(tensor)


def _require_numbers(batch: Any) -> None:
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise InputError(
            f"Which part of a batch is the inputs is not known ({describe(batch)}): noise='input' needs pairs (inputs, "
            "targets)."
        )
    tensors = [tensor for tensor in tensors_in(batch[0]) if tensor.is_floating_point()]
    if not tensors or any(tensor.layout is not torch.strided or tensor.is_nested for tensor in tensors):
        raise InputError(
            f"The inputs are {describe(batch[0])}, to which no noise can be added: noise='input' is for dense "
            "inputs of floating point; perturb the weights in place of them, with noise='gaussian'."
        )
