"""One small real measurement of every kind, made by its own verb from Python, once a process.

Two perceptrons trained on scikit-learn's digits, A and B. ``results()`` are what the verbs returned, by a name each.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import xarray as xr

import lossatlas as la
from lossatlas.curvature.power import power_baseline
from lossatlas.published.comparison import comparison
from lossatlas.results.catalogue import Catalogue
from lossatlas.trajectory.measurement import trajectory_measurement

EPOCHS = 3
SHARPNESS = ("sam", "sam_ascent", "asam", "adaptive_worst", "average", "adaptive_average", "lambda_max")
FURTHER = ("gabdullin_k1", "effective_dimension", "relative_flatness", "pac_bayes", "critical", "batch_sharpness")


@dataclass(frozen=True)
class Trained:
    """A trained network: its objectives on 200 training and test examples, its trajectory and its history."""

    train: la.Objective
    test: la.Objective
    trajectory: la.Trajectory
    history: xr.Dataset


@functools.cache
def data() -> Any:
    """The digits, 200 examples each for training and testing."""
    whole = la.zoo.load("digits")
    return la.zoo.subset(whole.train, 200, seed=0), la.zoo.subset(whole.test, 200, seed=0)


@functools.cache
def trained(label: str) -> Trained:
    """Network "A" or "B"."""
    train, test = data()
    seed = ord(label) - 64
    network = la.zoo.mlp(widths=(6,), seed=seed)
    record = la.Recorder(network, every=2)
    history = la.zoo.fit(
        network, train, test=test, epochs=EPOCHS, batch_size=50, seed=seed, on_step=record, progress=False
    )
    named = {"network": label}
    objectives = [
        la.Objective(network, F.cross_entropy, part, name=f"digits {split}, 200 examples", **named)
        for split, part in (("train", train), ("test", test))
    ]
    return Trained(*objectives, record.trajectory, history.to_dataset(**named))


@functools.cache
def results() -> dict[str, xr.Dataset]:
    """Name -> Dataset, of every kind at least one."""
    return dict(_results())


def _results() -> Iterator[tuple[str, xr.Dataset]]:
    for label in "AB":
        yield f"history {label}", trained(label).history
        yield f"spectrum {label}", la.spectrum(trained(label).train, 2, density_tol=0.1, progress=False)
        yield f"sharpness {label}", la.sharpness(trained(label).train, SHARPNESS, batch_size=40, progress=False)
        yield f"robustness {label}", la.robustness(trained(label).test, (0, 0.1, 0.5), draws=2, progress=False)
    yield "further sharpness", la.sharpness(trained("A").train, FURTHER, batch_size=40, progress=False)
    yield from _surfaces(trained("A"))
    yield from _curvature(trained("A"))
    along = {"steps": 5, "sharpness": 3, "progress": False}
    yield from trajectory_measurement(trained("A").trajectory, trained("A").train, **along).items()
    yield from _connectivity()
    yield "relative robustness", la.robustness(trained("A").test, (0, 0.2), relative="filter", draws=2, progress=False)
    yield from _perturbed(trained("A").test)
    made = [trained("A").history, la.robustness(trained("A").test, draws=2, progress=False)]
    yield "comparison", comparison(Catalogue(made), study="fashion")


def _perturbed(objective: la.Objective) -> Iterator[tuple[str, xr.Dataset]]:
    quiet: dict[str, Any] = {"draws": 2, "progress": False}
    yield "noise by layers", la.robustness(objective, (0, 0.3), noise="multiplicative", layers=True, **quiet)
    yield "input noise", la.robustness(objective, (0, 0.5), noise="input", **quiet)
    yield "quantisation", la.robustness(objective, noise="quantise", layers=True, **quiet)
    yield "pruning", la.robustness(objective, noise="prune", shares=(0, 0.5), **quiet)
    yield "flips", la.robustness(objective, noise="flip", rates=(1e-3, 1e-2), **quiet)
    yield "flips of int8", la.robustness(objective, noise="flip", representation="int8", rates=(0, 0.05), **quiet)
    yield "basin", la.basin(objective, fall=0.05, progress=False)


def _surfaces(a: Trained) -> Iterator[tuple[str, xr.Dataset]]:
    objective, point = a.test, a.test.point
    directions = la.random_directions(objective, 3, seed=0)
    quiet = {"progress": False}
    yield "line", la.surface(objective, la.line(point, directions[0], steps=5), by_class=True, **quiet)
    yield "plane", la.surface(objective, la.plane(point, *directions[:2], steps=(3, 5)), **quiet)
    yield "interpolated plane", la.surface(objective, la.plane(point, *directions[:2], steps=31), tol=0.2, **quiet)
    planes = [la.plane(point, la.random_directions(objective, 2, seed=s), steps=3) for s in (0, 1)]
    yield "several planes", la.surface(objective, planes, **quiet)
    yield "volume", la.surface(objective, la.volume(point, directions, steps=3), **quiet)
    yield "polar", la.surface(objective, la.polar(point, *directions[:2], steps=(3, 5)), **quiet)
    only = {"trace": False, "density": False, "trend": False}
    ends = la.spectrum(objective, 1, vectors=True, layers=True, **only, **quiet)
    yield "spectrum with vectors and layers", ends
    yield "Hessian axes", la.surface(objective, la.eigen_plane(ends, span=1.0, steps=3), **quiet)


def _curvature(a: Trained) -> Iterator[tuple[str, xr.Dataset]]:
    yield "invariance", la.invariance(a.train, ("sam", "asam", "average", "lambda_max"), progress=False)
    density = la.spectral_density(la.hessian(a.train), steps=10, probes=2)
    yield "spectral density", density
    yield "criteria", la.gabdullin(density)
    yield "split", la.gauss_newton_split(a.train, 2, probes=2, progress=False)
    yield "batches", la.batch_eigenvalues(a.train, batch_size=40, tol=0.05, progress=False)
    yield "power iteration", power_baseline(a.train, steps=4)
    yield "power iteration over changing batches", power_baseline(a.train, batch=50, steps=4)


def _connectivity() -> Iterator[tuple[str, xr.Dataset]]:
    a, b = trained("A"), trained("B")
    options: dict[str, Any] = {"curve": "bezier", "epochs": 2, "steps": 5, "plane_steps": 3, "progress": False}
    yield from la.connectivity(a.train, a.train.point, b.train.point, test=a.test, **options).items()
    yield "repair", la.repair(a.train, [a.train.point, b.train.point]).statistics

    def spawn(k: int, order: int) -> torch.nn.Module:
        network = la.zoo.mlp(widths=(6,), seed=1)
        la.zoo.fit(network, data()[0], epochs=1, batch_size=50, seed=1, fork=(k, order), progress=False)
        return network

    yield "instability", la.instability(a.test, spawn, [0, 4], steps=5, draws=100, progress=False)
