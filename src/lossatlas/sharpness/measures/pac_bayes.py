"""PAC-Bayes sharpness: the noise that costs a tenth of the accuracy."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lossatlas.errors import InputError
from lossatlas.model.loss.samples import Sample
from lossatlas.robustness.crossing import Outcome, crossing
from lossatlas.sharpness.measure import BATCH_NORM, LAYER, LOGITS, NEURON, PERMUTATION, Estimate, Measure, Z
from lossatlas.sharpness.problem import Problem


def pac_bayes(problem: Problem, rho: float) -> Estimate:
    """The largest sigma with E_u error(w + sigma u) - error(w) <= rho, u ~ N(0, I); its bound grows with 1 / sigma^2.

    Jiang et al. 2020, "Fantastic Generalization Measures and Where to Find Them", section 7 and appendix C.3.
    """
    return _sigma(problem, rho, torch.ones_like(problem.point))


def pac_bayes_adaptive(problem: Problem, rho: float) -> Estimate:
    """The same with u_i ~ N(0, w_i^2): the magnitude-aware form, without the variance of 1e-6 that is added there.

    Jiang et al. 2020, appendix C.3 (equation 55).
    """
    return _sigma(problem, rho, problem.point.abs())


def _sigma(problem: Problem, fall: float, scale: Tensor) -> Estimate:
    if "accuracy" not in problem.clean:
        raise InputError("There is no accuracy: the measure is of the error of a classifier, by metrics= of the data.")

    def errors(sigma: float, draw: int) -> Sample:
        if sigma == 0:
            found = problem.clean["accuracy"]
        else:
            found = problem.samples(problem.point + sigma * scale * problem.normal(draw))["accuracy"]
        return Sample(1 - found.values, found.weights, found.over)

    found = crossing(errors, fall)
    if found.outcome is not Outcome.CROSSED:
        return Estimate.missing(f"The noise at which the error rises by {fall:g}: {found.outcome.value}.")
    width = math.nan if math.isinf(found.high) else (found.high - found.low) / (2 * Z)
    note = f"{found.evaluations} passes over the data."
    return Estimate(found.value, width, found.low, found.high, ("draws", "data"), note=note)


MEASURES = (
    Measure(
        "pac_bayes",
        "PAC-Bayes sigma",
        r"\max \{\sigma: \mathbb{E}_u\, \mathrm{err}(w + \sigma u) - \mathrm{err}(w) \le \rho\}",
        "jiang2020",
        pac_bayes,
        frozenset({PERMUTATION}),
        20,
        rho=0.1,
        sharper="smaller",
    ),
    Measure(
        "pac_bayes_adaptive",
        "PAC-Bayes sigma, relative to the weights",
        r"\max \{\sigma: \mathbb{E}_u\, \mathrm{err}(w + \sigma |w| \circ u) - \mathrm{err}(w) \le \rho\}",
        "jiang2020",
        pac_bayes_adaptive,
        frozenset({LAYER, NEURON, BATCH_NORM, PERMUTATION, LOGITS}),
        20,
        rho=0.1,
        sharper="smaller",
    ),
)
