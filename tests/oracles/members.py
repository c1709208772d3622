"""The family over which the laws are held: small models of every kind that the core must treat alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossatlas.objective import Objective

N = 23  # examples: three batches of BATCH, the last one ragged
BATCH = 9


class Attention(nn.Module):
    """One head of self-attention between two LayerNorms, then the mean over positions."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.LayerNorm(4), nn.LayerNorm(4)
        self.qkv, self.head = nn.Linear(4, 12), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(self.before(x))[:, None].chunk(3, dim=-1)  # (batch, head, position, feature)
        return self.head(self.after(F.scaled_dot_product_attention(query, key, value)).mean((1, 2)))


class Tied(nn.Module):
    """One matrix under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(5, 5, bias=False), nn.Linear(5, 5)
        self.decoder.weight = self.encoder.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(torch.tanh(self.encoder(x)))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells, self.head = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cells(x)[0][:, -1])


class PartlyFrozen(nn.Module):
    """The first layer takes no gradient, and a scalar parameter has no axis at all."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 5), nn.Linear(5, 3)
        self.scale = nn.Parameter(torch.tensor(1.3))
        self.first.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.second(torch.tanh(self.first(x)))


def perceptron(activation: type[nn.Module], outputs: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 7), activation(), nn.Linear(7, outputs))


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 3)
    )


def normalised() -> nn.Module:
    """BatchNorm in two and in one dimension, with running statistics of its own."""
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Linear(48, 4), nn.BatchNorm1d(4), nn.Tanh()
    )
    model.append(nn.Linear(4, 3))
    for _ in range(5):  # in train mode, as a training loop would
        model(1.5 * torch.randn(16, 1, 6, 6) + 0.3)
    return model


def transposed() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Unflatten(1, (2, 2, 2)), nn.ConvTranspose2d(2, 3, 2), nn.Tanh(), Mean())


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


@dataclass(frozen=True)
class Member:
    """A model, its loss and its data; ``smooth`` where finite differences may be taken."""

    name: str
    build: Callable[[], nn.Module]
    loss: Callable[[Any, Any], Tensor]
    inputs: tuple[int, ...]
    targets: int | None  # so many numbers an example; None for one of three classes
    smooth: bool = True

    def make(self, dtype: torch.dtype = torch.float32, seed: int = 0) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return self.build().to(dtype)

    def data(self, dtype: torch.dtype = torch.float32, n: int = N) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(7)
        inputs = torch.randn(n, *self.inputs, generator=generator, dtype=torch.float64).to(dtype)
        if self.targets is None:
            return inputs, torch.randint(3, (n,), generator=generator)
        return inputs, torch.randn(n, self.targets, generator=generator, dtype=torch.float64).to(dtype)

    def objective(self, dtype: torch.dtype = torch.float32, **options: Any) -> Objective:
        """Of the model, the loss and the data, by default in three batches of which the last is ragged."""
        return Objective(self.make(dtype), self.loss, self.data(dtype), **({"batch_size": BATCH} | options))

    def batches(self, dtype: torch.dtype = torch.float32) -> list[tuple[Tensor, Tensor]]:
        inputs, targets = self.data(dtype)
        return list(zip(inputs.split(BATCH), targets.split(BATCH), strict=True))


MEMBERS = [
    Member("mlp-relu", lambda: perceptron(nn.ReLU), F.cross_entropy, (6,), None, smooth=False),
    Member("mlp-tanh", lambda: perceptron(nn.Tanh), F.cross_entropy, (6,), None),
    Member("cnn", convolutional, nn.CrossEntropyLoss(label_smoothing=0.1), (1, 6, 6), None, smooth=False),
    Member("batch-norm", normalised, F.cross_entropy, (1, 6, 6), None),
    Member("attention", Attention, F.cross_entropy, (5, 4), None),
    Member("tied", Tied, F.mse_loss, (5,), 5),
    Member("transposed", transposed, F.mse_loss, (6,), 3),
    Member("regression", lambda: perceptron(nn.Softplus, 2), nn.MSELoss(), (6,), 2),
    Member("lstm", Recurrent, F.cross_entropy, (4, 3), None),
    Member("partly-frozen", PartlyFrozen, F.cross_entropy, (6,), None),
]
BY_NAME = {member.name: member for member in MEMBERS}
DTYPES = [torch.float32, torch.float64]
