"""Sharpness: the cost of the default measures, and how far one step is below an ascent and above random search.

Run by ``make bench``, or ``python benchmarks/sharpness.py``. The network is a CNN on 20,000 Fashion-MNIST images, the
measures are on 2,000 test images. Prints its tables and writes them to ``benchmarks/results/``, dated.
"""

from __future__ import annotations

import argparse
import datetime
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import xarray as xr
from common.machine import header
from common.problems import DATA, N_TRAIN, RECIPES, Problem, problem
from common.tables import Page
from torch import Tensor

import lossatlas as la

NETWORK = "simple_cnn"
DRAWS = 100  # of a random search
PAIRS = {"sam": "sam_ascent", "asam": "adaptive_worst"}  # one step, and an ascent in the same ball
RHOS = {"sam": (0.05, 0.2, 0.5), "asam": (0.1, 0.5, 1.0)}


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    if la.zoo.find(DATA) is None:
        print(f"Skipped: {DATA} is not on this machine. On Debian and Ubuntu: apt install dataset-fashion-mnist")
        return
    page = Page(arguments.out)
    page.add(*header("Sharpness", ["torch", "numpy", "scipy", "lossatlas"]))
    data = la.zoo.load(DATA)
    case = problem(NETWORK, data, arguments.cache)
    page.add(f"data       {NETWORK}, {len(case.center):,} parameters, {len(case.targets):,} test images")
    epoch = _epoch(data)
    page.add("", f"Cost of the default measures; one training epoch on {N_TRAIN:,} images takes {epoch:.1f} s")
    page.add(*costs(la.sharpness(case.objective(), progress=False), epoch))
    page.add("", f"One step, an ascent from two starts, and the best of {DRAWS} random points of the same ball")
    page.add(*bounds(case))
    print(f"\nWritten to {arguments.out}.")


def costs(found: xr.Dataset, epoch: float) -> Iterator[str]:
    """A line a measure, and the whole, in which what is shared counts once."""
    yield f"  {'measure':<24}{'value':>11}{'low':>11}{'high':>11}{'products':>9}{'passes':>8}{'s':>7}"
    for name in found["measure"].values:
        one = {key: variable.item() for key, variable in found.sel(measure=name).data_vars.items() if not variable.dims}
        numbers = "".join(f"{one[key]:11.4g}" for key in ("value", "low", "high"))
        yield f"  {name:<24}{numbers}{one['products']:9.0f}{one['passes']:8.1f}{one['seconds']:7.1f}  {one['note']}"
    passes, seconds = found.attrs["passes"], found.attrs["seconds"]
    yield f"  all together: {passes:.0f} gradient passes, {seconds:.1f} s, {seconds / epoch:.2f} training epochs"


def bounds(case: Problem) -> Iterator[str]:
    """A line for each ball: rises of the loss, and their ratios to the ascent's."""
    objective = case.objective()
    yield f"  {'ball':<24}{'one step':>11}{'ascent':>11}{'random':>11}{'step / ascent':>15}{'random / ascent':>17}"
    for step, ascent in PAIRS.items():
        for rho in RHOS[step]:
            found = la.sharpness(objective, [step, ascent], rho=rho, progress=False)["value"]
            one, most = (float(found.sel(measure=name)) for name in (step, ascent))
            scale = objective.point.abs() if step == "asam" else torch.ones_like(objective.point)
            drawn = max(_rises(objective, rho, scale))
            ratios = f"{one / most:15.3f}{drawn / most:17.3f}"
            yield f"  {f'{step}, rho = {rho:g}':<24}{one:11.4g}{most:11.4g}{drawn:11.4g}{ratios}"


def _rises(objective: la.Objective, rho: float, scale: Tensor) -> Iterator[float]:
    clean, draw = objective.value(), torch.Generator().manual_seed(0)
    for _ in range(DRAWS):
        noise = torch.randn(objective.n_parameters, generator=draw)
        yield objective.value(objective.point + rho * scale * noise / noise.norm()) - clean


def _epoch(data: la.zoo.LabelledData) -> float:
    """Seconds of one epoch of the network's own training."""
    options, training = RECIPES[NETWORK]
    model = la.zoo.network(NETWORK, shape=data.shape, seed=0, **options)
    train = la.zoo.subset(data.train, N_TRAIN, seed=0)
    return _seconds(lambda: la.zoo.fit(model, train, seed=0, progress=False, **(training | {"epochs": 1})))


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _arguments() -> argparse.Namespace:
    today = datetime.datetime.now(datetime.UTC).date()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / f"{today}-sharpness.txt")
    parser.add_argument("--cache", type=Path, default=Path("runs/benchmarks"), help="folder of the network")
    return parser.parse_args()


if __name__ == "__main__":
    main()
