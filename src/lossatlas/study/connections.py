"""The steps of a study that look for other ways between the two networks than the straight line."""

from __future__ import annotations

from collections.abc import Callable

import xarray as xr
from torch import nn

from lossatlas.connectivity.alignment import align
from lossatlas.connectivity.barrier import PATH_NAMES, barrier
from lossatlas.connectivity.connect import connect
from lossatlas.connectivity.instability import instability
from lossatlas.geometry.curves import Bezier, Curve, ParametricCurve, PolygonalChain, Segment
from lossatlas.model.checkpoints import read_state, write_state
from lossatlas.objective import Objective
from lossatlas.study.config import Connectivity
from lossatlas.study.material import Material, Step, total_steps
from lossatlas.study.pair import ALIGNED, laid, plane_of

KINDS: dict[str | None, type[ParametricCurve]] = {"bezier": Bezier, "chain": PolygonalChain}


def connections(c: Connectivity) -> dict[str, Step]:
    """What is asked for, in the order it is run: alignment and curve before the plane that shows them."""
    wanted: dict[str, Step] = {}
    if c.align:
        wanted["alignment"] = alignment
        wanted |= {f"barrier_aligned_{split}": _on(split, aligned_barrier) for split in ("train", "test")}
    if c.curve:
        wanted["connection"] = connection
        wanted |= {f"barrier_curve_{split}": _on(split, curve_barrier) for split in ("train", "test")}
    if c.align or c.curve:
        wanted["connectivity_plane"] = ways_on_a_plane
    if c.instability:
        wanted["instability"] = shared_prefixes
    return wanted


def _on(split: str, step: Callable[[Material, str], xr.Dataset]) -> Step:
    return lambda m: step(m, split).assign_attrs(split=split)


def alignment(m: Material) -> xr.Dataset:
    """Network B permuted towards network A, and what that changed in each group of units."""
    method = m.config.connectivity.align
    assert method is not None  # the step is not run otherwise
    objective = m.objective("a", "train", m.config.bridge.examples)
    found = align(objective, m.weights("a"), m.weights("b"), method=method)
    write_state(found.state_dict, m.aligned)
    return found.summary


def aligned_barrier(m: Material, split: str) -> xr.Dataset:
    """The straight line from network A to network B after its alignment."""
    objective = m.objective("a", split, m.config.bridge.examples)
    return _barrier(m, objective, Segment(objective.point, objective.point_of(m.aligned)), ALIGNED)


def connection(m: Material) -> xr.Dataset:
    """The training of a curve from network A to network B."""
    c = m.config.connectivity
    objective = m.objective("a", "train", m.config.train.examples)
    found = connect(
        objective,
        m.weights("a"),
        m.weights("b"),
        curve=KINDS[c.curve](bends=c.bends),
        epochs=c.epochs,
        learning_rate=c.learning_rate,
        batch_size=c.batch_size,
        profile_steps=0,  # the barriers are measured on the examples of the others
        folder=m.networks / "connection",
        progress=m.progress,
    )
    write_state({"points": laid(found.curve)}, m.curve)
    return found.training.assign_attrs(path=_way(found.curve))


def curve_barrier(m: Material, split: str) -> xr.Dataset:
    """The curve from network A to network B."""
    curve = _curve(m)
    return _barrier(m, m.objective("a", split, m.config.bridge.examples), curve, _way(curve))


def ways_on_a_plane(m: Material) -> xr.Dataset:
    """The plane through A, B and the middle bend of the curve, or B after alignment, with the ways on it."""
    c = m.config.connectivity
    objective = m.objective("a", "train", c.examples)
    ways: dict[str, Curve] = {"line": Segment(objective.point, objective.point_of(m.weights("b")))}
    if c.curve:
        ways[_way(_curve(m))] = _curve(m)
    else:
        ways[ALIGNED] = Segment(objective.point, objective.point_of(m.aligned))
    return plane_of(objective, ways, c.plane_steps, progress=m.progress)


def shared_prefixes(m: Material) -> xr.Dataset:
    """Barriers between runs of network A's seed that part after k steps."""
    c = m.config.connectivity

    def spawn(k: int, order: int) -> nn.Module:
        network = m.fresh("a")
        m.trained(network, "a", m.networks / "instability" / f"k{k}-order{order}", fork=(k, order))
        return network

    return instability(
        m.objective("a", "test", m.config.bridge.examples),
        spawn,
        c.instability,
        pairs=c.pairs,
        steps=m.config.bridge.steps,
        total_steps=total_steps(m.config, m.data),
        progress=m.progress,
    )


def _barrier(m: Material, objective: Objective, path: Curve, way: str) -> xr.Dataset:
    b = m.config.bridge
    return barrier(objective, path, definition=b.definition, steps=b.steps, path=way, progress=m.progress)


def _curve(m: Material) -> ParametricCurve:
    return KINDS[m.config.connectivity.curve]().through(read_state(m.curve)["points"])


def _way(curve: Curve) -> str:
    """What a path of its kind is called on plots."""
    return PATH_NAMES[type(curve).__name__]
