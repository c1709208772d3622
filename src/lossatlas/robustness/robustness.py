"""Loss and accuracy under Gaussian noise on the weights."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from tqdm.auto import tqdm

from lossatlas.errors import InputError
from lossatlas.geometry.blocks import cuts
from lossatlas.model.filters import Axes, Filters, described
from lossatlas.model.loss.samples import Sample
from lossatlas.objective import Objective
from lossatlas.results.making import result

Relative = Literal["none", "filter"]


def robustness(
    objective: Objective,
    sigmas: Sequence[float] = (0.0, 0.01, 0.02, 0.05, 0.1),
    *,
    relative: Relative = "none",
    filters: Mapping[str, Axes] | None = None,
    draws: int = 10,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """E_u[L(w + sigma s o u)], u ~ N(0, I): the mean loss, and each metric, under Gaussian weight noise.

    ``relative="none"`` adds noise of standard deviation sigma to every weight (s = 1). ``"filter"`` gives each filter
    noise whose root-mean-square norm is sigma times the filter's own (s = |w_f| / sqrt(n_f); a 1-D tensor is one
    filter). Scaling a layer by c and undoing it by 1 / c in the next one leaves the result as it is; other rescalings
    do not. The same draws u serve every sigma (common random numbers), so the curve over sigma is smoother than its
    errors suggest.

    Parameters
    ----------
    sigmas : standard deviations of the noise, in the units of the weights or of the filters' norms.
    filters : the axes of the filters, as in ``random_directions``, whose filters these are; ``attrs`` lists them.
    draws : how many u, at least 2. ``seed`` is theirs.

    Returns
    -------
    Dataset over ``("sigma",)``: ``loss``, ``loss_stderr`` and each metric likewise; the draws are in ``loss_draws``
    over ``("sigma", "draw")``. The standard error joins two sources, sqrt(a^2 + b^2): a, over the draws; b, over
    the examples, of each example's mean over the draws. It is slightly cautious, since both hold their interaction.

    Raises
    ------
    InputError : a negative or non-finite sigma, a negative seed, fewer than two draws, ``filters`` of no tensor.
    NonFiniteLoss : the loss is NaN or infinite at the model's own point.

    Source: the expectation is the average-case sharpness of Andriushchenko et al. 2023, section 2, plus L(w), with
    c = 1 or with a c that is constant in each filter.

    Examples
    --------
    >>> model, data = torch.nn.Linear(1, 1, bias=False), (torch.ones(4, 1), torch.zeros(4, 1))
    >>> objective = Objective(model, torch.nn.functional.mse_loss, data)  # L(w) = w^2
    >>> noisy = robustness(objective, [0.0, 1.0], draws=400, progress=False)
    >>> bool(abs(noisy["loss"][1] - noisy["loss"][0] - 1) < 4 * noisy["loss_stderr"][1])  # E (w + u)^2 = w^2 + 1
    True
    """
    values = np.asarray(sigmas, dtype=float)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all() or (values < 0).any():
        raise InputError(f"sigmas={sigmas}: give a list of standard deviations that are finite and not negative.")
    if draws < 2:
        raise InputError(f"draws={draws}: give at least 2, or the noise's own error is unknown.")
    if seed < 0:
        raise InputError(f"seed={seed}: give a whole number that is not negative.")
    if relative not in ("none", "filter"):
        raise InputError(f"relative={relative!r}: choose 'none' or 'filter'.")
    if filters and relative != "filter":
        raise InputError("filters= is for relative='filter': leave it out, or ask for noise relative to the filters.")
    objective.require_finite()
    started = time.perf_counter()
    known = objective.filters(filters) if relative == "filter" else {}
    scale = _scale(objective, known)
    per_sigma: list[list[dict[str, Sample]]] = [[] for _ in values]
    for draw in tqdm(range(draws), desc="robustness", disable=not progress, leave=False):
        noise = scale * _normal(objective, seed, draw)
        for row, sigma in zip(per_sigma, values, strict=True):
            row.append(objective.samples(objective.point + float(sigma) * noise))
    return result(
        "robustness",
        _dataset(per_sigma, values),
        objective.provenance(),
        described(known),
        relative=relative,
        draws=draws,
        seed=seed,
        stderr_over=per_sigma[0][0]["loss"].over,
        seconds=time.perf_counter() - started,
    )


def _scale(objective: Objective, filters: Mapping[str, Filters]) -> Tensor:
    """s ``(n,)``: the root mean square of each entry's filter; 1 without filters."""
    point = objective.function.point
    scale = torch.ones_like(point)
    for cut in cuts(objective.space, "filter", filters) if filters else ():
        cut.of(scale).copy_(cut.norms(point) / math.sqrt(cut.size))
    return scale


def _normal(objective: Objective, seed: int, draw: int) -> Tensor:
    # One generator a draw, so that draw 7 is the same whether 10 or 100 are asked for.
    entropy = int(np.random.SeedSequence([seed, draw]).generate_state(1, np.uint64)[0])
    generator = torch.Generator().manual_seed(entropy)
    return torch.randn(objective.n_parameters, generator=generator).to(objective.point)


def _dataset(per_sigma: list[list[dict[str, Sample]]], sigmas: np.ndarray) -> xr.Dataset:
    variables: dict[str, tuple[tuple[str, ...], object]] = {}
    for name in per_sigma[0][0]:
        means = np.array([[sample[name].mean for sample in row] for row in per_sigma])
        errors = [_stderr([sample[name] for sample in row]) for row in per_sigma]
        variables |= {name: (("sigma",), means.mean(1)), f"{name}_stderr": (("sigma",), errors)}
        variables[f"{name}_draws"] = (("sigma", "draw"), means)
    return xr.Dataset(variables, coords={"sigma": sigmas, "draw": np.arange(len(per_sigma[0]))})


def _stderr(draws: list[Sample]) -> float:
    with np.errstate(invalid="ignore"):  # of an infinite loss the error is unknown: NaN
        over_draws = float(np.std([sample.mean for sample in draws], ddof=1)) / math.sqrt(len(draws))
    averaged = Sample(torch.stack([s.values for s in draws]).mean(0), draws[0].weights, draws[0].over)
    return math.hypot(over_draws, averaged.stderr)
