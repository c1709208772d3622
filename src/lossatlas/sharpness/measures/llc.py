"""The local learning coefficient, by Langevin steps and by preconditioned ones."""

from __future__ import annotations

from functools import partial

from lossatlas.sharpness.learning_coefficient import learning_coefficient
from lossatlas.sharpness.measure import PERMUTATION, Estimate, Measure
from lossatlas.sharpness.problem import Problem
from lossatlas.sharpness.trials import Outcome

PASSES = 15000  # a sweep, and four chains of 200 draws at about ten gradients each
FORMULA = r"\frac{n}{\log n} \left( \mathbb{E}_{w'} L(w') - L(w) \right)"


def llc(problem: Problem, preconditioned: bool = False) -> Estimate:
    """n beta (E L(w') - L(w)), w' ~ exp(-n beta L(w') - gamma |w' - w|^2 / 2), beta = 1 / log n.

    Lau et al. 2023, "The Local Learning Coefficient", section 4; see ``learning_coefficient``.
    """
    found = learning_coefficient(
        problem.objective, preconditioned=preconditioned, seed=problem.seed, count=problem.count
    )
    if found.outcome is not Outcome.VALID:
        return Estimate.missing(found.note)
    return Estimate.normal(found.value, found.stderr, errors=("draws",), note=found.note)


MEASURES = (
    Measure("llc", "local learning coefficient", FORMULA, "lau2023", llc, frozenset({PERMUTATION}), PASSES),
    Measure(
        "llc_rmsprop",
        "local learning coefficient, preconditioned",
        FORMULA,
        "lau2023",
        partial(llc, preconditioned=True),
        frozenset({PERMUTATION}),
        PASSES,
    ),
)
