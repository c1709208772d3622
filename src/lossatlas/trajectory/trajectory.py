"""The road that training took: snapshots on disk, principal components, and what a random walk would show."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor, nn
from tqdm.auto import tqdm

from lossatlas.errors import CheckpointError, InputError, OutputError
from lossatlas.geometry.regions import Region, plane
from lossatlas.model.checkpoints import make_folder, read_state, replacing, write_state
from lossatlas.model.parameters import ParameterSpace
from lossatlas.objective import Objective

Center = Literal["mean", "last"]
Matrix = NDArray[np.float64]

_COLUMNS = 2**20  # columns of the snapshot matrix held in float64 at a time


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

    Raises ``OutputError`` for a folder that holds another recording or cannot be written.

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
        self._folder = _recording_folder(folder, resume) if folder is not None else None
        self._rows: list[dict[str, float]] = []
        self._points: list[Tensor] = []
        self._steps: list[int] = []
        self._started = False

    def __call__(self, step: int, **values: float) -> None:
        """Record ``values`` (``loss``, ``gradient_norm``, ``learning_rate``, ..) at ``step``.

        The gradient norm is taken from the parameters' ``.grad``, if there is one, unless it is given.
        """
        if self._folder is not None and not self._started:
            _drop_from(self._folder, step)
        self._started = True
        row = {"step": step} | self._observed(values) | {name: float(value) for name, value in values.items()}
        self._rows.append(row)
        if self._folder is not None:
            with (self._folder / "history.jsonl").open("a") as file:
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
            write_state(self._model.state_dict(), self._folder / f"step-{step:08d}.safetensors", {"parameters": names})
        else:
            self._points.append(self._space.flatten(dict(self._model.named_parameters())).cpu().clone())
            self._steps.append(step)


class Trajectory:
    """theta_1 .. theta_T, ``points`` ``(T, n)`` at ``steps``, with the ``history`` of every recorded step.

    Only T x T matrices are formed, never n x n. Raises ``InputError`` where there are too few snapshots for what is
    asked.
    """

    def __init__(self, points: Tensor, steps: Sequence[int], history: Sequence[Mapping[str, float]] = ()) -> None:
        self.points = points
        self.steps = list(steps)
        self._rows = list(history)

    @classmethod
    def load(cls, folder: str | Path) -> Trajectory:
        """The snapshots a ``Recorder`` left in ``folder``. Raises ``CheckpointError`` for none, or of two networks."""
        folder = Path(folder)
        files = sorted(folder.glob("step-*.safetensors"))
        if not files:
            raise CheckpointError(f"{folder} holds no snapshots (step-*.safetensors): give the folder of a Recorder.")
        points = [_point(file) for file in files]
        if len({len(point) for point in points}) > 1:
            raise CheckpointError(f"The snapshots in {folder} are of different networks: keep one run in one folder.")
        steps = [int(file.stem.removeprefix("step-")) for file in files]
        return cls(torch.stack(points), steps, _history(folder / "history.jsonl"))

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def history(self) -> xr.Dataset:
        """What was recorded at every step, over ``("step",)``; NaN where a call did not state a value."""
        names = sorted({name for row in self._rows for name in row} - {"step"})
        columns = {name: ("step", [row.get(name, math.nan) for row in self._rows]) for name in names}
        return xr.Dataset(columns, coords={"step": [int(row["step"]) for row in self._rows]}, attrs={"kind": "history"})

    def explained_variance(self, center: Center = "mean") -> Matrix:
        """lambda_k / sum lambda of the scatter about the snapshots' mean (or the last), descending, ``(T - 1,)``."""
        return _shares(_centred(self._increments, center))

    def components(self, k: int = 2, center: Center = "mean") -> Tensor:
        """PC_k = M' C' u_k / sqrt(lambda_k) as rows ``(k, n)``, from G = C M M' C', T x T, with G u_k = lambda_k u_k.

        M holds the snapshots as rows and C centres them; G is built from the increments theta_{t+1} - theta_t in
        float64, so that nothing cancels. Signs: the first snapshot has no negative coordinate. Raises ``InputError``
        when the snapshots span fewer than k dimensions.
        """
        values, vectors = np.linalg.eigh(_centred(self._increments, center))
        values, vectors = values[::-1][:k], vectors[:, ::-1][:, :k]
        if len(self) < 2 or len(values) < k or values[-1] <= 1e-12 * values[0]:
            raise InputError(
                f"The {len(self)} snapshots span fewer than {k} dimensions: record more of them (a smaller `every`)."
            )
        weights = _lower(len(self)).T @ _centering(len(self), center).T @ vectors / np.sqrt(values)
        rows = [torch.from_numpy(weights.T.copy()) @ block for block in self._increment_blocks()]
        # The first snapshot's coordinate has the sign of u_k's first entry.
        signs = torch.from_numpy(np.where(vectors[0] < 0, -1.0, 1.0))
        return (torch.cat(rows, dim=1) * signs[:, None]).to(self.points.dtype)

    def plane(self, *, steps: int | tuple[int, int] = 51, margin: float = 0.2, center: Center = "mean") -> Region:
        """The plane through the *last* snapshot along the first two principal components, wide enough for the road.

        Each axis covers the road's projection and ``margin`` of its extent beyond it on either side; the shorter axis
        covers at least a quarter of the longer. The last snapshot lies on the grid. Distances on the plane are
        distances in parameter space.
        """
        first, second = self.components(2, center)
        projection = self.project(torch.stack([first, second]))
        low, high = projection.min(axis=0), projection.max(axis=0)
        widest = float((high - low).max())
        extra = np.maximum(margin * (high - low), (0.25 * widest - (high - low)) / 2).clip(min=margin * widest / 4)
        counts = steps if isinstance(steps, tuple) else (steps, steps)
        spans = [_through_zero(a, b, count) for a, b, count in zip(low - extra, high + extra, counts, strict=True)]
        return plane(self.points[-1], first, second, span=(spans[0], spans[1]), steps=counts)

    def project(self, directions: Tensor) -> Matrix:
        """<theta_t - theta_T, d_k>, ``(T, k)``: coordinates about the last point on orthonormal rows ``(k, n)``."""
        offsets = (row.double() - self.points[-1].double() for row in self.points)
        return torch.stack([directions.double() @ offset for offset in offsets]).numpy()

    def analyse(
        self,
        objective: Objective | None = None,
        *,
        components: int = 10,
        center: Center = "mean",
        draws: int = 200,
        seed: int = 0,
        progress: bool = True,
    ) -> xr.Dataset:
        """The road's principal components beside two null models, and how far it lies off its own plane.

        Returns
        -------
        Dataset over ``("component",)``: ``explained_variance_ratio``, and ``random_walk_ratio``, what a random walk of
        T equal orthogonal steps shows (n large; Antognini & Sohl-Dickstein 2018: 1 / (4 sin^2(pi k / 2T)), so that
        two components "explain" 76 % of no structure at all); over ``("draw",)``: ``sign_flip_two``, the first two
        components' share when the observed increments keep their length and line but take random signs; over
        ``("snapshot",)``: ``alpha``, ``beta`` on the principal plane, ``off_plane_distance``, ``distance`` from the
        last snapshot and, given an objective, the true ``loss`` there and the ``plane_loss`` of its projection.
        """
        basis = self.components(2, center)
        flips = np.random.default_rng(seed).choice([-1.0, 1.0], size=(draws, len(self) - 1))
        shares = [_shares(_centred(self._increments * np.outer(s, s), center))[:2].sum() for s in flips]
        walk = _shares(_centred(np.eye(len(self) - 1), center))
        dataset = xr.Dataset(
            {
                "explained_variance_ratio": ("component", self.explained_variance(center)[:components]),
                "random_walk_ratio": ("component", walk[:components]),
                "sign_flip_two": ("draw", shares),
            }
            | self._along(basis),
            coords={"component": np.arange(1, min(components, len(self) - 1) + 1)},
        )
        if objective is not None:
            dataset = dataset.assign(self._losses(objective, basis, progress))
            dataset.attrs |= objective.provenance() | {"stderr_over": objective.samples(self.points[-1])["loss"].over}
        dataset.attrs |= {"kind": "trajectory", "n_snapshots": len(self), "center": center, "seed": seed}
        return dataset

    @functools.cached_property
    def _increments(self) -> Matrix:
        """<delta_s, delta_t>, (T - 1) x (T - 1), float64."""
        if len(self) < 2:
            raise InputError(
                f"A trajectory of {len(self)} snapshot(s) has no directions: record more (a smaller `every`)."
            )
        finite = torch.isfinite(self.points).all(dim=1)
        if not bool(finite.all()):
            raise InputError(
                f"The snapshot at step {self.steps[int(finite.int().argmin())]} holds NaN or infinite numbers: "
                "training diverged; analyse the snapshots before it."
            )
        gram = torch.zeros(len(self) - 1, len(self) - 1, dtype=torch.float64)
        for block in self._increment_blocks():
            gram += block @ block.T
        return gram.numpy()

    def _increment_blocks(self) -> Iterator[Tensor]:
        for columns in self.points.split(_COLUMNS, dim=1):
            yield columns.double().diff(dim=0)

    def _along(self, basis: Tensor) -> dict[str, Any]:
        coordinates = self.project(basis)
        offsets = [row.double() - self.points[-1].double() for row in self.points]
        on_plane = torch.from_numpy(coordinates) @ basis.double()
        off = [float(torch.linalg.vector_norm(x - y)) for x, y in zip(offsets, on_plane, strict=True)]
        return {
            "step": ("snapshot", self.steps),
            "alpha": ("snapshot", coordinates[:, 0]),
            "beta": ("snapshot", coordinates[:, 1]),
            "off_plane_distance": ("snapshot", off),
            "distance": ("snapshot", [float(torch.linalg.vector_norm(x)) for x in offsets]),
        }

    def _losses(self, objective: Objective, basis: Tensor, progress: bool) -> dict[str, Any]:
        objective.space.check(self.points[-1], "snapshot")
        found: dict[str, list[float]] = {"loss": [], "loss_stderr": [], "plane_loss": []}
        rows = zip(self.points, torch.from_numpy(self.project(basis)), strict=True)
        for point, coordinates in tqdm(rows, total=len(self), desc="road", disable=not progress, leave=False):
            here = objective.evaluate(point)
            found["loss"].append(here.loss)
            found["loss_stderr"].append(here.loss_stderr)
            found["plane_loss"].append(objective.value(self.points[-1] + coordinates.to(basis) @ basis))
        return {name: ("snapshot", values) for name, values in found.items()}


def _through_zero(low: float, high: float, steps: int) -> tuple[float, float]:
    """The ends of a grid of ``steps`` nodes that covers [low, high], 0 inside it, and has a node at 0."""
    if steps < 3:
        raise InputError(f"steps={steps}: a plane that contains the road needs at least 3 points on each axis.")
    width = (high - low) / (steps - 2)
    below = math.ceil(-low / width)
    return -below * width, (steps - 1 - below) * width


def _lower(snapshots: int) -> Matrix:
    """L, T x (T - 1): position = L increments, relative to the first snapshot."""
    return np.tri(snapshots, snapshots - 1, -1)


def _centering(snapshots: int, center: Center) -> Matrix:
    if center not in ("mean", "last"):
        raise InputError(f"center={center!r}: choose 'mean' or 'last'.")
    shift = np.full((snapshots, snapshots), 1 / snapshots) if center == "mean" else np.eye(snapshots)[[-1] * snapshots]
    return np.eye(snapshots) - shift


def _centred(increments: Matrix, center: Center) -> Matrix:
    """G = C L D L' C' from the increments' Gram matrix D."""
    snapshots = len(increments) + 1
    map_ = _centering(snapshots, center) @ _lower(snapshots)
    gram: Matrix = map_ @ increments @ map_.T
    return gram


def _shares(gram: Matrix) -> Matrix:
    values = np.linalg.eigvalsh(gram)[::-1][:-1].clip(min=0)  # one dimension is lost to centring
    if not values.sum() > 0:
        raise InputError("All snapshots are the same point: the trajectory has no directions.")
    shares: Matrix = values / values.sum()
    return shares


def _point(file: Path) -> Tensor:
    state = read_state(file)
    with safe_open(file, "pt") as opened:
        listed = (opened.metadata() or {}).get("parameters")
    if listed is None:
        raise CheckpointError(f"{file} was not written by a Recorder: it does not list its parameters.")
    return torch.cat([state[name].reshape(-1) for name in json.loads(listed)])


def _recording_folder(folder: str | Path, resume: bool) -> Path:
    path = make_folder(Path(folder))
    (path / "history.jsonl").touch()
    if not resume and any(path.glob("step-*.safetensors")):
        raise OutputError(
            f"{folder} holds a recording already: choose another folder, or pass resume=True to continue it."
        )
    return path


def _drop_from(folder: Path, step: int) -> None:
    for file in folder.glob("step-*.safetensors"):
        if int(file.stem.removeprefix("step-")) >= step:
            file.unlink()
    history = folder / "history.jsonl"
    kept = [json.dumps(row) + "\n" for row in _history(history) if row["step"] < step]
    with replacing(history) as temporary:
        temporary.write_text("".join(kept))


def _history(file: Path) -> list[dict[str, float]]:
    rows = file.read_text().splitlines(keepends=True) if file.is_file() else []
    try:
        return [json.loads(row) for row in rows if row.endswith("\n")]  # a killed run can leave half a line
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{file} has a line that is no JSON ({error}): delete that line.") from error
