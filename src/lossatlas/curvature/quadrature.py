"""Gauss quadrature of the spectrum as a random vector sees it, with bounds that hold, and the law of such vectors.

A random unit vector z in R^N gives each eigenvalue the mass (z' v_i)^2. Lanczos from z gives nodes and weights with the
same first moments as these masses, and with them bounds on the mass below any number (Golub & Meurant 2010, "Matrices,
Moments and Quadrature", chapters 3 and 6). The mass of z on r eigenvalues has the beta distribution B(r/2, (N - r)/2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal, solve_banded
from scipy.special import betainc
from scipy.stats import wasserstein_distance

from lossatlas.curvature.krylov import Floats

AT_ZERO = 1e-3  # how near to 0, against its distance to other nodes, a node stands for eigenvalues that are 0
HALVINGS = 60  # of the interval in which a share lies
NONE = np.zeros(0, dtype=np.intp)


@dataclass(frozen=True)
class Rule:
    """Nodes theta_j and weights w_j of one vector: sum_j w_j f(theta_j) estimates the mean of f over the eigenvalues.

    ``diagonal`` and ``off_diagonal`` are those of the tridiagonal matrix, ``beyond`` its next off-diagonal entry; where
    that is 0 the nodes are the eigenvalues themselves, to within ``rounding``. ``taken`` are the indices, in ascending
    order, of nodes that are known eigenvalues: they and their masses are no part of the rule, whose weights sum to 1.
    """

    diagonal: Floats
    off_diagonal: Floats
    beyond: float
    rounding: float
    taken: NDArray[np.intp] = field(default_factory=lambda: NONE)

    @property
    def exact(self) -> bool:
        return self.beyond == 0

    @cached_property
    def _eigen(self) -> tuple[Floats, Floats]:
        return _eigen(self.diagonal, self.off_diagonal)

    @cached_property
    def nodes(self) -> Floats:
        return np.delete(self._eigen[0], self.taken)

    @cached_property
    def weights(self) -> Floats:
        squares: Floats = np.delete(self._eigen[1][0] ** 2, self.taken)
        return squares / float(squares.sum())

    @property
    def taken_masses(self) -> Floats:
        """Of the known eigenvalues, as the vector has them."""
        masses: Floats = self._eigen[1][0, self.taken] ** 2
        return masses

    @property
    def whole(self) -> Rule:
        """With the known eigenvalues."""
        return replace(self, taken=NONE)

    @property
    def shorter(self) -> Rule:
        """That of three quarters of the steps, with the known eigenvalues."""
        off_diagonal = np.append(self.off_diagonal, self.beyond)
        steps = max(1, 3 * len(self.diagonal) // 4)
        return Rule(self.diagonal[:steps], off_diagonal[: steps - 1], float(off_diagonal[steps - 1]), self.rounding)

    def mean(self, f: Callable[[Floats], Floats]) -> float:
        """sum_j w_j f(theta_j)."""
        return float(self.weights @ f(self.nodes))

    def change(self, f: Callable[[Floats], Floats]) -> float:
        """How much the last quarter of the steps changes that mean: it tells the error of the quadrature."""
        if self.exact:
            return 0.0
        return (self.whole.mean(f) - self.shorter.mean(f)) / (1 - float(self.taken_masses.sum()))

    def mass_below(self, x: float) -> tuple[float, float]:
        """Between what bounds the mass of the numbers below x lies; that of x itself is in the second only."""
        nodes, weights = self._through(x)
        low, high = x - self.rounding, x + self.rounding
        return (
            self._left(float(weights[nodes < low].sum()), self._known(-np.inf, low)),
            self._left(float(weights[nodes <= high].sum()), self._known(-np.inf, high)),
        )

    def _known(self, low: float, high: float) -> float:
        """The mass of the known eigenvalues between two numbers."""
        values = self._eigen[0][self.taken]
        return float(self.taken_masses[(low <= values) & (values <= high)].sum())

    def _left(self, mass: float, known: float) -> float:
        """The share of the rule in a mass of the whole vector's, of which so much is that of known eigenvalues."""
        return min(max((mass - known) / (1 - float(self.taken_masses.sum())), 0.0), 1.0)

    def _through(self, x: float) -> tuple[Floats, Floats]:
        """Nodes and weights of the rule with one node more, at x (Gauss-Radau; Golub 1973)."""
        if self.exact:
            return self._eigen[0], self._eigen[1][0] ** 2
        last = np.zeros(len(self.diagonal))
        last[-1] = self.beyond**2
        banded = np.zeros((3, len(last)))
        # Moved by less than rounding: where x is a node already, there is no such rule.
        banded[1] = self.diagonal - x + self.rounding / 16
        banded[0, 1:], banded[2, :-1] = self.off_diagonal, self.off_diagonal
        added = x + solve_banded((1, 1), banded, last)[-1]
        nodes, vectors = _eigen(np.append(self.diagonal, added), np.append(self.off_diagonal, self.beyond))
        return nodes, vectors[0] ** 2

    @cached_property
    def below_zero(self) -> tuple[float, float]:
        """Between what bounds the mass below 0 lies. What lies within rounding of 0 is no part of it."""
        if self.exact:
            mass = float(self.weights[self.nodes < -self.rounding].sum())
            return mass, mass
        nodes, weights = self._through(0.0)
        small = np.abs(nodes) <= self.rounding
        low, known = float(weights[(nodes < 0) & ~small].sum()), self._known(-np.inf, -self.rounding)
        at_zero = max(self._zeros(), self._known(-self.rounding, self.rounding))  # no part of what is open at 0
        high = low + max(0.0, float(weights[small].sum()) - at_zero)
        return self._left(low, known), self._left(high, known)

    def _zeros(self) -> float:
        """The mass of a node that lies at 0, and is as sharp, against the distance of its neighbours: eigenvalues 0."""
        nodes, vectors = self._eigen
        if len(nodes) < 2:
            return 0.0
        nearest = int(np.abs(nodes).argmin())
        apart = np.abs(np.delete(nodes, nearest) - nodes[nearest]).min()
        residual = abs(self.beyond * vectors[-1, nearest]) + self.rounding
        # The values that a node stands for are residual^2 / distance from it, in the mean.
        spread = abs(nodes[nearest]) + residual**2 / max(apart, np.finfo(float).tiny)
        return float(vectors[0, nearest] ** 2) if spread <= AT_ZERO * apart else 0.0

    @cached_property
    def distance(self) -> float:
        """The Wasserstein-1 distance of the rule from the masses that it stands for, int |F - F_m| dx.

        The smaller of a bound and an estimate: between two nodes F lies within one weight of F_m, the larger of theirs
        (Chebyshev, Markov & Stieltjes); and the distance of the rule of three quarters of the steps from this one.
        """
        if self.exact:
            return 0.0
        bound = float(np.diff(self.nodes) @ np.maximum(self.weights[1:], self.weights[:-1]))
        whole, shorter = self.whole, self.shorter
        change = wasserstein_distance(whole.nodes, shorter.nodes, whole.weights, shorter.weights)
        return min(bound, float(change) / (1 - float(self.taken_masses.sum())))


def _eigen(diagonal: Floats, off_diagonal: Floats) -> tuple[Floats, Floats]:
    values, vectors = eigh_tridiagonal(diagonal, off_diagonal)
    return np.asarray(values, dtype=float), np.asarray(vectors, dtype=float)


def sampling_distance(rules: Sequence[Rule], count: int) -> float:
    """How far so many random vectors may be from all ``count`` eigenvalues: int |F - F_n| dx, with F the mean of the
    rules' masses below x, at the ends of the 95 % interval of each F_n(x).
    """
    nodes = np.concatenate([rule.nodes for rule in rules])
    order = nodes.argsort()
    mass = np.cumsum(np.concatenate([rule.weights for rule in rules])[order])[:-1] / len(rules)
    low, high = share_interval(mass, mass, count, len(rules))
    return float(np.diff(nodes[order]) @ np.maximum(mass - low, high - mass))


def mean_and_stderr(rules: Sequence[Rule], f: Callable[[Floats], Floats], count: int) -> tuple[float, float]:
    """The mean of f over ``count`` eigenvalues, and its error: the law of the vectors, and what the last steps changed.

    Var z' f(A) z = 2 Var(f) / (N + 2) for a random unit vector, with Var(f) over the eigenvalues.
    """
    mean = float(np.mean([rule.mean(f) for rule in rules]))
    square = float(np.mean([rule.mean(lambda x: (f(x) - mean) ** 2) for rule in rules]))
    changed = float(np.mean([rule.change(f) for rule in rules]))
    return mean, float(np.hypot(np.sqrt(2 * square / (len(rules) * (count + 2))), changed))


def share_interval(low: Floats, high: Floats, count: int, vectors: int) -> tuple[Floats, Floats]:
    """The 95 % interval of the share of ``count`` eigenvalues whose mean mass over ``vectors`` is in [low, high].

    The mean of m masses has nearly the distribution B(m r/2, m (N - r)/2).
    """
    return _share(low, 0.975, count * vectors), _share(high, 0.025, count * vectors)


def _share(mass: Floats, level: float, degrees: int) -> Floats:
    """The share q at which P(B(q d/2, (1 - q) d/2) <= mass), which falls with q, is ``level``: the end that is safe."""
    inner, outer = np.zeros_like(mass), np.ones_like(mass)
    tiny = np.finfo(float).tiny
    for _ in range(HALVINGS):
        middle = (inner + outer) / 2
        chance = betainc((middle * degrees / 2).clip(tiny), ((1 - middle) * degrees / 2).clip(tiny), mass.clip(0, 1))
        inner, outer = np.where(chance > level, middle, inner), np.where(chance > level, outer, middle)
    return inner if level > 0.5 else outer
