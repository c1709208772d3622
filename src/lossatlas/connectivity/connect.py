"""A path of low loss between two models: the ends stay as they are, the bends are trained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
import xarray as xr
from torch import Tensor

from lossatlas.connectivity.barrier import PATH_NAMES, barrier, with_statistics_on_paths
from lossatlas.connectivity.buffers import carrying_buffers, measured_ends
from lossatlas.connectivity.fitting import Engine, Fit
from lossatlas.connectivity.heights import Definition
from lossatlas.errors import InputError
from lossatlas.geometry.curves import Bezier, ParametricCurve, PolygonalChain
from lossatlas.objective import Objective, Source
from lossatlas.results.making import result

STEPS = 3000  # of a fit whose epochs were not given
_BEZIER = Bezier()


@dataclass(frozen=True, eq=False)
class Connection:
    """A fitted path, how it was fitted, and the loss along it.

    ``curve`` holds the ``points`` ``(bends + 2, n)``; ``training`` is a Dataset of kind ``"connection"``; ``profiles``
    are Datasets of kind ``"barrier"``: on the objective's data and, where ``test`` was given, on its data.
    """

    curve: ParametricCurve
    training: xr.Dataset
    profiles: list[xr.Dataset]


def connect(
    objective: Objective,
    a: Source,
    b: Source,
    *,
    curve: ParametricCurve = _BEZIER,
    engine: Engine = "expected_loss",
    epochs: int | None = None,
    learning_rate: float = 1e-3,
    batch_size: int = 128,
    seed: int = 0,
    test: Objective | None = None,
    profile_steps: int = 25,
    definition: Definition = "entezari",
    folder: str | Path | None = None,
    progress: bool = True,
) -> Connection:
    """argmin over the bends of E[L(theta(t))], t ~ U(0, 1): a path of low loss from a to b.

    Each step draws one t and one mini-batch, and every bend p_k descends along c_k(t) grad L_batch(theta(t)): one
    backward pass a step, whatever the number of bends. Adam, whose steps do not
    depend on the scale of the loss or of c_k; its learning rate falls to zero along a cosine. The path starts as the
    straight line, its bends at equal distances, or as the ``curve`` that was given where that has points. BatchNorm
    uses each batch's own statistics while training; along the finished path they are estimated anew at each t, as
    ``barrier`` does.

    Parameters
    ----------
    a, b : the ends: points ``(n,)``, modules, state dicts or files of the objective's architecture.
    curve : the kind of path: ``Bezier(bends)`` or ``PolygonalChain(bends)``; a fitted one is trained further.
    engine : ``"expected_loss"``, as above; ``"elastic_band"``, a nudged elastic band of the chain's bends (Draxler et
        al. 2018), which takes one backward pass a bend and a step.
    epochs : passes over the data; by default as many as make 3,000 steps.
    learning_rate, batch_size : of Adam on the bends. A smaller rate gives a shorter path, and takes longer. Data in
        memory are shuffled and cut anew in each epoch; batches that cannot be cut stay as they are.
    seed : of the order of the examples and of every t.
    test : the same model's objective on other data, to be profiled too. A network with BatchNorm takes its statistics
        there from ``test``'s own data, unless that was made with ``batch_norm_data``.
    profile_steps, definition : of the profiles, as ``barrier`` takes them; 0 steps for none.
    folder : keeps the state after each epoch; the same call goes on after the last whole one and ends in the same bits.

    Returns
    -------
    Connection : the ``curve``, with its points ``(bends + 2, n)``; ``training``, over ``("step",)`` ``loss``,
    ``t_drawn``, ``learning_rate`` and over ``("epoch",)`` ``epoch_loss``; ``profiles``, of ``barrier``. Its
    ``attrs["ends_note"]`` is that of ``barrier``, which warns in the same cases.

    Raises
    ------
    DirectionError : the ends are the same point, of another size, or not finite; so are those of a fitted curve.
    CheckpointError : an end is of another architecture; the file in ``folder`` is damaged.
    NonFiniteLoss : the loss of a batch, or its gradient, is NaN or infinite; ``folder`` keeps the epochs before.
    OutputError : ``folder`` holds another fit, or cannot be written.
    InputError : an impossible setting.

    Source: Garipov et al. (2018), "Loss surfaces, mode connectivity, and fast ensembling of DNNs", equation 2; Draxler
    et al. (2018), "Essentially no barriers in neural network energy landscape".

    Examples
    --------
    >>> valley = lambda w, _: (w.norm(dim=1) - 1) ** 2   # a ring of radius 1
    >>> class Place(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.w = torch.nn.Parameter(torch.tensor([1.0, 0.1]))
    ...     def forward(self, x):
    ...         return self.w + 0 * x
    >>> ring = Objective(Place(), valley, (torch.zeros(8, 2), torch.zeros(8)), metrics=None)
    >>> found = connect(ring, torch.tensor([-1.0, 0.0]), ring.point, epochs=400, learning_rate=0.05, progress=False)
    >>> bool(found.profiles[0]["highest_loss"] < 0.05)  # 1 on the straight line
    True
    """
    check_fit(objective, test, curve, engine, batch_size=batch_size, learning_rate=learning_rate, seed=seed)
    _check_profiles(definition, profile_steps)  # found out now, not after the training
    points = _start(curve, objective.end_of(a), objective.end_of(b))
    settings = {
        "curve": type(curve).__name__,
        "bends": curve.bends,
        "engine": engine,
        "epochs": _epochs(objective, epochs, batch_size, seed),
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "optimizer": "Adam",
        "schedule": "cosine",
        "seed": seed,
    }
    fit = Fit(objective, curve, points, settings, None if folder is None else Path(folder))
    fitted = fit.to_the_end(progress)
    profiles = _profiles(objective, test, fitted, profile_steps, definition, progress) if profile_steps else []
    path = PATH_NAMES[type(fitted).__name__]
    note = profiles[0].attrs["ends_note"] if profiles else _ends_note(objective, points)
    training = result("connection", fit.dataset(), fit.objective.provenance(), path=path, ends_note=note)
    return Connection(fitted, training, profiles)


def _ends_note(objective: Objective, points: Tensor) -> str:
    """Of a path without profiles, as ``barrier`` tells it."""
    carrying = carrying_buffers(with_statistics_on_paths(objective), points[0], points[-1])
    return measured_ends(carrying, {f"the end t = {t} of the path": points[-t] for t in (0, 1)})


def _epochs(objective: Objective, epochs: int | None, batch_size: int, seed: int) -> int:
    """The number that was given, or as many as make ``STEPS`` steps."""
    if epochs is None:
        return math.ceil(STEPS / len(objective.batches.shuffled(batch_size, seed)[0]))
    if epochs < 1:
        raise InputError(f"epochs={epochs}: give a whole number from 1 up.")
    return epochs


def _profiles(
    objective: Objective,
    test: Objective | None,
    curve: ParametricCurve,
    steps: int,
    definition: Definition,
    progress: bool,
) -> list[xr.Dataset]:
    """Barriers on the objective's data and on the test's: there at the same t, and at more if its maximum needs it."""
    own = barrier(objective, curve, definition=definition, steps=steps, progress=progress)
    if test is None:
        return [own]
    return [own, barrier(test, curve, definition=definition, steps=own["t"].values, progress=progress)]


def _start(curve: ParametricCurve, a: Tensor, b: Tensor) -> Tensor:
    """``(bends + 2, n)``: the straight line, or the fitted curve that was given, which must have these ends."""
    points = curve.between(a, b).points
    assert points is not None, "as between gives it"
    if curve.points is None:
        return points
    if curve.points.shape != points.shape or not torch.equal(curve.points[[0, -1]].to(a), points[[0, -1]]):
        raise InputError(
            f"The {type(curve).__name__} that was given runs between other points than a and b: give the kind alone, "
            f"such as {type(curve).__name__}(bends={curve.bends}), or the curve's own ends."
        )
    return curve.points.to(a)


def _check_profiles(definition: str, steps: int) -> None:
    if definition not in get_args(Definition) or steps in (1, 2) or steps < 0:
        raise InputError(
            f"definition={definition!r}, profile_steps={steps}: give one of {', '.join(get_args(Definition))}, "
            "and at least 3 steps, or 0 for no profiles."
        )


def check_fit(objective: Objective, test: Objective | None, curve: object, engine: str, **settings: float) -> None:
    if not isinstance(curve, ParametricCurve):
        raise InputError(f"curve is a {type(curve).__name__}: give Bezier(bends) or PolygonalChain(bends).")
    if engine not in get_args(Engine):
        raise InputError(f"engine={engine!r}: choose one of {', '.join(get_args(Engine))}.")
    if engine == "elastic_band" and not isinstance(curve, PolygonalChain):
        raise InputError("An elastic band is a chain of points: give curve=PolygonalChain(bends).")
    if settings["batch_size"] < 1:
        raise InputError(f"batch_size={settings['batch_size']}: give a whole number from 1 up.")
    if not 0 < settings["learning_rate"] < math.inf:
        raise InputError(f"learning_rate={settings['learning_rate']}: give a positive number, such as 0.001.")
    if settings["seed"] < 0:
        raise InputError(f"seed={settings['seed']}: give a whole number from 0 up.")
    if test is not None and test.n_parameters != objective.n_parameters:
        raise InputError(
            f"test has {test.n_parameters} parameters and the objective {objective.n_parameters}: "
            "make both from one model and one selection of parameters."
        )
