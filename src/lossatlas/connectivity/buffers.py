"""Buffers on a path between two models: carried along where they differ, and each end compared with its model."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm

from lossatlas.errors import BufferWarning
from lossatlas.evaluation.points.loops import measured_with
from lossatlas.model.belongings import Belongings
from lossatlas.model.data.fingerprints import equal
from lossatlas.model.functional import FunctionalModel
from lossatlas.model.loss.samples import Sample, samples_of
from lossatlas.objective import Objective

Tensors = dict[str, Tensor]
_TWO_SIDED = 1.96  # standard errors, 95 %
_SAME = 1e-3  # relative difference of two losses below which nothing is said
_SMALL = 1e-2  # and above which it is a warning; where statistics are estimated, a note within the data's error
_ITERATIONS = 500  # of the power method, at most
_NAMED = 4  # buffers in a message


def carrying_buffers(objective: Objective, a: Tensor, b: Tensor) -> Objective:
    """The objective with the buffers of both ends carried along the path between them.

    At a point whose projection onto the line from a to b lies at t, floating-point buffers that differ are
    (1 - t) B_a + t B_b, others those of the nearer end; the vectors of ``spectral_norm`` are those of the point's own
    weights, by the power method. BatchNorm's statistics are the policy's. Nothing changes where nothing differs.
    """
    function = objective.function
    if function.moved is not None:
        return objective
    own = function.buffers_besides_norms()
    first, last = (_taken(own, function.belongings(end)) for end in (a, b))
    differ = [name for name in own if not all(equal(end[name], own[name]) for end in (first, last))]
    spectral = list(_spectral_norms(function.module))
    if not differ and not spectral:
        return objective
    other = copy.copy(objective)
    other.function = copy.copy(function)
    starts, stops = ({name: end[name] for name in differ} for end in (first, last))
    # Gradients are those at the buffers of each point, which differences of values are not.
    other.function.derivatives = None
    other.function.moved = _Moved(a, b, starts, stops, spectral)
    return other


def carried_names(objective: Objective) -> str:
    """The buffers that are carried, for ``attrs``; empty where there are none."""
    moved = objective.function.moved
    return "; ".join(moved.names) if isinstance(moved, _Moved) else ""


def _taken(own: Tensors, found: Belongings | None) -> Tensors:
    """Each buffer as it belongs to an end, or as it is where that is not known, or of another shape."""
    rest = {} if found is None else found.tensors
    there = {name: rest.get(name, tensor).to(tensor) for name, tensor in own.items()}
    return {name: there[name] if there[name].shape == tensor.shape else tensor for name, tensor in own.items()}


@dataclass(frozen=True)
class _Moved:
    """``moved(tensors, theta)``: the buffers of the path at theta."""

    a: Tensor
    b: Tensor
    first: Tensors
    last: Tensors
    spectral: list[_Vectors]

    @property
    def names(self) -> list[str]:
        return sorted({*self.first, *(name for one in self.spectral for name in (one.u, one.v))})

    def __call__(self, tensors: Mapping[str, Tensor], theta: Tensor) -> Tensors:
        t = self._place(theta)
        found = {f"model.{name}": _between(self.first[name], self.last[name], t) for name in self.first}
        for one in self.spectral:
            found |= one.at(dict(tensors) | found)
        return found

    def _place(self, theta: Tensor) -> float:
        along, way = (self.b - self.a).double(), (theta.detach() - self.a).double()
        length = float(along @ along)
        return min(max(float(way @ along) / length, 0.0), 1.0) if length else 0.0


def _between(first: Tensor, last: Tensor, t: float) -> Tensor:
    if first.is_floating_point() or first.is_complex():
        return torch.lerp(first, last, t)
    return (first if t < 0.5 else last).clone()


@dataclass(frozen=True)
class _Vectors:
    """The names of a weight of ``spectral_norm`` and of its two singular vectors, and which axis is the outputs'."""

    weight: str
    u: str
    v: str
    dim: int

    def at(self, tensors: Tensors) -> Tensors:
        """Both vectors for the weight in ``tensors``, from those there on."""
        weight = tensors[f"model.{self.weight}"].detach()
        matrix = weight.movedim(self.dim, 0).flatten(1)
        u, v = tensors[f"model.{self.u}"], tensors[f"model.{self.v}"]
        sigma = -math.inf
        for _ in range(_ITERATIONS):
            v = nn.functional.normalize(matrix.mT @ u, dim=0)
            u = nn.functional.normalize(matrix @ v, dim=0)
            before, sigma = sigma, float(u @ matrix @ v)
            if sigma - before <= torch.finfo(matrix.dtype).eps * sigma:
                break
        return {f"model.{self.u}": u, f"model.{self.v}": v}


def _spectral_norms(model: nn.Module) -> Iterable[_Vectors]:
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, module in model.named_modules():
        dot = f"{name}." if name else ""
        if isinstance(module, _SpectralNorm) and hasattr(module, "_u"):
            weight = f"{name.rpartition('.')[0]}.original"  # parametrizations.weight.0 -> parametrizations.weight
            if weight in parameters:
                yield _Vectors(weight, f"{dot}_u", f"{dot}_v", module.dim)
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, SpectralNorm):
                own = f"{dot}{hook.name}"
                yield _Vectors(f"{own}_orig", f"{own}_u", f"{own}_v", hook.dim)


def compared_ends(objective: Objective, ends: Mapping[str, tuple[Tensor, Sample]]) -> str:
    """What is to be said of the ends: each one's loss on the path beside its model's own loss on its own buffers.

    ``ends``: what an end is called, its point and its loss as measured. Warns where the two losses differ by more than
    the error over the data, and where an end may have other buffers than it was given. Empty where all agree.
    """
    if not objective.function.own_rest:
        return ""  # nothing but theta
    notes = []
    for name, (end, found) in ends.items():
        note, serious = _note_of(objective, name, end, found)
        if serious:
            warnings.warn(note, BufferWarning, stacklevel=4)
        notes.append(note)
    return " ".join(note for note in notes if note)


def measured_ends(objective: Objective, ends: Mapping[str, Tensor]) -> str:
    """The same, of ends whose losses are yet to be measured."""
    if not objective.function.own_rest:
        return ""
    return compared_ends(objective, {name: (end, objective.samples(end)["loss"]) for name, end in ends.items()})


def _note_of(objective: Objective, name: str, end: Tensor, found: Sample) -> tuple[str, bool]:
    """What is to be said of one end, and whether it is a warning."""
    function = objective.function
    kept = function.belongings(end)
    if kept is None:
        own = [n for n, buffer in function.buffers_besides_norms().items() if buffer.is_floating_point()]
        taken = sorted({*own} - {vector for one in _spectral_norms(function.module) for vector in (one.u, one.v)})
        with_own = f" (taken to be the objective's: {_listed(taken)})" if taken else ""
        remedy = "give the model itself, by objective.point_of(model)"
        return f"The buffers of the model at {name} are not known{with_own}: {remedy}.", bool(taken)
    several = (
        f" Several models have the parameters of {name}, and other buffers: those read last are taken." * kept.several
    )
    own_only = [n for n, t in function.buffers_besides_norms().items() if n not in kept.tensors]
    unsaved = f" No state dict holds {_listed(own_only)}: at {name} the objective's are taken." if own_only else ""
    note, serious = _difference(objective, name, found, _own_loss(objective, end, kept.tensors), kept.tensors)
    return (note + several + unsaved).strip(), serious


def _difference(objective: Objective, name: str, found: Sample, own: Sample, rest: Tensors) -> tuple[str, bool]:
    if np.isnan(found.mean) and np.isnan(own.mean):
        return "", False
    apart = abs(found.mean - own.mean)
    if apart <= _SAME * abs(own.mean):
        return "", False
    note = (
        f"The loss at {name} is {found.mean:.4g}, and that model's own, with its own buffers, is "
        f"{own.mean:.4g}: {_remedy(objective.function, rest)}."
    )
    small = _SMALL * abs(own.mean)
    function = objective.function
    estimated = function.norms and function.policy != "frozen"  # the statistics, from some of the data
    error = _TWO_SIDED * own.stderr if estimated and math.isfinite(own.stderr) else small
    return (note, True) if not apart <= error else (note if apart > small else "", False)


def _own_loss(objective: Objective, end: Tensor, rest: Tensors) -> Sample:
    """Of the model that ``end`` was read from, in eval mode, with all that it held."""
    if objective.function.norms:
        objective = objective.with_batch_norm("frozen")
    function = objective.function
    own = function.own_buffers()
    given = {f"model.{name}": one.to(own.get(f"model.{name}", end), copy=True) for name, one in rest.items()}
    tensors = function.named(end.to(objective.point)) | own | given
    return samples_of(measured_with(function, objective.batches, tensors), objective.batches.weights)["loss"]


def _remedy(function: FunctionalModel, rest: Tensors) -> str:
    own = dict(function.module.named_parameters(remove_duplicate=False))
    if fixed := [n for n in rest if n in own and not torch.equal(own[n].detach(), rest[n].to(own[n]))]:
        return f"parameters outside the selection differ ({_listed(fixed)}): select them too, with parameters="
    if function.recomputes:
        count = function.norm_count or len(function.norm_data.weights)
        return (
            f"BatchNorm's statistics are estimated at each point, from {count} batch(es) of "
            f"{function.norm_data.total:g} examples in all: give the training data as batch_norm_data="
        )
    if function.norms and function.policy == "batch":
        return "BatchNorm normalises by each batch's own statistics: use batch_norm='recompute'"
    if function.frozen_statistics:
        return "batch_norm='frozen' keeps the statistics of the objective's model: use batch_norm='recompute'"
    buffers = dict(function.module.named_buffers())
    if other := [n for n in rest if n in buffers and rest[n].shape != buffers[n].shape]:
        return f"buffers of another shape stay the objective's ({_listed(other)}): make both models alike"
    return "its buffers are not those that it was trained to: call the model in train mode once more, and save it"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
