"""Families whose weights a package ships: read from where it is installed; the package itself is not imported.

pip install --no-deps resemblyzer facenet-pytorch
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from families import Family, classes, normal
from torch import Tensor, nn

import lossatlas as la

N = 8  # examples


def pretrained() -> Iterator[Family]:
    """Those that are installed."""
    for package, file, family in FAMILIES:
        if weights := _file(package, file):
            yield family(weights)


def missing() -> list[str]:
    """The packages that are not."""
    return [package for package, file, _ in FAMILIES if _file(package, file) is None]


def _file(package: str, name: str) -> Path | None:
    found = find_spec(package)
    path = Path(found.origin).parent / name if found and found.origin else None
    return path if path and path.is_file() else None


class SpeakerEncoder(nn.Module):
    """The speaker encoder of resemblyzer: Wan et al. 2018, "Generalized End-to-End Loss for Speaker Verification"."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.linear = nn.LSTM(40, 256, 3, batch_first=True), nn.Linear(256, 256)

    def forward(self, frames: Tensor) -> Tensor:
        last = self.lstm(frames)[1][0][-1]
        return F.normalize(F.relu(self.linear(last)), dim=1)


def speakers(weights: Path) -> Family:
    """Random frames of four speakers; an utterance is told by the others of its speaker."""

    def build() -> nn.Module:
        return _loaded(SpeakerEncoder(), torch.load(weights, map_location="cpu", weights_only=True)["model_state"])

    def outputs(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return model(batch["frames"])

    def loss(embedded: Tensor, batch: dict[str, Tensor]) -> Tensor:
        others = ~torch.eye(len(embedded), dtype=torch.bool)
        alike = (10 * embedded @ embedded.T).masked_fill(~others, -1e4).log_softmax(1)
        return -alike[others & (batch["who"][:, None] == batch["who"])].mean()

    batch = {"frames": normal(N, 10, 40).abs(), "who": torch.arange(4).repeat_interleave(N // 4)}
    return Family(
        "LSTM, pretrained (resemblyzer)",
        build,
        lambda model: la.Objective.from_step(model, batches=[batch], outputs=outputs, loss=loss),
    )


class ONet(nn.Module):
    """The last network of MTCNN: Zhang et al. 2016, "Joint Face Detection and Alignment", figure 2."""

    def __init__(self) -> None:
        super().__init__()
        sizes = ((3, 32, 3), (32, 64, 3), (64, 64, 3), (64, 128, 2))
        for k, (inputs, outputs, width) in enumerate(sizes, 1):
            setattr(self, f"conv{k}", nn.Conv2d(inputs, outputs, width))
            setattr(self, f"prelu{k}", nn.PReLU(outputs))
        self.dense5, self.prelu5, self.dense6_1 = nn.Linear(1152, 256), nn.PReLU(256), nn.Linear(256, 2)
        self.pools = [nn.MaxPool2d(3, 2, ceil_mode=True)] * 2 + [nn.MaxPool2d(2, 2, ceil_mode=True), nn.Identity()]

    def forward(self, images: Tensor) -> Tensor:
        for k, pool in enumerate(self.pools, 1):
            images = pool(getattr(self, f"prelu{k}")(getattr(self, f"conv{k}")(images)))
        return self.dense6_1(self.prelu5(self.dense5(images.permute(0, 3, 2, 1).flatten(1))))


def faces(weights: Path) -> Family:
    """Whether there is a face, on noise, with random labels."""

    def build() -> nn.Module:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        return _loaded(ONet(), {name: p for name, p in state.items() if not name.startswith(("dense6_2", "dense6_3"))})

    images, labels = normal(N, 3, 48, 48), classes(2, N)
    return Family(
        "CNN, pretrained (facenet-pytorch)",
        build,
        lambda model: la.Objective(model, F.cross_entropy, (images, labels), batch_size=8),
    )


def _loaded(model: nn.Module, state: dict[str, Any]) -> nn.Module:
    """The pretrained network for seed 0, and one whose weights were drawn from another seed."""
    if torch.initial_seed() == 0:
        model.load_state_dict({name: p for name, p in state.items() if name in model.state_dict()})
    return model


FAMILIES = (("resemblyzer", "pretrained.pt", speakers), ("facenet_pytorch", "data/onet.pt", faces))
