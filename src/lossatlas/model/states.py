"""A model's tensors by name: whole states, theta of them, and what belongs to a point besides."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from lossatlas.model.belongings import Belongings, key_of, remember, remembered
from lossatlas.model.candidates import chosen
from lossatlas.model.checkpoints import contents_of
from lossatlas.model.data.fingerprints import components, equal, tensor_bytes
from lossatlas.model.modes import Mode, in_words
from lossatlas.model.naming import Fit, Names, below
from lossatlas.model.parameters import ParameterSpace
from lossatlas.model.scripted import name_of

Given = nn.Module | Mapping[str, Any] | str | Path


class States:
    """What ``FunctionalModel`` knows of its module's tensors: parameters in ``space``, the rest beside them."""

    module: nn.Module
    space: ParameterSpace
    point: Tensor
    norms: list[BatchNorm]
    mode: Mode
    choices: dict[str, str]  # what was taken of the checkpoints that were read, in words, by what they are called

    @property
    def statistics(self) -> set[str]:
        """The names of the running statistics."""
        norms = [name for name, module in self.module.named_modules() if module in self.norms]
        return {f"{name}.{own}" for name in norms for own in ("running_mean", "running_var")}

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

    def state_of(self, source: Given, key: str | None = None) -> dict[str, Tensor]:
        """Every parameter and persistent buffer of the same architecture, by its first name."""
        return self.state_from(source, self.fit_of(source, key))

    def fit_of(self, source: Given, key: str | None = None) -> Fit:
        """Which tensors of a module, a mapping or a file are the model's; ``choices`` tells what was taken."""
        contents, what, found = contents_of(source)
        own = self._saved_tensors()
        shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
        names = Names(name_of(self.module), self._first_names(), shapes)
        fit = chosen(names, contents, what, key or found)
        self.choices.pop(what, None)
        if fit.note:
            self.choices[what] = fit.note
        return fit

    def state_from(self, source: Given, fit: Fit) -> dict[str, Tensor]:
        """As ``state_of``. Of a checkpoint of adapters alone all else is the model's own."""
        own = self._saved_tensors()
        state = (own | self.space.unflatten(self.point) if fit.partial else {}) | fit.tensors()
        taken = {name: state[name].detach().to(own[name]) for name in own}
        if isinstance(source, nn.Module):
            taken |= self._unsaved(below(fit.outer, dict(source.named_buffers())), fit.inner)
        return taken

    def _saved_tensors(self) -> dict[str, Tensor]:
        first = self._first_names()
        return {first[name]: tensor for name, tensor in self.module.state_dict().items()}

    def _unsaved(self, buffers: Mapping[str, Tensor], inner: str) -> dict[str, Tensor]:
        """The buffers that no state dict holds (``persistent=False``), from those of a module, without their prefix."""
        saved = self.module.state_dict().keys()
        own = {name: buffer for name, buffer in self.module.named_buffers() if name not in saved}
        short = dict(zip(own, below(inner, own), strict=True))
        return {name: buffers[short[name]].detach().to(own[name]) for name in own if short[name] in buffers}

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
        """Every name in the state dict -> the first one of its tensor; they differ where parameters are tied."""
        parameters, buffers = self.module.named_parameters, self.module.named_buffers
        first = {id(tensor): name for name, tensor in itertools.chain(parameters(), buffers())}
        every = itertools.chain(parameters(remove_duplicate=False), buffers(remove_duplicate=False))
        tied = {name: first[id(tensor)] for name, tensor in every}
        return {name: tied.get(name, name) for name in self.module.state_dict()}

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
