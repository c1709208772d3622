"""The size of a perturbation at which an expectation crosses a threshold, with an interval, in few evaluations."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from scipy.special import stdtrit

from lossatlas.errors import InputError
from lossatlas.model.loss.samples import Sample
from lossatlas.robustness.averages import Average, Spread

Evaluate = Callable[[float, int], Sample]  # (size, number of the draw) -> one value an example

BOUNDS = (1e-6, 100.0)
LIMIT = 60
FEWEST = 20  # evaluations: below these no interval can be found
CONFIDENCE = 0.975  # of either end of the interval
EARLY = 0.999  # of a sign that is taken before all draws are made: such looks must cost next to no confidence
NEAR = 1.25  # ratio of the bracket that plain bisection leaves
LOPSIDED = 0.6  # share of the interval, in log size, between an end and the next open size that is worth a test
MARGIN = 1.2  # how much further out than predicted an end is tested


class Outcome(StrEnum):
    """What became of the search."""

    CROSSED = "crossed"
    NEVER = "not reached"  # below the threshold up to the largest size
    BELOW = "below the smallest size"  # above the threshold at the smallest size already
    BEYOND = "already beyond"  # without any perturbation


@dataclass(frozen=True)
class Trial:
    """The rise found at one size, and its side of the threshold: -1 below, 1 above, 0 not decided."""

    size: float
    rise: float
    stderr: float
    draws: int
    side: int


@dataclass(frozen=True)
class Crossing:
    """Where the threshold is crossed.

    Parameters
    ----------
    value : the best estimate; NaN where the threshold is not reached.
    low, high : the 95 % interval: the largest tested size at which the expectation is below the threshold, and the
        smallest at which it is above it, each with 97.5 % confidence; 0 and infinity where there is none.
    evaluations : passes over the data, that of the clean network among them.
    trials : all sizes that were tried, in their order.
    """

    outcome: Outcome
    value: float
    low: float
    high: float
    evaluations: int
    trials: tuple[Trial, ...]


def crossing(
    evaluate: Evaluate,
    threshold: float,
    *,
    bounds: tuple[float, float] = BOUNDS,
    limit: int = LIMIT,
    tol: float = 0.02,
    exact: bool = False,
) -> Crossing:
    """The size s with E_{u, i}[x_i(s u) - x_i(0)] = threshold, of a quantity whose expectation rises with s.

    ``evaluate(s, j)`` returns the values x_i, one an example, under the perturbation s u_j; ``evaluate(0, 0)`` those of
    the clean network. The differences are paired over the examples, and the same draws u_j serve every size, so that
    estimates at near sizes err alike. Bisection in log s with two draws finds the place to a factor of 1.25. There the
    error is measured with more draws, and sizes on both sides are tested that should just be decided: draws are added
    until the side is clear (99.9 %), or the size has its share of the budget (97.5 %), or the error over the examples
    is by far the larger one. A side that stays open is tested further out, and widens the interval; what is left of
    the budget narrows it again. Tests are Student's, with the errors over draws and examples joined (``Average``). What
    is not finite counts as above.

    Where the quantity is an accuracy and only a handful of examples change, its error over the examples is too small,
    as for any mean of zeros and ones: threshold times the number of examples should be 5 or more.

    Parameters
    ----------
    bounds : the smallest and the largest size that are tried, in the units of s.
    limit : evaluations of the data at most, at least 20.
    tol : a relative width of the interval below which no more is asked for.
    exact : there is nothing to draw, ``evaluate`` ignores j: one evaluation a size.

    Raises
    ------
    InputError : a threshold that is not finite, bounds that are not 0 < low < high, a limit below 20.

    Source: bisection for the sigma of a PAC-Bayes bound is Jiang et al. 2020, "Fantastic Generalization Measures and
    Where to Find Them", appendix C; interim looks at a far stricter level are Haybittle's and Peto's.

    Examples
    --------
    >>> import torch
    >>> def squares(size, draw):  # x = s^2 |u|^2 / 2 in 100 dimensions rises by 50 s^2
    ...     u = torch.randn(100, generator=torch.Generator().manual_seed(draw), dtype=torch.float64)
    ...     return Sample((size**2 / 2 * u @ u).repeat(4), torch.ones(4).double(), "examples")
    >>> found = crossing(squares, 0.5)
    >>> found.outcome, found.low < 0.1 < found.high, found.evaluations <= 60
    (<Outcome.CROSSED: 'crossed'>, True, True)
    """
    low, high = bounds
    if not math.isfinite(threshold):
        raise InputError(f"threshold={threshold}: give a finite rise.")
    if not (0 < low < high < math.inf):
        raise InputError(f"bounds={bounds}: give the smallest and the largest size, 0 < smallest < largest.")
    if limit < FEWEST:
        raise InputError(f"limit={limit}: give at least {FEWEST} evaluations of the data.")
    search = _Search(evaluate, threshold, limit, exact)
    if threshold <= 0:
        return search.found(Outcome.BEYOND, 0.0, (0.0, 0.0))
    return _within(search, low, high, tol)


def bracketed(
    evaluate: Evaluate, threshold: float, bounds: tuple[float, float] = BOUNDS
) -> tuple[tuple[float, float], int]:
    """The crossing of an exact function to a factor of 1.25, by bisection alone, and the number of evaluations beside
    that of the clean network.
    """
    search = _Search(evaluate, threshold, LIMIT, exact=True)
    return search.bracket(*bounds), search.spent - 1


def _within(search: _Search, low: float, high: float, tol: float) -> Crossing:
    below, above = search.bracket(low, high)
    draws = 1 if search.exact else max((search.limit - search.spent) // 4, 2)
    if above == high and search.decide(high, draws) < 1 and search.rise(high) < search.threshold:
        return search.found(Outcome.NEVER, math.nan, search.interval())
    if below == low and search.decide(low, draws) > -1 and search.rise(low) >= search.threshold:
        return search.found(Outcome.BELOW, low, (0.0, search.interval()[1]))
    center = search.root(below, above)
    search.decide(center, draws)
    search.close(center, draws, tol)
    search.tighten(draws, tol)
    ends = search.interval()
    return search.found(Outcome.CROSSED, min(max(search.estimate(center), ends[0]), ends[1]), ends)


class _Search:
    """What was found at which size so far."""

    def __init__(self, evaluate: Evaluate, threshold: float, limit: int, exact: bool) -> None:
        self._evaluate, self.threshold, self.limit, self.exact = evaluate, threshold, limit, exact
        self._clean = evaluate(0.0, 0)
        self.spent = 1
        self._at: dict[float, Average] = {}
        self._sides: dict[float, int] = {}
        self._open: set[float] = set()  # sizes that stayed undecided

    def rise(self, size: float) -> float:
        """The mean rise over the draws made; infinite where it is not finite."""
        mean = self._at[size].mean
        return mean if math.isfinite(mean) else math.inf

    def look(self, size: float, draws: int) -> float:
        """The mean rise with at least so many draws, as far as the budget goes."""
        average = self._at.setdefault(size, Average(exact=self.exact))
        self._sides.setdefault(size, 0)
        while average.draws < (1 if self.exact else draws) and (self.spent < self.limit or not average.draws):
            average.add(self._evaluate(size, average.draws).combined(self._clean, -1.0))
            self.spent += 1
        return self.rise(size)

    def decide(self, size: float, draws: int) -> int:
        """The side of the threshold, with as many draws as it takes up to so many."""
        for count in range(1 if self.exact else 3, draws):
            self.look(size, count)
            spread = self._at[size].spread()
            if self._side(size, spread, EARLY) or _examples_dominate(spread, count):
                break
        else:
            self.look(size, draws)
        self._sides[size] = self._side(size, self._at[size].spread(), CONFIDENCE)
        if not self._sides[size]:
            self._open.add(size)
        return self._sides[size]

    def _side(self, size: float, spread: Spread, confidence: float) -> int:
        distance = self.rise(size) - self.threshold
        if math.isinf(distance):
            return 1
        if math.isnan(spread.stderr):
            return 0
        needed = float(stdtrit(spread.degrees, confidence)) * spread.stderr if spread.stderr else 0.0
        return 0 if abs(distance) <= needed else int(math.copysign(1, distance))

    def bracket(self, low: float, high: float) -> tuple[float, float]:
        """By bisection in log size; the bounds themselves are not looked at."""
        while high > NEAR * low:
            middle = math.sqrt(low * high)
            low, high = (low, middle) if self.look(middle, 2) >= self.threshold else (middle, high)
        return low, high

    def root(self, low: float, high: float) -> float:
        """Where a power law through both ends crosses; the middle where one end was not seen or none does."""
        rises = [self.rise(size) if size in self._at else math.nan for size in (low, high)]
        if not all(0 < rise < math.inf for rise in rises) or rises[0] == rises[1]:
            return math.sqrt(low * high)
        share = math.log(self.threshold / rises[0]) / math.log(rises[1] / rises[0])
        return float(low * (high / low) ** min(max(share, 0.05), 0.95))

    def close(self, center: float, draws: int, tol: float) -> None:
        """Sizes are tested on both sides, ever further out, until both are decided or the budget is spent."""
        center, widths = self.estimate(center), self._widths(center, tol)
        for further in (1, 2, 4, 8):
            for side, width in widths.items():
                if self.spent < self.limit and not self._decided(side, center, further * width):
                    self.decide(center * math.exp(side * further * width), draws)

    def tighten(self, draws: int, tol: float) -> None:
        """What is left of the budget is spent between an end and the next size that stayed open."""
        while self.spent + (1 if self.exact else draws) <= self.limit:
            low, high = self.interval()
            if not 0 < low < high < math.inf:
                return
            still = [size for size in self._open if low < size < high] or [math.sqrt(low * high)]
            gaps = (low, min(still)), (max(still), high)
            start, end = max(gaps, key=lambda gap: gap[1] / gap[0])
            spent = self.spent
            if end / start >= max((high / low) ** (LOPSIDED / 2 if self.exact else LOPSIDED), 1 + tol):
                self.decide(math.sqrt(start * end), draws)
            if self.spent == spent:
                return

    def _decided(self, side: int, center: float, width: float) -> bool:
        """Whether an end was found not much further out than this."""
        low, high = self.interval()
        return low >= center * math.exp(-width) if side < 0 else high <= center * math.exp(width)

    def _widths(self, size: float, tol: float) -> dict[int, float]:
        """How far below and above, in log size, a test should just be decided, with an error that grows as the rise."""
        nearest = min(self._sides, key=lambda each: abs(math.log(each / size)))
        spread = self._at[nearest].spread()
        stderr = spread.stderr if math.isfinite(spread.stderr) else self.threshold
        share = min(MARGIN * float(stdtrit(spread.degrees, CONFIDENCE)) * stderr / self.threshold, 10.0)
        power, least = self._power(size), tol / 2
        return {-1: math.log1p(share) / power + least, 1: -math.log1p(-min(share, 0.8)) / power + least}

    def _power(self, size: float) -> float:
        """The power of the size with which the rise grows near it."""
        seen = sorted(each for each in self._at if 0 < self.rise(each) < math.inf)
        below, above = [s for s in seen if s < size / NEAR], [s for s in seen if s > size * NEAR]
        low, high = (below or seen[:1])[-1:], (above or seen[-1:])[:1]
        if not low or not high or low[0] >= high[0]:
            return 2.0
        power = math.log(self.rise(high[0]) / self.rise(low[0])) / math.log(high[0] / low[0])
        return min(max(power, 0.5), 4.0)

    def estimate(self, size: float) -> float:
        """The crossing as it is seen from a size near it."""
        rise = self.rise(size)
        if not 0 < rise < math.inf:
            return size
        return size * float(min(max((self.threshold / rise) ** (1 / self._power(size)), 0.5), 2.0))

    def interval(self) -> tuple[float, float]:
        """The decided sizes next to the crossing."""
        high = min((size for size, side in self._sides.items() if side > 0), default=math.inf)
        return max((size for size, side in self._sides.items() if side < 0 and size < high), default=0.0), high

    def found(self, outcome: Outcome, value: float, ends: tuple[float, float]) -> Crossing:
        """The result, with all that was tested."""
        trials = tuple(
            Trial(size, self.rise(size), average.spread().stderr, average.draws, self._sides[size])
            for size, average in self._at.items()
        )
        return Crossing(outcome, value, *ends, self.spent, trials)


def _examples_dominate(spread: Spread, draws: int) -> bool:
    """Whether more draws would not help."""
    return draws >= 4 and 5 * spread.over_draws < spread.over_examples
