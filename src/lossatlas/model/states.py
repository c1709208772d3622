"""A model's tensors by name: whole states, theta of them, and what belongs to a point besides."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from lossatlas.errors import CheckpointError
from lossatlas.model.belongings import Belongings, key_of, remember, remembered
from lossatlas.model.checkpoints import state_of, without_wrappers
from lossatlas.model.data.fingerprints import components, equal, tensor_bytes
from lossatlas.model.modes import Mode, in_words
from lossatlas.model.parameters import ParameterSpace
from lossatlas.model.scripted import name_of


class States:
    """What ``FunctionalModel`` knows of its module's tensors: parameters in ``space``, the rest beside them."""

    module: nn.Module
    space: ParameterSpace
    point: Tensor
    norms: list[BatchNorm]
    mode: Mode

    @property
    def statistics(self) -> set[str]:
        """The names of the running statistics."""
        norms = [name for name, module in self.module.named_modules() if module in self.norms]
        return {f"{name}.{own}" for name in norms for own in ("running_mean", "running_var")}

    def point_of(self, source: nn.Module | Mapping[str, Tensor] | str | Path) -> Tensor:
        """theta of the same architecture's module, state dict or file; ``CheckpointError`` where it is another's."""
        return self.point_from(self.state_of(source))

    def point_from(self, state: Mapping[str, Tensor]) -> Tensor:
        """theta of a state, as ``state_of`` gives it, whose other tensors are kept for paths."""
        theta = self.space.check(self.space.flatten(state).to(self.point), "checkpoint")
        if self.own_rest:
            remember(self._key(theta), {name: state[name] for name in self.own_rest if name in state})
        return theta

    @property
    def own_rest(self) -> dict[str, Tensor]:
        """What the model holds besides theta: its buffers, and the parameters outside the selection."""
        moving = {entry.name for entry in self.space}
        named = itertools.chain(self.module.named_parameters(), self.module.named_buffers())
        return {name: tensor for name, tensor in named if name not in moving}

    def _remember_own(self) -> None:
        self._origin = self.point
        if rest := self.own_rest:
            remember(self._key(self.point), rest)

    def belongings(self, theta: Tensor) -> Belongings | None:
        """What the model holds, or held, besides ``theta`` that ``theta`` was read from; None where it is not known."""
        own = self.own_rest
        if not own:
            return Belongings({})
        if torch.equal(theta.to(self._origin), self._origin):
            return Belongings(own)
        return remembered(self._key(theta))

    def _key(self, theta: Tensor) -> str:
        return key_of(([(entry.name, entry.shape) for entry in self.space], list(self.own_rest)), theta)

    def state_of(self, source: nn.Module | Mapping[str, Tensor] | str | Path) -> dict[str, Tensor]:
        """Every parameter and persistent buffer of the same architecture, by its first name."""
        first = self._first_names()
        own = {first.get(name, name): tensor for name, tensor in self.module.state_dict().items()}
        given = without_wrappers(state_of(source), own)
        state = {first.get(name, name): tensor for name, tensor in given.items()}
        missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
        if missing or unexpected:
            raise CheckpointError(
                f"These are the weights of another network: missing {missing[:5]}, unexpected {unexpected[:5]}. "
                f"Give weights saved from a {name_of(self.module)} like this one."
            )
        if wrong := [name for name in own if _shape(state[name]) != _shape(own[name])]:
            listed = "; ".join(f"{name} is {_shape(state[name])}, not {_shape(own[name])}" for name in wrong[:5])
            raise CheckpointError(
                f"These are the weights of another network, {len(wrong)} tensors have another shape: {listed}."
            )
        taken = {name: state[name].detach().to(own[name]) for name in own}
        return taken | (self._unsaved(source) if isinstance(source, nn.Module) else {})

    def _unsaved(self, model: nn.Module) -> dict[str, Tensor]:
        """The buffers of a module that no state dict holds (``persistent=False``)."""
        buffers = without_wrappers(dict(model.named_buffers()), dict(self.module.named_buffers()))
        saved = self.module.state_dict().keys()
        own = {name: buffer for name, buffer in self.module.named_buffers() if name not in saved}
        return {name: buffers[name].detach().to(own[name]) for name in own if name in buffers}

    def tensors_of(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What one pass uses that takes parameters and buffers from ``state``, as ``tensors`` does from theta."""
        fresh = self.own_buffers() | dict(self.module.named_parameters(prefix="model"))
        return fresh | {f"model.{name}": tensor.clone() for name, tensor in state.items()}

    def state_dict(self, theta: Tensor) -> dict[str, Tensor]:
        """The module's full state dict with its parameters at ``theta``."""
        return self.saved(self.module.state_dict() | self.space.unflatten(theta))

    def saved(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The names of the module's own state dict, with the tensors of ``state`` under their first names."""
        first = self._first_names()
        # A tied tensor has several names, and load_state_dict takes the last one's.
        return {name: state[first.get(name, name)].detach().clone() for name in self.module.state_dict()}

    def fingerprint(self) -> str:
        """Of the parameters' names and shapes, the point, the full state dict, and a mode other than evaluation's."""
        sha = hashlib.sha256((repr([(e.name, e.shape) for e in self.space]) + in_words(self.mode)).encode())
        for tensor in [self.point, *self.state_dict(self.point).values()]:
            for part in components(tensor):
                sha.update(tensor_bytes(part))
        return sha.hexdigest()[:16]

    def _first_names(self) -> dict[str, str]:
        """Every name of a parameter -> its first one; they differ where parameters are tied."""
        first = {id(parameter): name for name, parameter in self.module.named_parameters()}
        named = self.module.named_parameters(remove_duplicate=False)
        return {name: first[id(parameter)] for name, parameter in named}

    def buffers_besides_norms(self) -> dict[str, Tensor]:
        """The buffers of the model's own without BatchNorm's statistics and their counters."""
        norms = self.statistics
        norms |= {name.replace("running_mean", "num_batches_tracked") for name in norms}
        return {name: buffer for name, buffer in self.module.named_buffers() if name not in norms}

    def other_buffers(self, state: Mapping[str, Tensor]) -> list[str]:
        """Which of them a state, as ``state_of`` gives it, has otherwise than the model."""
        own = self.buffers_besides_norms()
        return [name for name, buffer in own.items() if name in state and not equal(state[name], buffer)]

    def own_buffers(self) -> dict[str, Tensor]:
        """Copies of the model's buffers by the names that ``measure`` takes: nothing written outlives its pass."""
        return {f"model.{name}": buffer.clone() for name, buffer in self.module.named_buffers()}


def _shape(value: object) -> tuple[int, ...]:
    return tuple(value.shape) if isinstance(value, Tensor) else ()
