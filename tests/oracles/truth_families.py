"""Problems of the families of models that `docs/families.py` defines, where no other problem stands for them."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oracles.truth import N, Problem
from oracles.truth_data import LABELS, drawn, mlp, pairs, uniform, whole

FOUND = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[2] / "docs" / "families.py")))
LENGTHS = torch.tensor([6, 3, 5, 2, 4, 6, 1, 5, 6, 2, 3, 4])
WORDS = whole(50, N, 6)
NEXT = torch.cat([WORDS[:, 1:], torch.full((N, 1), -100)], 1).masked_fill(torch.arange(6) + 1 >= LENGTHS[:, None], -100)
IGNORED = whole(3, N, 8, 8).index_fill(0, torch.tensor([4, 5, 6, 7]), 255).index_fill(1, torch.tensor([0, 1]), 255)


def _next_words(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits.transpose(1, 2), labels)


def _denoised(model: Any, batch: Any) -> Tensor:
    noisy = batch["time"].sqrt() * batch["x"] + (1 - batch["time"]).sqrt() * batch["noise"]
    return (model(torch.cat([noisy, batch["time"]], 1)) - batch["noise"]).square().mean(1)


def _likely(model: Any, batch: Any) -> Tensor:
    z, volume = model(batch["x"])
    return 0.5 * z.square().sum(1) - volume


def step(name: str, model: Callable[[], nn.Module], loss: Any, data: Callable[[], Any]) -> Problem:
    return Problem(name, model, loss, data, step=True)


FAMILIES = [
    Problem("u-net", FOUND.UNet, nn.CrossEntropyLoss(ignore_index=255), lambda: (drawn(N, 1, 8, 8), IGNORED)),
    Problem("small vision transformer", FOUND.small_vit, F.cross_entropy, pairs(LABELS, N, 3, 8, 8)),
    Problem(
        "language model of GPT-2's form",
        lambda: FOUND.Gpt(words=50, width=8, blocks=1, heads=2),
        _next_words,
        lambda: (WORDS, NEXT),
    ),
    Problem("neural ODE", FOUND.Flow, F.cross_entropy, pairs(LABELS, N, 6)),
    Problem("mixture of experts, the best one", FOUND.Experts, F.cross_entropy, pairs(LABELS, N, 6)),
    step("normalising flow", FOUND.Coupling, _likely, lambda: {"x": drawn(N, 4)}),
    step(
        "diffusion step",
        mlp(4, 5),
        _denoised,
        lambda: {"x": drawn(N, 4), "noise": drawn(N, 4, seed=5), "time": uniform(N, 1)},
    ),
]
