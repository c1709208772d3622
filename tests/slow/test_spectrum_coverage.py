"""Do the 95 % intervals of a spectrum cover on trained networks? Six, on real digits, each Hessian known by entries.

The Hessian is taken once, dense and in float64, by autograd on the plain network; the measurements know its products
only, from 100 seeds each, 40 where the tolerances are tight and the products many. The bounds of a quadrature hold for
every seed, so where they make an interval it may cover always; an interval of the random directions alone covers in 90
to 99 of 100.
"""

from __future__ import annotations

import functools
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles import plain
from oracles.quadratic import quadratic
from sklearn.datasets import load_digits
from torch import Tensor, nn

import lossatlas as la
from lossatlas.errors import ConvergenceWarning

pytestmark = pytest.mark.slow


class Recurrent(nn.Module):
    """A row of the image at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.last = nn.GRU(8, 8, batch_first=True), nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        states: Tensor = self.inner(images.view(-1, 8, 8))[0]
        return self.last(states[:, -1])


class Transformer(nn.Module):
    """A row of the image is a token."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.queries, self.keys = nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.values, self.last = nn.Linear(8, 8), nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        tokens = images.view(-1, 8, 8)
        at = self.norm(tokens)
        scores = (self.queries(at) @ self.keys(at).transpose(1, 2) / 8**0.5).softmax(2)
        return self.last((tokens + scores @ self.values(at)).mean(1))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(64, 6), nn.Linear(6, 6), nn.Linear(6, 10)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.first(images)
        return self.last(hidden + F.relu(self.inner(hidden)))


def convolutional() -> nn.Module:
    inner = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4))
    return nn.Sequential(*inner, nn.Flatten(), nn.Linear(24, 10))


NETWORKS = {
    "mlp, relu": lambda: nn.Sequential(nn.Linear(64, 7), nn.ReLU(), nn.Linear(7, 10)),
    "mlp, tanh": lambda: nn.Sequential(nn.Linear(64, 6), nn.Tanh(), nn.Linear(6, 10)),
    "cnn": convolutional,
    "residual": Residual,
    "gru": Recurrent,
    "transformer": Transformer,
}


@functools.cache
def hessian(name: str) -> Tensor:
    """Of the network's mean cross-entropy on 300 digits, after 150 steps of Adam on them."""
    images, labels = load_digits(return_X_y=True)
    data = torch.from_numpy(images[:300] / 16), torch.from_numpy(labels[:300]).long()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = NETWORKS[name]().double()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        F.cross_entropy(model(data[0]), data[1]).backward()
        optimizer.step()
    dense = plain.hessian(model, F.cross_entropy, data)
    return (dense + dense.T) / 2


@pytest.mark.parametrize("tolerances", [(0.2, 0.1), (0.02, 0.01)], ids=["loose", "tight"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_intervals_cover_what_is_known_entry_by_entry(name, tolerances):
    dense = hessian(name)
    truth, n = np.linalg.eigvalsh(dense.numpy()), len(dense)
    o = quadratic(dense, torch.zeros(1, n).double(), torch.zeros(n).double())
    expected = {
        "trace": truth.sum(),
        "frobenius_norm": np.linalg.norm(truth),
        "negative_mass": float((truth < -1e-11 * truth.max()).mean()),
    }
    inside: dict[str, list[bool]] = {quantity: [] for quantity in (*expected, "bins")}
    for seed in range(100):  # of fewer, an interval of 95 % may miss more than a tenth by chance
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = la.spectrum(
                o, 3, trace_tol=tolerances[0], density_tol=tolerances[1], trend=False, seed=seed, progress=False
            )
        for quantity, value in expected.items():
            slack = 1e-9 * abs(value)
            low, high = (float(found[f"{quantity}_{end}"]) for end in ("low", "high"))
            inside[quantity].append(low - slack <= value <= high + slack)
        edges = np.append(found["bin_left"], found["bin_right"][-1])
        shares = np.histogram(truth, edges)[0] / n
        low, high = found["histogram_low"].to_numpy(), found["histogram_high"].to_numpy()
        inside["bins"].append(float(((low - 1e-12 <= shares) & (shares <= high + 1e-12)).mean()))
    covered = {quantity: float(np.mean(each)) for quantity, each in inside.items()}
    print(f"{name}, {n} parameters, {tolerances}: {covered}, products {found.attrs['products']}")
    assert all(share >= 0.90 for share in covered.values()), covered
