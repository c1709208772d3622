"""The two routes of products give the same numbers, whatever is kept, and leave nothing behind."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles import language, plain
from oracles.members import BATCH, BY_NAME, MEMBERS
from oracles.plain import normal, relative_error
from torch import Tensor, nn

import lossatlas as la
from lossatlas.curvature.operators import Operator, matrix_products
from lossatlas.errors import InputError, NumericalError
from lossatlas.evaluation.products import costs, kept, pieces, products, routes
from lossatlas.evaluation.products.allocated import Allocated
from lossatlas.objective import Objective

MATRICES: dict[str, Callable[..., Operator]] = {
    "hessian": la.hessian,
    "gauss_newton": la.gauss_newton,
    "empirical_fisher": lambda o, **k: la.fisher(o, kind="empirical", **k),
}
SOME = [BY_NAME[name] for name in ("mlp-relu", "batch-norm")]

some_members = pytest.mark.parametrize("member", SOME, ids=lambda m: m.name)
# PyTorch 2.13: aten.mul.Scalar on a zero tensor (the tangent of mse_loss's targets) under make_fx in its real mode.


@pytest.fixture
def staged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small problems are traced too, at the first product, whether it is faster or not."""
    monkeypatch.setattr(products, "repaid_after", lambda *_: 0)
    monkeypatch.setattr(routes, "_require_faster", lambda *_: None)


# The traced route


@pytest.mark.usefixtures("staged")
@pytest.mark.parametrize(
    ("member", "matrix"),
    [
        pytest.param(m, matrix, id=f"{m.name}-{matrix}")
        for m in MEMBERS
        for matrix in (MATRICES if m.name != "lstm" else ["hessian"])
    ],
)
def test_the_traced_products_are_those_of_autograd_or_the_reason_is_told(member, matrix):
    o = member.objective(torch.float64)
    rows = normal(2, o.n_parameters)
    operator = MATRICES[matrix](o)
    plainly = matrix_products(o, matrix, stage=False)(rows)
    assert relative_error(operator.rows(rows), plainly) < 1e-9
    if member.name == "lstm":  # which PyTorch differentiates forwards in a trace of shapes only
        assert re.match(r"traced|graphs of autograd, since it cannot be traced: .*forward AD", operator.explain())
    else:
        assert re.match(r"traced, [\d,]+ operations; 3 of 3 batches kept", operator.explain())


@pytest.mark.usefixtures("staged")
@some_members
def test_replays_leave_nothing_behind(member):
    o = member.objective(torch.float64)
    u, v = normal(2, o.n_parameters)
    operator = la.hessian(o)
    first = operator @ u
    assert torch.equal(operator @ u, first)
    other = operator @ v
    assert torch.equal(operator @ u, first)
    assert torch.equal(operator.rows(torch.stack([v, u, v])), torch.stack([other, first, other]))
    assert torch.equal(la.hessian(o) @ u, first)


@pytest.mark.usefixtures("staged")
@some_members
def test_traced_products_in_single_precision_agree_to_single_precision(member):
    single = Objective(
        member.make(torch.float64), member.loss, member.data(torch.float64), batch_size=BATCH, dtype=torch.float32
    )
    operator = la.hessian(single)
    v = normal(single.n_parameters)
    dense = plain.hessian(member.make(torch.float64), member.loss, member.data(torch.float64))
    assert relative_error(operator @ v.float(), dense @ v) < 1e-5
    assert operator.explain().startswith("traced")


@pytest.mark.usefixtures("staged")
def test_batches_of_any_form_and_order_are_traced_or_not():
    member = BY_NAME["mlp-tanh"]
    inputs, targets = member.data(torch.float64)
    model, v = member.make(torch.float64), None
    truth = plain.hessian(model, member.loss, (inputs, targets))
    for sizes in ([9, 9, 5], [9, 5, 9], [1, 21, 1]):
        o = Objective(model, member.loss, list(zip(inputs.split(sizes), targets.split(sizes), strict=True)))
        v = normal(o.n_parameters)
        operator = la.hessian(o)
        assert relative_error(operator @ v, truth @ v) < 1e-11
        assert relative_error(operator @ v, truth @ v) < 1e-11


class Network(nn.Module):
    """A perceptron, of which subclasses make something that is hard to trace."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 5), nn.Linear(5, 3)
        self.register_buffer("seen", torch.zeros(5))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.hidden(x))

    def hidden(self, x: Tensor) -> Tensor:
        return torch.tanh(self.first(x))


class Dropping(Network):
    def hidden(self, x: Tensor) -> Tensor:
        return F.dropout(super().hidden(x), 0.5, training=True)


class Deciding(Network):
    def hidden(self, x: Tensor) -> Tensor:
        return super().hidden(x) if x[0, 0].item() > 0 else self.first(x)


class Branching(Network):
    def hidden(self, x: Tensor) -> Tensor:
        return super().hidden(x) if x[0, 0] > 0 else self.first(x)


class Leaving(Network):
    """To NumPy and back."""

    def hidden(self, x: Tensor) -> Tensor:
        return super().hidden(torch.from_numpy(np.sin(x.numpy())))


class OwnBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        y = torch.tanh(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, slope):
        (y,) = ctx.saved_tensors
        return slope * (1 - y * y)


class Custom(Network):
    def hidden(self, x: Tensor) -> Tensor:
        return OwnBackward.apply(self.first(x))


class DrawingByNumPy(Network):
    def hidden(self, x: Tensor) -> Tensor:
        return super().hidden(x) * (1 + 0.1 * np.random.standard_normal())  # noqa: NPY002


UNTRACEABLE = {
    Dropping: "it draws random numbers",
    Deciding: "it cannot be traced: ",
    Branching: "it cannot be traced: ",
    Leaving: "it cannot be traced: ",
    Custom: "autograd.Function",
    DrawingByNumPy: "draws random numbers",
}


def batches(*sizes: int) -> list[tuple[Tensor, Tensor]]:
    """Their first numbers have the signs +, +, -, so that the third batch takes another branch."""
    inputs, targets = normal(sum(sizes), 6), torch.arange(sum(sizes)) % 3
    found = list(zip(inputs.split(sizes), targets.split(sizes), strict=True))
    for (x, _), sign in zip(found, [1, 1, -1], strict=True):
        x[0, 0] = sign * x[0, 0].abs()
    return found


@pytest.mark.usefixtures("staged")
@pytest.mark.parametrize("matrix", ["hessian", "gauss_newton"])
@pytest.mark.parametrize("kind", UNTRACEABLE)
def test_what_cannot_be_traced_is_differentiated_by_autograd_with_the_reason(kind, matrix):
    o = Objective(kind().double(), F.cross_entropy, batches(6, 6, 6))
    rows = normal(2, o.n_parameters)
    operator = MATRICES[matrix](o)
    found = operator.rows(rows)
    torch.testing.assert_close(found, matrix_products(o, matrix, stage=False)(rows), rtol=1e-12, atol=1e-15)
    told = operator.explain()
    assert told.startswith("graphs of autograd, since ")
    assert UNTRACEABLE[kind] in told
    assert "\n" not in told
    assert torch.equal(operator.rows(rows), found)


class Halving(Network):
    """In-place operations that PyTorch differentiates."""

    def hidden(self, x: Tensor) -> Tensor:
        z = self.first(x).mul_(0.5).tanh_()
        shifted = torch.zeros_like(z)
        shifted[:, 1:] = z[:, :-1]
        return shifted.add_(z)


class Averaging(Network):
    """A state that is written at each pass, from the activations."""

    def hidden(self, x: Tensor) -> Tensor:
        z = self.first(x)
        self.seen.mul_(0.9).add_(0.1 * z.mean(0))
        return torch.tanh(z - self.seen)


class Counting(Network):
    def hidden(self, x: Tensor) -> Tensor:
        self.seen += 1
        return torch.tanh(self.first(x) * (1 + 0.1 * self.seen))


class Remembering(Network):
    def hidden(self, x: Tensor) -> Tensor:
        self.kept = self.first(x)
        return torch.tanh(self.kept)


class Tabulating(Network):
    """Builds a table when it first meets a length."""

    table: Tensor | None = None

    def hidden(self, x: Tensor) -> Tensor:
        if self.table is None or len(self.table) < len(x):
            self.table = torch.arange(len(x), dtype=x.dtype)[:, None] / 10
        return super().hidden(x) * self.table[: len(x)]


@pytest.mark.usefixtures("staged")
@pytest.mark.parametrize("matrix", ["hessian", "gauss_newton"])
@pytest.mark.parametrize("kind", [Halving, Averaging, Counting, Remembering, Tabulating])
def test_models_that_write_to_tensors_or_keep_them_have_the_same_products_by_both_routes(kind, matrix):
    o = Objective(kind().double(), F.cross_entropy, batches(6, 7, 7))
    rows = normal(2, o.n_parameters)
    operator = MATRICES[matrix](o)
    truth = matrix_products(o, matrix, stage=False)(rows)
    for _ in range(2):
        torch.testing.assert_close(operator.rows(rows), truth, rtol=1e-11, atol=1e-14)


def test_the_route_of_autograd_is_right_for_models_that_write_to_tensors():
    for kind in (Halving, Averaging, Counting):
        model = kind().double()
        o = Objective(model, F.cross_entropy, batches(6, 7, 7))
        v, step = normal(o.n_parameters), 1e-5
        bend = (o.gradient(o.point + step * v) - o.gradient(o.point - step * v)) / (2 * step)
        assert relative_error(la.hessian(o) @ v, bend) < 1e-6


class Listing(Network):
    """Decides by a number that PyTorch's tracing does not notice."""

    def hidden(self, x: Tensor) -> Tensor:
        return super().hidden(x) if x[0, 0].tolist() > 0 else self.first(x)


class SometimesSkipping(Network):
    """Skips its activation at random, by Python's generator: at the batches 2, 4, ... of these."""

    def hidden(self, x: Tensor) -> Tensor:
        return super().hidden(x) if random.random() < 0.9 else self.first(x)


@pytest.mark.usefixtures("staged")
@pytest.mark.parametrize(
    ("kind", "sizes"), [(Listing, (6, 6, 6)), (SometimesSkipping, (6, 6, 6)), (DrawingByNumPy, (6, 5, 6))]
)
def test_a_later_batch_that_takes_another_way_is_not_replayed_by_the_trace_of_the_first(kind, sizes):
    o = Objective(kind().double(), F.cross_entropy, batches(*sizes))
    v = normal(o.n_parameters)
    torch.testing.assert_close(la.hessian(o) @ v, o.hvp(v), rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("staged")
def test_a_zero_matrix_has_products_of_zero():
    o = Objective(nn.Linear(6, 3).double(), lambda f, _: f.sum(1), batches(6, 6, 6))
    operator = la.hessian(o)
    for _ in range(2):
        assert torch.equal(operator @ normal(21), torch.zeros(21, dtype=torch.float64))


@pytest.mark.usefixtures("staged")
def test_a_product_of_zero_is_no_disagreement():
    o = Objective(nn.Linear(6, 3).double(), lambda f, _: F.relu(f[:, 0] - 100) ** 2, batches(6, 6, 6))
    operator = la.hessian(o)
    operator @ normal(21)
    assert "nan" not in operator.explain()


@pytest.mark.usefixtures("staged")
def test_fused_attention_is_differentiated_by_its_plain_formula():
    member = BY_NAME["attention"]
    o = member.objective(torch.float64)
    v = normal(o.n_parameters)
    assert (
        relative_error(
            la.hessian(o) @ v, plain.hessian(member.make(torch.float64), member.loss, member.data(torch.float64)) @ v
        )
        < 1e-11
    )


# What is kept


FORWARDS: list[int] = []


class Counted(Network):
    def hidden(self, x: Tensor) -> Tensor:
        FORWARDS.append(len(x))
        return super().hidden(x)


def counted() -> Objective:
    o = Objective(Counted().double(), F.cross_entropy, batches(6, 7, 8), check=False)
    FORWARDS.clear()
    return o


def test_what_is_kept_is_not_computed_again():
    operator = la.hessian(counted())
    for _ in range(2):  # the graphs of the first product count what they keep, which takes time
        operator @ normal(operator.n)
    FORWARDS.clear()
    operator @ normal(operator.n)
    assert FORWARDS == []


def test_nothing_kept_means_that_each_product_runs_the_model_once_a_batch():
    operator = la.hessian(counted(), max_memory=0)
    operator @ normal(operator.n)
    FORWARDS.clear()
    operator.rows(normal(4, operator.n))
    assert FORWARDS == [6, 7, 8]


def test_a_product_alone_runs_the_model_once_a_batch():
    o = counted()
    o.hvp(normal(o.n_parameters))
    assert FORWARDS == [6, 7, 8]


def test_the_budget_decides_what_is_kept_and_not_the_numbers():
    member = BY_NAME["mlp-tanh"]
    rows = normal(2, member.objective(torch.float64).n_parameters)
    plenty = la.hessian(member.objective(torch.float64))
    truth = plenty.rows(rows)
    assert "3 of 3 batches kept" in plenty.explain()
    held = set()
    for budget in (0, 1, 3000, 4000, 6000, 8000, 10_000, 10**9):
        operator = la.hessian(member.objective(torch.float64), max_memory=budget)
        for _ in range(3):
            torch.testing.assert_close(operator.rows(rows), truth, rtol=1e-13, atol=1e-16)
        kept, used = re.search(r"(\d) of 3 batches kept \(([\d,]+) of", operator.explain()).groups()
        assert int(used) * 1_000_000 <= budget + 500_000
        held.add(int(kept))
    assert {0, 3} < held  # and some budget held a part


@pytest.mark.usefixtures("staged")
@pytest.mark.parametrize("budget", [0, 6000, 10**9])
def test_traced_products_do_not_depend_on_the_budget(budget):
    o = BY_NAME["mlp-tanh"].objective(torch.float64)
    rows = normal(2, o.n_parameters)
    operator = la.hessian(o, max_memory=budget)
    for _ in range(2):
        assert relative_error(operator.rows(rows), matrix_products(o, "hessian", stage=False)(rows)) < 1e-12
    assert operator.explain().startswith("traced")


@pytest.mark.parametrize("route", ["traced", "graphs of autograd"])
def test_the_parameters_are_counted_once_and_not_for_every_batch(request, route):
    """They take 1.6 MB, and what each of the 8 batches of one example keeps in addition some 10 kB."""
    if route == "traced":
        request.getfixturevalue("staged")
    model = nn.Sequential(nn.Linear(200, 1000), nn.ReLU(), nn.Linear(1000, 3, bias=False)).double()
    o = Objective(model, F.cross_entropy, (normal(8, 200), torch.arange(8) % 3), batch_size=1)
    operator = la.gauss_newton(o, max_memory=8_000_000)
    operator @ normal(o.n_parameters)
    assert operator.explain().startswith(route)
    assert "8 of 8 batches kept" in operator.explain()


def test_no_product_has_been_computed_before_the_first():
    operator = la.hessian(BY_NAME["mlp-tanh"].objective(torch.float64), max_memory=0)
    assert operator.explain() == "no product has been computed yet"
    operator @ normal(operator.n)
    assert re.match(
        r"graphs of autograd \(a trace would pay from product [\d,]+ on\); 0 of 3 batches kept \(0 of",
        operator.explain(),
    )


def test_a_failed_product_leaves_the_operator_usable():
    operator = la.hessian(BY_NAME["mlp-tanh"].objective(torch.float64))
    with pytest.raises(Exception, match="NaN or infinite"):
        operator @ torch.full((operator.n,), float("nan"))
    v = normal(operator.n)
    assert torch.equal(operator @ v, la.hessian(BY_NAME["mlp-tanh"].objective(torch.float64)) @ v)


def test_products_stay_what_they_are_when_training_goes_on():
    member = BY_NAME["mlp-tanh"]
    model = member.make(torch.float64)
    o = Objective(model, member.loss, member.data(torch.float64), batch_size=BATCH)
    operator, v = la.hessian(o, max_memory=0), normal(o.n_parameters)
    before = operator @ v
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert torch.equal(operator @ v, before)


def test_the_point_that_is_given_may_be_written_to_later():
    o = BY_NAME["mlp-tanh"].objective(torch.float64)
    theta = o.point.clone()
    operator, v = la.hessian(o.at(theta), max_memory=0), normal(o.n_parameters)
    before = operator @ v
    theta += 1
    assert torch.equal(operator @ v, before)


# By batch


def test_each_batch_gives_its_own_form_and_their_mean_is_that_of_the_whole():
    member = BY_NAME["mlp-tanh"]
    o, rows = member.objective(torch.float64), normal(2, member.objective(torch.float64).n_parameters)
    dense = [plain.hessian(member.make(torch.float64), member.loss, batch) for batch in member.batches(torch.float64)]
    for _ in range(2):
        for sample, v in zip(matrix_products(o, "hessian").forms(rows), rows, strict=True):
            assert sample.values.tolist() == pytest.approx([float(v @ h @ v) for h in dense], rel=1e-10)
            assert sample.mean == pytest.approx(float(v @ o.hvp(v)), rel=1e-10)


@pytest.mark.usefixtures("staged")
@pytest.mark.parametrize("matrix", MATRICES)
def test_the_generators_and_the_model_are_left_as_they_were(matrix):
    member = BY_NAME["batch-norm"]
    model = member.make(torch.float64)
    o = Objective(model, member.loss, member.data(torch.float64), batch_size=BATCH)
    before = plain.state_of(model)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    operator = MATRICES[matrix](o)
    value = o.value()
    for _ in range(2):
        operator @ normal(operator.n)
    assert plain.differences(before, plain.state_of(model)) == []
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert random.getstate() == states[2]
    assert o.value() == value


def test_negative_memory_is_refused_before_anything_is_computed():
    with pytest.raises(InputError, match="max_memory=-5"):
        matrix_products(BY_NAME["mlp-tanh"].objective(torch.float64), "hessian", max_memory=-5)


# The choice of the route


class Looping(Network):
    """As a recurrent network of one's own, with a part that is not differentiated."""

    def hidden(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            scale = x.abs().mean()
        for _ in range(20):
            x = x + torch.tanh(self.first(x)).mean(1, keepdim=True) / scale
        return super().hidden(x)


class Masking(nn.Module):
    """Attention that leaves padding out."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
        self.embed, self.encode, self.last = nn.Linear(1, 4), nn.TransformerEncoder(layer, 1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.encode(self.embed(x[..., None]), src_key_padding_mask=x < -1).mean(1))


@pytest.mark.usefixtures("staged")
@pytest.mark.parametrize("make", [Looping, Masking])
def test_loops_masks_and_parts_without_gradients_are_traced(make):
    o = Objective(make().double(), F.cross_entropy, batches(6, 6, 6))
    v = normal(o.n_parameters)
    operator = la.hessian(o)
    assert relative_error(operator @ v, o.hvp(v)) < 1e-11
    assert operator.explain().startswith("traced, ")


def test_a_trace_is_begun_when_the_products_so_far_repay_it_and_within_the_memory(monkeypatch):
    monkeypatch.setattr(products, "repaid_after", lambda work, _: 3 if work else 1)
    monkeypatch.setattr(routes, "_require_faster", lambda *_: None)
    o = Objective(Network().double(), F.cross_entropy, batches(6, 6, 6))
    rows = normal(5, o.n_parameters)
    truth = o.hvp(rows)
    for budget in (10**9, 10_000, 0):
        operator = la.hessian(o, max_memory=budget)
        for done, (row, product) in enumerate(zip(rows, truth, strict=True)):
            assert relative_error(operator @ row, product) < 1e-11
            assert operator.explain().startswith(
                "traced" if done >= 3 else "graphs of autograd (a trace would pay from"
            )
        used = re.search(r"\(([\d,]+) of [\d,]+ MB, at most ([\d,]+) MB", operator.explain()).groups()
        assert all(int(size) * 1_000_000 <= budget + 500_000 for size in used)


def test_a_trace_that_is_not_faster_is_dropped_and_not_tried_again(monkeypatch):
    monkeypatch.setattr(products, "repaid_after", lambda *_: 0)
    monkeypatch.setattr(routes.Routes, "_replay", slowly(routes.Routes._replay))
    o = Objective(Network().double(), F.cross_entropy, batches(6, 6, 6))
    operator, v = la.hessian(o), normal(o.n_parameters)
    for _ in range(2):
        assert relative_error(operator @ v, o.hvp(v)) < 1e-11
        assert operator.explain().startswith("graphs of autograd, since the traced products are not faster; 3 of 3")


def slowly(replay: Callable[..., kept.Prepared]) -> Callable[..., kept.Prepared]:
    def replayed(*args: object) -> kept.Prepared:
        found = replay(*args)

        def product(*given: object) -> Tensor:
            time.sleep(0.1)
            return found.product(*given)

        return found._replace(product=product)

    return replayed


@pytest.mark.usefixtures("staged")
def test_a_trace_of_too_many_operations_is_given_up(monkeypatch):
    monkeypatch.setattr(costs, "OPERATIONS", (50, 0))
    o = Objective(Network().double(), F.cross_entropy, batches(6, 6, 6))
    operator, v = la.hessian(o), normal(o.n_parameters)
    assert relative_error(operator @ v, o.hvp(v)) < 1e-11
    assert "since it cannot be traced: it takes more than 50 operations" in operator.explain()


def test_a_trace_pays_after_fewer_products_of_more_work():
    """Repaid: it takes at most a tenth of what those products take, or of 20 products, however large the network."""
    small, large = (costs.Work(size, 40, 10**4, "cpu") for size in (10**6, 10**8))
    assert costs.repaid_after(small, 8) > costs.repaid_after(small, 100) > costs.repaid_after(large, 8) == 1
    assert costs.repaid_after(None, 8) == 1  # never before the first product
    assert costs.repaid_after(costs.Work(costs.UNKNOWN, 0, 10**6, "cpu"), 8) == np.inf


# What is not finite


class Polynomial(nn.Module):
    """sum_j w^j x_j for j = 0, 1, 2, whose first two powers have second derivatives 0 that double backward misses."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([value], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return (self.w[:, None] ** torch.arange(3) * x).sum(1)


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("matrix", ["hessian", "gauss_newton"])
def test_where_double_backward_gives_nan_forward_mode_is_taken(request, traced, matrix):
    if traced:
        request.getfixturevalue("staged")
    x, y = normal(8, 3), normal(8)
    o = Objective(Polynomial(0.0), F.mse_loss, (x, y), batch_size=4)
    operator, v = MATRICES[matrix](o), torch.ones(1, dtype=torch.float64)
    curved = 4 * (x[:, 0] - y) * x[:, 2] if matrix == "hessian" else torch.zeros(8).double()
    expected = (2 * x[:, 1] ** 2 + curved).mean()
    for _ in range(2):
        assert float(operator @ v) == pytest.approx(float(expected), rel=1e-12)
    reason = ", since double backward gives NaN or infinite numbers"
    assert matrix != "hessian" or operator.explain().startswith(f"forward over reverse mode{reason}")


class Root(nn.Module):
    """sqrt(w)^power at w = 0: nothing is finite but the value for power 1, for 3 the gradient is."""

    def __init__(self, power: int) -> None:
        super().__init__()
        self.w, self.power = nn.Parameter(torch.zeros(2, dtype=torch.float64)), power

    def forward(self, x: Tensor) -> Tensor:
        return (self.w.abs() ** (self.power / 2) * x).sum(1)


@pytest.mark.parametrize(
    ("power", "loss", "told"),
    [
        (1, F.mse_loss, "The gradient holds NaN or infinite numbers on batch 0 at this point, for w, though the loss"),
        (
            3,
            F.mse_loss,
            "The product holds NaN or infinite numbers on batch 0 at this point, for w, by double backward",
        ),
        (3, lambda f, y: F.mse_loss(f, y) / 0, "The loss of batch 0 is infinite at this point"),
    ],
)
def test_what_is_not_finite_is_named(power, loss, told):
    o = Objective(Root(power), loss, (normal(4, 2), normal(4)), check=False)
    with pytest.raises(NumericalError, match=told):
        la.hessian(o) @ torch.ones(2, dtype=torch.float64)


# Pieces


class Wide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 64), nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(x)))


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors of 64 numbers an example are too large for more than 8 examples."""
    monkeypatch.setattr(pieces, "SUITED", 8 * 64 * 8)
    monkeypatch.setattr(pieces, "AHEAD", 0)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("matrix", MATRICES)
def test_batches_of_large_tensors_are_computed_in_pieces_of_examples(request, traced, matrix):
    """Of 21 and 8 examples of unequal weights, so that pieces have other weights than their numbers."""
    if traced:
        request.getfixturevalue("staged")
    data = [(normal(size, 6), torch.arange(size) % 3) for size in (21, 8)]
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64))
    model = Wide().double()
    rows = normal(2, sum(p.numel() for p in model.parameters()))
    operator = MATRICES[matrix](Objective(model, loss, data))
    truth = operator.rows(rows)  # with whole batches
    assert "of 2 batches kept" in operator.explain()
    for _ in range(3):
        assert relative_error(operator.rows(rows), truth) < 1e-12
        assert "4 of 4 pieces of 8 examples kept" in operator.explain()
    samples = operator.products.forms(rows)
    assert [len(sample.values) for sample in samples] == [2, 2]


class Mixing(Wide):
    """Rows that depend on the others of the batch."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - x.mean(0))


class Drawing(Wide):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.dropout(x, 0.5, training=True))


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize(("make", "noticed"), [(Mixing, True), (Mixing, False), (Drawing, True)])
def test_batches_whose_examples_are_not_apart_stay_whole(make, noticed, monkeypatch):
    """Where that is not noticed beforehand, their product differs from that of the pieces."""
    if not noticed:
        monkeypatch.setattr(pieces.Batches, "uncut", None)
    o = Objective(make().double(), F.cross_entropy, (normal(21, 6), torch.arange(21) % 3))
    operator, v = la.hessian(o), normal(o.n_parameters)
    for _ in range(3):
        assert relative_error(operator @ v, o.hvp(v)) < 1e-12
        assert "1 of 1 batches kept" in operator.explain()


@pytest.mark.usefixtures("small_pieces")
def test_a_batch_stays_whole_where_a_piece_would_have_ignored_targets_only():
    targets = torch.arange(21) % 3
    targets[:10] = -100
    o = Objective(Wide().double(), F.cross_entropy, (normal(21, 6), targets))
    operator, v = la.hessian(o), normal(o.n_parameters)
    for _ in range(3):
        assert relative_error(operator @ v, o.hvp(v)) < 1e-12


@pytest.mark.parametrize("matrix", ["hessian", "gauss_newton"])
def test_a_large_models_batch_that_takes_more_than_the_budget_is_cut_before_its_first_product(matrix, monkeypatch):
    """Of 12 texts with tokens that do not count, so that pieces weigh otherwise than by their numbers."""
    monkeypatch.setattr(products, "LARGE", 0)
    rows = language.texts(12)
    torch.manual_seed(0)
    o = Objective.from_hf(language.Causal(width=16, layers=2).double(), rows, batch_size=12)
    v = normal(o.n_parameters)
    whole = matrix_products(o, matrix, max_memory=10**9)
    with Allocated() as of_whole:
        expected = whole(v[None])
    found = matrix_products(o, matrix, max_memory=of_whole.peak // 8)
    with Allocated() as of_pieces:
        torch.testing.assert_close(found(v[None]), expected, rtol=1e-10, atol=1e-14)
    assert whole.pieces == 1 < found.pieces
    assert of_pieces.peak < 0.7 * of_whole.peak
