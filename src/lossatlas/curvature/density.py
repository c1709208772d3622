"""The spectral density of a symmetric operator by stochastic Lanczos quadrature, to a tolerance."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from lossatlas.curvature.histogram import histogram, smoothed, smoothing
from lossatlas.curvature.krylov import Floats, KrylovSpace
from lossatlas.curvature.lanczos import Eigenpairs, Found
from lossatlas.curvature.operators import Operator, require_operator
from lossatlas.curvature.progress import Budget, product_bar
from lossatlas.curvature.quadrature import Rule, mean_and_stderr, sampling_distance, share_interval
from lossatlas.errors import InputError
from lossatlas.evaluation.products.differences import NONE as NO_ERRORS
from lossatlas.evaluation.products.differences import Errors
from lossatlas.results.making import result

STEPS = 10  # at least of a probe, and between two looks at its error
LONGEST = 400  # steps of a probe
WHOLE = 4096  # up to this size all eigenvalues may be computed, where that takes fewer products than a density


@dataclass(frozen=True)
class Beyond:
    """What a density is made from: the ``atoms``, eigenvalues that are known one by one, and rules for the others.

    ``n`` is the size of the matrix. Without rules the atoms are all that there are. No eigenvalue is off by more than
    ``off.norm`` by the errors of the products.
    """

    n: int
    atoms: Floats
    rules: Sequence[Rule]
    off: Errors = NO_ERRORS

    @property
    def rest(self) -> int:
        """How many eigenvalues the rules stand for."""
        return self.n - len(self.atoms)

    @property
    def extent(self) -> float:
        """The width of the spectrum."""
        every = np.concatenate([self.atoms, *(rule.nodes for rule in self.rules)])
        return float(np.ptp(every)) or float(np.abs(every).max())

    @property
    def error(self) -> float:
        """Of int |F - F_n| dx, for the cumulative spectrum F, as a share of the width: quadrature, probes, products."""
        if not self.extent:
            return 0.0
        return (self.off.norm + (self.quadrature + self.sampling if self.rules else 0.0)) / self.extent

    @property
    def quadrature(self) -> float:
        return self.rest / self.n * float(np.mean([rule.distance for rule in self.rules]))

    @property
    def sampling(self) -> float:
        return self.rest / self.n * sampling_distance(self.rules, self.rest)

    def probes_for(self, tol: float) -> float:
        """How many probes, as long as these, make their error a half of ``tol``."""
        return len(self.rules) * (self.sampling / max(tol / 2 * self.extent, 1e-300)) ** 2


def spectral_density(
    operator: Operator,
    *,
    steps: int = 80,
    probes: int = 4,
    deflate: Eigenpairs | None = None,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """phi(lambda) = (1/n) sum_i delta(lambda - lambda_i), by ``steps`` Lanczos steps from each of ``probes`` vectors.

    Each random direction z gives, by full reorthogonalisation, nodes theta_j and weights w_j = (first component of the
    j-th eigenvector of T)^2 that sum to 1. Pairs to ``deflate`` are atoms of mass 1/n, and the probes are drawn
    orthogonal to them. Needs memory for ``steps`` vectors.

    Two errors are in every interval: that of the random directions, whose mass on r of N eigenvalues has the beta
    distribution B(r/2, (N - r)/2), and that of the quadrature, by the bounds of the Gauss-Radau rules on the mass below
    a number. ``density_error`` is that of the Wasserstein-1 distance int |F - F_n| dx of the cumulative spectrum, as a
    share of the spectrum's width: the quadrature's, and the ends of the directions' 95 % intervals.

    Returns
    -------
    Dataset. Over ``("lambda",)``: ``density``, smoothed by a normal kernel (``attrs["smoothing"]``), of integral 1, and
    ``density_stderr``. Over ``("bin",)``: ``histogram``, the share of the eigenvalues between ``bin_left`` and
    ``bin_right``, bins of equal width in log |lambda| and one about 0, as wide as the nodes next to 0 are apart;
    ``histogram_stderr``, of the directions, and ``histogram_low`` and ``_high`` (95 %, with the quadrature's error).
    Over ``("probe", "step")``: ``node``, ``weight``, and T's ``diagonal`` and ``off_diagonal``.

    Numbers: ``negative_mass``, the share of eigenvalues below 0, with ``_low`` and ``_high`` (95 %), and
    ``undecided_mass``, what the quadrature cannot tell from 0. With ``_stderr``: ``negative_share``, the sum of
    |lambda| below 0 over that of all, which eigenvalues near 0 do not touch; ``trace``; ``frobenius_norm``;
    ``effective_rank`` = (sum |lambda|)^2 / sum lambda^2.

    Raises
    ------
    InputError : fewer than 2 steps or 2 probes, or fewer than 2 eigenvalues beyond those to deflate.
    NumericalError : a product holds NaN or infinite numbers.

    Source: Golub & Meurant 2010, "Matrices, Moments and Quadrature", chapters 3 and 6; Ghorbani, Krishnan & Xiao 2019,
    "An Investigation into Neural Net Optimization via Hessian Eigenvalue Density", section 2; Chen, Trogdon & Ubaru
    2021, "Analysis of Stochastic Lanczos Quadrature for Spectrum Approximation".

    Examples
    --------
    >>> values = torch.linspace(-1, 3, 100, dtype=torch.float64)  # a diagonal matrix with a quarter of them below 0
    >>> operator = Operator(100, lambda rows: rows * values, torch.float64, torch.device("cpu"))
    >>> found = spectral_density(operator, steps=40, probes=4, progress=False)
    >>> bool(found["negative_mass_low"] < 0.25 < found["negative_mass_high"]), found.attrs["products"]
    (True, 160)
    """
    require_operator(operator)
    _check_probes(steps, probes)
    started = time.perf_counter()
    atoms = np.zeros(0) if deflate is None else deflate.values.numpy()
    locked = None if deflate is None else deflate.vectors
    if operator.n - len(atoms) < 2:
        raise InputError(f"{len(atoms)} of {operator.n} eigenpairs are known: nothing is left for a density.")
    rest = min(steps, operator.n - len(atoms))
    with product_bar("spectral density", progress, probes * rest) as bar:
        counted = Budget(bar).counted(operator)
        prober = Prober(counted, locked, float(np.abs(atoms).max(initial=0)))
        seeds = np.random.SeedSequence(seed).generate_state(probes)  # adjacent seeds share no probe
        rules = [prober.rule(int(each), rest, rest, lambda _: False) for each in seeds]
        found = Beyond(operator.n, atoms, rules, operator.errors)
    return result(
        "spectral_density",
        density_dataset(found).assign(moments(found)),
        operator.provenance(),
        n_parameters=operator.n,
        atoms=len(atoms),
        seed=seed,
        products=sum(len(rule.nodes) for rule in found.rules),
        seconds=time.perf_counter() - started,
    )


def _check_probes(steps: int, probes: int) -> None:
    """``InputError`` unless there are at least two of each."""
    if steps < 2 or probes < 2:
        raise InputError(f"steps={steps}, probes={probes}: give at least 2 of each.")


@dataclass(frozen=True)
class Prober:
    """Rules from random vectors orthogonal to the rows of ``locked``; ``scale`` is the largest |lambda| known."""

    operator: Operator
    locked: Tensor | None
    scale: float

    def rule(self, seed: int, least: int, most: int, fine: Callable[[Rule], bool]) -> Rule:
        """Of one vector: ``least`` steps, and more until it is ``fine`` or there are ``most``."""
        space = KrylovSpace(self.operator, most, torch.Generator().manual_seed(seed), self.locked, self.scale)
        space.start()
        while space.free and not space.exhausted:
            space.extend()
            if space.size >= least and (space.size - least) % STEPS == 0 and fine(_rule(space)):
                break
        return _rule(space)


def _rule(space: KrylovSpace) -> Rule:
    """Of the vector that a space grew from."""
    diagonal, off_diagonal = space.tridiagonal()
    ended = space.exhausted or space.size == space.dimension
    return Rule(diagonal, off_diagonal, 0.0 if ended else space.beyond, space.resolution)


def search_rule(found: Found) -> Rule | None:
    """The rule of the random vector that a search began with, without the pairs that it found; None if it is none.

    It is that of the whole vector, since the pairs are found to a tolerance only, less the mass that it has on them.
    """
    run, space = found.run, found.space
    if run is None:
        return None
    rule = Rule(run.diagonal, run.off_diagonal, run.beyond, space.resolution, np.unique(run.chosen))
    # A simple eigenvector takes 1/n of a random vector; one of many equal ones takes all that it has in their span.
    alone = float(rule.taken_masses.max()) <= 16 / space.dimension
    return rule if rule.taken.size < len(run.diagonal) - 1 and alone else None


def density_to_tolerance(
    operator: Operator, run: Found, tol: float, least: tuple[int, int], budget: Budget, seed: int
) -> Beyond:
    """What a density of ``error`` ``tol`` is made from, with the pairs and the space of a search, and more probes.

    The vector that the search began with is the first probe. Each further one is followed until its quadrature takes a
    half of ``tol`` at most, and there are as many as the error of so many random directions asks; ``least`` are steps
    and probes at least. Where that would take as many products as there are eigenvalues left, the search's space is
    completed, which gives them all. ``budget`` may end it sooner; without any rule there is no density.
    """
    pairs = _distinct(run.pairs)
    n, atoms = operator.n, pairs.values.numpy()
    rest = n - len(atoms)
    if run.space.size == n or rest < 2:  # all that there is
        return _completed(run.space)
    first, rules = search_rule(run), list[Rule]()
    steps, probes = min(least[0], rest), least[1]

    def fine(rule: Rule) -> bool:
        found = Beyond(n, atoms, [rule])
        return found.quadrature <= tol / 2 * found.extent

    if first is not None and len(first.nodes) >= steps and fine(first):
        rules.append(first)
    prober = Prober(operator, pairs.vectors, float(np.abs(atoms).max(initial=0)))
    seeds = np.random.SeedSequence(seed + 1)
    while True:
        found = Beyond(n, atoms, rules)
        missing = math.ceil(max(probes, found.probes_for(tol) if rules else 1)) - len(rules)
        if missing <= 0 and fine(rules[-1]):
            return found
        each = max((len(rule.nodes) for rule in rules), default=max(steps, STEPS))
        left = n - run.space.size
        coarse = bool(rules) and not fine(rules[-1])  # more such probes would not help
        if (coarse or missing * each >= left) and n <= min(WHOLE, run.space.widest) and budget.left() >= left:
            return _completed(run.space)
        if coarse or budget.left() < each:
            return _as_it_is(found, first)
        budget.expect(missing * each)
        most = int(min(rest, LONGEST, budget.left(), left if n <= WHOLE else rest))
        rules.append(prober.rule(int(seeds.spawn(1)[0].generate_state(1)[0]), steps, most, fine))


def _as_it_is(found: Beyond, first: Rule | None) -> Beyond:
    return found if found.rules or first is None else replace(found, rules=[first])


def _completed(space: KrylovSpace) -> Beyond:
    """All eigenvalues, from a space that is made to be the whole."""
    space.widen(space.dimension)
    while space.size < space.dimension:
        if space.exhausted:
            space.start()
        space.extend()
    return Beyond(space.dimension, space.ritz()[0], [])


def _distinct(pairs: Eigenpairs) -> Eigenpairs:
    """Each pair once: where the ends meet, those in the middle are in both."""
    overlaps = (pairs.vectors @ pairs.vectors.T).abs().cpu() > 0.5
    first = torch.tensor([not bool(row[:i].any()) for i, row in enumerate(overlaps)])
    if bool(first.all()):
        return pairs
    return replace(pairs, values=pairs.values[first], vectors=pairs.vectors[first.to(pairs.vectors.device)])


def density_dataset(found: Beyond) -> xr.Dataset:
    """The Dataset of ``spectral_density``, without what ``moments`` gives."""
    variables = {**smoothed(found.rules, found.atoms, found.n), **histogram(found.rules, found.atoms, found.n)}
    variables |= _negative(found) | numbers(density_error=found.error)
    attrs = {"smoothing": smoothing(found.rules, found.atoms)}
    if not found.rules:
        return xr.Dataset(variables, attrs=attrs | {"steps": 0, "probes": 0})
    longest = max(len(rule.diagonal) for rule in found.rules)
    columns = {
        "node": [rule.nodes for rule in found.rules],
        "weight": [rule.weights for rule in found.rules],
        "diagonal": [rule.diagonal for rule in found.rules],
        "off_diagonal": [rule.off_diagonal for rule in found.rules],
    }
    variables |= {name: _padded(rows, longest) for name, rows in columns.items()}
    coords = {"probe": np.arange(1, len(found.rules) + 1), "step": np.arange(1, longest + 1)}
    return xr.Dataset(variables, coords=coords, attrs=attrs | {"steps": longest, "probes": len(found.rules)})


def _negative(found: Beyond) -> dict[str, xr.Variable]:
    """The share below 0 by the bounds of the quadrature and the law of the probes; what is near 0 counts half."""
    rounding = max((rule.rounding for rule in found.rules), default=_resolution(found.atoms) + found.off.norm)
    known, share = float((found.atoms < -rounding).sum()) / found.n, found.rest / found.n
    near = float((np.abs(found.atoms) <= rounding).sum()) / found.n
    undecided = near if not found.rules else 0.0
    low = high = value = np.zeros(1)
    if found.rules:
        low, high = (np.mean([[rule.below_zero[i]] for rule in found.rules], axis=0) for i in (0, 1))
        value, undecided = (low + high) / 2, share * float((high - low)[0])
        low, high = share_interval(low, high, found.rest, len(found.rules))
    return numbers(
        negative_mass=known + share * float(value[0]),
        negative_mass_low=known + share * float(min(low, value)[0]),
        negative_mass_high=known + share * float(max(high, value)[0]) + (near if found.off.norm else 0.0),
        undecided_mass=undecided,
    )


def _resolution(atoms: Floats) -> float:
    return 1e-12 * float(np.abs(atoms).max(initial=0))


def moments(found: Beyond) -> dict[str, xr.Variable]:
    """Trace, norm, effective rank and the share of |lambda| below 0, with standard errors."""
    trace, square, size, below = (
        total(found, f) for f in (lambda x: x, lambda x: x**2, np.abs, lambda x: -np.minimum(x, 0))
    )
    tiny = np.finfo(float).tiny
    share, rank = below[0] / max(size[0], tiny), size[0] ** 2 / max(square[0], tiny)
    ratio = total(found, lambda x: -np.minimum(x, 0) - share * np.abs(x))[1] / max(size[0], tiny)
    # The error of s^2 / q to first order is that of (2 s |lambda| - (s^2 / q) lambda^2) / q.
    spread = total(found, lambda x: 2 * size[0] * np.abs(x) - rank * x**2)[1] / max(square[0], tiny)
    frobenius = math.sqrt(square[0])
    norm_stderr = square[1] / (2 * frobenius) if frobenius else 0.0
    return numbers(
        negative_share=share,
        negative_share_stderr=ratio,
        trace=trace[0],
        trace_stderr=math.hypot(trace[1], found.n * found.off.form),
        frobenius_norm=frobenius,
        frobenius_norm_stderr=math.hypot(norm_stderr, math.sqrt(found.n) * found.off.norm),
        effective_rank=rank,
        effective_rank_stderr=spread,
    )


def total(found: Beyond, f: Callable[[Floats], Floats]) -> tuple[float, float]:
    """The sum of f over all eigenvalues, and its standard error."""
    known = float(f(found.atoms).sum())
    if not found.rules:
        return known, 0.0
    mean, stderr = mean_and_stderr(found.rules, f, found.rest)
    return known + found.rest * mean, found.rest * stderr


def numbers(**values: float) -> dict[str, xr.Variable]:
    """Scalar variables."""
    return {name: xr.Variable((), value) for name, value in values.items()}


def _padded(rows: list[Floats], longest: int) -> xr.Variable:
    stacked = [np.pad(row, (0, longest - len(row)), constant_values=np.nan) for row in rows]
    return xr.Variable(("probe", "step"), np.array(stacked))
