"""The Hessian of the loss in the activations of a layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lossatlas.curvature.operators import Operator
from lossatlas.errors import InputError, NumericalError
from lossatlas.evaluation.memory import free_bytes
from lossatlas.evaluation.products.linearised import Hessian, Map, require_curvature
from lossatlas.evaluation.products.routes import Routes, guarded
from lossatlas.model.arithmetic import full_precision
from lossatlas.model.data.batches import copied, describe, preserved_rng
from lossatlas.objective import Objective
from lossatlas.results.mistakes import suggestion


def activation_hessian(objective: Objective, layer: str, *, max_memory: int | None = None) -> Operator:
    """H = grad grad' L(a), a ``(n,)`` the outputs of the module ``layer`` for all examples, one after the other.

    L is the mean loss of the objective as a function of these activations, at the model's own; n is the number of
    examples times the activations of one. Where an example's loss depends on its own activations alone, H is block
    diagonal with the blocks H_i / N, H_i the Hessian of the loss of example i: so ``la.trace`` is the mean over the
    examples of tr H_i, the quantity of HAWQ-V2, and the largest eigenvalue is max_i lambda_max(H_i) / N. Under
    ``batch_norm="batch"`` a block is that of a batch.

    Parameters
    ----------
    layer : a name of ``model.named_modules()``, as ``"features.3"``; ``""`` is the model itself.
    max_memory : bytes of graphs to keep between products, half of what is free by default.

    Returns
    -------
    ``Operator`` ``(n, n)``, in the units of the loss a squared unit of the activations. The entries are in the order of
    the data, an example's activations flattened.

    Raises
    ------
    InputError : no module of this name; one that is not called once a batch, or whose output is not one tensor of
        floating-point numbers; at a product, a loss that does not depend on it; and as ``hessian``.
    NumericalError : a product holds NaN or infinite numbers.

    Source: Dong et al. 2020, "HAWQ-V2: Hessian Aware trace-Weighted Quantization of Neural Networks" (activations).

    Examples
    --------
    >>> model, x = torch.nn.Linear(1, 2), torch.ones(4, 1)
    >>> H = activation_hessian(Objective(model, torch.nn.functional.mse_loss, (x, torch.zeros(4, 2))), "")
    >>> H.shape, H @ torch.ones(8)
    ((8, 8), tensor([0.2500, 0.2500, 0.2500, 0.2500, 0.2500, 0.2500, 0.2500, 0.2500]))
    """
    require_curvature(objective.function)
    blocks = _Blocks(objective, _InActivations(objective, layer), max_memory)
    made = {"matrix": f"Hessian in the activations of {layer or 'the model'}", **objective.provenance()}
    return Operator(blocks.n, blocks, objective.dtype, objective.device, provenance=lambda: made)


class _InActivations(Hessian):
    """H_b in the activations of a layer: "theta" is what is added to them, 0."""

    def __init__(self, objective: Objective, layer: str) -> None:
        super().__init__(objective.function)
        self._layer, self._module = layer, _module(objective.function.module, layer)
        self._at = objective.point
        # A pass over the data: how many activations each batch has.
        self.sizes = [self._size(batch, index) for index, batch in enumerate(objective.batches)]

    def kept(self, theta: Tensor, batch: Any, index: int, known: bool = False) -> Map:
        return super().kept(torch.zeros(self.sizes[index]).to(theta), batch, index)

    def losses(self, theta: Tensor, batch: Any, index: int) -> Tensor:
        with _changed(self._module, lambda output: output + theta.view_as(output)):
            losses = self.function.measure(self.function.tensors(self._at), batch, index)["loss"]
        if not losses.requires_grad:
            raise InputError(
                f"The loss does not depend on the output of {self._layer!r}: choose a layer whose output it uses, "
                "without no_grad() or detach()."
            )
        return losses

    def _size(self, batch: Any, index: int) -> int:
        sizes = list[int]()

        def seen(output: Any) -> Any:
            if not isinstance(output, Tensor) or not output.is_floating_point():
                raise InputError(
                    f"The output of {self._layer!r} is {describe(output)}: choose a module whose output is one tensor "
                    "of floating-point numbers."
                )
            sizes.append(output.numel())
            return output

        with torch.no_grad(), preserved_rng(self._at.device), _changed(self._module, seen):
            self.function.measure(self.function.tensors(self._at), copied(batch), index)
        if len(sizes) != 1:
            raise InputError(
                f"{self._layer!r} is called {len(sizes)} times for a batch: choose a module that is called once, such "
                "as the one that contains it."
            )
        return sizes[0]


class _Blocks:
    """V -> H V for rows ``(k, n)``: each batch has activations of its own."""

    def __init__(self, objective: Objective, form: _InActivations, max_memory: int | None) -> None:
        if max_memory is not None and max_memory < 0:
            raise InputError(f"max_memory={max_memory}: give a number of bytes, 0 to keep nothing, or None.")
        weights = objective.batches.weights
        self._batches, self._shares = objective.batches, [weight / sum(weights) for weight in weights]
        self._routes = Routes(form, objective.point.detach().clone())
        self._ends = np.cumsum([0, *form.sizes])
        self.n = int(self._ends[-1])
        self._free = free_bytes(objective.device) // 2 if max_memory is None else max_memory
        self._kept: dict[int, Map] = {}

    @torch.inference_mode(False)
    def __call__(self, rows: Tensor) -> Tensor:
        total = torch.empty_like(rows)
        places = [slice(*ends) for ends in pairwise(self._ends.tolist())]
        for place, share, product in zip(places, self._shares, self._products(), strict=True):
            with guarded(), full_precision(rows.device):
                for row, found in zip(rows[:, place], total[:, place], strict=True):
                    found.copy_(product(row.clone())).mul_(share)
        if not bool(torch.isfinite(total).all()):
            raise NumericalError(
                "The product holds NaN or infinite numbers at this point: the loss cannot be differentiated there."
            )
        return total

    def _products(self) -> Iterator[Map]:
        """The map of each batch; graphs are kept as far as memory reaches."""
        if len(self._kept) == len(self._shares):
            yield from (self._kept[index] for index in range(len(self._shares)))
            return
        for index, batch in enumerate(self._batches):
            if index not in self._kept:
                product, size = self._routes.prepared(batch, index)[:2]
                if size <= self._free:
                    self._kept[index] = product
                    self._free -= size
            yield self._kept.get(index) or product


def _module(model: nn.Module, layer: str) -> nn.Module:
    modules = dict(model.named_modules())
    if layer not in modules:
        names = list(modules)[1:] or [""]
        some = ", ".join(map(repr, names[:12])) + (", ..." if len(names) > 12 else "")
        raise InputError(f"The model has no module {layer!r}{suggestion(layer, names)}: choose one of {some}.")
    found: nn.Module = modules[layer]
    return found


@contextmanager
def _changed(module: nn.Module, change: Callable[[Any], Any]) -> Iterator[None]:
    """The module's output is replaced by what ``change`` makes of it."""
    handle = module.register_forward_hook(lambda module, inputs, output: change(output))
    try:
        yield
    finally:
        handle.remove()
