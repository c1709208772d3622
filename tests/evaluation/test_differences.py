"""Products by differences of the gradient: right to within what is said of them, also where no other route exists."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles import plain
from oracles.members import BY_NAME, MEMBERS
from oracles.plain import normal, relative_error
from oracles.truth_models import Swish
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

import lossatlas as la
from lossatlas.errors import ConvergenceWarning, DerivativeWarning, InputError
from lossatlas.evaluation.products.differences import Errors
from lossatlas.objective import Objective

X, Y = normal(24, 4), torch.arange(24) % 3
# Of |H v|: what the estimate may be at most, and the error itself.
USEFUL = {torch.float64: (3e-6, 3e-7), torch.float32: (1e-5, 1e-6)}


# Right to within what is said of them


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("member", MEMBERS, ids=lambda m: m.name)
def test_a_product_is_off_by_less_than_is_said_and_that_is_little(member, dtype):
    o = member.objective(dtype)
    model, data = (
        member.make(dtype).double(),
        tuple(t.double() if t.is_floating_point() else t for t in member.data(dtype)),
    )
    for v in normal(4, o.n_parameters, seed=3).to(dtype):
        operator, truth = la.hessian(o, route="differences"), plain.product(model, member.loss, data, v)
        off = float(((operator @ v).double() - truth).norm())
        said = operator.errors.norm * float(v.norm())
        useful, right = USEFUL[dtype]
        assert off <= said <= useful * float(truth.norm())
        assert off <= right * float(truth.norm())


def test_every_row_and_batch_has_a_product_of_its_own():
    o = BY_NAME["mlp-tanh"].objective(torch.float64)
    rows, exact, found = normal(3, o.n_parameters), la.hessian(o), la.hessian(o, route="differences")
    rows[1] = 0
    assert relative_error(found.rows(1e6 * rows), exact.rows(1e6 * rows)) < 1e-6
    assert not found.rows(rows)[1].any()
    for sample, truth in zip(found.products.forms(rows), exact.products.forms(rows), strict=True):
        np.testing.assert_allclose(sample.values, truth.values, rtol=1e-6, atol=1e-12)
    assert relative_error(o.with_route("differences").hvp(rows), o.hvp(rows)) < 1e-6


class Counted(nn.Linear):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        Counted.calls += 1
        return super().forward(x)


def test_a_product_takes_two_gradients_of_each_batch():
    model = nn.Sequential(Counted(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    operator = la.hessian(Objective(model, F.cross_entropy, (X, Y), batch_size=8, check=False), route="differences")
    operator @ normal(operator.n)
    for v in normal(4, operator.n, seed=2):
        Counted.calls = 0
        operator @ v
        assert Counted.calls == 2 * 3


def test_steps_leave_out_kinks_that_are_near():
    """Units whose kinks lie within the first step, some on either side."""
    model = nn.Sequential(nn.Linear(4, 200), nn.ReLU(), nn.Linear(200, 3)).double()
    with torch.no_grad():
        model[0].bias -= (model[0](X[0]) + 3e-9 * normal(200)).detach()
    o = Objective(model, F.cross_entropy, (X, Y))
    for v in normal(5, o.n_parameters):
        operator = la.hessian(o, route="differences")
        off = float((operator @ v - plain.product(model, F.cross_entropy, (X, Y), v)).norm())
        assert off <= operator.errors.norm * float(v.norm())


class Absolute(nn.Module):
    """|w| at w = 0, of which one-sided differences are apart by nothing that the central one shows."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(5, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x.sum() * self.w.abs().sum() + self.w.sum().square()


def test_a_kink_at_the_point_itself_is_not_called_curvature():
    o = Objective.from_step(Absolute(), lambda model, x: model(x), [torch.ones(2).double()], weight=len, check=False)
    operator, v = la.hessian(o, route="differences"), normal(5)
    off = float((operator @ v - 2 * v.sum()).norm())
    assert off > 1e3
    assert off <= operator.errors.norm * float(v.norm())


class Rounding(nn.Module):
    """Computes in float32, whatever it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        w, b = self.first.weight.float(), self.first.bias.float()
        return self.last(torch.tanh(F.linear(x.float(), w, b)).to(x.dtype))


class SingleOnly(Rounding):
    def forward(self, x: Tensor) -> Tensor:
        if x.dtype != torch.float32:
            raise RuntimeError("this kernel is for float32")
        return super().forward(x)


@pytest.mark.parametrize(
    ("make", "told"), [(Rounding, "in float64, "), (SingleOnly, "in float32, since float64 fails")]
)
def test_what_is_computed_in_float32_has_an_error_that_suits_it(make, told):
    torch.manual_seed(0)
    model = make()
    o = Objective(model, F.cross_entropy, (X.float(), Y), batch_size=8)
    written = nn.Sequential(model.first, nn.Tanh(), model.last)
    for v in normal(8, o.n_parameters).float():
        operator, truth = la.hessian(o, route="differences"), None
        found = operator @ v
        truth = plain.product(written, F.cross_entropy, (X, Y), v)
        off = float((found.double() - truth).norm())
        assert off <= operator.errors.norm * float(v.norm()) <= 0.1 * float(truth.norm())
    assert told in operator.explain()


# Where there is no other route


class Once(torch.autograd.Function):
    """tanh, differentiable once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x.tanh())
        return x.tanh()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return slope * (1 - ctx.saved_tensors[0] ** 2)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.body, self.last = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(torch.tanh(self.first(x))))

    def middle(self, x: Tensor) -> Tensor:
        return torch.tanh(self.body(x))


class OnlyOnce(Network):
    def middle(self, x: Tensor) -> Tensor:
        return Once.apply(self.body(x))  # type: ignore[no-any-return, no-untyped-call]


def speech(outputs: Tensor, targets: Tensor) -> Tensor:
    """Of 4 frames each of (N, 12) outputs."""
    frames = outputs.view(len(outputs), 4, 3).log_softmax(-1).transpose(0, 1)
    lengths = torch.full((len(outputs),), 4), torch.full((len(outputs),), 2)
    return F.ctc_loss(frames, targets, *lengths)


class Spoken(Network):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(5, 12)


def ctc() -> tuple[nn.Module, Any, tuple[Tensor, Tensor]]:
    return Spoken().double(), speech, (X, 1 + torch.arange(48).view(24, 2) % 2)


def gradient(model: nn.Module, loss: Any, data: Any, theta: Tensor) -> Tensor:
    own = plain.at(model, theta)
    loss(own(data[0]), data[1]).backward()
    return nn.utils.parameters_to_vector([parameter.grad for parameter in own.parameters()])


def by_richardson(model: nn.Module, loss: Any, data: Any, h: float = 2e-3) -> Tensor:
    """The dense Hessian, to h^4, of gradients by plain PyTorch."""
    theta = plain.flat(model)

    def slope(step: Tensor) -> Tensor:
        return (gradient(model, loss, data, theta + step) - gradient(model, loss, data, theta - step)) / (2 * h)

    return torch.stack([(4 * slope(e) - slope(2 * e) / 2) / 3 for e in h * torch.eye(len(theta)).double()])


def without_second_derivative(make: type[Network]) -> tuple[nn.Module, Any, tuple[Tensor, Tensor]]:
    return make().double(), F.cross_entropy, (X, Y)


CASES = {
    "ctc": ctc,
    "once differentiable": lambda: without_second_derivative(OnlyOnce),
}
every_case = pytest.mark.parametrize("case", CASES)


@functools.cache
def dense(case: str) -> Tensor:
    model, loss, data = CASES[case]()
    if case == "ctc":
        return by_richardson(model, loss, data)
    same = Network().double()
    same.load_state_dict(model.state_dict())
    return plain.hessian(same, loss, data)


def test_the_oracle_of_a_loss_without_second_derivative_is_right_where_there_is_one():
    model, loss, data = without_second_derivative(Network)
    assert relative_error(by_richardson(model, loss, data), plain.hessian(model, loss, data)) < 1e-8


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@every_case
def test_what_has_no_second_derivative_has_a_spectrum_with_honest_residuals_and_says_how(case, dtype):
    (model, loss, data), truth = CASES[case](), dense(case)
    o = Objective(model, loss, data, batch_size=13, dtype=dtype)
    with pytest.warns(DerivativeWarning, match="central differences of the gradient in float64, since there is no"):
        found = la.spectrum(o, k=2, vectors=True, trend=False, layers="once" in case, progress=False)
    assert found.attrs["converged"] == 1
    values = torch.from_numpy(found["eigenvalue"].to_numpy()).ravel()
    vectors = torch.from_numpy(found["eigenvector"].to_numpy()).double().reshape(4, -1)
    stated = torch.from_numpy(found["residual"].to_numpy()).ravel()
    measured = (vectors @ truth - values[:, None] * vectors).norm(dim=1)
    noise = 1e-8 if dtype == torch.float64 else 1e-6  # of the oracle, and of vectors in float32
    assert (measured <= stated + noise * values[0]).all()
    known = np.linalg.eigvalsh(truth.numpy())
    assert abs(float(values[0]) - known[-1]) <= float(stated[0])
    assert abs(float(values[2]) - known[0]) <= float(stated[2])
    assert found["trace_low"] <= known.sum() <= found["trace_high"]
    assert found["frobenius_norm_low"] <= np.linalg.norm(known) <= found["frobenius_norm_high"]
    assert 0 < found.attrs["product_error"] < 1e-4 * float(values[0])
    assert (stated >= found.attrs["product_error"]).all()
    for said in (found.attrs["route"], found.attrs["derivatives"], o.explain()):
        assert "differences of the gradient in float64, since there is no second derivative: " in said
    assert "self-check of the gradient: agrees" in o.explain()
    assert "self-check of the curvature: agrees" not in o.explain()


@every_case
def test_an_exact_route_can_be_insisted_on_and_differences_can_be_asked_for_without_a_warning(case):
    model, loss, data = CASES[case]()
    o = Objective(model, loss, data, batch_size=8)
    v = normal(o.n_parameters)
    with pytest.raises(InputError):
        o.with_route("exact").hvp(v)
    assert relative_error(o.with_route("differences").hvp(v), dense(case) @ v) < 1e-6
    assert relative_error(o.gradient(), gradient(model, loss, data, o.point)) < 1e-12
    assert "derivatives" not in o.provenance()  # of the objective by its own route, nothing has been measured
    assert "gradient in float64, as asked for" in o.with_route("differences").provenance()["derivatives"]


@every_case
def test_so_it_is_for_batches_by_themselves_and_within_a_memory(case):
    model, loss, data = CASES[case]()
    o = Objective(model, loss, data, batch_size=8).with_route("differences")
    top = np.linalg.eigvalsh(dense(case).numpy())[-1]
    found = la.batch_eigenvalues(o, progress=False)
    assert abs(float(found["eigenvalue_all"][0]) - top) <= float(found["residual_all"][0])
    assert "as asked for" in found.attrs["derivatives"]
    limited = la.spectrum(o, k=1, trend=False, max_memory=300_000, density=False, trace=False, progress=False)
    assert abs(float(limited["eigenvalue"][0, 0]) - top) <= float(limited["residual"][0, 0])
    assert limited.attrs["memory"] <= 300_000


def test_a_wrong_second_derivative_is_refused_and_differences_are_right():
    class Curved(Network):
        def middle(self, x: Tensor) -> Tensor:
            return Swish.apply(self.body(x))  # type: ignore[no-any-return, no-untyped-call]

    model = Curved().double()
    o = Objective(model, F.cross_entropy, (X, Y))
    v = normal(o.n_parameters)
    with pytest.raises(InputError, match=r"curvature is not.*route='differences'"):
        o.hvp(v)
    found = o.with_route("differences").hvp(v)
    assert relative_error(found, by_richardson(model, F.cross_entropy, (X, Y)) @ v) < 1e-6


def test_what_has_no_gradient_has_no_differences_either():
    class Overwriting(Network):
        def middle(self, x: Tensor) -> Tensor:
            return self.body(x).exp().mul_(2)

    for route in (None, "exact", "differences"):
        with pytest.raises(InputError, match="modified by an inplace"):
            la.hessian(Objective(Overwriting(), F.cross_entropy, (X.float(), Y)), route=route) @ torch.ones(73)
    with pytest.raises(InputError, match="choose 'exact', 'differences'"):
        la.hessian(Objective(Network(), F.cross_entropy, (X.float(), Y)), route="numeric")


# How the error is passed on


def test_no_residual_and_no_interval_is_smaller_than_the_errors_of_the_products(monkeypatch):
    """Of an operator whose products are off by 1 % of the largest eigenvalue, and say so."""
    o = BY_NAME["mlp-tanh"].objective(torch.float64)
    exact = la.spectrum(o, 2, trend=False, progress=False)
    off = Errors(norm=0.01 * float(exact["eigenvalue"][0, 0]), form=1e-3)
    monkeypatch.setattr(la.Operator, "errors", off)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = la.spectrum(o, 2, trend=False, progress=False)
        probed = la.trace(la.hessian(o))
    assert (found["residual"] >= off.norm).all()
    assert found.attrs["product_error"] == off.norm
    assert found.attrs["converged"] == 0
    assert float(found["frobenius_norm_high"] - found["frobenius_norm"]) >= off.norm
    assert float(found["trace_high"] - found["trace"]) >= (1 - 1e-9) * o.n_parameters * off.form
    assert probed.high - probed.value >= (1 - 1e-9) * o.n_parameters * off.form
    assert float(found["density_error"]) > 0.005 > float(exact["density_error"])
    with pytest.warns(ConvergenceWarning, match="differences of the gradient, whose estimated error is larger"):
        la.top_eigenpairs(la.hessian(o), 1, tol=1e-3)
