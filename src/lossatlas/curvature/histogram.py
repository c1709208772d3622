"""A spectrum as a histogram with intervals and as a smoothed density, from quadrature rules and known eigenvalues."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from scipy.stats import norm

from lossatlas.curvature.krylov import Floats
from lossatlas.curvature.quadrature import Rule, share_interval

POINTS = 1024  # of the grid on which the smoothed density is given
SMOOTHING = 1 / 200  # standard deviation of the Gaussian kernel, as a share of the spectrum's width
BINS_A_DECADE = 5
DECADES = 12  # below the largest |lambda|, at most: fewer where rounding or the quadrature resolves no more


def smoothing(rules: Sequence[Rule], atoms: Floats) -> float:
    """The standard deviation of the kernel."""
    low, high = _range(rules, atoms)
    # Values that are equal to within rounding need a kernel that numbers can tell apart.
    return float((max(high - low, 1e-6 * max(abs(low), abs(high))) or 1.0) * SMOOTHING)


def _range(rules: Sequence[Rule], atoms: Floats) -> tuple[float, float]:
    every = np.concatenate([atoms, *(rule.nodes for rule in rules)])
    return float(every.min()), float(every.max())


def smoothed(rules: Sequence[Rule], atoms: Floats, n: int) -> dict[str, xr.Variable]:
    """``density`` and ``density_stderr`` over ``lambda``."""
    width, (low, high) = smoothing(rules, atoms), _range(rules, atoms)
    grid = np.linspace(low - 6 * width, high + 6 * width, POINTS)
    density = _kernels(grid, atoms, width).sum(1) / n
    stderr = np.zeros_like(density)
    if rules:
        rest, share = n - len(atoms), 1 - len(atoms) / n
        means, stderrs = _means(rules, grid, width, rest)
        density, stderr = density + share * means, share * stderrs
    return {
        "lambda": xr.Variable("lambda", grid),
        "density": xr.Variable("lambda", density),
        "density_stderr": xr.Variable("lambda", stderr),
    }


def _kernels(grid: Floats, at: Floats, width: float) -> Floats:
    kernels: Floats = norm.pdf(grid[:, None], at, width)
    return kernels


def _means(rules: Sequence[Rule], grid: Floats, width: float, count: int) -> tuple[Floats, Floats]:
    """As ``mean_and_stderr`` of the kernel at each place of the grid."""
    each = [(_kernels(grid, rule.nodes, width), rule.weights) for rule in rules]
    mean = np.mean([kernels @ weights for kernels, weights in each], axis=0)
    square = np.mean([(kernels - mean[:, None]) ** 2 @ weights for kernels, weights in each], axis=0)
    changed = np.mean([_change(rule, grid, width) for rule in rules], axis=0)
    return mean, np.hypot(np.sqrt(2 * square / (len(rules) * (count + 2))), changed)


def _change(rule: Rule, grid: Floats, width: float) -> Floats:
    """As ``Rule.change`` of the kernel at each place of the grid."""
    if rule.exact:
        return np.zeros_like(grid)
    whole, shorter = (_kernels(grid, each.nodes, width) @ each.weights for each in (rule.whole, rule.shorter))
    change: Floats = (whole - shorter) / (1 - float(rule.taken_masses.sum()))
    return change


def histogram(rules: Sequence[Rule], atoms: Floats, n: int) -> dict[str, xr.Variable]:
    """Shares in bins, with intervals that hold the probes' error and the quadrature's."""
    edges = _edges(rules, atoms)
    found = np.histogram(atoms, edges)[0] / n
    low, high, stderr = found, found, np.zeros_like(found)
    if rules:
        share = 1 - len(atoms) / n
        mean = np.mean([np.histogram(rule.nodes, edges, weights=rule.weights)[0] for rule in rules], axis=0)
        between = _between(rules, edges)
        interval = share_interval(*between, n - len(atoms), len(rules))
        low, high = found + share * np.minimum(interval[0], mean), found + share * np.maximum(interval[1], mean)
        found = found + share * mean
        stderr = share * np.sqrt(2 * (mean * (1 - mean)).clip(0) / (len(rules) * (n - len(atoms) + 2)))
    columns = {
        "histogram": found,
        "histogram_stderr": stderr,
        "histogram_low": low.clip(0, 1),
        "histogram_high": high.clip(0, 1),
        "bin_left": edges[:-1],
        "bin_right": edges[1:],
    }
    return {name: xr.Variable("bin", column) for name, column in columns.items()}


def _between(rules: Sequence[Rule], edges: Floats) -> tuple[Floats, Floats]:
    """The bounds of each bin's mass, in the mean over the rules."""
    below = np.array([[rule.mass_below(x) for x in edges] for rule in rules])  # rules, edges, (low, high)
    low = (below[:, 1:, 0] - below[:, :-1, 1]).clip(0).mean(0)
    high = (below[:, 1:, 1] - below[:, :-1, 0]).clip(0, 1).mean(0)
    return low, high


def _edges(rules: Sequence[Rule], atoms: Floats) -> Floats:
    """Equal in log |lambda| on both sides of a bin about 0, which is as wide as the nodes next to 0 are apart."""
    low, high = _range(rules, atoms)
    reach = max(abs(low), abs(high)) * (1 + 1e-9) or 1.0
    nearest = [np.sort(np.abs(rule.nodes))[:2].mean() for rule in rules]
    rounding = max((8 * rule.rounding for rule in rules), default=0.0)
    inner = min(max(float(np.mean(nearest)) if nearest else 0.0, rounding, 10.0**-DECADES * reach), reach / 2)
    count = max(2, 1 + int(np.ceil(BINS_A_DECADE * np.log10(reach / inner))))
    positive = np.geomspace(inner, reach, count)
    return np.concatenate([-positive[::-1], positive])
