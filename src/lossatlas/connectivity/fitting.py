"""The training of a path's bends: a step at a time, kept after each epoch."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
import xarray as xr
from safetensors import SafetensorError, safe_open
from torch import Tensor
from tqdm.auto import tqdm

from lossatlas.connectivity.batch_gradients import batch_gradient
from lossatlas.connectivity.buffers import carrying_buffers
from lossatlas.connectivity.elastic_band import elastic_band
from lossatlas.errors import CheckpointError, NonFiniteLoss, OutputError
from lossatlas.geometry.curves import ParametricCurve, Segment
from lossatlas.model.checkpoints import write_state
from lossatlas.model.data.batches import digest
from lossatlas.objective import Objective
from lossatlas.results.files import make_folder

Engine = Literal["expected_loss", "elastic_band"]
Gradient: TypeAlias = Callable[[Objective, ParametricCurve, Any, int, float], tuple[float, float, Tensor]]
"""(objective, path, batch, step, t) -> a loss, the t it is of, and ``(bends, n)``: what the bends descend along."""

FILE = "connection.safetensors"


def expected_loss(
    objective: Objective, curve: ParametricCurve, batch: Any, index: int, t: float
) -> tuple[float, float, Tensor]:
    """L_batch(theta(t)), t, and its gradient in every bend: c_k(t) grad L_batch(theta(t)), ``(bends, n)``."""
    loss, gradient = batch_gradient(objective, curve.point(t), batch, index)
    return loss, t, curve.weights(t)[1:-1].to(gradient).outer(gradient)


ENGINES: dict[Engine, Gradient] = {"expected_loss": expected_loss, "elastic_band": elastic_band}


@dataclass
class Fit:
    """A training of a path's bends: what it needs, and what was measured so far."""

    objective: Objective
    kind: ParametricCurve
    points: Tensor  # (bends + 2, n), from where it starts to where it has come
    settings: dict[str, Any]
    folder: Path | None
    seen: list[tuple[float, float, float]] = field(default_factory=list)  # loss, t, learning rate of each step
    epoch_loss: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self._start = digest(self.points)
        self.points = self.points.clone()
        # The curve and the optimiser share these numbers: a step of the optimiser moves the curve.
        self.curve, self.bends = self.kind.through(self.points), self.points[1:-1]
        self.optimizer = torch.optim.Adam([self.bends], self.settings["learning_rate"])
        if self.objective.function.keeps_statistics:
            self.objective = self.objective.with_batch_norm("batch")
        self.objective = carrying_buffers(self.objective, self.points[0].clone(), self.points[-1].clone())

    def to_the_end(self, progress: bool) -> ParametricCurve:
        self._resume()
        epochs = self.settings["epochs"]
        bar = tqdm(
            total=epochs,
            initial=len(self.epoch_loss),
            desc="connecting",
            disable=not progress,
            bar_format="{l_bar}{bar}| {elapsed}<{remaining}{postfix}",  # epochs are counted in parts
        )
        with bar:
            for epoch in range(len(self.epoch_loss), epochs):
                started = time.perf_counter()
                self._epoch(epoch, bar)
                self.seconds += time.perf_counter() - started
                self._keep()
        return self.kind.through(self.points.clone())

    def _epoch(self, epoch: int, bar: tqdm[Any]) -> None:
        # Of (seed, epoch) alone, so that a resumed run draws what a whole one draws.
        rng = np.random.default_rng([self.settings["seed"], epoch])
        weights, batches = self.objective.batches.shuffled(self.settings["batch_size"], int(rng.integers(2**62)))
        before = len(self.seen)
        for index, (weight, batch) in enumerate(zip(weights, batches, strict=True)):
            share = (epoch + index / len(weights)) / self.settings["epochs"]
            self._step(weight, batch, share, float(rng.random()))
            bar.update(1 / len(weights))
        self.epoch_loss.append(float(np.mean([loss for loss, *_ in self.seen[before:]])))
        bar.set_postfix_str(f"epoch {epoch + 1}/{self.settings['epochs']}: loss {self.epoch_loss[-1]:.4f}")

    def _step(self, weight: float, batch: Any, share: float, t: float) -> None:
        rate = self.settings["learning_rate"] * (1 + math.cos(math.pi * share)) / 2
        engine = ENGINES[self.settings["engine"]]
        loss, t, gradient = engine(self.objective, self.curve, batch, len(self.seen), t)
        if not math.isfinite(loss) or not bool(torch.isfinite(gradient).all()):
            kept = "" if self.folder is None else f"; {self.folder} keeps the {len(self.epoch_loss)} epochs before"
            raise NonFiniteLoss(
                f"The loss at t = {t:.3f} is {loss}, or its gradient not finite, at step {len(self.seen) + 1} with "
                f"learning rate {rate:g}: try a smaller learning_rate (in another folder){kept}."
            )
        self.optimizer.param_groups[0]["lr"] = rate
        self.bends.grad = weight * gradient
        self.optimizer.step()
        self.seen.append((loss, t, rate))

    def dataset(self) -> xr.Dataset:
        """The training step by step and epoch by epoch."""
        loss, t, rate = np.array(self.seen, dtype=np.float64).T
        dataset = xr.Dataset(
            {
                "loss": ("step", loss),
                "t_drawn": ("step", t),
                "learning_rate": ("step", rate),
                "epoch_loss": ("epoch", np.array(self.epoch_loss)),
            },
            coords={"step": np.arange(1, len(loss) + 1), "epoch": np.arange(1, len(self.epoch_loss) + 1)},
        )
        straight = Segment(self.points[0], self.points[-1]).length
        own = {"length_ratio": self.curve.length / straight, "seconds": self.seconds}
        return dataset.assign_attrs(self.settings | own)

    def _resume(self) -> None:
        if self.folder is None:
            return
        provenance = self.objective.provenance()
        same = ("model_fingerprint", "data_fingerprint", "dtype", "batch_norm")
        self._identity = self.settings | {key: provenance[key] for key in same}
        self._identity["start"] = self._start
        if (self.folder / FILE).is_file():
            self._load(self.folder / FILE)
        else:
            self._keep()  # a folder that cannot be written is found out now, not after an epoch

    def _keep(self) -> None:
        if self.folder is None:
            return
        header = {"identity": self._identity, "epoch_loss": self.epoch_loss, "seconds": self.seconds}
        tensors = {"bends": self.bends, "seen": torch.tensor(self.seen, dtype=torch.float64).reshape(-1, 3)}
        tensors |= self.optimizer.state_dict()["state"].get(0, {})
        write_state(tensors, make_folder(self.folder) / FILE, {"connection": json.dumps(header)})

    def _load(self, path: Path) -> None:
        try:
            with safe_open(path, framework="pt") as file:
                header = json.loads((file.metadata() or {})["connection"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            there, self.epoch_loss, self.seconds = (header[key] for key in ("identity", "epoch_loss", "seconds"))
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise CheckpointError(f"{path} is damaged or no state of a connection: remove it to start anew.") from error
        identity = json.loads(json.dumps(self._identity))
        if differing := [key for key in identity if there.get(key) != identity[key]]:
            key = differing[0]
            raise OutputError(
                f"{path.parent} holds another connection ({key} is {there.get(key)!r} there, "
                f"{identity[key]!r} here): choose another folder, or remove {FILE} there."
            )
        self.bends.copy_(tensors.pop("bends"))
        self.seen = [(loss, t, rate) for loss, t, rate in tensors.pop("seen").tolist()]
        if tensors:  # none before the first epoch
            self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": {0: tensors}})
