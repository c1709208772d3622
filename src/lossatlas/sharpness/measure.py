"""What a measure of sharpness is: its definition, what leaves it unchanged, and the estimate that it returns."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from scipy.stats import norm

LAYER, NEURON, PERMUTATION, LOGITS = "layer rescaling", "neuron rescaling", "permutation", "logit scale"
BATCH_NORM, BASIS = "BatchNorm scale", "change of basis"
REPARAMETRISATIONS = (LAYER, NEURON, BATCH_NORM, PERMUTATION, BASIS, LOGITS)
CHEAP = 100  # gradient passes over the data: what a measure of the default set costs at most
Z = float(norm.ppf(0.975))


@dataclass(frozen=True)
class Estimate:
    """``value`` with its standard error and its 95 % interval, ``low`` to ``high``.

    ``errors`` names what the interval is made of: ``"solver"``, ``"draws"``, ``"data"``; empty where there are none.
    ``bound`` is ``"lower"`` where the value is a lower bound of what is defined, which the interval does not undo.
    ``note`` tells what a reader must know besides. ``drawn`` is half of the interval that the draws alone
    give, where data and draws are both in it.
    """

    value: float
    stderr: float = 0.0
    low: float = math.nan
    high: float = math.nan
    errors: tuple[str, ...] = ()
    bound: Literal["", "lower"] = ""
    note: str = ""
    drawn: float = math.nan

    @staticmethod
    def normal(
        value: float,
        stderr: float,
        *,
        off: float = 0.0,
        errors: tuple[str, ...] = ("data",),
        bound: Literal["", "lower"] = "",
        note: str = "",
    ) -> Estimate:
        """value +- (1.96 stderr + off), where the solver leaves the value ``off`` by so much at most.

        A standard error that is not known (NaN) leaves the interval to what is.
        """
        half = off + (0.0 if math.isnan(stderr) else Z * stderr)
        return Estimate(value, stderr, value - half, value + half, errors, bound, note)

    @staticmethod
    def missing(reason: str) -> Estimate:
        """NaN, and why."""
        return Estimate(math.nan, math.nan, note=reason)


@dataclass(frozen=True)
class Measure:
    """A measure of sharpness.

    Parameters
    ----------
    name : by which it is asked for.
    title : what figures and tables call it.
    formula : its definition in TeX.
    source : the work that defines it.
    of : ``of(problem)``, or ``of(problem, rho)`` where there is a size ``rho`` -> ``Estimate``.
    invariant : the reparametrisations that leave it as it is, by theory.
    passes : about how many gradient passes over the data it takes alone; the default set is what takes fewer than 100.
    rho : the default of its size, in the units that ``formula`` gives it; None where it has none.
    sharper : whether a larger or a smaller value is the sharper one.
    needs : what not every problem has, so that it is by name only: the last ``"update"``, or attention ``"heads"``.
    """

    name: str
    title: str
    formula: str
    source: str
    of: Callable[..., Estimate]
    invariant: frozenset[str]
    passes: float
    rho: float | None = None
    sharper: Literal["larger", "smaller"] = "larger"
    needs: Literal["", "update", "heads"] = ""

    @property
    def cheap(self) -> bool:
        """Whether it is part of the default set."""
        return self.passes < CHEAP
