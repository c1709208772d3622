"""Operators: what they take, what they refuse, and what must not change their numbers."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles.plain import columns, normal
from scipy.sparse.linalg import eigsh
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

import lossatlas as la
from lossatlas.curvature.operators import Operator, drawn_batches, matrix_products
from lossatlas.errors import DirectionError, InputError, LossAtlasError, NumericalError
from lossatlas.objective import Objective

MATRICES: dict[str, Callable[..., Operator]] = {
    "hessian": la.hessian,
    "gauss_newton": la.gauss_newton,
    "sampled_fisher": la.fisher,
    "empirical_fisher": lambda o, **k: la.fisher(o, kind="empirical", **k),
    "gradient_covariance": la.gradient_covariance,
}
every_matrix = pytest.mark.parametrize("matrix", MATRICES)


DATA = (normal(23, 6), torch.arange(23) % 3)


class Network(nn.Module):
    """tanh(W x) with a function before and another one in place of tanh."""

    def __init__(
        self, activation: Callable[[Tensor], Tensor] = torch.tanh, before: Callable[[Tensor], Tensor] = torch.clone
    ) -> None:
        super().__init__()
        self.activation, self.before = activation, before
        self.first, self.second = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.activation(self.first(self.before(x))))


def network(*parts: Callable[[Tensor], Tensor]) -> nn.Module:
    model = Network(*parts).double()
    for parameter, seed in zip(model.parameters(), range(10, 20), strict=False):
        parameter.data = 0.5 * normal(*parameter.shape, seed=seed)
    return model


def objective(model: nn.Module | None = None, loss: Callable[..., Tensor] = F.cross_entropy) -> Objective:
    return Objective(network() if model is None else model, loss, DATA, batch_size=9)


# Known results


def test_a_linear_regression_has_the_matrices_of_the_textbook():
    x, y = normal(20, 4), normal(20, 1, seed=2)
    model = nn.Linear(4, 1, bias=False).double()
    o = Objective(model, F.mse_loss, (x, y), batch_size=6)
    residual = x @ model.weight.detach().T - y
    each = 2 * residual * x
    second, moment = 2 * x.T @ x / 20, each.T @ each / 20
    for operator, truth in (
        (la.hessian(o), second),
        (la.gauss_newton(o), second),
        (la.fisher(o, kind="empirical"), moment),
        (la.gradient_covariance(o), moment - torch.outer(each.mean(0), each.mean(0))),
    ):
        torch.testing.assert_close(columns(operator), truth, rtol=1e-12, atol=1e-12)


def test_the_gradients_covariance_is_the_noise_of_mini_batches():
    o = objective()
    gradients = torch.stack([o.examples(torch.tensor([i])).gradient() for i in range(23)])
    torch.testing.assert_close(columns(la.gradient_covariance(o)), gradients.T.cov(correction=0), rtol=1e-9, atol=1e-12)


def test_batches_of_a_step_count_by_the_weights_that_they_are_given():
    batches = [(DATA[0][:9], DATA[1][:9]), (DATA[0][9:], DATA[1][9:])]

    def step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])

    weighted = Objective.from_step(network(), step, batches, weight=lambda batch: 3.0 if len(batch[1]) == 9 else 1.0)
    parts = [columns(la.hessian(Objective(network(), F.cross_entropy, batch))) for batch in batches]
    torch.testing.assert_close(columns(la.hessian(weighted)), (3 * parts[0] + parts[1]) / 4)


def test_examples_of_a_step_that_gives_each_its_value_make_the_empirical_fisher_matrix():
    def step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1], reduction="none")

    stepped = Objective.from_step(network(), step, [(DATA[0][:9], DATA[1][:9]), (DATA[0][9:], DATA[1][9:])])
    torch.testing.assert_close(
        columns(la.fisher(stepped, kind="empirical")), columns(la.fisher(objective(), kind="empirical"))
    )


@every_matrix
def test_a_point_that_is_given_is_taken(matrix):
    o = objective()
    other = network()
    theta = o.point + normal(o.n_parameters)
    nn.utils.vector_to_parameters(theta, other.parameters())
    torch.testing.assert_close(columns(MATRICES[matrix](o.at(theta))), columns(MATRICES[matrix](objective(other))))


@pytest.mark.parametrize("matrix", [m for m in MATRICES if m != "sampled_fisher"])  # which draws other targets
def test_some_examples_make_the_matrix_of_these(matrix):
    chosen = torch.tensor([3, 3, 20, 0])
    few = Objective(network(), F.cross_entropy, (DATA[0][chosen], DATA[1][chosen]))
    torch.testing.assert_close(columns(MATRICES[matrix](objective().examples(chosen))), columns(MATRICES[matrix](few)))


# Restriction


def test_a_restricted_objective_holds_the_other_parameters_at_the_point():
    o = objective()
    theta = o.point + normal(o.n_parameters)
    part = o.at(theta).restricted("second.*")
    assert [entry.name for entry in part.space] == ["second.weight", "second.bias"]
    assert torch.equal(part.point, theta[-18:])
    assert part.value() == pytest.approx(o.value(theta), rel=1e-14)
    torch.testing.assert_close(columns(la.hessian(part)), columns(la.hessian(o.at(theta)))[-18:, -18:])
    torch.testing.assert_close(part.gradient(), o.gradient(theta)[-18:])
    assert torch.equal(o.point, objective().point)


def test_a_restriction_can_be_restricted():
    o = objective()
    bias = o.restricted(["first.*", "second.bias"]).restricted("*.bias")
    assert [entry.name for entry in bias.space] == ["first.bias", "second.bias"]
    chosen = torch.cat([torch.arange(30, 35), torch.arange(50, 53)])
    torch.testing.assert_close(columns(la.hessian(bias)), columns(la.hessian(o))[chosen][:, chosen])


def test_a_restriction_to_nothing_says_what_there_is():
    with pytest.raises(InputError, match=r"matches 'third\.\*'; they are first\.weight, first\.bias"):
        objective().restricted(["first.*", "third.*"])
    with pytest.raises(InputError, match="No parameters are selected"):
        objective().restricted([])
    with pytest.raises(InputError, match="No parameter that varies matches"):
        objective().restricted("first.*").restricted("second.*")


class Remembering(Network):
    """Keeps its activations, as models do that are looked into."""

    def forward(self, x: Tensor) -> Tensor:
        self.seen = self.first(x)
        return self.second(torch.tanh(self.seen))


def test_a_model_that_keeps_its_activations_can_be_restricted_after_a_product():
    o = objective(Remembering().double())
    o.hvp(o.point)
    assert o.restricted("second.*").n_parameters == 18


# What the numbers must not depend on


@every_matrix
def test_a_model_that_writes_into_its_inputs_has_the_matrices_of_one_that_does_not(matrix):
    writing = objective(network(torch.tanh, lambda x: x.mul_(0.5).add_(0.1)))
    plain = objective(network(torch.tanh, lambda x: x * 0.5 + 0.1))
    operator, truth = MATRICES[matrix](writing, max_memory=0), columns(MATRICES[matrix](plain))
    torch.testing.assert_close(columns(operator), truth)
    torch.testing.assert_close(columns(operator), truth)


def test_a_product_without_an_operator_takes_a_model_that_writes_into_its_inputs():
    writing = objective(network(torch.tanh, lambda x: x.mul_(0.5)))
    v = normal(writing.n_parameters)
    torch.testing.assert_close(writing.hvp(v), objective(network(torch.tanh, lambda x: x * 0.5)).hvp(v))


class Once(torch.autograd.Function):
    """tanh, differentiable once."""

    @staticmethod
    def forward(ctx, x):
        y = x.tanh()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, slope):
        (y,) = ctx.saved_tensors
        return slope * (1 - y * y)


def test_an_exact_hessian_through_what_is_differentiable_once_is_refused():
    with pytest.raises(InputError, match="once_differentiable"):
        la.hessian(objective(network(Once.apply)), route="exact") @ normal(53)


@pytest.mark.parametrize("matrix", ["gauss_newton", "sampled_fisher", "empirical_fisher", "gradient_covariance"])
def test_what_is_differentiable_once_is_refused_or_right_where_no_second_derivative_is_needed(matrix):
    v = normal(53)
    truth = MATRICES[matrix](objective()) @ v
    try:
        found = MATRICES[matrix](objective(network(Once.apply))) @ v
    except InputError:
        return
    torch.testing.assert_close(found, truth)


@pytest.mark.parametrize("matrix", ["hessian", "gauss_newton"])
def test_a_loss_that_is_differentiable_once_is_refused(matrix):
    o = Objective(nn.Linear(6, 3).double(), lambda f, _: Once.apply(f).sum(1), DATA)
    with pytest.raises(InputError, match="once_differentiable"):
        MATRICES[matrix](o.with_route("exact")) @ normal(21)


class Overwriting(Network):
    """Writes over what the exponential needs for its gradient: PyTorch raises an error in training."""

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).exp().mul_(2))


@pytest.mark.parametrize(
    "matrix",
    [
        *(m for m in MATRICES if m != "gradient_covariance"),
        "gradient_covariance",
    ],
)
def test_a_model_whose_gradient_pytorch_refuses_has_no_curvature(matrix):
    with pytest.raises((LossAtlasError, RuntimeError)):
        MATRICES[matrix](objective(Overwriting().double())) @ normal(53)


class Noisy(Network):
    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.dropout(torch.tanh(self.first(x)), 0.5, training=True))


def test_every_draw_of_targets_sees_the_same_random_numbers_of_the_model():
    o = objective(Noisy().double())
    data, eye = drawn_batches(o, draws=2), torch.eye(o.n_parameters, dtype=torch.float64)
    halves = [matrix_products(o, "sampled_fisher", data=part)(eye) for part in (data[:3], data[3:])]
    torch.testing.assert_close(columns(la.fisher(o, draws=2)), (halves[0] + halves[1]) / 2)


@every_matrix
def test_the_generators_and_the_model_are_left_as_they_were(matrix):
    model = Noisy().double()
    before = [parameter.clone() for parameter in model.parameters()]
    o = objective(model)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    operator = MATRICES[matrix](o)
    for _ in range(2):
        operator @ normal(operator.n)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert random.getstate() == states[2]
    for parameter, value in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, value)
        assert parameter.grad is None
        assert parameter.requires_grad


@every_matrix
def test_no_grad_around_a_product_changes_nothing(matrix):
    operator = MATRICES[matrix](objective())
    with torch.no_grad():
        inside = MATRICES[matrix](objective()) @ normal(53)
    assert torch.equal(inside, operator @ normal(53))


@every_matrix
def test_a_vector_that_requires_a_gradient_is_a_vector(matrix):
    operator = MATRICES[matrix](objective())
    assert torch.equal(operator @ normal(53).requires_grad_(), operator @ normal(53))


class Physics(Network):
    """A derivative of the network in its inputs is part of the model."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.func.vmap(torch.func.jacrev(super().forward))(x).sum(2)


def test_a_model_that_differentiates_by_torch_func_has_a_hessian():
    o = objective(Physics().double())
    v, step = normal(o.n_parameters), 1e-5
    bend = (o.gradient(o.point + step * v) - o.gradient(o.point - step * v)) / (2 * step)
    torch.testing.assert_close(o.hvp(v), bend, rtol=1e-5, atol=1e-6)


# SciPy


def test_scipy_finds_the_eigenvalues_of_the_dense_matrix():
    operator = la.hessian(objective())
    values = torch.linalg.eigvalsh(columns(operator))
    linear = operator.to_scipy()
    assert linear.shape == (53, 53)
    assert linear.dtype == np.float64
    assert eigsh(linear, k=3, which="LA", return_eigenvectors=False) == pytest.approx(values[-3:].numpy(), rel=1e-9)
    assert eigsh(linear, k=1, which="SA", return_eigenvectors=False) == pytest.approx(values[:1].numpy(), rel=1e-9)


def test_scipy_may_hand_over_vectors_columns_and_blocks():
    operator = la.gauss_newton(objective())
    linear, block = operator.to_scipy(), normal(53, 3).numpy()
    truth = (operator @ torch.as_tensor(block)).numpy()
    np.testing.assert_allclose(linear @ block, truth, rtol=1e-13)
    np.testing.assert_allclose(linear @ block[:, :1], truth[:, :1], rtol=1e-13, atol=1e-16)
    np.testing.assert_allclose(linear.T @ block[:, 0], truth[:, 0], rtol=1e-13, atol=1e-16)
    np.testing.assert_allclose(linear @ block[::1, 0].astype(np.float32), truth[:, 0], rtol=1e-5)


def test_scipy_may_hand_over_a_vector_that_is_read_only():
    vector = np.ones(53)
    vector.flags.writeable = False
    assert (la.hessian(objective()).to_scipy() @ vector).shape == (53,)


# Bad input


@pytest.mark.parametrize("shape", [(52,), (54, 2), (53, 1, 1), ()])
def test_a_tensor_of_another_shape_is_refused(shape):
    with pytest.raises(DirectionError, match="53 x 53 operator cannot multiply"):
        la.hessian(objective()) @ torch.ones(shape)


@pytest.mark.parametrize("vector", [np.ones(53), [1.0] * 53], ids=["array", "list"])
def test_what_is_no_tensor_is_refused(vector):
    with pytest.raises((DirectionError, TypeError)):
        la.hessian(objective()) @ vector


@pytest.mark.parametrize("rows", [(2, 52), (2, 54), (53,)])
def test_rows_of_another_length_are_refused(rows):
    with pytest.raises(DirectionError):
        la.hessian(objective()).rows(normal(*rows))


def test_a_block_without_vectors_has_a_product_without_vectors():
    assert (la.hessian(objective()) @ torch.ones(53, 0)).shape == (53, 0)


@pytest.mark.parametrize("shape", [(52,), (2, 52), (1, 2, 53)])
def test_a_vector_of_another_shape_has_no_hessian_vector_product(shape):
    with pytest.raises(DirectionError, match="give floats"):
        objective().hvp(torch.ones(shape))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_vector_that_is_not_finite_has_no_product(value):
    with pytest.raises(DirectionError, match="NaN or infinite"):
        objective().hvp(torch.full((53,), value))
    with pytest.raises(LossAtlasError):
        la.hessian(objective()) @ torch.full((53,), value)


def test_a_vector_that_is_not_finite_is_what_the_message_is_about():
    with pytest.raises(LossAtlasError, match="vector"):
        la.hessian(objective()) @ torch.full((53,), float("nan"))


@every_matrix
def test_nan_in_a_derivative_is_an_error(matrix):
    """sqrt at 0, which has a value and no derivative."""
    model = network(lambda x: (x - x.detach()).sqrt())
    with pytest.raises(NumericalError, match="NaN or infinite"):
        MATRICES[matrix](objective(model)) @ normal(53)


@every_matrix
def test_negative_memory_is_refused(matrix):
    with pytest.raises(InputError, match="max_memory=-1"):
        MATRICES[matrix](objective(), max_memory=-1)


def test_an_unknown_kind_and_no_draws_are_refused():
    with pytest.raises(InputError, match="kind='exact'"):
        la.fisher(objective(), kind="exact")
    with pytest.raises(InputError, match="draws=0"):
        la.fisher(objective(), draws=0)


@pytest.mark.parametrize("matrix", ["gauss_newton", "sampled_fisher"])
def test_a_step_has_no_outputs_of_its_own(matrix):
    o = Objective.from_step(network(), lambda m, b: F.cross_entropy(m(b[0]), b[1]), [DATA])
    with pytest.raises(InputError, match="outputs apart from the loss"):
        MATRICES[matrix](o) @ normal(53)


@pytest.mark.parametrize("matrix", ["empirical_fisher", "gradient_covariance"])
@pytest.mark.parametrize(
    "made",
    [
        lambda: objective(loss=lambda f, y: -(f @ f.T).log_softmax(1).diagonal().mean()),
        lambda: Objective.from_step(network(), lambda m, b: F.cross_entropy(m(b[0]), b[1]), [DATA]),
    ],
    ids=["contrastive", "step"],
)
def test_a_loss_without_values_of_single_examples_has_no_empirical_fisher_matrix(matrix, made):
    with pytest.raises(InputError, match="one an example"):
        MATRICES[matrix](made()) @ normal(53)


def test_the_empirical_fisher_matrix_has_the_weights_of_the_classes():
    weight = torch.tensor([1.0, 5.0, 2.0]).double()
    o = objective(loss=nn.CrossEntropyLoss(weight=weight))
    alone = Objective(network(), nn.CrossEntropyLoss(), DATA, batch_size=1)
    total = torch.zeros(53, 53).double()
    for i, target in enumerate(DATA[1]):
        gradient = alone.examples(torch.tensor([i])).gradient()
        total += weight[target] * gradient.outer(gradient)
    v = normal(53)
    torch.testing.assert_close(MATRICES["empirical_fisher"](o) @ v, total @ v / weight[DATA[1]].sum())


@pytest.mark.parametrize("matrix", ["empirical_fisher", "gradient_covariance"])
def test_a_mean_of_shape_one_has_the_values_of_its_examples(matrix):
    o, v = objective(loss=lambda f, y: F.cross_entropy(f, y).reshape(1)), normal(53)
    torch.testing.assert_close(MATRICES[matrix](o) @ v, MATRICES[matrix](objective(loss=F.cross_entropy)) @ v)


def test_outputs_that_are_no_tensor_have_no_gauss_newton_matrix():
    class Pair(Network):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return super().forward(x), x

    o = objective(Pair().double(), lambda f, y: F.cross_entropy(f[0], y))
    with pytest.raises(InputError, match="the model returns a tuple"):
        la.gauss_newton(o) @ normal(53)


@every_matrix
def test_outputs_that_do_not_depend_on_the_parameters_are_refused(matrix):
    class Detached(Network):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).detach()

    with pytest.raises(InputError, match="depend on the parameters"):
        MATRICES[matrix](objective(Detached().double())) @ normal(53)


def test_statistics_that_depend_on_the_point_are_refused():
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)).double()
    o = Objective(model, F.cross_entropy, DATA, batch_norm="recompute")
    for make in MATRICES.values():
        with pytest.raises(InputError, match="batch_norm='recompute'"):
            make(o) @ o.point


def test_a_network_without_trainable_parameters_is_refused():
    with pytest.raises(InputError, match="frozen"):
        objective(network().requires_grad_(False))


def test_a_loss_that_writes_into_the_outputs_has_a_gauss_newton_matrix():
    def stable(f: Tensor, y: Tensor) -> Tensor:
        f.sub_(f.amax(1, keepdim=True).detach())
        return f.exp().sum(1).log() - f[torch.arange(len(y)), y]

    torch.testing.assert_close(columns(la.gauss_newton(objective(loss=stable))), columns(la.gauss_newton(objective())))


@pytest.mark.parametrize("matrix", ["hessian", "gauss_newton", "empirical_fisher"])
def test_a_function_without_a_second_derivative_in_pytorch_is_a_clear_error_or_not_needed(matrix):
    o = objective(network(F.hardsigmoid))
    try:
        found = MATRICES[matrix](o.with_route("exact")) @ normal(53)
    except InputError:
        return
    truth = objective(network(lambda x: (x / 6 + 0.5).clamp(0, 1)))
    torch.testing.assert_close(found, MATRICES[matrix](truth) @ normal(53))
