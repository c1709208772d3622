"""Diagonals by one backward pass for each output are the dense ones, or there is a reason, and never a wrong number."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from oracles import plain
from oracles.members import BATCH, BY_NAME
from oracles.plain import normal
from torch import Tensor, nn

import lossatlas as la
from lossatlas.curvature.operators import matrix_diagonal
from lossatlas.errors import InputError, LossAtlasError
from lossatlas.evaluation.products.diagonal import ExactDiagonal
from lossatlas.evaluation.products.precision import in_float64
from lossatlas.objective import Objective

Loss = Callable[[Tensor, Tensor], Tensor]
Data = tuple[Tensor, Tensor]


def classes(n: int) -> Tensor:
    return torch.arange(n) % 3


FLAT: Data = (normal(14, 6), classes(14))
IMAGES: Data = (normal(14, 2, 7, 7), classes(14))


def dense(model: nn.Module, loss: Loss, data: Data, matrix: str) -> Tensor:
    """The diagonal from the dense float64 matrix, by plain autograd on all the data at once."""
    if matrix == "hessian":
        return plain.hessian(model, loss, data).diagonal()
    inputs, targets = data
    outputs, theta = plain.outputs(model, inputs), plain.flat(model)
    jac = torch.autograd.functional.jacobian(outputs, theta)
    bend = torch.autograd.functional.hessian(lambda f: loss(f, targets).mean(), outputs(theta).detach())
    return torch.einsum("icp,icjd,jdp->p", jac, bend, jac)


def prepared(model: nn.Module, data: Data) -> nn.Module:
    """In float64, lazy layers made, statistics of BatchNorm and biases that are no defaults, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model.double()
        for _ in range(3):
            model(1.5 * data[0].clone() + 0.3)
        for parameter in model.parameters():
            if parameter.ndim < 2:
                parameter.data = parameter.data + 0.3 * torch.randn_like(parameter)
    return model.eval()


def objective(model: nn.Module, loss: Loss = F.cross_entropy, data: Data = FLAT, **options: Any) -> Objective:
    # Some of these detach on purpose: what PyTorch differentiates is the oracle here, whatever the loss is.
    return Objective(model, loss, data, batch_size=6, check=False, **options)


def close(found: ExactDiagonal, truth: Tensor) -> bool:
    assert found.values is not None, found.reason
    assert found.values.dtype == torch.float64
    assert found.reason == ""
    return float((found.values - truth).norm()) <= 1e-10 * float(truth.norm())


def right_or_a_reason(model: nn.Module, matrix: str, loss: Loss = F.cross_entropy, data: Data = FLAT) -> str | None:
    """The reason, after the check that a number, if there is one, is right."""
    found = matrix_diagonal(objective(model, loss, data), matrix)
    if found.values is None:
        assert re.fullmatch(r"[A-Z].*\.", found.reason), "a sentence, in one line"
        return found.reason
    assert close(found, dense(model, loss, data, matrix))
    return None


def perceptron(*middle: nn.Module, outputs: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), *(middle or (nn.ReLU(),)), nn.LazyLinear(outputs))


class Residual(nn.Module):
    def __init__(self, inner: nn.Module, *, inplace: bool = False) -> None:
        super().__init__()
        self.inner, self.inplace = inner, inplace

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        if self.inplace:
            y += x
            return F.relu_(y)
        return F.relu(x + y)


# Networks that are piecewise linear in each weight

PIECEWISE = {
    "two layers": lambda: perceptron(),
    "overwriting": lambda: perceptron(nn.ReLU(inplace=True), nn.Linear(5, 4), nn.LeakyReLU(0.1, inplace=True)),
    "without biases": lambda: nn.Sequential(nn.Linear(6, 5, bias=False), nn.ReLU6(), nn.Linear(5, 3, bias=False)),
    "hard": lambda: perceptron(nn.Hardtanh(), nn.Linear(5, 4), nn.Softshrink(), nn.Hardshrink()),
    "one layer": lambda: nn.Linear(6, 3),
    "batch norm": lambda: perceptron(nn.BatchNorm1d(5), nn.ReLU()),
    "residual": lambda: perceptron(Residual(nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5)))),
    "residual in place": lambda: perceptron(Residual(nn.Linear(5, 5), inplace=True)),
    "positions": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 3)), nn.Linear(3, 4), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)
    ),
    "pruned": lambda: perceptron(nn.Dropout(0.5), nn.ReLU()),
}
CONVOLUTIONAL = {
    "strides, padding and dilation": [nn.Conv2d(2, 3, (3, 2), stride=2, padding=(2, 1), dilation=2), nn.ReLU()],
    "groups": [nn.Conv2d(2, 4, 3, groups=2, bias=False), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 2, groups=4)],
    "no padding": [nn.Conv2d(2, 3, 3, padding="valid"), nn.ReLU()],
    "reflected": [nn.Conv2d(2, 3, 3, stride=2, padding=1, padding_mode="reflect"), nn.ReLU()],
    "max pool": [nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)],
    "mean pool": [nn.Conv2d(2, 3, 3), nn.LeakyReLU(), nn.AvgPool2d(2)],
    "adaptive pools": [nn.Conv2d(2, 3, 2), nn.AdaptiveMaxPool2d(3), nn.Conv2d(3, 3, 2), nn.AdaptiveAvgPool2d(1)],
    "batch norm": [nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.MaxPool2d(2)],
    "fixed batch norm": [nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, affine=False), nn.ReLU(), nn.MaxPool2d(2)],
    "residual": [nn.Conv2d(2, 2, 3, stride=2), nn.BatchNorm2d(2), Residual(nn.Conv2d(2, 2, 3, padding=1))],
}  # fmt: skip


@pytest.mark.parametrize("matrix", ["hessian", "gauss_newton"])
@pytest.mark.parametrize("name", PIECEWISE)
def test_a_perceptron_has_the_diagonal_of_its_dense_matrix(name, matrix):
    model = prepared(PIECEWISE[name](), FLAT)
    assert close(matrix_diagonal(objective(model), matrix), dense(model, F.cross_entropy, FLAT, matrix))


@pytest.mark.parametrize("matrix", ["hessian", "gauss_newton"])
@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_a_convolutional_network_has_the_diagonal_of_its_dense_matrix(name, matrix):
    model = prepared(nn.Sequential(*CONVOLUTIONAL[name], nn.Flatten(), nn.LazyLinear(3)), IMAGES)
    found = matrix_diagonal(objective(model, data=IMAGES), matrix)
    assert close(found, dense(model, F.cross_entropy, IMAGES, matrix))


LOSSES: dict[str, tuple[Loss, int, Tensor]] = {
    "mean squared error": (F.mse_loss, 2, normal(14, 2)),
    "one logit": (F.binary_cross_entropy_with_logits, 1, (normal(14, 1) > 0).double()),
    "smoothed labels": (nn.CrossEntropyLoss(label_smoothing=0.1), 3, classes(14)),
    "weighted classes": (
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 0.0, 3.0]).double(), reduction="none"), 3, classes(14),
    ),
    "a weight below zero": (
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, -2.0, 3.0]).double(), reduction="none"), 3, classes(14),
    ),
    "not convex": (lambda f, y: torch.sin(2 * f).prod(1) + 0 * y, 3, classes(14)),
    "several labels": (F.binary_cross_entropy_with_logits, 2, (normal(14, 2) > 0).double()),
}  # fmt: skip


@pytest.mark.parametrize("matrix", ["hessian", "gauss_newton"])
@pytest.mark.parametrize("name", LOSSES)
def test_any_loss_of_single_examples_will_do(name, matrix):
    loss, outputs, targets = LOSSES[name]
    data = (FLAT[0], targets)
    model = prepared(perceptron(outputs=outputs), data)
    found = matrix_diagonal(objective(model, loss, data), matrix)
    assert close(found, dense(model, lambda f, y: loss(f, y).mean(), data, matrix))


def test_a_loss_that_is_linear_in_the_outputs_has_a_diagonal_of_zeros():
    data = (FLAT[0], normal(14, 2))
    for matrix in ("hessian", "gauss_newton"):
        found = matrix_diagonal(objective(prepared(perceptron(outputs=2), data), F.l1_loss, data), matrix)
        assert torch.equal(found.values, torch.zeros(47, dtype=torch.float64))


@pytest.mark.parametrize("matrix", ["hessian", "gauss_newton"])
def test_frozen_parameters_are_no_entries(matrix):
    for frozen in (0, 2, 4):
        model = prepared(perceptron(nn.ReLU(), nn.Linear(5, 4), nn.ReLU()), FLAT)
        model[frozen].requires_grad_(False)
        assert close(matrix_diagonal(objective(model), matrix), dense(model, F.cross_entropy, FLAT, matrix))


@pytest.mark.parametrize("matrix", ["hessian", "gauss_newton"])
def test_a_selection_and_a_restriction_have_their_part_of_the_diagonal(matrix):
    model = prepared(perceptron(), FLAT)
    whole = dense(model, F.cross_entropy, FLAT, matrix)
    assert close(matrix_diagonal(objective(model, parameters="*.bias"), matrix), torch.cat([whole[30:35], whole[50:]]))
    assert close(matrix_diagonal(objective(model).restricted("2.*"), matrix), whole[35:])


def test_another_point_and_no_grad_are_taken_into_account():
    model = prepared(perceptron(), FLAT)
    theta = plain.flat(model) + 0.3 * normal(53)
    truth = plain.hessian(plain.at(model, theta), F.cross_entropy, FLAT).diagonal()
    with torch.no_grad():
        assert close(matrix_diagonal(objective(model).at(theta), "hessian"), truth)


def test_in_single_precision_it_is_right_to_single_precision():
    model = prepared(perceptron(), FLAT)
    found = matrix_diagonal(objective(model, dtype=torch.float32), "hessian")
    truth = dense(model, F.cross_entropy, FLAT, "hessian")
    assert float((found.values - truth).norm()) < 1e-5 * float(truth.norm())


def test_the_generators_and_the_model_are_left_as_they_were():
    model = prepared(perceptron(nn.BatchNorm1d(5), nn.ReLU()), FLAT).train()
    o = objective(model)
    before, state = plain.state_of(model), torch.get_rng_state()
    matrix_diagonal(o, "hessian")
    assert plain.differences(before, plain.state_of(model)) == []
    assert torch.equal(torch.get_rng_state(), state)


# Curved networks: a reason for H, and G where every layer has a rule

CURVED = {
    "tanh": lambda: perceptron(nn.Tanh()),
    "GELU": lambda: perceptron(nn.GELU()),
    "hard swish": lambda: perceptron(nn.Hardswish()),
    "layer norm": lambda: perceptron(nn.LayerNorm(5), nn.ReLU()),
    "softmax": lambda: perceptron(nn.Softmax(1)),
    "softmax at the end": lambda: nn.Sequential(*perceptron(), nn.LogSoftmax(1)),
    "power mean": lambda: perceptron(nn.Unflatten(1, (1, 5)), nn.LPPool1d(2, 2), nn.Flatten()),
}


@pytest.mark.parametrize("name", CURVED)
def test_a_curved_network_has_a_diagonal_of_the_gauss_newton_matrix_only(name):
    model = prepared(CURVED[name](), FLAT)
    assert "not piecewise linear in each weight" in right_or_a_reason(model, "hessian")
    assert right_or_a_reason(model, "gauss_newton") is None


class Layers(nn.Module):
    """Three layers and a parameter, put together by a function."""

    def __init__(self, put: Callable[[Layers, Tensor], Tensor], *shape: int) -> None:
        super().__init__()
        self.put = put
        self.first, self.second, self.head = nn.Linear(6, 4), nn.Linear(6, 4), nn.Linear(4, 3)
        self.own = nn.Parameter(0.5 * normal(*(shape or (4,)), seed=4))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.put(self, x))


def of(function: Callable[[Tensor], Tensor]) -> Callable[[Layers, Tensor], Tensor]:
    return lambda m, x: function(m.first(x))


FOOLING: dict[str, tuple[Callable[[Layers, Tensor], Tensor], ...]] = {
    "a square": (of(lambda z: z * z),),
    "a square by keywords": (of(lambda z: torch.mul(input=z, other=z)),),
    "a square in place": (of(lambda z: z.clone().mul_(z)),),
    "a square of views": (of(lambda z: z.reshape(-1, 2, 2).flatten(1) * z[:, :]),),
    "a square with its sign": (of(lambda z: z * z.sign()),),
    "a square of halves": (of(lambda z: torch.cat([z[:, :2] * z[:, 2:], z[:, 2:]], 1)),),
    "a square of the detached": (of(lambda z: z * z.detach()),),
    "a square of the data": (of(lambda z: z * z.data),),
    "a largest product": (of(lambda z: torch.maximum(z * z.flip(1), z)),),
    "a power": (of(lambda z: z.abs() ** 1.5),),
    "a gate": (lambda m, x: m.first(x) * torch.sigmoid(m.second(x)),),
    "a swish by hand": (of(lambda z: z * torch.sigmoid(z)),),
    "a quotient": (lambda m, x: m.first(x) / (1 + m.second(x).abs()),),
    "a reciprocal": (of(lambda z: 1 / (1 + z.relu())),),
    "a norm": (of(lambda z: z / z.norm(dim=1, keepdim=True)),),
    "normalised": (of(lambda z: F.normalize(z)),),
    "a choice": (of(lambda z: torch.where(z > 0, z, z * z)),),
    "a masked square": (of(lambda z: (z > 0) * z * z),),
    "an inner product": (of(lambda z: (z[:, :, None] @ z[:, None, :]).sum(2)),),
    "an outer sum": (of(lambda z: torch.einsum("bi,bj->bi", z, z)),),
    "attention": (of(lambda z: torch.softmax(z[:, :, None] * z[:, None, :], 2) @ torch.ones(4).double()),),
    "its own weights": (lambda m, x: F.linear(F.linear(x, m.own), m.own.T)[:, :4], 4, 6),
    "a weight squared": (lambda m, x: m.first(x) + m.own * m.own,),
    "a weight times what it made": (lambda m, x: (m.first(x) + m.own) * m.own,),
    "a standardised weight": (lambda m, x: F.linear(x, m.own / m.own.std(1, keepdim=True)), 4, 6),
    "the modulus of a complex number": (of(lambda z: (z.to(torch.complex128) + 1j).abs()),),
    "statistics of the batch": (of(lambda z: F.batch_norm(z, None, None, training=True)),),
    "a slope that is learned": (lambda m, x: F.prelu(m.first(x), m.own),),
    "no function of PyTorch": (of(lambda z: Own.apply(z)),),
}  # fmt: skip


class Own(torch.autograd.Function):
    """x^3 with its derivative by hand."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x * x

    @staticmethod
    def backward(ctx, slope):
        (x,) = ctx.saved_tensors
        return 3 * slope * x * x


@pytest.mark.parametrize("matrix", ["hessian", "gauss_newton"])
@pytest.mark.parametrize("name", FOOLING)
def test_no_curved_function_is_taken_for_a_piecewise_linear_one(name, matrix):
    put, *shape = FOOLING[name]
    model = prepared(Layers(put, *shape), FLAT)
    reason = right_or_a_reason(model, matrix)
    if matrix == "hessian":
        assert reason is not None


ALLOWED = {
    "a product of two towers": (lambda m, x: m.first(x).relu() * m.second(x).relu(),),
    "a quotient by a number": (of(lambda z: (z / 2).relu()),),
    "a quotient by the inputs": (lambda m, x: m.first(x) / (1 + x.abs().sum(1, keepdim=True)),),
    "a bias that is added": (lambda m, x: F.relu(x[:, :4] + m.own) + m.first(x),),
    "a bias that is added to from the left": (lambda m, x: F.relu(m.own + x[:, :4]), 1, 4),
    "a bias of a part": (lambda m, x: F.relu(x[:, :4].reshape(-1, 2, 2) + m.own).flatten(1), 2, 1),
    "a weight without a layer": (lambda m, x: F.linear(x, weight=m.own).relu(), 4, 6),
}


@pytest.mark.parametrize("matrix", ["hessian", "gauss_newton"])
@pytest.mark.parametrize("name", ALLOWED)
def test_what_is_linear_in_each_weight_is_seen_to_be(name, matrix):
    put, *shape = ALLOWED[name]
    assert right_or_a_reason(prepared(Layers(put, *shape), FLAT), matrix) is None


REFUSED = {
    "twice": (lambda m, x: m.first(x).relu() + m.first(-x).relu(), "A parameter is used more than once"),
    "by no rule": (lambda m, x: m.first(x) @ m.own[:, None] + m.first(x), "Parameters are used by"),
    "of the batch's length": (lambda m, x: m.first(x) + m.own[:, None].sum(), "Parameters are used by"),
    "written to": (lambda m, x: m.first(x).add_(m.own), "Parameters are used by add_"),
    "mixing": (lambda m, x: m.first(x - 0) - m.first(x).mean(0), "depend on the others"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_use_of_parameters_without_a_rule_is_a_reason(name):
    put, reason = REFUSED[name]
    assert reason in right_or_a_reason(prepared(Layers(put), FLAT), "gauss_newton")


def test_tied_weights_and_attention_have_a_reason():
    for name, reason in (("tied", "more than once"), ("transposed", "conv_transpose2d"), ("lstm", "")):
        member = BY_NAME[name]
        model, data = member.make(torch.float64), member.data(torch.float64)
        o = Objective(model, member.loss, data, batch_size=BATCH)
        assert reason in matrix_diagonal(o, "gauss_newton").reason
        assert "not piecewise linear" in matrix_diagonal(o, "hessian").reason
    member = BY_NAME["attention"]
    model, data = member.make(torch.float64), member.data(torch.float64)
    found = matrix_diagonal(Objective(model, member.loss, data, batch_size=BATCH), "gauss_newton")
    assert close(found, dense(model, member.loss, data, "gauss_newton"))


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(6, 5)),
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(6, 5)),
        lambda: nn.utils.parametrizations.orthogonal(nn.Linear(6, 5)),
    ],
    ids=["spectral norm", "weight norm", "orthogonal"],
)
def test_weights_that_are_functions_of_parameters_have_a_reason(build):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = nn.Sequential(build(), nn.ReLU(), nn.Linear(5, 3)).double().eval()
    for matrix in ("hessian", "gauss_newton"):
        assert right_or_a_reason(model, matrix) is not None


@pytest.mark.parametrize(
    ("model", "loss", "targets", "reason"),
    [
        (perceptron(nn.ReLU()), nn.CrossEntropyLoss(weight=torch.ones(3).double() * 2), classes(14), None),
        (
            perceptron(nn.ReLU()),
            nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0]).double()),
            classes(14),
            None,
        ),
        (
            nn.Sequential(perceptron(nn.ReLU(), outputs=1), nn.Flatten(0)),
            F.binary_cross_entropy_with_logits,
            (normal(14) > 0).double(),
            "one axis",
        ),
        (perceptron(nn.ReLU(), outputs=129), F.mse_loss, normal(14, 129), "more than 128"),
    ],
    ids=["equal weights", "weighted classes", "one axis", "many outputs"],
)
def test_a_loss_or_outputs_of_another_form_have_a_reason(model, loss, targets, reason):
    found = right_or_a_reason(prepared(model, FLAT), "gauss_newton", loss, (FLAT[0], targets))
    assert found is None if reason is None else reason in found


def test_a_step_and_outputs_that_are_no_tensor_have_a_reason():
    model = prepared(perceptron(), FLAT)
    stepped = Objective.from_step(model, lambda m, b: F.cross_entropy(m(b[0]), b[1]), [FLAT])
    for matrix in ("hessian", "gauss_newton"):
        assert "outputs apart from the loss" in matrix_diagonal(stepped, matrix).reason


def test_statistics_of_the_batch_have_a_reason():
    model = prepared(perceptron(nn.BatchNorm1d(5), nn.ReLU()), FLAT)
    o = objective(model, batch_norm="batch")
    assert "batch_norm" in matrix_diagonal(o, "hessian").reason
    assert "depend on the others" in matrix_diagonal(o, "gauss_newton").reason
    with pytest.raises(InputError, match="recompute"):
        matrix_diagonal(objective(model, batch_norm="recompute"), "hessian")


@pytest.mark.parametrize(
    "put",
    [
        of(lambda z: z - z.mean(0)),
        of(lambda z: z[torch.arange(len(z)).roll(1)]),
        of(lambda z: z + z.flip(0)),
        of(lambda z: z.amax(0) + z),
    ],
    ids=["centered", "shifted", "reversed", "largest"],
)
@pytest.mark.parametrize("matrix", ["hessian", "gauss_newton"])
def test_a_model_that_mixes_the_examples_of_a_batch_is_caught(put, matrix):
    model = prepared(Layers(put), FLAT)
    found = matrix_diagonal(objective(model), matrix)
    if found.values is not None:  # a permutation of examples has the diagonal of none
        truth = torch.stack([torch.eye(model_n(model), dtype=torch.float64)[i] for i in range(model_n(model))])
        columns = (la.hessian if matrix == "hessian" else la.gauss_newton)(objective(model)) @ truth
        assert close(found, columns.diagonal())


def model_n(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_a_loss_that_mixes_the_examples_of_a_batch_is_caught():
    found = matrix_diagonal(
        objective(prepared(perceptron(), FLAT), lambda f, _: (f - f.mean(0)).pow(2).sum(1)), "hessian"
    )
    assert found.reason == "The loss of an example depends on the outputs of others."


# Parameters that are used where the recorder does not look


@pytest.mark.parametrize("matrix", ["hessian", "gauss_newton"])
@pytest.mark.parametrize(
    "use",
    [lambda own: own.unbind(0)[0], lambda own: own.chunk(2)[0][0], lambda own: torch.cat([own]).sum(0)],
    ids=["unbind", "chunk", "cat"],
)
def test_parameters_in_lists_are_not_passed_over(use, matrix):
    """They are few among many, so that entries at random do not meet them."""
    model = Layers(lambda m, x: F.relu(m.wide(x).sum(1, keepdim=True) + m.first(x) + use(m.own)), 2, 4)
    model.wide = nn.Linear(6, 60)
    assert right_or_a_reason(prepared(model, FLAT), matrix) is not None


def scripted() -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")

        @torch.jit.script
        def swish(x):
            return x * torch.sigmoid(x)

        @torch.jit.script
        def shift(x, own):
            return x + own

    return swish, shift


@pytest.mark.parametrize(
    ("part", "matrix"), [(0, "hessian"), (1, "hessian"), (1, "gauss_newton")], ids=["curved", "unseen", "unseen-G"]
)
def test_functions_that_run_in_torchscript_are_not_passed_over(part, matrix):
    swish, shift = scripted()
    puts = (
        lambda m, x: F.relu(m.wide(x).sum(1, keepdim=True) + m.second(x)) + 0.1 * swish(m.first(x)),
        lambda m, x: F.relu(m.wide(x).sum(1, keepdim=True) + shift(m.first(x), m.own)),
    )
    model = Layers(puts[part])
    model.wide = nn.Linear(6, 100)
    assert right_or_a_reason(prepared(model, FLAT), matrix) is not None


def test_few_weights_before_a_mixing_of_examples_are_not_passed_over():
    model = Layers(lambda m, x: F.relu(m.wide(x).sum(1, keepdim=True) + x[:, :4]) + 0.1 * centered(m.first(x)))
    model.wide = nn.Linear(6, 100)
    model = prepared(model, FLAT)
    found = matrix_diagonal(objective(model), "gauss_newton")
    truth = (la.gauss_newton(objective(model)) @ torch.eye(model_n(model), dtype=torch.float64)).diagonal()
    assert found.values is None or close(found, truth)


def centered(z: Tensor) -> Tensor:
    return F.relu(z) - F.relu(z).mean(0)


class Recurrent(nn.Module):
    """A small recurrent part and a wide one."""

    def __init__(self) -> None:
        super().__init__()
        self.cells, self.wide, self.head = nn.LSTM(2, 1, batch_first=True), nn.Linear(6, 120), nn.Linear(121, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat([self.cells(x.unflatten(1, (3, 2)))[0][:, -1], F.relu(self.wide(x))], 1))


def test_the_weights_of_a_small_lstm_are_not_passed_over():
    assert right_or_a_reason(prepared(Recurrent(), FLAT), "gauss_newton") is not None


# What fails deep inside


class Backbone(nn.Module):
    def __init__(self, after: Callable[[Tensor], Tensor] = torch.clone, *, graph: bool = True) -> None:
        super().__init__()
        self.body, self.head, self.after, self.graph = nn.Linear(6, 5), nn.Linear(5, 3), after, graph

    def forward(self, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(self.graph and torch.is_grad_enabled()):
            z = F.relu(self.body(x))
        return self.head(self.after(z))


def test_a_backbone_under_no_grad_has_zeros_or_a_reason():
    found = matrix_diagonal(objective(Backbone(graph=False).double()), "gauss_newton")
    assert (found.values is None) == bool(found.reason)


def test_a_quotient_by_keyword_is_read():
    model = prepared(Layers(of(lambda z: torch.div(z, other=torch.tensor(2.0)).relu())), FLAT)
    assert right_or_a_reason(model, "hessian") is None


@pytest.mark.parametrize(
    ("put", "shape"),
    [
        (lambda m, x: F.linear(input=x, weight=m.own).relu(), (4, 6)),
        (lambda m, x: torch.add(input=m.first(x), other=m.own), (4,)),
    ],
    ids=["linear", "add"],
)
def test_arguments_by_keyword_do_not_look_like_a_failure_of_the_model(put, shape):
    reason = right_or_a_reason(prepared(Layers(put, *shape), FLAT), "gauss_newton")
    assert reason is None or "unexpected keyword" not in reason
    assert reason is None or "missing" not in reason


@pytest.mark.parametrize(
    ("bad", "loss", "targets"),
    [
        (2, F.cross_entropy, classes(14)),
        (12, F.cross_entropy, classes(14)),
        (12, F.mse_loss, normal(14, 3)),
        (2, F.mse_loss, normal(14, 3)),
    ],
    ids=["first batch", "last batch", "last batch, squares", "first batch, squares"],
)
def test_nan_is_a_reason_or_an_error_and_never_a_diagonal(bad, loss, targets):
    inputs = FLAT[0].clone()
    inputs[bad] = float("nan")
    try:
        found = matrix_diagonal(objective(prepared(perceptron(), FLAT), loss, (inputs, targets)), "gauss_newton")
    except LossAtlasError:
        return
    assert found.values is None


def test_the_trace_of_a_matrix_with_nan_is_an_error():
    inputs = FLAT[0].clone()
    inputs[12] = float("nan")
    with pytest.raises(LossAtlasError):
        la.trace(la.gauss_newton(objective(prepared(perceptron(), FLAT), F.mse_loss, (inputs, normal(14, 3)))))


def test_a_function_without_a_second_derivative_in_pytorch_has_a_diagonal_or_a_reason():
    right_or_a_reason(prepared(perceptron(nn.Hardsigmoid()), FLAT), "gauss_newton")


def test_a_model_that_writes_into_its_inputs_has_no_wrong_diagonal():
    model = prepared(Layers(lambda m, x: F.relu(m.first(x.mul_(0.5)))), FLAT)
    same = Layers(lambda m, x: F.relu(m.first(x * 0.5))).double()
    same.load_state_dict(model.state_dict())
    truth = dense(same, F.cross_entropy, FLAT, "hessian")
    found = matrix_diagonal(objective(model), "hessian")
    assert found.values is None or close(found, truth)


def test_the_exact_trace_is_the_sum_of_the_diagonal():
    model = prepared(perceptron(), FLAT)
    estimate = la.trace(la.hessian(objective(model)))
    assert estimate.stderr == 0
    assert estimate.method.startswith("exact")
    assert estimate.value == pytest.approx(float(dense(model, F.cross_entropy, FLAT, "hessian").sum()), rel=1e-12)


# Losses of almost 0


def confident(margin: float, *middle: nn.Module) -> tuple[nn.Module, Data]:
    """A network in float32 that is right about every example by about ``margin``, and its data."""
    model = prepared(perceptron(*middle, outputs=3), FLAT)
    targets = model(FLAT[0]).argmax(1).detach()
    gaps = model(FLAT[0]).topk(2).values.detach()
    scale = margin / float((gaps[:, 0] - gaps[:, 1]).median())
    with torch.no_grad():
        for parameter in model[-1].parameters():
            parameter *= scale
    return model.float(), (FLAT[0].float(), targets)


@pytest.mark.parametrize("matrix", ["hessian", "gauss_newton"])
@pytest.mark.parametrize("margin", [5.0, 20.0])
def test_rounding_in_float32_does_not_decide_whether_the_diagonal_is_exact(margin, matrix):
    model, data = confident(margin)
    found = matrix_diagonal(objective(model, data=data), matrix)
    truth = dense(model.double(), F.cross_entropy, (data[0].double(), data[1]), matrix)
    assert found.values is not None, found.reason
    assert float((found.values - truth).norm()) < 1e-4 * float(truth.norm())


class Single(nn.Module):
    """A model that works in float32 only."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body, self.unit = body.float(), [torch.eye(6)]

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x @ self.unit[0])


def test_a_model_that_fails_in_float64_is_verified_in_float32():
    body = prepared(perceptron(), FLAT)
    truth = dense(body, F.cross_entropy, FLAT, "hessian")
    o = objective(Single(body), data=(FLAT[0].float(), FLAT[1]))
    assert in_float64(o.function, o.point, next(iter(o.batches))).note.startswith(", in float32, since float64 fails")
    found = matrix_diagonal(o, "hessian")
    assert found.values is not None, found.reason
    assert float((found.values - truth).norm()) < 1e-4 * float(truth.norm())
