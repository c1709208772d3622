"""How far the weights can be moved before the score falls: at random, and in the worst direction found."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from functools import partial
from typing import Literal

import numpy as np
import xarray as xr
from torch import Tensor
from tqdm.auto import tqdm

from lossatlas.errors import InputError
from lossatlas.model.filters import Axes, described
from lossatlas.model.loss.samples import Sample
from lossatlas.objective import Objective
from lossatlas.results.making import result
from lossatlas.results.mistakes import suggestion
from lossatlas.robustness.crossing import FEWEST, LIMIT, Crossing, Evaluate, crossing
from lossatlas.robustness.families import require_choice
from lossatlas.robustness.measurement import Samples, samples_at
from lossatlas.robustness.noise import Relative, WeightNoise, scale_of
from lossatlas.robustness.worst import WorstDirection, fewest

Direction = Literal["random", "worst", "both"]


def basin(
    objective: Objective,
    *,
    fall: float = 0.01,
    metric: str = "accuracy",
    direction: Direction = "both",
    relative: Relative = "none",
    filters: Mapping[str, Axes] | None = None,
    steps: int = 8,
    limit: int = LIMIT,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """The sigma with S(w) - E_u[S(w + sigma s o u)] = fall: the size of noise at which the score S has fallen so far.

    ``"random"``: u ~ N(0, I), the mean over draws. ``"worst"``: one u with |u| = sqrt(n), the length that random noise
    has, so that both sizes compare; it is looked for by ascent on the *loss*, u <- sqrt(n) (s o g) / |s o g| with g the
    gradient of the loss at w + sigma s o u, at a sigma where the score falls by ``fall``. What an ascent finds need not
    be the worst direction there is: its size is an upper bound on that of the worst one on these data. s is 1, the root
    mean square of the weight's filter, or |w|, as in ``robustness``.

    The sizes come from bisection with error control, ``limit`` evaluations of the data at most for each direction
    (gradients, of which the ascent takes ``steps`` + 1, among them).

    Parameters
    ----------
    fall : in the units of the score; of the accuracy .01 is one percentage point.
    metric : the score, best when large; ``"loss"``: its rise by ``fall``.
    direction : ``"random"``, ``"worst"``, or both.
    filters : as in ``robustness``.
    steps : of the ascent.

    Returns
    -------
    Dataset over ``("direction",)``: ``size``, the estimate, with its 95 % interval from ``low`` to ``high``
        (draws and examples; an end is 0 or infinite where no size could be decided on that side), ``outcome``
        ("crossed", "not reached" up to sigma = 100, where ``size`` is NaN, or "below the smallest size", 1e-6),
        ``evaluations`` and ``gradients``. All sizes tried are in ``trial_size``, ``trial_fall``, ``trial_fall_stderr``,
        ``trial_draws`` and ``trial_side`` over ``("direction", "trial")``. ``score`` is that of the clean network. The
        worst direction is fitted to the data that it is measured on; the error over examples is as if it were given.

    Raises
    ------
    InputError : a metric that does not exist, a fall that is not positive, an unknown direction, fewer than 30
        evaluations, fewer than one step.
    NonFiniteLoss : the loss is NaN or infinite at the model's own point.

    Source: Chen et al. 2025, "Unveiling the basin-like loss landscape in large language models", sections 3 and 4
    (arXiv 2505.17646): the most-case and the worst-case basin of a score.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Linear(50, 1, bias=False).double()
    >>> data = torch.eye(50).double(), model(torch.eye(50).double()).detach()
    >>> objective = Objective(model, torch.nn.functional.mse_loss, data)  # L(w) = |w - w*|^2 / 50
    >>> found = basin(objective, metric="loss", fall=0.25, progress=False)  # E L(w* + sigma u) = sigma^2
    >>> bool(found["low"].sel(direction="random") < 0.5 < found["high"].sel(direction="random"))
    True
    """
    require_choice("direction", direction, Direction)
    require_choice("relative", relative, Relative)
    directions = ("random", "worst") if direction == "both" else (direction,)
    _require_numbers(fall, steps, seed, limit, fewest(steps) if "worst" in directions else FEWEST)
    if filters and relative != "filter":
        raise InputError("filters= is for relative='filter': leave it out, or ask for sizes relative to the filters.")
    started = time.perf_counter()
    clean = _clean(objective, metric)
    known = objective.filters(filters) if relative == "filter" else {}
    scale = scale_of(objective, relative, known)
    found: dict[str, Crossing] = {}
    gradients = {"random": 0}
    for each in tqdm(directions, desc="basin", disable=not progress):
        if each == "random":
            found[each] = crossing(_noisy(objective, metric, clean, scale, seed), fall, limit=limit)
        else:
            search = WorstDirection(objective, scale, partial(_falling, metric), fall, _falling(metric, clean))
            found[each], gradients[each] = search.find(steps, limit, seed), search.gradients
    return result(
        "basin",
        _dataset(found, gradients, clean[metric]),
        objective.provenance(),
        described(known),
        metric=metric,
        fall=fall,
        relative=relative,
        limit=limit,
        steps=steps if "worst" in found else None,
        seed=seed,
        stderr_over=clean[metric].over,
        seconds=time.perf_counter() - started,
    )


def _require_numbers(fall: float, steps: int, seed: int, limit: int, least: int) -> None:
    if not (math.isfinite(fall) and fall > 0):
        raise InputError(f"fall={fall}: give a finite fall of the score above 0, like 0.01.")
    if steps < 1 or seed < 0:
        raise InputError(f"steps={steps}, seed={seed}: give at least one step, and a seed that is not negative.")
    if limit < least:
        raise InputError(f"limit={limit}: give at least {least} evaluations, or fewer steps of the ascent.")


def _clean(objective: Objective, metric: str) -> Samples:
    """Losses and metrics of the network as it is."""
    clean = objective.samples()
    if metric not in clean:
        near = suggestion(metric, clean)
        raise InputError(
            f"metric={metric!r}{near}: this objective has {', '.join(map(repr, clean))}; choose one, or give the "
            "Objective metrics={name: metric}."
        )
    if not math.isfinite(clean["loss"].mean):
        objective.require_finite()
    return clean


def _noisy(objective: Objective, metric: str, clean: Samples, scale: Tensor, seed: int) -> Evaluate:
    """What rises where the score falls, under Gaussian noise of a size."""
    noise, entries = WeightNoise(objective.function.point, scale, "gaussian", seed), list(objective.space)

    def evaluate(size: float, draw: int) -> Sample:
        return _falling(metric, samples_at(objective, noise(size, draw, entries)) if size else clean)

    return evaluate


def _falling(metric: str, samples: Samples) -> Sample:
    """The score with its sign turned; the loss as it is."""
    sample = samples[metric]
    return sample if metric == "loss" else Sample(-sample.values, sample.weights, sample.over)


def _dataset(found: Mapping[str, Crossing], gradients: Mapping[str, int], clean: Sample) -> xr.Dataset:
    several = list(found.values())
    over = "direction"
    variables: dict[str, tuple[tuple[str, ...], object]] = {
        "size": ((over,), [each.value for each in several]),
        "low": ((over,), [each.low for each in several]),
        "high": ((over,), [each.high for each in several]),
        "outcome": ((over,), [str(each.outcome) for each in several]),
        "evaluations": ((over,), [each.evaluations for each in several]),
        "gradients": ((over,), [gradients[name] for name in found]),
        "score": ((), clean.mean),
        "score_stderr": ((), clean.stderr),
    }
    most = max(len(each.trials) for each in several)
    names = {"size": "size", "fall": "rise", "fall_stderr": "stderr", "draws": "draws", "side": "side"}
    for name, own in names.items():
        rows = np.full((len(several), most), np.nan)
        for row, each in zip(rows, several, strict=True):
            row[: len(each.trials)] = [getattr(trial, own) for trial in sorted(each.trials, key=lambda t: t.size)]
        variables[f"trial_{name}"] = ((over, "trial"), rows)
    return xr.Dataset(variables, coords={over: list(found)})
