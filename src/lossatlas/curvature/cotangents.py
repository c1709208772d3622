"""What flows back from the loss to the outputs: vectors s with sum s s' = H_f, or gradients, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Literal

import torch
from torch import Tensor

from lossatlas.curvature.operators import drawn_batches
from lossatlas.errors import InputError
from lossatlas.evaluation.products.linearised import EmpiricalFisher, gradient_of
from lossatlas.evaluation.products.terms import Terms, recognised
from lossatlas.model.arithmetic import full_precision
from lossatlas.model.data.batches import copied, preserved_rng
from lossatlas.objective import Objective

FisherType = Literal["type-2", "mc", "empirical"]
WIDEST = 1024  # outputs an example: an exact Hessian of more is refused


class Cotangents:
    """Of each batch the inputs and vectors s of the outputs' shape: sum J_i' s_i s_i' J_i over all is a matrix of L.

    ``"type-2"`` makes it the Gauss-Newton matrix, by roots of the Hessians of the examples' losses in the outputs;
    ``"mc"`` the Fisher matrix of ``draws`` drawn targets, ``"empirical"`` that of the data's. The loss is the
    objective's own, and so are its reduction, its weights and the targets that it ignores.
    """

    def __init__(self, objective: Objective, kind: FisherType, draws: int = 1, seed: int = 0) -> None:
        self._objective, self._kind, self._function = objective, kind, objective.function
        self._drawn = drawn_batches(objective, draws, seed) if kind == "mc" else []
        outputs, scales = self._evaluated(next(iter(objective.batches)), 0)
        width = outputs.numel() // len(scales)
        if kind == "type-2" and width > WIDEST:
            raise InputError(
                f"The loss has {width:,} outputs an example, and its exact Hessian in them would take as many backward "
                f"passes over the data (at most {WIDEST:,}): use fisher='mc'."
            )

    def __iter__(self) -> Iterator[tuple[Any, Iterator[Tensor]]]:
        batches = self._objective.batches
        weights, period = batches.weights, len(batches)
        for index, batch in enumerate(batches):
            share = weights[index] / sum(weights)
            yield copied(batch[0]), self._columns(batch, self._drawn[index::period], index, share)

    def _columns(self, batch: Any, drawn: list[Any], index: int, share: float) -> Iterator[Tensor]:
        """s for the mean of the batch's losses, times the batch's share of all."""
        outputs, scales = self._evaluated(batch, index)
        size = (share / len(scales)) ** 0.5
        if self._kind == "type-2":
            yield from (
                column * size for column in _roots(self._function.losses, outputs, self._function.targets(batch))
            )
        elif self._kind == "empirical":
            yield self._slope(outputs, self._function.targets(batch), scales * size)
        for one in drawn:
            targets, root = self._function.targets(one.batch), one.counts.sqrt()
            yield self._slope(outputs, targets, scales * root * size / len(drawn) ** 0.5)

    def _slope(self, outputs: Tensor, targets: Any, scales: Tensor) -> Tensor:
        with _surroundings(outputs.device):
            at = outputs.detach().clone().requires_grad_()
            return gradient_of((self._function.losses(at.clone(), targets) * scales).sum(), at)

    def _evaluated(self, batch: Any, index: int) -> tuple[Tensor, Tensor]:
        """The outputs, and what the squares of the examples' gradients are to be scaled by."""
        function = self._function
        with torch.no_grad(), preserved_rng(self._objective.device):
            tensors = function.tensors(self._objective.point)
            outputs = function.outputs(tensors, copied(batch), index)
            measured = function.measure(tensors, copied(batch), index)
            return outputs, EmpiricalFisher(function).scales(measured, batch)


def _surroundings(device: torch.device) -> ExitStack:
    stack = ExitStack()
    for context in (torch.inference_mode(False), torch.enable_grad(), preserved_rng(device), full_precision(device)):
        stack.enter_context(context)
    return stack


def _roots(losses: Callable[[Tensor, Any], Tensor], outputs: Tensor, targets: Any) -> Iterator[Tensor]:
    """Columns of a root of each example's Hessian in its outputs, all examples at once."""
    terms = recognised(losses, outputs, targets) if isinstance(targets, Tensor) else None
    if terms is not None and terms.form.logits and terms.form.axis is not None:
        return _softmax_roots(terms, outputs)
    with _surroundings(outputs.device):
        hessians = _hessians(lambda f: losses(f, targets), outputs)
    values, vectors = torch.linalg.eigh(hessians)
    if not bool((values[:, 0] >= -1e-4 * values.abs().amax(1)).all()):
        raise InputError(
            "The loss is not convex in the outputs, and KFAC with the exact Hessian needs that: use fisher='mc' or "
            "'empirical'."
        )
    scaled = vectors * values.clamp(min=0).sqrt()[:, None, :]
    return (column.reshape(outputs.shape) for column in scaled.unbind(2))


def _softmax_roots(terms: Terms, outputs: Tensor) -> Iterator[Tensor]:
    """c diag(p) - c p p' = S S' with S = sqrt(c) (diag sqrt(p) - p sqrt(p)'), for every term of every example."""
    form, n = terms.form, len(terms.coefficients)
    p = form.log_p(outputs).exp() * form.kept[:, None]
    p = p.reshape(n, -1, p.shape[1])  # (examples, terms, classes)
    for term in range(p.shape[1]):
        for k in range(p.shape[2]):
            root = (terms.coefficients * p[:, term, k]).sqrt()[:, None]
            column = torch.zeros_like(p)
            column[:, term] = -root * p[:, term]
            column[:, term, k] += root[:, 0]
            yield form.unrolled(column.flatten(0, 1), outputs)


def _hessians(losses: Callable[[Tensor], Tensor], outputs: Tensor) -> Tensor:
    """``(n, D, D)`` for n examples of D outputs each, whose losses are their own."""
    at = outputs.detach().clone().requires_grad_()
    each = losses(at.clone())
    slope = gradient_of(each.sum(), at, create_graph=True)
    if not slope.requires_grad:
        return torch.zeros(len(each), 0, 0).to(slope)
    rows = slope.reshape(len(each), -1)
    columns = [torch.autograd.grad(column.sum(), at, retain_graph=True)[0] for column in rows.unbind(1)]
    hessians = torch.stack([column.reshape(len(each), -1) for column in columns], 2)
    return (hessians + hessians.mT) / 2
