"""KFAC by curvlinops, which is seldom installed."""

from __future__ import annotations

import importlib.util

import pytest
import torch
import torch.nn.functional as F
from oracles.plain import normal
from torch import Tensor, nn

import lossatlas as la
from lossatlas.errors import InputError, MissingToolError

needs_curvlinops = pytest.mark.skipif(not importlib.util.find_spec("curvlinops"), reason="curvlinops is not installed")

WEIGHT = torch.tensor([1.0, 2.0, 5.0]).double()
BITS, CLASSES, NUMBERS, PLACES = (normal(7, 3) > 0).double(), torch.arange(7) % 3, normal(7, 3), torch.arange(14) % 3
SOFT, CHANCES = normal(7, 3).sigmoid(), normal(7, 3).softmax(1)

LOSSES = {
    "cross-entropy": (F.cross_entropy, CLASSES),
    "a sum": (nn.CrossEntropyLoss(reduction="sum"), CLASSES),
    "class probabilities": (nn.CrossEntropyLoss(), CHANCES),
    "smoothed labels": (nn.CrossEntropyLoss(label_smoothing=0.1), CLASSES),
    "an ignored target": (nn.CrossEntropyLoss(), torch.where(torch.arange(7) == 3, -100, CLASSES)),
    "weighted classes": (nn.CrossEntropyLoss(weight=WEIGHT), CLASSES),
    "squared error": (F.mse_loss, NUMBERS),
    "a sum of squares": (nn.MSELoss(reduction="sum"), NUMBERS),
    "half the squared error of an example": (lambda o, t: ((o - t) ** 2).sum(1) / 2, NUMBERS),
    "binary cross-entropy": (nn.BCEWithLogitsLoss(), BITS),
    "a sum of binary cross-entropies": (nn.BCEWithLogitsLoss(reduction="sum"), BITS),
    "soft targets of 0 or 1": (nn.BCEWithLogitsLoss(), SOFT),
    "another weight of ones": (nn.BCEWithLogitsLoss(pos_weight=WEIGHT), BITS),
}
NOT_DRAWN = ("smoothed labels", "weighted classes", "another weight of ones")
EXACT = {
    "type-2": la.gauss_newton,
    "empirical": lambda o: la.fisher(o, kind="empirical"),
    "mc": lambda o: la.fisher(o, draws=3, seed=5),
}


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(4, 3, bias=False).double()


def objective(examples: int, loss=F.cross_entropy, targets: Tensor = CLASSES, **options) -> la.Objective:
    return la.Objective(linear(), loss, (normal(examples, 4), targets[:examples]), **options)


def dense(operator: la.Operator) -> Tensor:
    return operator @ torch.eye(operator.n, dtype=torch.float64)


@needs_curvlinops
@pytest.mark.parametrize(("name", "fisher"), [(n, f) for n in LOSSES for f in EXACT if f != "mc" or n not in NOT_DRAWN])
def test_one_layer_and_one_example_are_the_matrix_itself(name, fisher):
    o = objective(1, *LOSSES[name])
    exact = EXACT[fisher](o)
    found = la.kfac(o, fisher=fisher, **({"draws": 3, "seed": 5} if fisher == "mc" else {}))
    torch.testing.assert_close(dense(found), dense(exact), rtol=1e-9, atol=1e-13)


@needs_curvlinops
@pytest.mark.parametrize("name", LOSSES)
def test_many_examples_give_the_product_of_the_mean_outer_products(name):
    loss, targets = LOSSES[name]
    o = objective(7, loss, targets, batch_size=3)
    x, at = normal(7, 4), o.point.reshape(3, 4)
    outputs = (x @ at.T).detach()
    mean = loss if "example" not in name else lambda f, y: loss(f, y).mean()
    curved = torch.autograd.functional.hessian(lambda f: mean(f, targets), outputs)
    b = sum(curved[i, :, i] for i in range(7)) / (7 if getattr(loss, "reduction", "") == "sum" else 1)
    torch.testing.assert_close(dense(la.kfac(o)), torch.kron(b, x.T @ x / 7), rtol=1e-9, atol=1e-13)


@needs_curvlinops
def test_layers_with_biases_have_a_block_for_each_parameter():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)).double()
    x, y = normal(5, 1, 3, 3), torch.arange(5) % 3
    o = la.Objective(model, F.cross_entropy, (x, y), batch_size=2)
    patches = F.unfold(x, 2).transpose(1, 2)  # (examples, positions, 4)
    z = model[0](x).detach().requires_grad_()
    f = model[3](z.tanh().flatten(1))
    p = f.softmax(1)
    root = p.sqrt()[:, :, None] * torch.eye(3) - p[:, :, None] * p.sqrt()[:, None, :]
    back = [torch.autograd.grad(f, z, root[:, :, c].detach(), retain_graph=True)[0] for c in range(3)]
    rows = torch.stack(back).transpose(2, -1).reshape(-1, 2)
    b1, b2 = rows.T @ rows / 5, (torch.diag_embed(p) - p[:, :, None] * p[:, None, :]).mean(0)
    a1 = patches.reshape(-1, 4).T @ patches.reshape(-1, 4) / 20
    hidden = z.tanh().flatten(1)
    blocks = [torch.kron(b1, a1), b1, torch.kron(b2, hidden.T @ hidden / 5), b2]
    torch.testing.assert_close(dense(la.kfac(o)), torch.block_diag(*blocks).detach(), rtol=1e-9, atol=1e-13)


@needs_curvlinops
def test_positions_are_independent_examples_of_a_shared_layer():
    torch.manual_seed(0)
    model = nn.Linear(4, 3, bias=False).double()
    x, y = normal(1, 2, 4), torch.tensor([[0, 2]])
    loss = lambda o, t: F.cross_entropy(o.flatten(0, 1), t.flatten())  # noqa: E731
    p = model(x)[0].softmax(1).detach()
    b = (torch.diag_embed(p) - p[:, :, None] * p[:, None, :]).mean(0)
    found = dense(la.kfac(la.Objective(model, loss, (x, y))))
    torch.testing.assert_close(found, torch.kron(b, x[0].T @ x[0] / 2), rtol=1e-9, atol=1e-13)


@needs_curvlinops
def test_parameters_that_are_left_out_have_no_block():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 2), nn.LayerNorm(2), nn.Linear(2, 3)).double()
    data = normal(5, 4), CLASSES[:5]
    with pytest.raises(InputError, match=r"'1\.weight' belongs to a LayerNorm: leave it out"):
        la.kfac(la.Objective(model, F.cross_entropy, data))
    some = la.kfac(la.Objective(model, F.cross_entropy, data, parameters=["0.*", "2.weight"]))
    assert some.n == 8 + 2 + 6
    assert float(torch.linalg.eigvalsh(dense(some))[0]) > -1e-14


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(x))


@needs_curvlinops
@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: la.kfac(la.Objective(Twice(), F.cross_entropy, (normal(3, 4), CLASSES[:3]))), "is called 2 times"),
        (lambda: la.kfac(objective(5, lambda o, t: -(o**2).sum(1), NUMBERS)), "not convex in the outputs"),
        (lambda: la.kfac(objective(5, F.l1_loss, NUMBERS), fisher="mc"), "Targets cannot be drawn"),
        (lambda: la.kfac(objective(5), fisher="exact"), "choose 'type-2'"),
        (lambda: la.kfac(objective(5), fisher="mc", draws=0), "at least one drawn target"),
    ],
)
def test_what_it_is_not_defined_for_is_refused(made, message):
    with pytest.raises(InputError, match=message):
        made()


@pytest.mark.skipif(bool(importlib.util.find_spec("curvlinops")), reason="curvlinops is installed")
def test_without_curvlinops_the_message_says_what_to_install():
    with pytest.raises(MissingToolError, match=r"lossatlas\[kfac\]"):
        la.kfac(objective(5))
