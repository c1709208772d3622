"""Loss surfaces: lossatlas, the plain loop and three other tools; same weights, images, plane and threads.

Run by ``make bench``, or ``python benchmarks/surface.py --networks mlp simple_cnn --rounds 3``. Prints a table for each
network and writes them to ``benchmarks/results/``, dated. The other tools are in ``benchmarks/requirements.txt``.
"""

from __future__ import annotations

import argparse
import datetime
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from common.clock import Timing, interleaved, timed
from common.contenders import INSTALL, Contender, Grid, peers, title
from common.machine import header, peak
from common.problems import DATA, N_TEST, RECIPES, Problem, problem, truth
from common.tables import Page, SurfaceRow, exact_table, preparation_lines, tolerance_lines, truth_lines

import lossatlas as la

SPANS = ((-0.6, 1.0), (-0.8, 0.4))  # of the timed grid: uneven, so that a mirrored or transposed surface is noticed
LONGER = 5  # times the points: a second grid, by which lossatlas's time a point is told from what a call costs once
PROBES = ((-1 / 3, -1 / 3), (-1.0, -1.0))  # where a surface tries what it chooses from: between the center and a corner
BATCH_SIZES = (128, 500, N_TEST)
TOLERANCE = 0.01
QUICK = 20.0  # seconds: a surface to a tolerance that takes longer is timed once, not in every round

COLUMNS = (
    "ratio: to lossatlas's time a point; GFLOP/s: of the network as it is written, so that work spared counts as done;"
    " off asked: largest relative deviation from a plain float64 evaluation at the points asked for; off own: the same"
    " at the points that the tool evaluates instead; off loop: from the plain loop's values at the points asked for"
)


def main() -> None:
    arguments = _arguments()
    if la.zoo.find(DATA) is None:
        print(f"Skipped: {DATA} is not on this machine. On Debian and Ubuntu: apt install dataset-fashion-mnist")
        return
    kinds, missing = peers()
    page = Page(arguments.out)
    page.add(*header("Loss surfaces", ["torch", "numpy", "lossatlas"]))
    page.add(f"against    {', '.join(map(title, kinds))}")
    if missing:
        page.add(f"absent     {', '.join(missing)}: not compared. To install: {INSTALL}")
    page.add(f"data       {N_TEST:,} test images of {DATA}: a value is the mean cross-entropy over all of them")
    page.add("points     " + _settings(arguments))
    page.add("columns    " + COLUMNS)
    for kind in kinds:
        if kind.caveat:
            page.add(f"pictures   {title(kind)} is timed, but {kind.caveat}")
    fastest, by = peak()
    page.add(f"peak       {fastest:.0f} GFLOP/s in float32, by {by}")
    data = la.zoo.load(DATA)
    for name in arguments.networks:
        _network(problem(name, data, arguments.cache), kinds, fastest, arguments, page)
    print(f"\nWritten to {arguments.out}.")


def _arguments() -> argparse.Namespace:
    today = datetime.datetime.now(datetime.UTC).date()
    results = Path(__file__).parent / "results"
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=RECIPES, default=list(RECIPES), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=5, help="how often each contender is timed")
    parser.add_argument("--points", type=int, default=4, help="p of the timed p x p grid, at least 2")
    parser.add_argument("--steps", type=int, default=51, help="s of the s x s plane that is drawn to a tolerance")
    parser.add_argument("--truth", action="store_true", help="compute that plane's whole exact grid too, and compare")
    parser.add_argument("--out", type=Path, default=results / f"{today}-surface.txt")
    parser.add_argument("--cache", type=Path, default=Path("runs/benchmarks"), help="where trained networks are kept")
    return parser.parse_args()


def _settings(arguments: argparse.Namespace) -> str:
    (low, high), (left, right) = SPANS
    return (
        f"{arguments.points} x {arguments.points} over alpha {low} .. {high}, beta {left} .. {right}, along two"
        f" filter-normalised random directions; {arguments.rounds} interleaved rounds: median [lowest .. highest];"
        f" peers with the fastest of the batch sizes {', '.join(map(str, BATCH_SIZES))}"
    )


def _network(
    problem: Problem, kinds: list[type[Contender]], fastest: float, arguments: argparse.Namespace, page: Page
) -> None:
    page.add("", f"{problem.name}: {len(problem.center):,} parameters, {problem.flops / 1e9:.2f} GFLOP a point")
    p, cells = arguments.points, arguments.steps**2
    contenders = [_suited(kind, problem) for kind in kinds]
    whole = functools.partial(_surface, problem, 1.0, (arguments.steps, arguments.steps))
    to_tolerance = functools.partial(whole, tol=TOLERANCE)
    alphas, betas = (np.linspace(*span, p) for span in SPANS)
    seconds, found = timed(to_tolerance)  # also the warming-up
    quick = seconds < QUICK
    choosing, (plan, explanation) = timed(functools.partial(_choose, problem, cells))
    tasks: dict[str, Callable[[], Any]] = {
        "exact": functools.partial(_surface, problem, SPANS, (p, p), plan=plan),
        "longer": functools.partial(_surface, problem, SPANS, (p, LONGER * p), plan=plan),
        **{contender.name: functools.partial(contender.losses, alphas, betas) for contender in contenders},
    }
    timings = interleaved(tasks | ({"to tolerance": to_tolerance} if quick else {}), arguments.rounds)

    rows, call = _rows(problem, contenders, timings, alphas, betas)
    loop = rows[1].point.median
    page.add(*exact_table(rows, problem.flops, fastest), *preparation_lines(rows, choosing, call, cells))
    page.add(*(f"    {line}" for line in explanation))
    page.add(*tolerance_lines(found, timings["to tolerance"] if quick else Timing([seconds]), loop))
    if arguments.truth:
        seconds, exact = timed(whole)
        page.add(*truth_lines(found, exact, seconds, loop))


class _Following(la.Objective):
    """An objective whose surfaces follow one plan: on the few points of a trial they would not choose it anew."""

    plan: Any = None

    def evaluator(self, center: Any, directions: Any, probes: Any, count: int, plan: Any = None) -> Any:
        return super().evaluator(center, directions, probes, count, self.plan)


def _choose(problem: Problem, count: int) -> tuple[Any, list[str]]:
    """How lossatlas evaluates ``count`` points of the plane, and what it saw when it chose that."""
    objective = problem.objective()
    evaluator = objective.evaluator(problem.center, problem.directions, PROBES, count)
    return evaluator.plan, objective.explain().splitlines()


def _surface(
    problem: Problem, spans: Any, steps: tuple[int, int], tol: float | None = None, plan: Any = None
) -> xr.Dataset:
    """By a new Objective, which prepares everything again; without a plan, chooses one too."""
    region = la.plane(problem.center, *problem.directions, span=spans, steps=steps)
    objective = problem.objective(la.Objective if plan is None else _Following)
    if plan is not None:
        objective.plan = plan
    return la.surface(objective, region, tol=tol, progress=False)


def _suited(kind: type[Contender], problem: Problem) -> Contender:
    """The contender with the batch size that is fastest on four points."""
    corners = [np.array(span) for span in SPANS]
    seconds = {}
    for size in BATCH_SIZES:
        contender = kind(problem, size)
        contender.losses(*corners)
        seconds[contender], _ = timed(functools.partial(contender.losses, *corners))
    return min(seconds, key=seconds.__getitem__)


def _rows(
    problem: Problem, contenders: list[Contender], timings: dict[str, Timing], alphas: Grid, betas: Grid
) -> tuple[list[SurfaceRow], Timing]:
    """The table's rows, lossatlas's and then the plain loop's first; and the seconds that its call costs once."""
    exact, longer = timings["exact"].seconds, timings["longer"].seconds
    n = alphas.size * betas.size
    point = Timing([(b - a) / ((LONGER - 1) * n) for a, b in zip(exact, longer, strict=True)])
    call = Timing([a - n * point.median for a in exact])

    asked = truth(problem, contenders[0].visited(alphas, betas))
    plain = timings[contenders[0].name].results[-1].ravel()
    values = np.stack([found["loss"].to_numpy().ravel() for found in timings["exact"].results])
    off = _deviation(values, asked)
    rows = [SurfaceRow("lossatlas", "own", point, off, off, _deviation(values, plain))]
    for contender in contenders:
        timing = timings[contender.name]
        values = np.stack([result.ravel() for result in timing.results])
        off = _deviation(values, asked)
        own = _deviation(values, truth(problem, contender.visited(alphas, betas))) if contender.caveat else off
        a_point = Timing([seconds / n for seconds in timing.seconds])
        size = "whole" if contender.batch_size >= N_TEST else str(contender.batch_size)
        rows.append(SurfaceRow(title(type(contender)), size, a_point, off, own, _deviation(values, plain)))
    return rows, call


def _deviation(values: Grid, reference: Grid) -> float:
    return float(np.abs(values / reference - 1).max())


if __name__ == "__main__":
    main()
