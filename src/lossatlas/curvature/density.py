"""The spectral density of a symmetric operator by stochastic Lanczos quadrature."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from scipy.linalg import eigh_tridiagonal, solve_banded
from scipy.stats import norm, t
from torch import Tensor

from lossatlas.curvature.krylov import Floats, KrylovSpace
from lossatlas.curvature.lanczos import Eigenpairs, Found
from lossatlas.curvature.operators import Operator
from lossatlas.curvature.progress import counted, product_bar
from lossatlas.errors import InputError
from lossatlas.results.making import result

POINTS = 1024  # of the grid on which the smoothed density is given
SMOOTHING = 1 / 200  # standard deviation of the Gaussian kernel, as a share of the spectrum's width
BINS_A_DECADE = 5
AT_ZERO = 1e-3  # how near to 0, against its distance to other nodes, a node stands for eigenvalues that are 0


@dataclass(frozen=True)
class Rule:
    """Gauss quadrature of one probe: sum_j w_j f(theta_j) estimates the mean of f over the eigenvalues.

    ``below`` is the mass of the negative nodes of the rule that has a node at 0 (Gauss-Radau); the probe's mass below 0
    is that and no more than the mass of this node more (Krein; Golub & Meurant 2010). ``undecided`` is its mass
    without that of eigenvalues that are 0, on which the Gauss rule has a node of its own.
    """

    diagonal: Floats
    off_diagonal: Floats
    nodes: Floats
    weights: Floats
    below: float
    undecided: float
    rounding: float


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
    j-th eigenvector of T)^2 that sum to 1. The spread over the probes is the error. Pairs to ``deflate`` are atoms of
    mass 1/n, and the probes are drawn orthogonal to them. Needs memory for ``steps`` vectors.

    Returns
    -------
    Dataset. Over ``("lambda",)``: ``density``, smoothed by a normal kernel (``attrs["smoothing"]``), of integral 1, and
    ``density_stderr``. Over ``("bin",)``: ``histogram``, the share of the eigenvalues between ``bin_left`` and
    ``bin_right``, bins of equal width in log |lambda| and one about 0, as wide as the nodes next to 0 are apart;
    ``histogram_stderr``, ``histogram_low`` and ``_high`` (95 %, Student's t over the probes). Over
    ``("probe", "step")``: ``node``, ``weight``, and T's ``diagonal`` and ``off_diagonal``.

    Numbers: ``negative_mass``, the share of eigenvalues below 0, with ``_low`` and ``_high`` (95 %: probes, and
    ``undecided_mass``, what the quadrature cannot tell from 0). With ``_stderr``: ``negative_share``, the sum of
    |lambda| below 0 over that of all, which eigenvalues near 0 do not touch; ``trace``; ``frobenius_norm``;
    ``effective_rank`` = (sum |lambda|)^2 / sum lambda^2.

    Raises
    ------
    InputError : fewer than 2 steps or 2 probes, or fewer than 2 eigenvalues beyond those to deflate.
    NumericalError : a product holds NaN or infinite numbers.

    Source: Golub & Meurant 2010, "Matrices, Moments and Quadrature", chapters 3 and 6; Ghorbani, Krishnan & Xiao 2019,
    "An Investigation into Neural Net Optimization via Hessian Eigenvalue Density", section 2.

    Examples
    --------
    >>> values = torch.linspace(-1, 3, 100, dtype=torch.float64)  # a diagonal matrix with a quarter of them below 0
    >>> operator = Operator(100, lambda rows: rows * values, torch.float64, torch.device("cpu"))
    >>> found = spectral_density(operator, steps=40, probes=4, progress=False)
    >>> bool(found["negative_mass_low"] < 0.25 < found["negative_mass_high"]), found.attrs["products"]
    (True, 160)
    """
    check_probes(steps, probes)
    started = time.perf_counter()
    atoms = np.zeros(0) if deflate is None else deflate.values.numpy()
    scale = float(np.abs(atoms).max(initial=0))
    locked = None if deflate is None else deflate.vectors
    with product_bar("spectral density", progress, probes * min(steps, operator.n - len(atoms))) as bar:
        rules = probe_rules(counted(operator, bar), steps, probes, locked, seed, scale)
    dataset = density_dataset(rules, atoms, operator.n)
    return result(
        "spectral_density",
        dataset,
        operator.provenance(),
        n_parameters=operator.n,
        atoms=len(atoms),
        seed=seed,
        products=sum(len(rule.nodes) for rule in rules),
        seconds=time.perf_counter() - started,
    )


def check_probes(steps: int, probes: int) -> None:
    """``InputError`` unless there are at least two of each."""
    if steps < 2 or probes < 2:
        raise InputError(f"steps={steps}, probes={probes}: give at least 2 of each; the error is taken over probes.")


def probe_rules(
    operator: Operator, steps: int, probes: int, locked: Tensor | None, seed: int, scale: float = 0.0
) -> list[Rule]:
    """The rules of ``probes`` random vectors orthogonal to the rows of ``locked``, ``steps`` products each."""
    rest = operator.n - (0 if locked is None else len(locked))
    if rest < 2:
        raise InputError(f"{operator.n - rest} of {operator.n} eigenpairs are known: nothing is left for a density.")
    seeds = np.random.SeedSequence(seed).generate_state(probes)  # adjacent seeds share no probe
    return [_rule(operator, min(steps, rest), locked, int(s), scale=scale) for s in seeds]


def search_rule(found: Found, steps: int) -> Rule | None:
    """The rule of the random vector that a search began with, without the pairs that it found; None if it is too short.

    The pairs are invariant, so what is left of the space, orthogonal to them, is the Krylov space of what is left of
    the vector: its Ritz values are the nodes.
    """
    space = found.space
    whole = space.size == space.dimension
    left = np.setdiff1d(np.arange(space.size), found.chosen)
    if space.size < space.products or len(left) < 2 or (len(left) < steps and not whole):
        return None
    nodes, vectors, _ = space.ritz()
    # A simple eigenvector takes 1/n of a random vector; one of many equal ones takes all that it has in their span.
    if (vectors[0, found.chosen] ** 2).max() > 16 / space.dimension:
        return None
    start = torch.from_numpy(vectors[0, left])
    values = torch.from_numpy(nodes[left])
    # Lanczos on the diagonal matrix of the nodes gives the tridiagonal one, and cuts it to the number of steps.
    inner = Operator(len(left), lambda rows: rows * values, torch.float64, torch.device("cpu"))
    return _rule(
        inner,
        min(steps, len(left)),
        None,
        0,
        start,
        exact=whole and len(left) <= steps,
        scale=float(np.abs(nodes).max()),
    )


def density_dataset(rules: list[Rule], atoms: Floats, n: int) -> xr.Dataset:
    """The Dataset of ``spectral_density`` from the probes' rules and the atoms."""
    variables = {
        **_smoothed(rules, atoms, n),
        **_histogram(rules, atoms, n),
        **_negative(rules, atoms, n),
        **_moments(rules, atoms, n),
        "node": _padded([rule.nodes for rule in rules]),
        "weight": _padded([rule.weights for rule in rules]),
        "diagonal": _padded([rule.diagonal for rule in rules]),
        "off_diagonal": _padded([np.append(rule.off_diagonal, np.nan) for rule in rules]),
    }
    longest = max(len(rule.nodes) for rule in rules)
    coords = {"probe": np.arange(1, len(rules) + 1), "step": np.arange(1, longest + 1)}
    attrs = {"steps": longest, "probes": len(rules), "smoothing": _smoothing(rules, atoms)}
    return xr.Dataset(variables, coords=coords, attrs=attrs)


def _rule(
    operator: Operator,
    steps: int,
    locked: Tensor | None,
    seed: int,
    start: Tensor | None = None,
    exact: bool | None = None,
    scale: float = 0.0,
) -> Rule:
    """``exact``: whether the nodes are the eigenvalues themselves; None where the space itself tells."""
    space = KrylovSpace(operator, steps, torch.Generator().manual_seed(seed), locked, scale)
    space.start(start)
    while space.size < steps and not space.exhausted:
        space.extend()
    diagonal, off_diagonal = space.tridiagonal()
    nodes, vectors, residuals = space.ritz()
    weights = vectors[0] ** 2
    if exact or (exact is None and (space.exhausted or space.size == space.dimension)):
        return Rule(
            diagonal, off_diagonal, nodes, weights, float(weights[nodes < -space.rounding].sum()), 0.0, space.rounding
        )
    below, at_zero = _at_zero(diagonal, off_diagonal, space.rounding)
    undecided = max(0.0, at_zero - _zeros(nodes, weights, residuals))
    return Rule(diagonal, off_diagonal, nodes, weights, below, undecided, space.rounding)


def _zeros(nodes: Floats, weights: Floats, residuals: Floats) -> float:
    """The mass of a node that lies at 0, and is as sharp, against the distance of its neighbours: eigenvalues 0."""
    nearest = int(np.abs(nodes).argmin())
    apart = np.abs(np.delete(nodes, nearest) - nodes[nearest]).min()
    # The values that a node stands for are residual^2 / distance from it, in the mean.
    spread = abs(nodes[nearest]) + residuals[nearest] ** 2 / max(apart, np.finfo(float).tiny)
    return float(weights[nearest]) if spread <= AT_ZERO * apart else 0.0


def _at_zero(diagonal: Floats, off_diagonal: Floats, rounding: float) -> tuple[float, float]:
    """Of the Gauss-Radau rule with a node at 0 (Golub 1973): the masses below 0 and at 0, to within rounding."""
    last = np.zeros(len(diagonal) - 1)
    last[-1] = off_diagonal[-1] ** 2
    # Moved by less than rounding: where 0 is an eigenvalue of T already, there is no such rule.
    banded = np.zeros((3, len(last)))
    banded[0, 1:], banded[1], banded[2, :-1] = off_diagonal[:-1], diagonal[:-1] + rounding / 16, off_diagonal[:-1]
    changed = diagonal.copy()
    changed[-1] = solve_banded((1, 1), banded, last)[-1]
    nodes, vectors = eigh_tridiagonal(changed, off_diagonal)
    weights, small = vectors[0] ** 2, np.abs(nodes) <= rounding
    return float(weights[(nodes < 0) & ~small].sum()), float(weights[small].sum())


def _smoothing(rules: list[Rule], atoms: Floats) -> float:
    low, high = _range(rules, atoms)
    # Values that are equal to within rounding need a kernel that numbers can tell apart.
    return float((max(high - low, 1e-6 * max(abs(low), abs(high))) or 1.0) * SMOOTHING)


def _range(rules: list[Rule], atoms: Floats) -> tuple[float, float]:
    every = np.concatenate([atoms, *(rule.nodes for rule in rules)])
    return float(every.min()), float(every.max())


def _smoothed(rules: list[Rule], atoms: Floats, n: int) -> dict[str, xr.Variable]:
    width, (low, high) = _smoothing(rules, atoms), _range(rules, atoms)
    grid = np.linspace(low - 6 * width, high + 6 * width, POINTS)

    def kernels(at: Floats, masses: Floats) -> Floats:
        density: Floats = norm.pdf(grid[:, None], at, width) @ masses
        return density

    share = len(atoms) / n
    fixed = kernels(atoms, np.full(len(atoms), 1 / n))
    each = np.array([fixed + kernels(rule.nodes, (1 - share) * rule.weights) for rule in rules])
    return {
        "lambda": xr.Variable("lambda", grid),
        "density": xr.Variable("lambda", each.mean(0)),
        "density_stderr": xr.Variable("lambda", _stderr(each)),
    }


def _histogram(rules: list[Rule], atoms: Floats, n: int) -> dict[str, xr.Variable]:
    edges = _edges(rules, atoms)
    fixed = np.histogram(atoms, edges)[0] / n
    share = 1 - len(atoms) / n
    each = np.array([fixed + share * np.histogram(rule.nodes, edges, weights=rule.weights)[0] for rule in rules])
    mean, stderr = each.mean(0), _stderr(each)
    half = _student(len(rules)) * stderr
    columns = {
        "histogram": mean,
        "histogram_stderr": stderr,
        "histogram_low": np.clip(mean - half, 0, 1),
        "histogram_high": np.clip(mean + half, 0, 1),
        "bin_left": edges[:-1],
        "bin_right": edges[1:],
    }
    return {name: xr.Variable("bin", column) for name, column in columns.items()}


def _edges(rules: list[Rule], atoms: Floats) -> Floats:
    """Equal in log |lambda| on both sides of a bin about 0, which is as wide as the nodes next to 0 are apart."""
    low, high = _range(rules, atoms)
    reach = max(abs(low), abs(high)) * (1 + 1e-9) or 1.0
    nearest = float(np.mean([np.sort(np.abs(rule.nodes))[:2].mean() for rule in rules]))
    inner = min(max(nearest, 1e-12 * reach), reach / 2)
    count = max(2, 1 + int(np.ceil(BINS_A_DECADE * np.log10(reach / inner))))
    positive = np.geomspace(inner, reach, count)
    return np.concatenate([-positive[::-1], positive])


def _negative(rules: list[Rule], atoms: Floats, n: int) -> dict[str, xr.Variable]:
    rounding = max(rule.rounding for rule in rules)
    share, known = 1 - len(atoms) / n, float((atoms < -rounding).sum()) / n
    each = np.array([rule.below + rule.undecided / 2 for rule in rules])
    value = known + share * float(each.mean())
    # What the rule leaves open at 0 counts as uniform between its ends.
    open_part = float(np.mean([rule.undecided for rule in rules])) / np.sqrt(12)
    half = _student(len(rules)) * share * float(np.hypot(_stderr(each), open_part))
    return _numbers(
        negative_mass=value,
        negative_mass_low=max(0.0, value - half),
        negative_mass_high=min(1.0, value + half),
        undecided_mass=share * float(np.mean([rule.undecided for rule in rules])),
    )


def _moments(rules: list[Rule], atoms: Floats, n: int) -> dict[str, xr.Variable]:
    rest = n - len(atoms)
    traces = np.array([atoms.sum() + rest * rule.weights @ rule.nodes for rule in rules])
    squares = np.array([atoms @ atoms + rest * rule.weights @ rule.nodes**2 for rule in rules])
    sizes = np.array([np.abs(atoms).sum() + rest * rule.weights @ np.abs(rule.nodes) for rule in rules])
    below = np.array([-atoms[atoms < 0].sum() - rest * rule.weights @ np.minimum(rule.nodes, 0) for rule in rules])
    shares = below / np.maximum(sizes, np.finfo(float).tiny)
    frobenius = float(np.sqrt(squares.mean()))
    return _numbers(
        negative_share=float(shares.mean()),
        negative_share_stderr=float(_stderr(shares)),
        trace=float(traces.mean()),
        trace_stderr=float(_stderr(traces)),
        frobenius_norm=frobenius,
        frobenius_norm_stderr=float(_stderr(squares)) / (2 * frobenius) if frobenius else 0.0,
        effective_rank=float(sizes.mean() ** 2 / squares.mean()) if frobenius else 0.0,
        effective_rank_stderr=float(_stderr(sizes**2 / np.maximum(squares, np.finfo(float).tiny))),
    )


def _numbers(**values: float) -> dict[str, xr.Variable]:
    return {name: xr.Variable((), value) for name, value in values.items()}


def _padded(rows: list[Floats]) -> xr.Variable:
    """Rows of unequal length, filled with NaN: a space can be exhausted before its last step."""
    longest = max(map(len, rows))
    padded = [np.pad(row, (0, longest - len(row)), constant_values=np.nan) for row in rows]
    return xr.Variable(("probe", "step"), np.array(padded))


def _stderr(each: Floats) -> Floats:
    stderr: Floats = each.std(axis=0, ddof=1) / np.sqrt(len(each))
    return stderr


def _student(count: int) -> float:
    """The 0.975 quantile of Student's t for a mean of ``count``."""
    return float(t.ppf(0.975, count - 1))
