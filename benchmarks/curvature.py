"""Curvature: lossatlas, plain double backward, scipy and four other tools; same weights, images and threads.

Run by ``make bench``, or ``python benchmarks/curvature.py --networks simple_cnn --rounds 3``; ``--quick`` shows in some
minutes that it runs. Prints tables for each network and writes them to ``benchmarks/results/``, dated. The other tools
are in ``benchmarks/requirements.txt``. A first run also computes the references in float64, which takes minutes (kept
in ``--cache``); on resnet20 everything takes hours: choose ``--parts``.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import functools
import gc
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common.clock import Timing, interleaved
from common.contenders import INSTALL
from common.curvature_peers import PyHessian, title, tools
from common.curvature_tables import CurvatureRow, Product, product_table, reaching, run_table
from common.curvature_tools import Lossatlas, ScipyOnLossatlas, Task, Tool, Values, suited
from common.curvature_truth import PIECEWISE_LINEAR, Truth
from common.machine import header, peak
from common.problems import DATA, N_TEST, RECIPES, Problem, problem
from common.tables import Page
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

import lossatlas as la

NETWORKS = ("simple_cnn", "resnet20", "vit")
PARTS = ("product", "largest", "both", "trace", "density", "spectrum")
BOTH_ENDS = ("simple_cnn",)  # elsewhere the smallest eigenvalues take too long to be known in float64
K = 10
BASE = "tol=0.001"
TARGETS = (1e-3, 1e-6)
QUICK = 10.0  # seconds: what takes longer is measured once, not in every round
N_QUICK, N_PART = 200, 500  # examples of --quick, and of the trial of batch sizes
FORWARD_PASSES = 6  # whose arithmetic a product takes: the tangent's two terms, and four of the gradient's derivative

COLUMNS = (
    "ratio: to lossatlas's time (with tol=0.001); once: what is spent before the first product and in it, beyond a"
    " later one; products: H v over all images, counted; off: largest relative deviation from the float64 reference,"
    " the worst of the rounds; reported: by the tool, of what it found (so many of so many converged); each run of"
    " lossatlas begins with a new Objective and prepares everything again"
)


def main() -> None:
    arguments = _arguments()
    if la.zoo.find(DATA) is None:
        print(f"Skipped: {DATA} is not on this machine. On Debian and Ubuntu: apt install dataset-fashion-mnist")
        return
    # Peers warn of graphs kept alive; where lossatlas warns that a tolerance was not reached, the table says so.
    warnings.simplefilter("ignore")
    gc.freeze()  # so that collecting between runs takes no time
    kinds, missing = tools()
    page = Page(arguments.out)
    page.add(*header("Curvature", ["torch", "numpy", "scipy", "lossatlas"]))
    page.add(f"against    {', '.join(map(title, kinds[1:]))}")
    if missing:
        page.add(f"absent     {', '.join(missing)}: not compared. To install: {INSTALL}")
    count = N_QUICK if arguments.quick else N_TEST
    page.add(f"data       {count:,} test images of {DATA}; H is the Hessian of their mean cross-entropy")
    page.add("runs       " + _settings(arguments))
    fastest, by = peak()
    page.add(f"peak       {fastest:.0f} GFLOP/s in float32, by {by}")
    page.add("columns    " + COLUMNS)
    for kind in kinds:
        if kind.caveat:
            page.add(f"peers      {title(kind)}: {kind.caveat}")
    data = la.zoo.load(DATA)
    for name in arguments.networks:
        whole = _first(problem(name, data, arguments.cache), count)
        with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative on a CPU
            _Network(whole, Truth(whole, arguments.cache), kinds, fastest, arguments, page).run(arguments.parts)
    print(f"\nWritten to {arguments.out}.")


def _arguments() -> argparse.Namespace:
    today = datetime.datetime.now(datetime.UTC).date()
    results = Path(__file__).parent / "results"
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=RECIPES, default=list(NETWORKS), metavar="NAME")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=3, help="how often each contender is timed")
    parser.add_argument("--patience", type=float, default=120, help="seconds beyond which a peer is not run")
    parser.add_argument("--quick", action="store_true", help=f"{N_QUICK} images, one round: to see that it runs")
    parser.add_argument("--out", type=Path, default=results / f"{today}-curvature.txt")
    parser.add_argument("--cache", type=Path, default=Path("runs/benchmarks"), help="for networks and references")
    arguments = parser.parse_args()
    arguments.rounds = 1 if arguments.quick else arguments.rounds
    return arguments


def _settings(arguments: argparse.Namespace) -> str:
    return (
        f"{arguments.rounds} interleaved rounds: median [lowest .. highest]; what takes longer than {QUICK:g} s is"
        f" measured once; peers with the fastest of some batch sizes; a peer that would take longer than"
        f" {arguments.patience:g} s is not run, but for PyHessian; attention by PyTorch's MATH kernel for all"
    )


def _first(whole: Problem, count: int) -> Problem:
    """The same problem on the first ``count`` of its examples."""
    inputs, targets = whole.inputs[:count].clone(), whole.targets[:count].clone()
    return dataclasses.replace(whole, inputs=inputs, targets=targets, flops=whole.flops * count / len(whole.targets))


class _Network:
    """One network's tables. What a part has measured serves the later ones."""

    def __init__(
        self,
        whole: Problem,
        truth: Truth,
        kinds: list[type[Tool]],
        fastest: float,
        arguments: argparse.Namespace,
        page: Page,
    ) -> None:
        self.problem, self.truth, self.fastest, self.page = whole, truth, fastest, page
        self.rounds, self.patience = arguments.rounds, arguments.patience
        page.add("", f"{whole.name}: {len(whole.center):,} parameters")
        part = _first(whole, min(N_PART, len(whole.targets)))
        self.tools = [suited(kind, whole, part) for kind in kinds]
        self.measured: dict[str, CurvatureRow] = {}

    def run(self, parts: list[str]) -> None:
        for part in PARTS:
            if part in parts:
                getattr(self, f"_{part}")()

    # The parts

    def _product(self) -> None:
        vector, exact = self.truth.product()
        tools = [tool for tool in self.tools if not isinstance(tool, ScipyOnLossatlas)]
        first, tasks = {}, dict[str, Callable[[], Tensor]]()
        for tool in tools:
            gc.collect()
            started = time.perf_counter()
            multiply = tool.multiplier()
            tasks[tool.name] = functools.partial(multiply, vector.float())
            tasks[tool.name]()
            first[tool.name] = time.perf_counter() - started
        timings = interleaved(tasks, self.rounds)
        rows = []
        for tool in tools:
            timing = timings[tool.name]
            off = max(float((result.detach().double() - exact).norm() / exact.norm()) for result in timing.results)
            size = str(tool.batch_size) if tool.batch_size else "own"
            rows.append(Product(title(type(tool)), size, timing, first[tool.name] - timing.median, off))
        self.page.add("  One product H v", *product_table(rows))
        rate = FORWARD_PASSES * self.problem.flops / rows[0].timing.median / 1e9
        self.page.add(
            f"    {rows[0].title}: {rate:.0f} GFLOP/s, {rate / self.fastest:.0%} of the peak, for the work of"
            f" {FORWARD_PASSES} forward passes"
        )

    def _largest(self) -> None:
        reference, bound = self.truth.eigenvalues(K, "LA")
        shown = ", ".join(f"{value:.4g}" for value in reference)
        self.page.add(f"  reference, within {bound:.0e}: the {K} largest are {shown}")
        for k in (1, K):
            rows = self._measure(f"{k} largest", [(tool, task) for tool in self.tools for task in tool.largest(k)])
            self._eigenvalues("The largest" if k == 1 else f"The {k} largest", rows, reference[:k])

    def _both(self) -> None:
        if self.problem.name not in BOTH_ENDS:
            self.page.add(f"  Both ends: only for {', '.join(BOTH_ENDS)}, whose reference takes minutes")
            return
        reference, bound = self._ends()
        shown = ", ".join(f"{value:.4g}" for value in reference[K:])
        self.page.add(f"  reference, within {bound:.0e}: the {K} smallest are {shown}")
        rows = self._measure("both ends", [(tool, task) for tool in self.tools for task in tool.both(K)])
        self._eigenvalues(f"The {K} largest and the {K} smallest", rows, reference)

    def _trace(self) -> None:
        reference, stderr = self.truth.trace(K)
        how = "exact" if self.problem.name in PIECEWISE_LINEAR else f"an estimate, standard error {stderr:.2g}"
        rows = self._measure("trace", [(tool, task) for tool in self.tools for task in tool.traces()])
        self.page.add(f"  The trace: {reference:.6g} by the reference ({how})")
        self._table(rows, lambda row: [f"{max(row.deviations(np.array([reference]))):>9.1e}"], f"{'off':>9}")

    def _density(self) -> None:
        reference, _ = self.truth.trace(K)
        rows = self._measure("density", [(tool, task) for tool in self.tools for task in tool.densities()])
        self.page.add("  The spectral density: its mass, which is 1, and how far its first moment is off the trace")
        self._table(rows, functools.partial(_moments, reference), f"{'mass':>9}{'off':>9}")
        for row in rows[1:]:
            self.page.add(*self._a_step(row, rows[0]))

    def _spectrum(self) -> None:
        ours = self._one(Lossatlas)
        assert isinstance(ours, Lossatlas)
        (whole,) = self._measure("spectrum", [(ours, ours.spectrum(K))])
        assert whole.timing is not None
        self.page.add(f"  spectrum(k={K}): both ends, trace, density, to the default tolerances")
        self._table([whole], lambda row: [f"{self._off(row):>9.1e}"], f"{'off':>9}")
        kinds = [type(tool) for tool in self.tools]
        if PyHessian not in kinds:
            return
        theirs = self._one(PyHessian)
        questions = {"density": theirs.densities(), f"{K} largest": theirs.largest(K), "trace": theirs.traces()}
        rows = [row for name, tasks in questions.items() for row in self._measure(name, [(theirs, t) for t in tasks])]
        parts = " + ".join(f"{row.timing.median:.4g} ({row.setting})" for row in rows if row.timing)
        total = sum(row.timing.median for row in rows if row.timing)
        self.page.add(
            f"    {title(PyHessian)}: {parts} = {total:.4g} s and {sum(row.products for row in rows):g} products,"
            f" {total / whole.timing.median:.2f} times as long, for one end"
        )

    # What they share

    def _measure(self, question: str, entries: list[tuple[Tool, Task]]) -> list[CurvatureRow]:
        """Each once, then those that are quick in the other rounds; what was measured before is not run again."""
        keyed = {f"{question}, {tool.name}, {task.setting}": (tool, task) for tool, task in entries}
        timings: dict[str, Timing] = {}
        for key, (tool, task) in keyed.items():
            if key not in self.measured and (tool.essential or task.expected * tool.a_product <= self.patience):
                print(f"{self.problem.name}: {key} ...", file=sys.stderr, flush=True)
                timings |= interleaved({key: task.run}, 1)
        quick = {key: keyed[key][1].run for key, timing in timings.items() if timing.median <= QUICK}
        if quick and self.rounds > 1:
            for key, timing in interleaved(quick, self.rounds - 1).items():
                timings[key].seconds.extend(timing.seconds)
                timings[key].results.extend(timing.results)
        for key, (tool, task) in keyed.items():
            row = CurvatureRow(tool.name, task.setting, timings.get(key), task.expected * tool.a_product)
            self.measured.setdefault(key, row)
        return [self.measured[key] for key in keyed]

    def _eigenvalues(self, what: str, rows: list[CurvatureRow], reference: Values) -> None:
        self.page.add(f"  {what}")
        self._table(rows, lambda row: [f"{max(row.deviations(reference)):>9.1e}"], f"{'off':>9}")
        for target in TARGETS:
            self.page.add(*reaching(rows, reference, target))

    def _table(self, rows: list[CurvatureRow], off: Callable[[CurvatureRow], list[str]], columns: str) -> None:
        base = next((row for row in rows if row.tool == Lossatlas.name and row.setting == BASE), rows[0])
        self.page.add(*run_table(rows, base, off, columns))

    def _a_step(self, row: CurvatureRow, ours: CurvatureRow) -> list[str]:
        """Densities of different numbers of products, compared product by product."""
        if row.timing is None or ours.timing is None:
            return []
        ratio = (row.timing.median / row.products) / (ours.timing.median / ours.products)
        return [f"    {row.tool}: {ratio:.2f} times lossatlas's time a product"]

    def _ends(self) -> tuple[Values, float]:
        ends = [self.truth.eigenvalues(K, which) for which in ("LA", "SA")]
        return np.concatenate([values for values, _ in ends]), max(bound for _, bound in ends)

    def _off(self, row: CurvatureRow) -> float:
        """Of the eigenvalues, at the ends that the reference knows."""
        both = self.problem.name in BOTH_ENDS
        reference = self._ends()[0] if both else self.truth.eigenvalues(K, "LA")[0]
        return max(float(abs(found.values[: len(reference)] / reference - 1).max()) for found in row.found)

    def _one(self, kind: type[Tool]) -> Any:
        return next(tool for tool in self.tools if type(tool) is kind)


def _moments(trace: float, row: CurvatureRow) -> list[str]:
    masses, moments = np.stack([found.values for found in row.found]).T
    return [f"{masses.mean():>9.4f}{abs(moments / trace - 1).max():>9.1e}"]


if __name__ == "__main__":
    main()
