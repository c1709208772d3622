"""Short runs of a sampler: which step is stable, and how far out the chains still agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from torch import Tensor

from lossatlas.sharpness.chains import Mean, mean_of
from lossatlas.sharpness.langevin import Posterior, Sampler

CHAINS = 4
SETTLING, SHORT = 10, 16  # draws a chain without the Metropolis test, then with it: together the burn-in
LEAPS = 20  # gradients a draw: weaker localisations are not tried
ACCEPTED = 0.75  # of the draws of each chain, at a step that is stable
AGREE, NEARLY = 1.05, 2.0  # R-hat of chains that agree, in a whole run and in a short one
MOST = 20  # short runs


class Outcome(Enum):
    """What became of a run, in words."""

    VALID = "valid"
    DIVERGED = "no step was small enough for the sampler to be stable"
    NEGATIVE = "the loss around the point is lower than at it, so that it is no minimum"
    DISAGREE = "the chains disagree"


@dataclass(frozen=True)
class Trial:
    """A short run of all chains at one localisation with one step."""

    gamma: float
    step: float
    leaps: int
    outcome: Outcome
    acceptance: float
    mean: Mean | None = None
    samplers: tuple[Sampler, ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        accepted = f"{self.acceptance:.0%} accepted"
        found = accepted if self.mean is None else f"{self.mean.value:.3g}, R-hat {self.mean.r_hat:.2f}, {accepted}"
        return f"gamma {self.gamma:g}, step {self.step:.1e}: {found}, {self.outcome.name.lower()}"


def sweep(posterior: Posterior, gamma: float | None, seed: int, scale: Tensor | float = 1.0) -> list[Trial]:
    """Steps halved until one is stable at a strong localisation, then localisations weaker by factors of ten.

    They end where the chains disagree, where the loss is lower than at the point, or where a draw would take more than
    20 gradients. ``gamma``: the only one, in place of several.
    """
    first = first_step(posterior.localised(gamma or 0.0), seed, scale)
    step, now = 8 * first, gamma or 10.0 ** math.floor(-math.log10(first * _widest(scale) ** 2))
    trials: list[Trial] = []
    while len(trials) < MOST:
        trials.append(_trial(posterior.localised(now), step, scale, seed))
        if trials[-1].outcome is Outcome.DIVERGED:
            step /= 2
        elif gamma or trials[-1].outcome is not Outcome.VALID or _leaps(now / 10, 4 * step, scale) > LEAPS:
            break
        else:
            now, step = now / 10, 4 * step  # which a strong localisation may have held down
    return trials


def first_step(posterior: Posterior, seed: int, scale: Tensor | float = 1.0) -> float:
    """The step, within a factor of 4, of which one from the point is as likely to be accepted as not.

    Source: Hoffman & Gelman 2014, "The No-U-Turn Sampler", algorithm 4.
    """
    step, towards = 1.0, 0.0
    while 1e-30 < step < 1e30:
        sampler = Sampler(posterior, step, 1, scale, seed)
        sampler.draw(1)
        factor = 4.0 if sampler.accepted[0] > 0.5 else 0.25
        if towards and factor != towards:
            return min(step, step / towards)
        step, towards = step * factor, factor
    return step


def _trial(posterior: Posterior, step: float, scale: Tensor | float, seed: int) -> Trial:
    leaps = _leaps(posterior.gamma, step, scale)
    samplers = tuple(Sampler(posterior, step, leaps, scale, seed, chain) for chain in range(CHAINS))
    rises: list[list[float]] = []
    for sampler in samplers:
        rises.append(sampler.draw(SHORT) if sampler.burn_in(SETTLING) else [])
        if (accepted := acceptance([sampler])) < ACCEPTED:
            return Trial(posterior.gamma, step, leaps, Outcome.DIVERGED, accepted)
    mean = mean_of(posterior.n_beta * np.array(rises))
    return Trial(posterior.gamma, step, leaps, outcome(mean, NEARLY), acceptance(samplers), mean, samplers)


def outcome(mean: Mean, limit: float) -> Outcome:
    """Of a run with this mean, whose chains agree up to this R-hat."""
    if mean.value < 0:
        return Outcome.NEGATIVE
    return Outcome.VALID if mean.r_hat <= limit else Outcome.DISAGREE


def acceptance(samplers: Sequence[Sampler]) -> float:
    """The mean probability of acceptance; 0 where there was no draw."""
    accepted = [one for sampler in samplers for one in sampler.accepted]
    return float(np.mean(accepted)) if accepted else 0.0


def _leaps(gamma: float, step: float, scale: Tensor | float) -> int:
    """Gradients in a draw: so many that it turns by about one radian along the flattest direction."""
    return math.ceil(1 / (_widest(scale) * math.sqrt(step * gamma)))


def _widest(scale: Tensor | float) -> float:
    return float(scale if isinstance(scale, float) else scale.max())
