"""Loss and metrics under perturbations of the weights or the inputs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from lossatlas.errors import InputError
from lossatlas.model.filters import Axes, Filters, described
from lossatlas.model.parameters import Entry
from lossatlas.objective import Objective
from lossatlas.results.making import result
from lossatlas.robustness.families import (
    BITS,
    RATES,
    SHARES,
    SIGMAS,
    Choices,
    Noise,
    Per,
    Perturb,
    Representation,
    perturbation,
)
from lossatlas.robustness.inputs import InputNoise
from lossatlas.robustness.measurement import Columns, Measure, Samples, measured, modules_of, samples_at
from lossatlas.robustness.noise import Relative
from lossatlas.robustness.quantisation import matrices


def robustness(
    objective: Objective,
    sigmas: Sequence[float] = SIGMAS,
    *,
    noise: Noise = "gaussian",
    relative: Relative = "none",
    layers: bool = False,
    bits: Sequence[int] = BITS,
    shares: Sequence[float] = SHARES,
    rates: Sequence[float] = RATES,
    per: Per = "tensor",
    representation: Representation = "float32",
    filters: Mapping[str, Axes] | None = None,
    draws: int = 10,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """E_u[L(w + sigma s o u)]: the mean loss, and each metric, under perturbations, with paired changes.

    ===================  ===================================================================  ==================
    noise                what becomes of the weights                                          sizes
    ===================  ===================================================================  ==================
    ``gaussian``         w + sigma s o u, u ~ N(0, I)                                         ``sigmas``
    ``uniform``          the same, u ~ U(-sqrt 3, sqrt 3), of the same variance               ``sigmas``
    ``multiplicative``   w o (1 + sigma u), u ~ N(0, I)                                       ``sigmas``
    ``quantise``         step round(w / step), step = max |w| / (2^(b - 1) - 1), b ``bits``   ``bits``
    ``prune``            the smallest |w| of all weights are set to 0                         ``shares``
    ``flip``             each bit of their representation is flipped with this probability    ``rates``
    ``input``            nothing: x + sigma u, u ~ N(0, I), on the inputs                     ``sigmas``
    ===================  ===================================================================  ==================

    ``relative="none"`` adds noise of standard deviation sigma to every weight (s = 1). ``"filter"`` gives each filter
    noise whose root-mean-square norm is sigma times the filter's own (s = |w_f| / sqrt(n_f); a 1-D tensor is one
    filter). ``"weight"`` is relative to each weight (s = |w|), which with Gaussian noise is the multiplicative one.
    Scaling a layer by c and undoing it by 1 / c in the next one leaves the result of ``"filter"`` as it is, and any
    rescaling of single units that of ``"weight"``. The same draws u serve every size (common random numbers), so the
    curve is smoother than its errors suggest. Quantisation and pruning are exact: one evaluation a size, no draws. They
    and flips of int8 are of tensors with two or more dimensions; biases and norms keep their values.

    Parameters
    ----------
    sigmas : standard deviations of the noise, in the units of the weights, of the filters' norms, of each weight, or
        of the inputs.
    layers : also each module alone perturbed, the others as trained, with the same draws.
    bits, shares, rates : the sizes of the perturbations that are not noise.
    per : whether quantisation has a step for each tensor or for each filter of it ("channel").
    representation : whose bits are flipped: ``"float32"``, or ``"int8"`` after quantisation to 8 bits.
    filters : the axes of the filters, as in ``random_directions``, whose filters these are; ``attrs`` lists them.
    draws : how many u, at least 2. ``seed`` is theirs.

    Returns
    -------
    Dataset over the sizes, ``("sigma",)``, ``("bits",)``, ``("share",)`` or ``("rate",)``: ``loss``, ``loss_stderr``
        and each metric likewise; ``loss_draws`` over the sizes and ``"draw"``. The standard error joins two sources,
        sqrt(a^2 + b^2): a, over the draws; b, over the examples, of each example's mean over the draws. It is slightly
        cautious, since both hold their interaction. ``loss_change`` and ``loss_change_stderr`` are of the difference
        to the unperturbed network (``loss_clean``), paired over the examples: what both have in common cancels, and
        the interaction is counted once. ``loss_change_degrees`` are the error's degrees of freedom, few with few draws.
        ``finite`` is the share of draws with a finite loss: a mean over others is infinite or NaN, and says so. With
        ``layers`` all of these are there as ``layer_loss``, ``layer_loss_change``, .. over ``("layer", size)``.

    Raises
    ------
    InputError : an unknown noise, a size that is none (a negative sigma, one bit, a rate above 1), sizes of another
        noise, a negative seed, fewer than two draws, ``filters`` of no tensor, no weights to quantise or prune, inputs
        that are no numbers of floating point under ``noise="input"``.
    NonFiniteLoss : the loss is NaN or infinite at the model's own point.

    Source: the expectation under Gaussian noise is the average-case sharpness of Andriushchenko et al. 2023, section 2,
    plus L(w), with c = 1, with a c that is constant in each filter, or with c = |w|.

    Examples
    --------
    >>> import torch
    >>> model, data = torch.nn.Linear(1, 1, bias=False), (torch.ones(4, 1), torch.zeros(4, 1))
    >>> objective = Objective(model, torch.nn.functional.mse_loss, data)  # L(w) = w^2
    >>> noisy = robustness(objective, [0.0, 1.0], draws=400, progress=False)
    >>> bool(abs(noisy["loss_change"][1] - 1) < 4 * noisy["loss_change_stderr"][1])  # E (w + u)^2 = w^2 + 1
    True
    >>> pruned = robustness(objective, noise="prune", shares=[0.0, 1.0], progress=False)
    >>> pruned["loss"].dims, float(pruned["loss"][1])
    (('share',), 0.0)
    """
    choices = Choices(noise, relative, per, representation, bool(filters), layers)
    choices.check()
    sizes = choices.sizes(sigmas=sigmas, bits=bits, shares=shares, rates=rates)
    if draws < 2:
        raise InputError(f"draws={draws}: give at least 2, or the noise's own error is unknown.")
    if seed < 0:
        raise InputError(f"seed={seed}: give a whole number that is not negative.")
    objective.require_finite()
    started = time.perf_counter()
    known = objective.filters(filters) if choices.by_filters else {}
    family, clean = choices.family, objective.samples()
    draws = draws if family.drawn else 1
    measures = _measures(objective, choices, known, seed)
    found = {}
    for name, measure in tqdm(measures.items(), desc="robustness", disable=not progress or len(measures) < 2):
        found[name] = measured(_kept(measure, clean, choices), clean, sizes.tolist(), draws, exact=not family.drawn)
    return result(
        family.kind,
        _dataset(found, clean, family.dimension, sizes),
        objective.provenance(),
        described(known),
        choices.provenance(),
        draws=draws,
        seed=seed if family.drawn else None,
        stderr_over=clean["loss"].over,
        seconds=time.perf_counter() - started,
    )


def _measures(objective: Objective, choices: Choices, filters: Mapping[str, Filters], seed: int) -> dict[str, Measure]:
    """Of all tensors together, by the empty name, and of each module alone."""
    if choices.noise == "input":
        return {"": InputNoise(objective, seed)}
    perturb = perturbation(objective, choices, filters, seed)
    entries = list(objective.space)
    if choices.of_matrices:
        entries = matrices(entries)
        if not entries:
            raise InputError(
                f"noise={choices.noise!r} is of tensors with two or more dimensions, and no parameter that varies has "
                "them: select weights of layers, or take noise='gaussian'."
            )
    parts = {"": entries} | (modules_of(entries) if choices.layers else {})
    return {name: partial(_perturbed, objective, perturb, part) for name, part in parts.items()}


def _perturbed(objective: Objective, perturb: Perturb, entries: Sequence[Entry], size: float, draw: int) -> Samples:
    return samples_at(objective, perturb(size, draw, entries))


def _kept(measure: Measure, clean: Samples, choices: Choices) -> Measure:
    """Without a pass over the data where nothing is perturbed."""
    return lambda size, draw: clean if size == 0 and choices.zero_is_clean else measure(size, draw)


def _dataset(found: Mapping[str, Columns], clean: Samples, dimension: str, sizes: np.ndarray) -> xr.Dataset:
    whole = found[""]
    variables: dict[str, tuple[tuple[str, ...], object]] = {
        name: ((dimension, "draw")[: column.ndim], column) for name, column in whole.items()
    }
    for name, sample in clean.items():
        variables |= {f"{name}_clean": ((), sample.mean), f"{name}_clean_stderr": ((), sample.stderr)}
    layers = [name for name in found if name]
    for name in [each for each in whole if not each.endswith("_draws")] if layers else ():
        variables[f"layer_{name}"] = (("layer", dimension), np.stack([found[layer][name] for layer in layers]))
    places = {dimension: sizes, "draw": np.arange(whole["loss_draws"].shape[1])}
    return xr.Dataset(variables, coords=places | ({"layer": layers} if layers else {}))
