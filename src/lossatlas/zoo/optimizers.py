"""The optimisers and learning-rate schedules that `fit` knows by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from lossatlas.errors import ConfigError

Optimizer: TypeAlias = str | Callable[[list[nn.Parameter]], torch.optim.Optimizer]
Schedule: TypeAlias = str | Callable[[float], float] | None


class SAM(torch.optim.SGD):
    """theta <- SGD step from theta along grad L(theta + rho g / |g|), g = grad L(theta).

    Sharpness-aware minimisation (Foret et al. 2021, equation 3) over SGD with momentum: two gradients a step, both
    on the same batch. Weight decay acts at theta, not at the perturbed point. ``step`` needs a closure that
    clears the gradients, computes the loss, calls ``backward`` and returns the loss; the first call is at theta.
    """

    def __init__(
        self,
        parameters: list[nn.Parameter],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        rho: float = 0.05,
    ) -> None:
        super().__init__(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay)
        self.rho = rho

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor]) -> Tensor:  # type: ignore[override]
        evaluate = torch.enable_grad()(closure)
        loss = evaluate()
        used = [(p, p.grad) for group in self.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([gradient for _, gradient in used])
        start = [parameter.clone() for parameter, _ in used]
        try:
            for parameter, gradient in used:
                parameter.add_(gradient * (self.rho / norm.clamp_min(1e-12)))
            evaluate()
        finally:  # a copy, not a subtraction: theta comes back bit for bit
            for (parameter, _), value in zip(used, start, strict=True):
                parameter.copy_(value)
        super().step()
        return loss


OPTIMIZERS = ("sgd", "adam", "adamw", "sam")


def make_optimizer(
    optimizer: Optimizer,
    parameters: list[nn.Parameter],
    *,
    learning_rate: float,
    momentum: float,
    weight_decay: float,
    rho: float,
) -> torch.optim.Optimizer:
    """The optimiser of that name, or what the callable makes of the parameters."""
    if callable(optimizer):
        return optimizer(parameters)
    try:
        if optimizer == "sgd":
            return torch.optim.SGD(parameters, learning_rate, momentum, weight_decay=weight_decay)
        if optimizer == "adam":
            return torch.optim.Adam(parameters, learning_rate, weight_decay=weight_decay)
        if optimizer == "adamw":
            return torch.optim.AdamW(parameters, learning_rate, weight_decay=weight_decay)
        if optimizer == "sam":
            return SAM(parameters, learning_rate, momentum, weight_decay, rho)
    except ValueError as error:
        raise ConfigError(f"The optimiser {optimizer} refuses its settings: {error}.") from error
    raise ConfigError(
        f"There is no optimiser {optimizer!r}: choose one of {', '.join(OPTIMIZERS)},"
        " or give a function that makes a torch optimiser from a list of parameters."
    )


def _constant(_: float) -> float:
    return 1.0


def _cosine(share: float) -> float:
    return (1 + math.cos(math.pi * share)) / 2


def _step(share: float) -> float:
    return 1.0 if share < 0.5 else 0.1 if share < 0.75 else 0.01


SCHEDULES: dict[str | None, Callable[[float], float]] = {None: _constant, "cosine": _cosine, "step": _step}


def make_schedule(schedule: Schedule) -> Callable[[float], float]:
    """The factor on the initial learning rate, as a function of the share of the training that is done."""
    if callable(schedule):
        return schedule
    if schedule not in SCHEDULES:
        raise ConfigError(
            f"There is no schedule {schedule!r}: choose None, cosine or step, or give a function from the share"
            " of the training that is done (0 to 1) to a factor on the learning rate."
        )
    return SCHEDULES[schedule]
