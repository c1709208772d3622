"""The steps of a study: each one a Dataset, computed from the trained networks and the data."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
import xarray as xr
from torch import nn

from lossatlas.connectivity.barrier import barrier
from lossatlas.curvature.operators import Operator, hessian
from lossatlas.curvature.power import power_iteration
from lossatlas.curvature.spectrum import spectrum
from lossatlas.geometry.curves import Segment
from lossatlas.geometry.directions import random_directions
from lossatlas.geometry.regions import line, plane
from lossatlas.model.checkpoints import write_state
from lossatlas.objective import Objective
from lossatlas.robustness.robustness import Relative, robustness
from lossatlas.study.config import StudyConfig
from lossatlas.study.connections import connections
from lossatlas.study.material import Material, Pair, Step
from lossatlas.surfaces.surface import surface
from lossatlas.trajectory.trajectory import Recorder, Trajectory


def history(m: Material, which: str) -> xr.Dataset:
    """Train one network with snapshots; the curves of every step and every epoch."""
    train, network = m.config.train, m.fresh(which)
    recorder = Recorder(network, every=train.snapshot_every, folder=m.folder(which) / "snapshots", resume=True)
    fitted = m.trained(network, which, m.folder(which) / "checkpoint", test=m.data.test, on_step=recorder)
    write_state(network.state_dict(), m.weights(which))
    own = m.objective(which, "train", train.examples).provenance()
    return fitted.to_dataset().assign_attrs({k: own[k] for k in ("data", "model_fingerprint", "data_fingerprint")})


def line_through(m: Material, which: str) -> xr.Dataset:
    """A 1-D slice along a random direction."""
    s = m.config.slices
    objective = m.objective(which, "test", s.examples)
    direction = random_directions(objective, 1, seed=s.seed, norm=s.norm)[0]
    region = line(objective.point, direction, span=s.line_span, steps=s.line_steps)
    return surface(objective, region, progress=m.progress).assign_attrs(directions="random", seed=s.seed)


def plane_through(m: Material, which: str) -> xr.Dataset:
    """A 2-D slice along two random directions."""
    s = m.config.slices
    objective = m.objective(which, "test", s.examples)
    first, second = random_directions(objective, 2, seed=s.seed, norm=s.norm)
    region = plane(objective.point, first, second, span=s.plane_span, steps=s.plane_steps)
    return surface(objective, region, progress=m.progress).assign_attrs(directions="random", seed=s.seed)


def trajectory(m: Material, which: str) -> xr.Dataset:
    """Principal components of the snapshots, null models, and the loss along the road."""
    road = Trajectory.load(m.folder(which) / "snapshots")
    objective = m.objective(which, "train", m.config.road.examples)
    return road.analyse(objective, components=m.config.road.components, progress=m.progress)


def principal_plane(m: Material, which: str) -> xr.Dataset:
    """The loss on the principal plane that contains the projected road."""
    road = Trajectory.load(m.folder(which) / "snapshots")
    objective = m.objective(which, "train", m.config.road.examples)
    region = road.plane(steps=m.config.road.steps)
    return surface(objective, region, progress=m.progress).assign_attrs(directions="principal components")


def eigenvalues(m: Material, which: str) -> xr.Dataset:
    """Both ends of the Hessian's spectrum."""
    c = m.config.curvature
    objective = m.objective(which, "train", c.examples, c.batch_size)
    return spectrum(objective, c.k, tol=c.tol, max_products=c.max_products, seed=c.seed)


def power_fixed(m: Material, which: str) -> xr.Dataset:
    """Power iterations on the examples of the spectrum."""
    c = m.config.curvature
    objective = m.objective(which, "train", c.examples, c.batch_size)
    found = power_iteration(hessian(objective), steps=c.power_steps, seed=c.seed)
    return found.assign_attrs(objective.provenance() | {"batch_size": objective.n_examples})


def power_changing(m: Material, which: str) -> xr.Dataset:
    """The seeds' way: every product on another random batch."""
    c = m.config.curvature
    objective = m.objective(which, "train", c.examples, c.batch_size)
    network = m.fresh(which)
    network.load_state_dict(objective.state_dict())
    found = power_iteration(
        _on_random_batches(network, m.train_set, c.power_batch, c.seed), steps=c.power_steps, seed=c.seed
    )
    label = f"{m.config.dataset} train, another {c.power_batch} examples at each product"
    return found.assign_attrs(
        objective.provenance() | {"data": label, "n_examples": c.power_batch, "batch_size": c.power_batch}
    )


def bridge(m: Material, split: str) -> xr.Dataset:
    """The straight line from network A to network B."""
    b = m.config.bridge
    objective = m.objective("a", split, b.examples)
    segment = Segment(objective.point, objective.point_of(m.weights("b")))
    found = barrier(objective, segment, definition=b.definition, steps=b.steps, progress=m.progress)
    return found.assign_attrs(split=split)


def noise(m: Material, which: str, relative: Relative) -> xr.Dataset:
    """Loss and accuracy under weight noise."""
    n = m.config.noise
    sigmas = n.sigmas if relative == "none" else n.relative_sigmas
    objective = m.objective(which, "test", n.examples)
    return robustness(objective, sigmas, relative=relative, draws=n.draws, seed=n.seed, progress=m.progress)


def _on_random_batches(network: nn.Module, data: Pair, size: int, seed: int) -> Iterator[Operator]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        chosen = torch.randperm(len(data[1]), generator=generator)[:size]
        yield hessian(Objective(network, F.cross_entropy, (data[0][chosen], data[1][chosen])))


def _named(step: Callable[[Material, str], xr.Dataset], which: str) -> Step:
    return lambda m: step(m, which).assign_attrs(network=which.upper())


def _noise(which: str, relative: Relative) -> Step:
    return lambda m: noise(m, which, relative).assign_attrs(network=which.upper())


def _bridge(split: str) -> Step:
    return lambda m: bridge(m, split)


STEPS: dict[str, Step] = {
    "history_a": _named(history, "a"),
    "history_b": _named(history, "b"),
    "line_a": _named(line_through, "a"),
    "line_b": _named(line_through, "b"),
    "surface_a": _named(plane_through, "a"),
    "surface_b": _named(plane_through, "b"),
    "trajectory_a": _named(trajectory, "a"),
    "road_a": _named(principal_plane, "a"),
    "spectrum_a": _named(eigenvalues, "a"),
    "spectrum_b": _named(eigenvalues, "b"),
    "power_fixed_a": _named(power_fixed, "a"),
    "power_changing_a": _named(power_changing, "a"),
    "barrier_train": _bridge("train"),
    "barrier_test": _bridge("test"),
    "robustness_a": _noise("a", "none"),
    "robustness_b": _noise("b", "none"),
    "robustness_filter_a": _noise("a", "filter"),
    "robustness_filter_b": _noise("b", "filter"),
}
"""What every study does, in the order it is run: the networks first, since all others need them."""


def steps(config: StudyConfig) -> dict[str, Step]:
    """What a study of this configuration does, in the order it is run."""
    return STEPS | connections(config.connectivity)
