"""Targets drawn from the model, y ~ p(y | f), and the Fisher matrix that they make."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lossatlas.errors import InputError
from lossatlas.evaluation.products.linearised import EmpiricalFisher
from lossatlas.evaluation.products.terms import Losses, Terms, matches, recognised, targets_in

_DRAWN_AT_ONCE = 2**22  # probabilities


class Drawn(NamedTuple):
    """Targets of the form of the data's, and c_i: the loss of example i is c_i times its negative log-likelihood."""

    targets: Any
    coefficients: Tensor


class Sampled(NamedTuple):
    """A batch with drawn targets, and of how many terms the loss of each example is the mean, 1 for their sum."""

    batch: Any
    counts: Tensor


class SampledFisher(EmpiricalFisher):
    """F_b = mean_i share_i m_i g_i g_i', g_i the gradient of a mean of m_i terms; batches are ``Sampled``.

    m_i E g_i g_i' is the mean of that of the terms, which are drawn independently and have gradients of mean 0.
    """

    def _each(self, theta: Tensor, batch: Any, index: int) -> Tensor:
        scaled: Tensor = super()._each(theta, self.plain(batch), index) * batch.counts.sqrt()
        return scaled

    def plain(self, batch: Any) -> Any:
        return batch.batch


def draw(losses: Losses, outputs: Tensor, targets: Any, generator: torch.Generator) -> Drawn:
    """Targets of the form of ``targets``; the loss itself tells whether, and of what, it is a likelihood."""
    for one in targets_in(losses, targets):
        if (drawn := _drawn(one.losses, outputs, one.tensor, generator)) is not None:
            return Drawn(one.within(drawn.targets), drawn.coefficients)
    raise InputError(
        "Targets cannot be drawn for this loss, which is not the negative log-likelihood of classes, of 0 or 1, or of "
        "numbers with normal noise, each target of the same weight: use fisher(kind='empirical') or gauss_newton."
    )


def _drawn(losses: Losses, outputs: Tensor, targets: Tensor, generator: torch.Generator) -> Drawn | None:
    terms = recognised(losses, outputs, targets)
    if terms is not None:
        return _values(losses, terms, outputs, generator)
    if targets.shape == outputs.shape[:1] and not targets.is_floating_point() and outputs.ndim == 2:
        return _classes(losses, outputs, torch.arange(outputs.shape[1], device=outputs.device), targets, generator)
    if targets.shape != outputs.shape or not targets.is_floating_point():
        return None
    drawn = _normal(losses, outputs, targets, generator)
    if drawn is None and outputs.numel() == len(outputs):
        return _classes(losses, outputs, torch.tensor([0.0, 1.0]).to(targets), targets, generator)
    return drawn


def _values(losses: Losses, terms: Terms, outputs: Tensor, generator: torch.Generator) -> Drawn | None:
    """A value for each term from the form's own probabilities."""
    rows = terms.form.log_p(outputs)
    parts = rows.split(max(1, _DRAWN_AT_ONCE // rows.shape[1]))
    index = torch.cat([_index(part, generator) for part in parts])
    if not matches(losses, terms, outputs, rows, index):
        return None
    return Drawn(terms.form.targets(index), terms.coefficients)


def _index(log_p: Tensor, generator: torch.Generator) -> Tensor:
    chances = log_p.double().exp().cpu()
    return torch.multinomial(chances, 1, generator=generator)[:, 0].to(log_p.device)


def _classes(
    losses: Losses, outputs: Tensor, values: Tensor, targets: Tensor, generator: torch.Generator
) -> Drawn | None:
    """One of finitely many values, if exp(-loss) over them sums to 1, whatever the outputs are to p."""
    columns = [losses(outputs, torch.zeros_like(targets) + value.to(targets)) for value in values]
    if columns[0].ndim != 1:
        return None
    rows = -torch.stack(columns, dim=1).double()
    if not bool((rows.logsumexp(1).abs() <= 1e-4).all()):
        return None
    if not bool(torch.isin(targets.double(), values.double()).all()):
        return None  # an ignored target is none of the classes, and no example of the mean
    index = _index(rows, generator)
    drawn = values[index].to(targets.dtype).reshape(targets.shape)
    alone = torch.stack(columns)[index, torch.arange(len(index), device=index.device)]
    # Under class weights an example's part of the mean depends on the classes of the others.
    if not bool(torch.isclose(losses(outputs, drawn), alone, rtol=1e-4).all()):
        return None
    return Drawn(drawn, torch.ones_like(alone))


def _normal(losses: Losses, outputs: Tensor, targets: Tensor, generator: torch.Generator) -> Drawn | None:
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
    drawn = (outputs + noise / (2 * kappa).sqrt().to(outputs)).to(targets.dtype)
    return Drawn(drawn, torch.ones_like(columns[0]).to(outputs.dtype))
