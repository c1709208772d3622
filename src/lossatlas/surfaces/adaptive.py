"""A surface to a stated accuracy: where to evaluate next, and when the evidence suffices to stop."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln, ndtr

from lossatlas.surfaces.interpolation import (
    Floats,
    Pixels,
    Polyharmonic,
    first_design,
    positions,
    predicted_errors,
    worst_points,
)

_POWERS = (7, 3)  # of the splines that are tried; the smaller leave-one-out error decides
_GROWTH = 0.3  # new nodes for each old one
_MOST = 0.4  # of the pixels: beyond so many evaluations the dense grid is as cheap
_MOST_NODES = 2000  # a spline through more takes longer than a dense grid
_MEDIAN, _SIGMA = 0.7, 1.06  # true error / predicted error is about log-normal: seen on 19 planes of 6 networks
_READY = (0.2, 0.055)  # predicted share of bad pixels at which a test pays: for the first design, for later ones
_FIRST_TEST = 0.9  # of the risk 1 - confidence is spent on the first test, half of the rest on each further one
_LARGEST = 50.0  # a leave-one-out error in log loss beyond which it is only large
_MAP = 0.95  # of the pixels lie below the error map
_TEST_BLOCK = 8  # held-out points evaluated at a time: one beyond the tolerance ends a test


@dataclass(frozen=True)
class AdaptiveSurface:
    """What the search found: the spline's nodes, the held-out evidence, the error of every pixel."""

    nodes: Pixels
    held_out: Pixels
    held_out_errors: Floats  # (held out,): relative, of predictions made before the points were evaluated
    error: Floats  # (pixels,): estimated relative error, 0 where evaluated
    coverage: float  # share of the pixels shown to be within the tolerance
    error_estimate: float  # of the worst pixel
    method: str
    evaluated: Pixels  # nodes, held-out pixels, and those of tests that failed
    logarithmic: bool = False  # whether the spline runs through log loss
    power: int = 0  # of the spline; 0 where every pixel was evaluated
    note: str = ""


def adaptive_surface(
    shape: Sequence[int], *, tol: float, coverage: float, confidence: float, seed: int
) -> Generator[Pixels, Floats, AdaptiveSurface]:
    """Yields pixels and takes their losses (``send``), until a share ``coverage`` of all is within ``tol``.

    A checkerboard of nodes, a polyharmonic spline of log loss (of the loss itself where it is not positive) through
    them, more nodes where the leave-one-out errors are largest, and then the test: random pixels that are no nodes.
    If more than a share 1 - coverage of all pixels were beyond the tolerance, m random ones would all be within it with
    probability at most r (hypergeometric; 59 of 59 is the binomial form for 95 % and 95 %). Tests share the risk
    1 - confidence, so that the bound holds however many were made: the spline never depends on held-out points, and
    the probabilities of being wrong add up to no more. A test that fails leads to more nodes; a surface that needs
    more than 40 % of the pixels is evaluated in full.
    """
    search = _AdaptiveSearch(shape, tol, coverage, confidence, seed)
    block = first_design(shape)
    while not search.too_many(len(block)):
        search.learn(block, (yield block))
        if search.finite():
            search.fit()
            if search.ready() and (yield from search.test()):
                return search.found()
        if not search.finite():
            return (yield from search.dense("some losses are not finite, and no spline passes through those"))
        block = search.next_nodes()
    return (yield from search.dense(f"a spline would take more than {_MOST:.0%} of the pixels"))


class _AdaptiveSearch:
    def __init__(self, shape: Sequence[int], tol: float, coverage: float, confidence: float, seed: int) -> None:
        self.tol, self.confidence = tol, confidence
        self.places = positions(shape)
        self.bad = int((1 - coverage) * len(self.places)) + 1  # so many bad pixels are too many
        self.losses = np.full(len(self.places), np.nan)
        self.known = np.zeros(len(self.places), dtype=bool)
        self.nodes: Pixels = np.empty(0, dtype=np.intp)
        self.held_out = self.nodes
        self.order = np.random.default_rng(seed).permutation(len(self.places))
        self.tests = self.blocks = 0

    def next_nodes(self) -> Pixels:
        """Where the spline is least sure."""
        count = int(np.ceil(_GROWTH * len(self.nodes)))
        return worst_points(self.places[self.nodes], self._left_out, self.places, count)

    def too_many(self, more: int) -> bool:
        """Whether the dense grid is as cheap as the spline with so many more nodes, tested once."""
        nodes = len(self.nodes) + more
        needed = self._needed(len(self.places) - nodes, self._risk(self.tests + 1))
        return nodes > _MOST_NODES or nodes + needed > _MOST * len(self.places)

    def learn(self, nodes: Pixels, losses: Floats) -> None:
        self.blocks += 1
        self._record(nodes, losses)
        self.nodes = np.union1d(self.nodes, nodes)

    def finite(self) -> bool:
        return bool(np.isfinite(self.losses[self.known]).all())

    def fit(self) -> None:
        """The spline of the smaller leave-one-out error, and what it predicts for its own errors."""
        values = self.losses[self.nodes]
        self.positive = bool((values > 0).all())
        # Where the loss may be zero, an error relative to it means nothing: it is relative to the largest one.
        self.scale = 1.0 if self.positive else float(np.abs(values).max() or 1.0)
        scaled = np.log(values) if self.positive else values / self.scale
        splines = [Polyharmonic(self.places[self.nodes], scaled[:, None], power) for power in _POWERS]
        self.spline = min(splines, key=lambda s: s.root_mean_square())
        places, left_out = self.places[self.nodes], np.abs(self.spline.leave_one_out[:, 0])
        left_out = np.nan_to_num(left_out, nan=_LARGEST, posinf=_LARGEST)
        self._left_out = np.expm1(np.minimum(left_out, _LARGEST)) if self.positive else left_out
        self._inner = (np.abs(places) < 1).all(axis=1)  # without an outer node the spline would extrapolate
        self.predicted = predicted_errors(places, self._left_out, self.places)

    def ready(self) -> bool:
        """Whether so few pixels are predicted beyond the tolerance that a test is likely to be passed."""
        with np.errstate(divide="ignore"):
            far = (np.log(self.predicted * _MEDIAN) - np.log(self.tol)) / _SIGMA
        return float(ndtr(far).mean()) <= _READY[self.blocks > 1]

    def test(self) -> Generator[Pixels, Floats, bool]:
        """Random pixels that are no nodes: whether enough of them, one by one, are within the tolerance."""
        self.tests += 1
        pool = self.order[~np.isin(self.order, self.nodes)]
        self.risk, self.pool = self._risk(self.tests), len(pool)
        self.held_out = pool[: self._needed(len(pool), self.risk)]
        for start in range(0, len(self.held_out), _TEST_BLOCK):
            block = self.held_out[start : start + _TEST_BLOCK]
            self._record(block, (yield block))
            if not (self._held_out_errors(block) <= self.tol).all():
                return False
        return True

    def found(self) -> AdaptiveSurface:
        held_out_errors = self._held_out_errors(self.held_out)
        floor = np.maximum(self.predicted, 1e-3 * self.tol)
        # As a held-out pixel, so any other one: 95 % of them lie below this multiple of their prediction (conformal).
        ratios = np.sort(held_out_errors / floor[self.held_out])
        rank = int(np.ceil(_MAP * (len(ratios) + 1)))
        factor = ratios[min(rank, len(ratios)) - 1]
        return AdaptiveSurface(
            nodes=self.nodes,
            held_out=self.held_out,
            held_out_errors=held_out_errors,
            error=np.where(self.known, 0.0, factor * floor),
            coverage=1 - self._most_bad() / len(self.places),
            error_estimate=float(max(2 * self._left_out[self._inner].max(initial=0), held_out_errors.max())),
            method="polyharmonic spline of log loss" if self.positive else "polyharmonic spline of the loss",
            evaluated=np.flatnonzero(self.known),
            logarithmic=self.positive,
            power=self.spline.power,
        )

    def dense(self, why: str) -> Generator[Pixels, Floats, AdaptiveSurface]:
        rest = np.flatnonzero(~self.known)
        self._record(rest, (yield rest))
        nothing = np.empty(0)
        return AdaptiveSurface(
            nodes=np.arange(len(self.places)),
            held_out=np.empty(0, dtype=np.intp),
            held_out_errors=nothing,
            error=np.zeros(len(self.places)),
            coverage=1.0,
            error_estimate=0.0,
            method="exact grid",
            evaluated=np.arange(len(self.places)),
            note=f"every pixel was evaluated: {why}",
        )

    def _record(self, pixels: Pixels, losses: Floats) -> None:
        self.losses[pixels], self.known[pixels] = losses, True

    def _held_out_errors(self, pixels: Pixels) -> Floats:
        predicted, losses = self.spline(self.places[pixels])[:, 0], self.losses[pixels]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return np.abs(np.exp(predicted) / losses - 1 if self.positive else predicted - losses / self.scale)

    def _risk(self, number: int) -> float:
        """What test ``number`` may spend of the probability of being wrong."""
        share = _FIRST_TEST if number == 1 else (1 - _FIRST_TEST) * 0.5 ** (number - 1)
        return (1 - self.confidence) * share

    def _needed(self, pool: int, risk: float) -> int:
        """How many pixels of the pool must be within the tolerance, if ``bad`` of them were not."""
        if self.bad >= pool:
            return 1
        drawn = np.arange(pool - self.bad)
        unseen = np.cumsum(np.log1p(-self.bad / (pool - drawn)))  # log P(none of the bad ones among m)
        return int(np.searchsorted(-unseen, -np.log(risk))) + 1

    def _most_bad(self) -> int:
        """The largest number of bad pixels that the passed test does not exclude."""
        tested = len(self.held_out)
        bad = np.arange(self.pool - tested + 1)
        # log P(none of the bad ones among those tested): the hypergeometric distribution at 0
        unseen = gammaln(self.pool - bad + 1) - gammaln(self.pool - bad - tested + 1)
        return int(bad[unseen - unseen[0] > np.log(self.risk)].max())
