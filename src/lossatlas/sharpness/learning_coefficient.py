"""The local learning coefficient: how fast the volume of small loss grows around a point."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lossatlas.errors import InputError
from lossatlas.objective import Objective
from lossatlas.sharpness.chains import Mean, mean_of
from lossatlas.sharpness.langevin import Posterior, Sampler
from lossatlas.sharpness.trials import AGREE, SETTLING, SHORT, Outcome, Trial, acceptance, outcome, sweep


@dataclass(frozen=True)
class Run:
    """The draws after the burn-in: their mean, how many a chain, and the share of them below the loss of the point."""

    trial: Trial
    outcome: Outcome
    mean: Mean
    draws: int
    below: float

    def __str__(self) -> str:
        trial = self.trial
        return (
            f"gamma {trial.gamma:g}, step {trial.step:.1e}, {trial.leaps} gradients a draw, "
            f"{acceptance(trial.samplers):.0%} accepted, {len(trial.samplers)} chains of {self.draws} draws after a "
            f"burn-in of {SETTLING + SHORT}: R-hat {self.mean.r_hat:.3f}, effective size {self.mean.effective:.0f}."
            + (f" At {self.below:.0%} of the draws the loss is lower than at the point." if self.below else "")
        )


@dataclass(frozen=True)
class LearningCoefficient:
    """lambda_hat with its Monte-Carlo standard error: NaN, and why, unless ``outcome`` is valid."""

    value: float
    stderr: float
    outcome: Outcome
    trials: tuple[Trial, ...]
    run: Run | None = None

    @property
    def note(self) -> str:
        """The chosen localisation and step, the chains, and the sweep."""
        swept = "; ".join(map(str, self.trials))
        reason = "" if self.outcome is Outcome.VALID else f"Invalid: {self.outcome.value}. "
        return f"{reason}{'' if self.run is None else f'At {self.run} '}Sweep: {swept}."


def learning_coefficient(
    objective: Objective,
    *,
    n_beta: float | None = None,
    gamma: float | None = None,
    preconditioned: bool = False,
    draws: int = 200,
    seed: int = 0,
    count: Callable[[float], None] = lambda passes: None,
) -> LearningCoefficient:
    """lambda_hat = n beta (E[L(w)] - L(w*)), w ~ exp(-n beta L(w) - gamma |w - w*|^2 / 2), beta = 1 / log n.

    By steps of SGLD with the gradient of all data and a Metropolis test, so that no size of the step biases the result.
    Batches of m examples would cost less a step, but their noise heats the draws unless the step is smaller by a factor
    1 + n beta / m, which leaves a gain of at most log n and a bias that is not known.

    A sweep of short runs finds the largest step that is stable and the weakest localisation, of powers of ten, at which
    four chains agree and cross their flat directions in 20 gradients. They go on for ``draws`` each; where their R-hat
    is not below 1.05 then, the next stronger localisation is taken. The burn-in is no part of the estimate, whose error
    is that of the draws.

    Parameters
    ----------
    n_beta : n / log n by default.
    gamma : one localisation in place of several; a weak one takes many gradients a draw. Values of different gamma
        are not comparable.
    preconditioned : steps on the scale v^(-1/4) of each weight, v the second moments of the gradient that RMSProp
        keeps: their mean over a short run, then fixed.
    draws : of each chain, after the burn-in.
    count : is told of every gradient pass over the data.

    Raises
    ------
    InputError : fewer than two examples, a gamma or a temperature that is not positive.

    Source: Lau et al. 2023, "The Local Learning Coefficient", arXiv 2308.12108, section 4; Roberts & Tweedie 1996 (the
    Metropolis test); Li et al. 2016, "Preconditioned SGLD", and arXiv 2507.21449 (RMSProp).

    Examples
    --------
    >>> model, data = torch.nn.Linear(2, 1, bias=False), (torch.eye(2), torch.zeros(2, 1))
    >>> objective = Objective(model, torch.nn.functional.mse_loss, data).at(torch.zeros(2))  # H = I, full rank
    >>> found = learning_coefficient(objective, n_beta=1000.0, gamma=500.0)
    >>> exact = 2 / 2 * 1000 / (1000 + 500)
    >>> found.outcome.name, abs(found.value - exact) < 3 * found.stderr
    ('VALID', True)
    """
    n = objective.n_examples
    if n_beta is None and n < 2:
        raise InputError(f"The data hold {n} example: give at least 2, since the temperature is log n.")
    if not all(value is None or 0 < value < math.inf for value in (n_beta, gamma)):
        raise InputError(f"n_beta={n_beta}, gamma={gamma}: give positive numbers, or None.")
    posterior = Posterior(objective, n / math.log(n) if n_beta is None else n_beta, gamma or 0.0, count)
    trials = sweep(posterior, gamma, seed)
    if preconditioned and (pilot := _valid(trials)):
        trials = sweep(posterior, gamma, seed, _rms_scale(pilot[0].samplers))
    runs: list[Run] = []
    for trial in _valid(trials):
        runs.append(_run(trial, posterior.n_beta, draws))
        if runs[-1].outcome is Outcome.VALID:
            mean = runs[-1].mean
            return LearningCoefficient(mean.value, mean.stderr, Outcome.VALID, tuple(trials), runs[-1])
    last = runs[-1] if runs else trials[-1]
    return LearningCoefficient(math.nan, math.nan, last.outcome, tuple(trials), runs[-1] if runs else None)


def _valid(trials: Sequence[Trial]) -> list[Trial]:
    """The weakest localisation first."""
    return [trial for trial in reversed(trials) if trial.outcome is Outcome.VALID]


def _rms_scale(samplers: Sequence[Sampler]) -> Tensor:
    squares = torch.stack([sampler.squares for sampler in samplers]).mean(0)
    return squares.clamp(min=torch.finfo(squares.dtype).tiny) ** -0.25


def _run(trial: Trial, n_beta: float, draws: int) -> Run:
    """The chains of a trial go on from where they are.

    For a number of draws that is fixed before: a run that ends as soon as its error looks small ends where it looks
    too small.
    """
    rises = np.array([sampler.draw(draws) for sampler in trial.samplers])
    mean = mean_of(n_beta * rises)
    return Run(trial, outcome(mean, AGREE), mean, draws, float((rises < 0).mean()))
