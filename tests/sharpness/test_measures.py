"""Every measure of sharpness against its formula, on quadratics, linear classifiers and two-layer networks."""

from __future__ import annotations

import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.stats import norm
from torch import Tensor, nn
from torch.autograd.functional import hessian
from torch.func import functional_call

import lossatlas as la
from lossatlas.sharpness.measures import MEASURES

N, D = 40, 6
DRAWN = {"average", "adaptive_average"}


class Quadratic:
    """L(w) = |X w - y|^2 / N at a point w with a gradient, and its dense derivatives."""

    def __init__(self, rows: int = N, columns: int = D, seed: int = 0) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.x, self.y = (torch.randn(rows, k, generator=draw, dtype=torch.float64) for k in (columns, 1))
        self.w = torch.randn(columns, generator=draw, dtype=torch.float64)
        self.H = 2 / rows * self.x.T @ self.x
        self.g = 2 / rows * self.x.T @ (self.x @ self.w - self.y[:, 0])

    def objective(self, **options) -> la.Objective:
        model = nn.Linear(len(self.w), 1, bias=False).double()
        return la.Objective(model, nn.functional.mse_loss, (self.x, self.y), **options).at(self.w)

    def rise(self, delta: Tensor) -> float:
        return float(self.g @ delta + delta @ self.H @ delta / 2)

    def one_step(self, scale: Tensor, rho: float) -> float:
        return self.rise(rho * scale**2 * self.g / (scale * self.g).norm())

    def maximum(self, scale: Tensor, rho: float) -> float:
        """Over |delta / scale| <= rho: the secular equation of the trust region, by bisection."""
        values, vectors = torch.linalg.eigh(scale[:, None] * self.H * scale)
        slopes = vectors.T @ (scale * self.g)

        def length(mu: float) -> float:
            return float((slopes / (mu - values)).norm()) - rho

        top = float(values[-1])
        mu = brentq(length, top + 1e-12, top + 1e6, xtol=1e-14)
        z = vectors @ (slopes / (mu - values))
        return self.rise(scale * z)

    def corner(self, limits: Tensor) -> float:
        """Over |delta_i| <= limits_i: a convex function is largest at a corner."""
        signs = itertools.product((-1.0, 1.0), repeat=len(limits))
        return max(self.rise(limits * torch.tensor(each, dtype=torch.float64)) for each in signs)


QUADRATIC = Quadratic()
ONE, W = torch.ones(D, dtype=torch.float64), QUADRATIC.w
LOSS = float((QUADRATIC.x @ W - QUADRATIC.y[:, 0]).square().mean())
EIGENVALUES = torch.linalg.eigvalsh(QUADRATIC.H)
UPDATE = 0.1 * QUADRATIC.g
g, H = QUADRATIC.g, QUADRATIC.H
EXPECTED = {
    "sam": QUADRATIC.one_step(ONE, 0.05),
    "sam_ascent": QUADRATIC.maximum(ONE, 0.05),
    "asam": QUADRATIC.one_step(W.abs(), 0.5),
    "asam_filter": QUADRATIC.one_step(W.norm() * ONE, 0.05),
    "adaptive_worst": QUADRATIC.maximum(W.abs(), 0.5),
    "adaptive_worst_inf": QUADRATIC.corner(0.01 * W.abs()),
    "keskar": 100 * QUADRATIC.corner(1e-3 * (W.abs() + 1)) / (1 + LOSS),
    "average": 0.01**2 / 2 * float(H.trace()),
    "adaptive_average": 0.1**2 / 2 * float(H.diagonal() @ W**2),
    "lambda_max": float(EIGENVALUES[-1]),
    "trace": float(EIGENVALUES.sum()),
    "mean_curvature": float(EIGENVALUES.mean()),
    "frobenius": float(EIGENVALUES.norm()),
    "eigenvalue_ratio": 0.0,
    "gabdullin_k": 0.0,
    "gabdullin_k1": 0.0,
    "effective_dimension": float((EIGENVALUES / (EIGENVALUES + 1)).sum()),
    "relative_flatness": float(W @ W * H.trace()),
    "relative_flatness_sum": float(W @ W * H.trace()),
    "fisher_rao": float(W @ H @ W),
    "critical": float(g @ H @ g / (g @ g)),
    "critical_update": float(UPDATE @ H @ UPDATE / (UPDATE @ g)),
    # Batches of one example are all examples, in whatever order.
    "m_sharpness": float((0.05 * (2 * QUADRATIC.x * (QUADRATIC.x @ W - QUADRATIC.y[:, 0])[:, None]).norm(dim=1)).mean())
    + 0.05**2 * float(QUADRATIC.x.square().sum(1).mean()),
    "batch_sharpness": 2 * float(QUADRATIC.x.square().sum(1).mean()),
}


@pytest.fixture(scope="module")
def found():
    return la.sharpness(
        QUADRATIC.objective(), list(EXPECTED), tol=1e-7, batch_size=1, previous=W + UPDATE, progress=False
    )


@pytest.mark.parametrize("name", EXPECTED)
def test_on_a_quadratic_every_measure_is_its_formula(found, name):
    one, expected = found.sel(measure=name), EXPECTED[name]
    if "draws" in str(one["errors"].item()):
        assert float(one["low"]) <= expected <= float(one["high"]), (float(one["value"]), expected)
        assert float(one["value"]) == pytest.approx(expected, rel=0.5)
    else:
        assert float(one["value"]) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_a_subspace_holds_the_rise_of_a_linear_loss_along_its_columns():
    quadratic = Quadratic(columns=5000)
    one = la.sharpness(quadratic.objective(), "keskar_subspace", rho=1e-9, progress=False).isel(measure=0)
    loss = float((quadratic.x @ quadratic.w - quadratic.y[:, 0]).square().mean())
    shares = 1 + math.sqrt(2 / math.pi) * float(quadratic.w.norm()) / 5000  # E |A^+ w|_i + 1, A^+ nearly A' / n
    expected = 100 * 1e-9 * 100 * float(quadratic.g.norm()) * math.sqrt(2 / math.pi) * shares / (1 + loss)
    assert float(one["value"]) == pytest.approx(expected, rel=0.2)


def test_the_pac_bayes_sigma_of_a_linear_classifier_is_where_the_normal_law_puts_it():
    """Examples along different axes have independent margins of 1: their error under noise is Phi(-1 / sigma)."""
    model = nn.Linear(400, 1, bias=False).double()
    nn.init.ones_(model.weight)
    objective = la.Objective(
        model, nn.functional.binary_cross_entropy_with_logits, (torch.eye(400).double(), torch.ones(400, 1).double())
    )
    found = la.sharpness(objective, ["pac_bayes", "pac_bayes_adaptive"], progress=False)
    expected = -1 / norm.ppf(0.1)
    for name in found["measure"].values:
        one = found.sel(measure=name)
        assert float(one["low"]) <= expected <= float(one["high"])
        assert float(one["high"]) / float(one["low"]) < 1.5
        assert float(one["passes"]) <= 20


class Network:
    """A classifier with one hidden layer on random data, and its dense Hessian in float64."""

    def __init__(self, hidden: nn.Module, seed: int = 1) -> None:
        torch.manual_seed(seed)
        self.x, self.y = torch.randn(60, 4).double(), torch.randint(0, 3, (60,))
        self.model = nn.Sequential(nn.Linear(4, 5), hidden, nn.Linear(5, 3)).double()
        self.theta = torch.cat([p.detach().flatten() for p in self.model.parameters()])
        self.H = hessian(self.loss, self.theta)

    def outputs(self, theta: Tensor) -> Tensor:
        named = dict(self.model.named_parameters())
        parts = theta.split([p.numel() for p in named.values()])
        tensors = {name: part.view_as(p) for (name, p), part in zip(named.items(), parts, strict=True)}
        return functional_call(self.model, tensors, self.x)

    def loss(self, theta: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.outputs(theta), self.y)

    def log_p(self, label: int, theta: Tensor) -> Tensor:
        return self.outputs(theta).log_softmax(1)[:, label]

    def objective(self) -> la.Objective:
        return la.Objective(self.model, nn.functional.cross_entropy, (self.x, self.y))

    def kappa(self, start: int, rows: int, columns: int) -> float:
        stop = start + rows * columns
        weight = self.theta[start:stop].view(rows, columns)
        block = self.H[start:stop, start:stop].view(rows, columns, rows, columns)
        return float(torch.einsum("sk,tk,sjtj->", weight, weight, block))


def test_relative_flatness_sums_blocks_of_the_dense_hessian():
    network = Network(nn.Tanh())
    found = la.sharpness(network.objective(), ["relative_flatness", "relative_flatness_sum"], progress=False)
    first, last = network.kappa(0, 5, 4), network.kappa(25, 3, 5)
    assert float(found["value"].sel(measure="relative_flatness")) == pytest.approx(last, rel=1e-10)
    whole = found.sel(measure="relative_flatness_sum")
    assert float(whole["low"]) <= first + last <= float(whole["high"])


def test_of_an_indefinite_hessian_the_spectral_measures_are_those_of_its_eigenvalues():
    network = Network(nn.Tanh())
    values = torch.linalg.eigvalsh(network.H)
    positive, negative = values.clamp(min=0), -values.clamp(max=0)
    expected = {
        "lambda_max": values[-1],
        "eigenvalue_ratio": -values[0] / values[-1],
        "trace": values.sum(),
        "frobenius": values.norm(),
        "gabdullin_k1": negative.sum() / positive.sum(),
        "effective_dimension": (positive / (positive + 0.05)).sum(),
    }
    found = la.sharpness(network.objective(), list(expected), rho=0.05, progress=False)
    assert negative.sum() > 0.01 * positive.sum()
    for name, value in expected.items():
        one = found.sel(measure=name)
        assert float(one["low"]) - 1e-12 <= float(value) <= float(one["high"]) + 1e-12, name


def test_the_fisher_rao_norm_is_that_of_the_models_own_probabilities():
    network = Network(nn.ReLU())
    p = network.model(network.x).softmax(1).detach()
    log_p = [
        torch.autograd.functional.jvp(partial(network.log_p, c), network.theta, network.theta)[1] for c in range(3)
    ]
    along = torch.stack(log_p, dim=1)
    expected = float((p * along**2).sum(1).mean())
    found = la.sharpness(network.objective(), "fisher_rao", progress=False)
    assert float(found["value"][0]) == pytest.approx(expected, rel=1e-8)


def test_what_is_asked_for_alone_is_what_it_is_among_all_and_what_is_shared_is_computed_once():
    names = ["lambda_max", "frobenius", "average", "trace"]
    objective = Network(nn.GELU()).objective()
    together = la.sharpness(objective, names, progress=False)
    for name in names:
        alone = la.sharpness(objective, name, progress=False).isel(measure=0)
        for part in ("value", "low", "high", "products", "passes"):
            assert float(alone[part]) == pytest.approx(float(together[part].sel(measure=name)), rel=1e-6), (name, part)
    assert together.attrs["products"] < 0.7 * float(together["products"].sum())


def test_a_measure_that_needs_what_is_not_there_says_so_and_the_others_come():
    quadratic = Quadratic()
    with pytest.warns(
        la.errors.ConvergenceWarning, match=r"pac_bayes: There is no accuracy.*critical_update: .*previous="
    ):
        found = la.sharpness(quadratic.objective(), ["sam", "pac_bayes", "critical_update"], progress=False)
    assert np.isfinite(found["value"].values).tolist() == [True, False, False]
    assert "previous=" in str(found["note"].sel(measure="critical_update").item())


@pytest.mark.parametrize("n", [1, 2])
def test_of_one_or_two_parameters_every_measure_comes_or_says_why_not(n):
    objective = Quadratic(rows=4, columns=n).objective()
    names = [name for name in MEASURES if not name.startswith("llc")]
    with pytest.warns(la.errors.ConvergenceWarning, match="critical_update"):
        found = la.sharpness(objective, names, batch_size=2, progress=False)
    missing = found["measure"].values[np.isnan(found["value"].values)]
    assert set(missing) == {
        *("pac_bayes", "pac_bayes_adaptive", "gabdullin_k", "gabdullin_k1", "critical_update", "geodesic_worst")
    }
    assert all(str(found["note"].sel(measure=name).item()) for name in missing)


def test_without_a_second_derivative_what_needs_none_comes_and_the_others_say_why():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.square()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, slope):
            return slope * 2 * ctx.saved_tensors[0]

    class Model(nn.Linear):
        def forward(self, x):
            return Once.apply(super().forward(x))

    torch.manual_seed(0)
    data = torch.randn(8, 2).double(), torch.randn(8, 1).double()
    objective = la.Objective(Model(2, 1).double(), nn.functional.mse_loss, data).with_route("exact")
    with pytest.warns(la.errors.ConvergenceWarning, match="lambda_max"):
        found = la.sharpness(objective, ["sam", "average", "lambda_max", "frobenius"], progress=False)
    assert np.isfinite(found["value"].values).tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"measures": ["samm"]}, "did you mean 'sam'"),
        ({"measures": []}, "choose from"),
        ({"rho": -1.0}, r"rho=-1.0 for 'sam'.*positive"),
        ({"rho": math.nan}, "positive"),
        ({"rho": {"lambda_max": 1.0}, "measures": ["sam", "lambda_max"]}, "those with one are sam"),
        ({"rho": 0.1, "measures": ["trace"]}, "none of the measures asked for has a size"),
        ({"tol": 0.0}, "tol=0.0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"measures": ["pac_bayes"]}, "None of the measures.*There is no accuracy"),
        ({"measures": ["m_sharpness"], "batch_size": 30}, "batch_size=30 of 40 examples"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_the_remedy(given, match):
    with pytest.raises(la.errors.InputError, match=match):
        la.sharpness(QUADRATIC.objective(), **{"progress": False, **given})


def test_no_measure_of_the_default_set_costs_more_than_it_may_whatever_the_network():
    """Of a curved one no trace is exact, and eigenvalues next to each other take many products."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 30), nn.GELU(), nn.Linear(30, 3)).double()
    data = torch.randn(60, 6).double(), torch.randint(0, 3, (60,))
    found = la.sharpness(
        la.Objective(model, nn.functional.cross_entropy, data), tol=1e-4, batch_size=20, progress=False
    )
    assert len(found["measure"]) == sum(one.cheap and not one.needs for one in MEASURES.values())
    assert float(found["passes"].max()) <= 100
    assert {"critical_update", "geodesic_worst", "llc"}.isdisjoint(found["measure"].values)


def test_a_tied_weight_is_not_taken_for_a_layer_of_its_own():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.outer = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
            self.outer.weight = self.inner.weight

        def forward(self, x):
            return self.outer(torch.tanh(self.inner(x)))

    torch.manual_seed(0)
    data = torch.randn(20, 4).double(), torch.randint(0, 4, (20,))
    objective = la.Objective(Tied().double(), nn.functional.cross_entropy, data)
    found = la.sharpness(objective, "relative_flatness", progress=False).isel(measure=0)
    dense = objective.hvp(torch.eye(16).double()).view(4, 4, 4, 4)
    weight = objective.point.view(4, 4)
    expected = float(torch.einsum("sk,tk,sjtj->", weight, weight, dense))
    assert float(found["low"]) <= expected <= float(found["high"])
    assert "draws" in found["errors"].item()


def covers(name: str, objective: la.Objective, expected: float, seed: int, **options) -> bool:
    one = la.sharpness(objective, name, seed=seed, progress=False, **options).isel(measure=0)
    return float(one["low"]) <= expected <= float(one["high"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "n"),
    [
        ("average", 120),
        ("adaptive_average", 120),
        ("relative_flatness_sum", 120),
        ("frobenius", 120),
        ("trace", 120),
        ("effective_dimension", 300),  # of a smaller matrix all eigenvalues are computed
    ],
)
def test_an_interval_covers_the_formula_as_often_as_it_says(name, n):
    """Over 200 seeds, of a loss that is the same for every example: the data have no error."""
    draw = torch.Generator().manual_seed(3)
    basis = torch.linalg.qr(torch.randn(n, n, generator=draw, dtype=torch.float64))[0]
    root = basis * torch.linspace(0.01, 1, n).double().square() @ basis.T
    w = torch.randn(n, generator=draw, dtype=torch.float64)

    def step(model, batch):
        return ((model.weight[0] @ root) ** 2).sum().expand(len(batch))

    model = nn.Linear(n, 1, bias=False).double()
    objective = la.Objective.from_step(model, step, [torch.zeros(4)], check=False).at(w)
    dense = 2 * root @ root
    values = torch.linalg.eigvalsh(dense)
    expected = {
        "average": 0.01**2 / 2 * float(values.sum()),
        "adaptive_average": 0.1**2 / 2 * float(dense.diagonal() @ w**2),
        "relative_flatness_sum": float(w @ w * values.sum()),
        "frobenius": float(values.norm()),
        "effective_dimension": float((values / (values + 1)).sum()),
        "trace": float(values.sum()),
    }[name]
    rate = np.mean([covers(name, objective, expected, seed) for seed in range(200)])
    assert 0.90 <= rate <= 0.995, rate
