"""Sentences about geometry, computed: a hypothesis, a statistic, its 95 % interval, and the verdict they give.

A verdict compares the interval with the hypothesis' threshold and with nothing else. The intervals are normal ones
(estimate ± 1.96 standard errors) unless a claim says otherwise; their standard errors treat the examples of the
data as independent draws.
"""

from lossatlas.connectivity.show.claims import barrier_height, curve_connectivity, linear_connectivity, lower_path
from lossatlas.results.claim import Claim, Verdict, verdict
from lossatlas.curvature.show.claims import (
    few_negative_eigenvalues,
    gauss_newton_dominates,
    no_negative_curvature,
    sharpness_difference,
)
from lossatlas.claims.derivation import derive
from lossatlas.connectivity.show.instability_claims import stability
from lossatlas.claims.noise import noise_costs_accuracy, sharper_less_robust
from lossatlas.trajectory.show.ranks import sharper_generalises_worse
from lossatlas.trajectory.show.claims import beyond_random_walk
from lossatlas.surfaces.show.claims import slice_minimum

__all__ = [
    "Claim",
    "Verdict",
    "barrier_height",
    "beyond_random_walk",
    "curve_connectivity",
    "derive",
    "few_negative_eigenvalues",
    "gauss_newton_dominates",
    "linear_connectivity",
    "lower_path",
    "no_negative_curvature",
    "noise_costs_accuracy",
    "sharper_generalises_worse",
    "sharper_less_robust",
    "sharpness_difference",
    "slice_minimum",
    "stability",
    "verdict",
]
