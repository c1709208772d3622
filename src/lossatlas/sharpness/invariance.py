"""Which measures of sharpness are properties of the function, and which of the way its weights are written down."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from lossatlas.connectivity.alignment import Given, symmetries_of
from lossatlas.errors import ConvergenceWarning, InputError
from lossatlas.objective import Objective
from lossatlas.results.making import result
from lossatlas.results.mistakes import suggestion
from lossatlas.sharpness.measure import LOGITS, REPARAMETRISATIONS, Estimate, Measure
from lossatlas.sharpness.problem import Problem
from lossatlas.sharpness.ratios import Ratio, ratio
from lossatlas.sharpness.reparametrisations import Reparametrisations, Reparametrised, Unavailable
from lossatlas.sharpness.sharpness import Sizes, check, measured, selected, sizes_of, tell_missing


def invariance(
    objective: Objective,
    measures: str | Sequence[str] | None = None,
    *,
    reparametrisations: str | Sequence[str] | None = None,
    draws: int = 1,
    rho: Sizes = None,
    tol: float = 0.01,
    batch_size: int = 64,
    symmetries: Given | None = None,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """S(L', w') / S(L, w) for random other weights w' of the same function: how far each measure of sharpness moves.

    The reparametrisations: ``layer rescaling``, hidden units by 10 or 1/10, one factor a layer, and what takes them in
    by the inverse; ``neuron rescaling``, each unit by exp N(0, 1); ``BatchNorm scale``, the weights in front of a
    BatchNorm by exp N(0, 1) a unit, and its running statistics with them; ``permutation`` of hidden units; ``change of
    basis``, W_Q A and W_K A^-T for each attention head, W_V and W_O, or two linear layers with nothing between;
    ``logit scale``, the outputs times 2, which keeps the predictions and not the function. Units are found as by
    ``symmetries``; what scales with them by the derivatives of the outputs; and all of it is verified on the data.

    Parameters
    ----------
    measures, rho, tol, batch_size : as for ``sharpness``.
    reparametrisations : names; all by default.
    draws : of each reparametrisation; the one that moves a measure furthest is kept.
    symmetries : as ``Symmetries.parse`` takes it, for a model that cannot be traced.

    Returns
    -------
    Dataset over ``("measure", "reparametrisation")``: ``before`` (over measures), ``after``, ``ratio`` = after /
    before with ``ratio_low`` to ``ratio_high``, which holds the errors of solvers and draws, as if those of the two
    values were independent, and not the data's, since both are on the same data: it is no narrower than 95 %.
    ``expected``: 1 where theory says that the measure stays, NaN where it says nothing. ``moved``: the ratio is further
    than 1e-3 from 1, and 1 is not in its interval. ``note``: why a value is NaN. Over ``("reparametrisation",)``:
    ``keeps``, the function or the predictions; ``available``; ``deviation``, max |f' - f| / max(1, max |f|) over the
    data (of the logit scale from 2 f); ``groups``, whose units were changed; ``left_out``, of which none could be, or
    why there is no such reparametrisation here.

    Both are measured with the same random numbers, carried along by a permutation; those of eigenvalue solvers and of
    traces are not, which the interval holds.

    Raises
    ------
    InputError : a measure or a reparametrisation that does not exist, a model that cannot be traced, or one that none
        of the reparametrisations changes, with the reasons; what ``sharpness`` refuses.

    Source: Dinh et al. 2017, "Sharp Minima Can Generalize For Deep Nets", sections 4 and 5; Andriushchenko et al. 2023,
    "A Modern Look at the Relationship between Sharpness and Generalization", section 3.

    Examples
    --------
    >>> import torch
    >>> from lossatlas import zoo
    >>> data = zoo.subset(zoo.load("digits").test, 50, seed=0)
    >>> objective = Objective(zoo.mlp(widths=(4,), seed=0), torch.nn.functional.cross_entropy, data)
    >>> found = invariance(objective, ["sam", "asam"], reparametrisations="neuron rescaling", progress=False)
    >>> found["moved"].values.ravel().tolist()
    [True, False]
    """
    chosen, names = selected(measures), _named(reparametrisations)
    sizes = sizes_of(chosen, rho)
    check(tol, batch_size)
    if draws < 1:
        raise InputError(f"draws={draws}: give at least 1 of each reparametrisation.")
    objective.require_finite()
    started = time.perf_counter()
    made = Reparametrisations(objective, symmetries_of(objective, symmetries), seed)
    several = {name: [made.made(name, draw) for draw in range(draws)] for name in names}
    _tell_unavailable(several, named=reparametrisations is not None)
    options = {"tol": tol, "batch_size": batch_size, "seed": seed}
    table = _Table(chosen, sizes, options, progress)
    table.measure(objective, several, named=measures is not None)
    return result(
        "invariance",
        _dataset(table, several),
        objective.provenance(),
        options,
        draws=draws,
        passes=round(table.passes, 3),
        seconds=time.perf_counter() - started,
    )


Several = Mapping[str, Sequence[Reparametrised | Unavailable]]


@dataclass
class _Table:
    """Every measure before and after every reparametrisation."""

    measures: list[Measure]
    sizes: Mapping[str, float]
    options: Mapping[str, float]
    progress: bool
    before: list[Estimate] = field(default_factory=list)
    ratios: dict[str, list[Ratio]] = field(default_factory=dict)
    passes: float = 0.0

    def measure(self, objective: Objective, several: Several, named: bool) -> None:
        there = [(name, one) for name, all_of in several.items() for one in all_of if isinstance(one, Reparametrised)]
        total = (1 + len(there)) * len(self.measures)
        with tqdm(total=total, desc="invariance", disable=not self.progress, leave=False) as bar:
            problem = Problem(objective, **self.options)  # type: ignore[arg-type]
            found = [measured(problem, each, self.sizes.get(each.name)) for each in self._each(bar)]
            tell_missing(found, named)
            self.before, self.passes = [each.estimate for each in found], problem.total.passes
            for name, one in there:
                self._add(name, self._ratios(one, bar))

    def _ratios(self, one: Reparametrised, bar: Any) -> list[Ratio]:
        problem = Problem(one.objective, carry=one.carry, **self.options)  # type: ignore[arg-type]
        found = []
        for measure, before in zip(self._each(bar), self.before, strict=True):
            missing = math.isnan(before.value)
            after = before if missing else measured(problem, measure, self.sizes.get(measure.name)).estimate
            found.append(ratio(before, after))
        self.passes += problem.total.passes
        return found

    def _each(self, bar: Any) -> Iterator[Measure]:
        for measure in self.measures:
            yield measure
            bar.update()

    def _add(self, name: str, found: list[Ratio]) -> None:
        """Of several draws the one that moves a measure furthest."""
        before = self.ratios.get(name, found)
        pairs = zip(before, found, strict=True)
        self.ratios[name] = [max(pair, key=lambda each: each.distance) for pair in pairs]


def _dataset(table: _Table, several: Several) -> xr.Dataset:
    names, count = list(several), len(table.measures)
    reasons = {name: [one.reason for one in several[name] if isinstance(one, Unavailable)] for name in names}
    none = {name: [Ratio(math.nan, math.nan, math.nan, math.nan, "; ".join(reasons[name]))] * count for name in names}
    rows = list(zip(*(table.ratios.get(name, none[name]) for name in names), strict=True))
    both = ("measure", "reparametrisation")
    columns: dict[str, tuple[Any, Any]] = {
        "before": ("measure", [each.value for each in table.before]),
        "title": ("measure", [measure.title for measure in table.measures]),
        "rho": ("measure", [table.sizes.get(measure.name, math.nan) for measure in table.measures]),
        "expected": (both, [[1.0 if n in m.invariant else math.nan for n in names] for m in table.measures]),
        "after": (both, [[each.after for each in row] for row in rows]),
        "ratio": (both, [[each.value for each in row] for row in rows]),
        "ratio_low": (both, [[each.low for each in row] for row in rows]),
        "ratio_high": (both, [[each.high for each in row] for row in rows]),
        "moved": (both, [[each.moved for each in row] for row in rows]),
        "note": (both, [[each.note for each in row] for row in rows]),
    }
    columns |= {key: ("reparametrisation", values) for key, values in _told(several).items()}
    coords = {"measure": [measure.name for measure in table.measures], "reparametrisation": names}
    return xr.Dataset({name: (dims, np.array(value)) for name, (dims, value) in columns.items()}, coords=coords)


def _told(several: Several) -> dict[str, list[object]]:
    """What is said of each reparametrisation."""
    told: dict[str, list[object]] = {"keeps": ["predictions" if name == LOGITS else "function" for name in several]}
    told |= {"available": [], "deviation": [], "groups": [], "left_out": []}
    for all_of in several.values():
        there = [one for one in all_of if isinstance(one, Reparametrised)]
        without = [one.reason for one in all_of if isinstance(one, Unavailable)]
        told["available"].append(bool(there))
        told["deviation"].append(max((one.deviation for one in there), default=math.nan))
        told["groups"].append(", ".join(there[0].groups) if there else "")
        told["left_out"].append("; ".join(dict.fromkeys([one.left_out for one in there if one.left_out] + without)))
    return told


def _named(given: str | Sequence[str] | None) -> list[str]:
    """Reparametrisations by name, whatever joins the words of it; all for None."""
    if given is None:
        return list(REPARAMETRISATIONS)
    known = {_bare(name): name for name in REPARAMETRISATIONS}
    names = [given] if isinstance(given, str) else list(given)
    for name in names:
        if _bare(name) not in known:
            close = known.get(_bare(name), suggestion(name, REPARAMETRISATIONS))
            raise InputError(f"There is no reparametrisation {name!r}{close}: choose from {', '.join(known.values())}.")
    if not names:
        raise InputError(f"No reparametrisations: choose from {', '.join(known.values())}.")
    return list(dict.fromkeys(known[_bare(name)] for name in names))


def _bare(name: str) -> str:
    return name.replace("_", " ").replace("-", " ").lower()


def _tell_unavailable(several: Several, named: bool) -> None:
    """Raises where there is none at all, and warns of those that were asked for by name."""
    missing = {n: one.reason for n, all_of in several.items() for one in all_of if isinstance(one, Unavailable)}
    told = "; ".join(f"{name}: {reason}" for name, reason in missing.items())
    if len(missing) == len(several):
        raise InputError(f"This model has none of the reparametrisations that were asked for. {told}.")
    if missing and named:
        warnings.warn(f"Not available here: {told}.", ConvergenceWarning, stacklevel=3)
