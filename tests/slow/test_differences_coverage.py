"""Are differences of the gradient off by less than they say? Ten networks, trained on digits, 20 random vectors each.

The truth is double backward on the plain network in float64. Beside the random vectors there are the gradient and the
leading eigenvectors, along which the loss bends most. ``alone``: models that cannot be cast to float64, so that
rounding and kinks are those of steps 20,000 times as long. The table is printed (``-s``).
"""

from __future__ import annotations

import functools
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles import plain
from oracles.plain import normal
from scipy.sparse.linalg import LinearOperator, eigsh
from sklearn.datasets import load_digits
from torch import Tensor, nn

import lossatlas as la
from lossatlas.errors import ConvergenceWarning
from lossatlas.evaluation.products import differences
from lossatlas.evaluation.products.linearised import Hessian
from lossatlas.objective import Objective

pytestmark = pytest.mark.slow

VECTORS, EXAMPLES, STEPS = 20, 256, 120


class Rows(nn.Module):
    """A recurrent network that reads the image row by row."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.cells, self.head = kind(8, 12, batch_first=True), nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        states: Tensor = self.cells(x.view(-1, 8, 8))[0]
        return self.head(states[:, -1])


class Transformer(nn.Module):
    """The rows of the image are tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(8, 16), nn.Linear(16, 10)
        self.layer = nn.TransformerEncoderLayer(16, 2, 24, dropout=0.0, activation="gelu", batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.embed(x.view(-1, 8, 8))).mean(1))


class Block(nn.Module):
    def __init__(self, width: int, activation: type[nn.Module]) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2)]
        norms = [nn.BatchNorm2d(width) for _ in range(2)]
        self.inner = nn.Sequential(convolutions[0], norms[0], activation(), convolutions[1], norms[1])
        self.after = activation()

    def forward(self, x: Tensor) -> Tensor:
        return self.after(x + self.inner(x))


def perceptron(activation: type[nn.Module], *widths: int) -> nn.Module:
    layers = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), activation())]
    return nn.Sequential(*layers[:-1])


def convolutional(activation: type[nn.Module], *inner: nn.Module) -> nn.Module:
    first = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 8, 3, padding=1), activation())
    return nn.Sequential(*first, *inner, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 10))


NETWORKS = {
    "mlp, tanh": lambda: perceptron(nn.Tanh, 64, 32, 16, 10),
    "mlp, relu": lambda: perceptron(nn.ReLU, 64, 32, 16, 10),
    "mlp, gelu": lambda: perceptron(nn.GELU, 64, 32, 16, 10),
    "autoencoder, relu": lambda: perceptron(nn.ReLU, 64, 24, 6, 24, 64),
    "cnn, relu": lambda: convolutional(nn.ReLU),
    "cnn, silu": lambda: convolutional(nn.SiLU),
    "resnet, batch norm": lambda: convolutional(nn.ReLU, Block(8, nn.ReLU), Block(8, nn.ReLU)),
    "transformer": Transformer,
    "lstm": lambda: Rows(nn.LSTM),
    "gru": lambda: Rows(nn.GRU),
}


@functools.cache
def trained(name: str) -> tuple[nn.Module, plain.Loss, tuple[Tensor, Tensor]]:
    """In float32, whose numbers are those of float64 too."""
    images, labels = load_digits(return_X_y=True)
    x, y = torch.from_numpy(images[:EXAMPLES] / 16).float(), torch.from_numpy(labels[:EXAMPLES]).long()
    loss, targets = (F.mse_loss, x) if name.startswith("auto") else (F.cross_entropy, y)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = NETWORKS[name]()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss(model(x), targets).backward()
        optimizer.step()
    return model, loss, (x, targets)


@functools.cache
def leading(name: str) -> tuple[Tensor, Tensor]:
    """The two largest eigenvalues of the plain network, and their eigenvectors as rows."""
    model, loss, data = trained(name)
    n = len(plain.flat(model))

    def multiply(v: np.ndarray) -> np.ndarray:
        return plain.product(model, loss, data, torch.from_numpy(v.copy())).numpy()

    values, vectors = eigsh(LinearOperator((n, n), matvec=multiply, dtype=float), 2, which="LA", tol=1e-10)
    return torch.from_numpy(values.copy()), torch.from_numpy(vectors.T.copy())


@functools.cache
def truths(name: str) -> tuple[Tensor, Tensor]:
    """Unit vectors, 20 at random, the gradient and the leading eigenvectors, and their products."""
    model, loss, data = trained(name)
    rows = torch.cat([normal(VECTORS, len(plain.flat(model)), seed=4), plain.gradient(model, loss, data)[None]])
    rows = torch.cat([rows, leading(name)[1]])
    rows = (rows / rows.norm(dim=1, keepdim=True)).float().double()  # the same in both types
    return rows, torch.stack([plain.product(model, loss, data, v) for v in rows])


def objective(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> Objective:
    model, loss, data = trained(name)
    if kind == "alone":
        monkeypatch.setattr(differences, "_in_double", lambda form, *_: (form, ", alone"))
    dtype = torch.float64 if kind == "float64" else torch.float32
    return Objective(model, loss, data, batch_size=64, dtype=dtype)


@pytest.mark.parametrize("kind", ["float64", "float32", "alone"])
@pytest.mark.parametrize("name", NETWORKS)
def test_products_are_off_by_less_than_they_say(name, kind, monkeypatch):
    o, (rows, products) = objective(name, kind, monkeypatch), truths(name)
    together = la.hessian(o, route="differences")
    together @ normal(o.n_parameters)
    seen, gradients, counted = together.products._routes.differences, [0], Hessian.gradient
    monkeypatch.setattr(Hessian, "gradient", lambda *given: gradients.append(0) or counted(*given))
    off, said = [], []
    for row, truth in zip(rows, products, strict=True):
        seen.errors = differences.Errors()
        off.append(float(((together @ row).double() - truth).norm() / truth.norm()))
        said.append(together.errors.norm / float(truth.norm()))
    covered = [a <= b for a, b in zip(off, said, strict=True)]
    print(
        f"\n{name:20s} {kind:8s} n {o.n_parameters:5d}  off {np.median(off):.1e} (max {np.max(off):.1e})  "
        f"said {np.median(said):.1e}  covered {sum(covered[:VECTORS])}/{VECTORS}, {sum(covered[VECTORS:])}/3  "
        f"{len(gradients) / len(rows) / len(o.batches):.2f} gradients"
    )
    assert np.mean(covered) >= 0.95
    if kind != "alone":
        assert np.median(said) < 1e-5
        assert len(gradients) < 2.5 * len(rows) * len(o.batches)


@pytest.mark.parametrize("kind", ["float64", "float32", "alone"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_largest_eigenvalue_lies_within_its_interval(name, kind, monkeypatch):
    o, (values, _) = objective(name, kind, monkeypatch), leading(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = la.top_eigenpairs(la.hessian(o, route="differences"), 1)
    off, said = abs(float(found.values[0] - values[-1])), float(found.residuals[0])
    print(f"\n{name:20s} {kind:8s} lambda_max {float(values[-1]):9.4f}  off {off:.1e}  residual {said:.1e}")
    assert off <= said
    assert kind == "alone" or bool(found.converged[0])
