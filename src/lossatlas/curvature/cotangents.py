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
    """Pairs (inputs, s), s of the outputs' shape: sum_i J_i' s_i s_i' J_i over all pairs is a matrix of the objective.

    ``"type-2"`` makes it the Gauss-Newton matrix, by roots of the Hessians of the examples' losses in the outputs;
    ``"mc"`` the Fisher matrix of ``draws`` drawn targets, ``"empirical"`` that of the data's. The loss is the
    objective's own, and so are its reduction, its weights and the targets that it ignores. Each batch comes ``passes``
    times.
    """

    def __init__(self, objective: Objective, kind: FisherType, draws: int = 1, seed: int = 0) -> None:
        self._objective, self._kind, self._function = objective, kind, objective.function
        self._drawn = drawn_batches(objective, draws, seed) if kind == "mc" else None
        self.passes = draws
        if kind != "mc":
            outputs, scales = self._evaluated(next(iter(objective.batches)), 0)
            self.passes = outputs.numel() // len(scales) if kind == "type-2" else 1
        if kind == "type-2" and self.passes > WIDEST:
            raise InputError(
                f"The loss has {self.passes:,} outputs an example, and its exact Hessian in them would take as many "
                f"passes over the data (at most {WIDEST:,}): use fisher='mc'."
            )

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        batches = self._objective.batches
        weights, period = batches.weights, len(batches)
        repeats = self.passes if self._drawn is not None else 1
        for index, batch in enumerate(self._drawn or batches):
            share = weights[index % period] / sum(weights) / repeats
            for column in self._columns(batch, index % period):
                yield copied(batch[0]), column * share**0.5

    def _columns(self, batch: Any, index: int) -> Iterator[Tensor]:
        """s for the mean of the batch's losses."""
        inputs, targets, coefficients = (batch[0], *batch[1]) if self._drawn is not None else (*batch, None)
        outputs, scales = self._evaluated((inputs, targets), index)
        size = len(scales) ** -0.5
        with _surroundings(outputs.device):
            if self._kind == "type-2":
                return (column * size for column in _roots(self._function.losses, outputs, targets))
            scales = scales if coefficients is None else coefficients.rsqrt()
            slope = _slope(lambda f: self._function.losses(f, targets) * scales, outputs, create_graph=False)
            return iter([slope * size])

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


def _slope(losses: Callable[[Tensor], Tensor], outputs: Tensor, *, create_graph: bool) -> Tensor:
    at = outputs.detach().clone().requires_grad_()
    return gradient_of(losses(at.clone()).sum(), at, create_graph=create_graph)


def _roots(losses: Callable[[Tensor, Any], Tensor], outputs: Tensor, targets: Any) -> Iterator[Tensor]:
    """Columns of a root of each example's Hessian in its outputs, all examples at once."""
    terms = recognised(losses, outputs, targets) if isinstance(targets, Tensor) else None
    if terms is not None and terms.form.logits and terms.form.axis is not None:
        return _softmax_roots(terms, outputs)
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
