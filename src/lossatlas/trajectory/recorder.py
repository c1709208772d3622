"""What a training loop calls once a step: snapshots of the model and a history of numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from lossatlas.errors import InputError
from lossatlas.model.checkpoints import write_state
from lossatlas.model.parameters import ParameterSpace
from lossatlas.trajectory.snapshots import HISTORY, drop_from, recording_folder, snapshot_file
from lossatlas.trajectory.trajectory import Trajectory


class Recorder:
    """Called once a step by any training loop: keeps what it is told, and a snapshot of the model every k steps.

    Parameters
    ----------
    model : read, never changed.
    every : snapshots at the steps that are multiples of this; step 0 is the start.
    folder : where snapshots (safetensors, the full state dict) and ``history.jsonl`` go as they come, so that a
        killed run leaves all of them; without it they stay in memory.
    optimizer : where the learning rate is read, unless a call states it.
    resume : continue a folder that holds snapshots; those from the first step recorded now on are replaced.

    Raises
    ------
    InputError : ``every`` is below 1.
    OutputError : the folder holds another recording, or cannot be written.
    CheckpointError : ``resume`` of a damaged history.

    Source: Li et al. 2018, "Visualizing the Loss Landscape of Neural Nets", section 7: trajectories of snapshots.

    Examples
    --------
    >>> model = nn.Linear(2, 1)
    >>> record = Recorder(model, every=10)
    >>> for step in range(31):
    ...     record(step, loss=1.0 / (step + 1))
    >>> record.trajectory.steps
    [0, 10, 20, 30]
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        every: int = 100,
        folder: str | Path | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        resume: bool = False,
    ) -> None:
        if every < 1:
            raise InputError(f"every={every}: give a whole number of steps of at least 1.")
        self._model = model
        self._space = ParameterSpace(model)
        self._every = every
        self._optimizer = optimizer
        self._folder = recording_folder(folder, resume) if folder is not None else None
        self._rows: list[dict[str, float]] = []
        self._points: list[Tensor] = []
        self._steps: list[int] = []
        self._started = False

    def __call__(self, step: int, **values: float) -> None:
        """Record ``values`` (``loss``, ``gradient_norm``, ``learning_rate``, ..) at ``step``.

        The gradient norm is taken from the parameters' ``.grad``, if there is one, unless it is given.
        """
        if self._folder is not None and not self._started:
            drop_from(self._folder, step)
        self._started = True
        row = {"step": step} | self._observed(values) | {name: float(value) for name, value in values.items()}
        self._rows.append(row)
        if self._folder is not None:
            with (self._folder / HISTORY).open("a") as file:
                file.write(json.dumps(row) + "\n")
        if step % self._every == 0:
            self._snapshot(step)

    @property
    def trajectory(self) -> Trajectory:
        """What has been recorded so far."""
        if self._folder is not None:
            return Trajectory.load(self._folder)
        return Trajectory(torch.stack(self._points) if self._points else torch.empty(0, 0), self._steps, self._rows)

    def _observed(self, given: Mapping[str, float]) -> dict[str, float]:
        found: dict[str, float] = {}
        gradients = [p.grad for p in self._model.parameters() if p.grad is not None]
        if gradients and "gradient_norm" not in given:
            found["gradient_norm"] = math.sqrt(sum(float(g.detach().double().square().sum()) for g in gradients))
        if self._optimizer is not None:
            found["learning_rate"] = float(self._optimizer.param_groups[0]["lr"])
        return found

    def _snapshot(self, step: int) -> None:
        if self._folder is not None:
            names = json.dumps([entry.name for entry in self._space])
            write_state(self._model.state_dict(), snapshot_file(self._folder, step), {"parameters": names})
        else:
            self._points.append(self._space.flatten(dict(self._model.named_parameters())).cpu().clone())
            self._steps.append(step)
