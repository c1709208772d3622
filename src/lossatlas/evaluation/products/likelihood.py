"""Targets drawn from the model: y ~ p(y | f) for a loss that is -log p(y | f) + constant."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lossatlas.errors import InputError

Losses = Callable[[Tensor, Tensor], Tensor]


def draw(losses: Losses, outputs: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
    """Targets of the form of ``targets``; the loss itself tells whether, and of what, it is a likelihood."""
    if _one_each(targets, outputs) and not targets.is_floating_point() and outputs.ndim == 2:
        drawn = _classes(losses, outputs, torch.arange(outputs.shape[1], device=outputs.device), targets, generator)
    elif targets.shape == outputs.shape and targets.is_floating_point():
        drawn = _normal(losses, outputs, targets, generator)
        if drawn is None and outputs.numel() == len(outputs):
            drawn = _classes(losses, outputs, torch.tensor([0.0, 1.0]).to(targets), targets, generator)
    else:
        drawn = None
    if drawn is None:
        raise InputError(
            "Targets cannot be drawn for this loss, which is not the negative log-likelihood of classes, of 0 or 1, or "
            "of numbers with normal noise: use fisher(kind='empirical') or gauss_newton."
        )
    return drawn


def _one_each(targets: Tensor, outputs: Tensor) -> bool:
    return targets.shape == outputs.shape[:1]


def _classes(
    losses: Losses, outputs: Tensor, values: Tensor, targets: Tensor, generator: torch.Generator
) -> Tensor | None:
    """One of finitely many values, if exp(-loss) over them sums to 1."""
    columns = [losses(outputs, torch.zeros_like(targets) + value.to(targets)) for value in values]
    if columns[0].ndim != 1:
        return None
    chances = (-torch.stack(columns, dim=1).double()).exp().cpu()
    if not bool(torch.isclose(chances.sum(1), torch.ones(1).double(), rtol=1e-4).all()):
        return None
    if not bool(torch.isin(targets.double(), values.double()).all()):
        return None  # an ignored target is none of the classes, and no example of the mean
    index = torch.multinomial(chances, 1, generator=generator)[:, 0].to(values.device)
    drawn = values[index].to(targets.dtype).reshape(targets.shape)
    alone = torch.stack(columns)[index, torch.arange(len(index), device=index.device)]
    # Under class weights an example's part of the mean depends on the classes of the others.
    return drawn if bool(torch.isclose(losses(outputs, drawn), alone, rtol=1e-4).all()) else None


def _normal(losses: Losses, outputs: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor | None:
    """f + noise, if the loss is kappa |f - y|^2: then the noise has the variance 1 / (2 kappa)."""
    noise = torch.randn(outputs.shape, generator=generator, dtype=torch.float64).to(outputs)
    squares = ((noise**2).flatten(1).sum(1) if outputs.ndim > 1 else noise**2).double()
    scales = (1.0, -2.0, 10.0, 100.0)  # a loss that is a square near 0 only is none
    columns = [losses(outputs, outputs + scale * noise).double() for scale in scales]
    if columns[0].ndim != 1:
        return None
    kappa = (columns[0] / squares).mean()
    found, expected = torch.stack(columns), torch.stack([scale**2 * kappa * squares for scale in scales])
    if not kappa > 0 or not bool(torch.isclose(found, expected, rtol=1e-3).all()):
        return None
    return (outputs + noise / (2 * kappa).sqrt().to(outputs)).to(targets.dtype)
