"""Connectivity: barriers before and after alignment, a Bezier curve, REPAIR; networks that differ by their seed alone.

Run by ``make bench``, or ``python benchmarks/connectivity.py --parts widths cnn``; ``--images 500`` shows that it runs.
Prints its tables and writes them to ``benchmarks/results/``, dated. Networks are trained where ``--networks`` does not
hold them: on one core half an hour for each of the width of 2,048, seconds to minutes for the others.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import time
from pathlib import Path

import torch
import xarray as xr
from common.connectivity_tables import (
    BARRIERS,
    MEANS,
    alignment_line,
    barrier_line,
    curve_line,
    error_barrier_line,
    mean_line,
    width_lines,
)
from common.machine import header
from common.pairs import CNN, RESNET20, Pair, Recipe, mlp
from common.problems import DATA
from common.tables import Page

import lossatlas as la

PARTS = ("widths", "cnn", "resnet20", "repair")
WIDTHS = (64, 256, 512, 2048)
MERGED = 256  # the width of the networks that are merged
THIRD = 3  # the seed of the third one
ALIGNED = "line after alignment"
N_RESNET20 = 1_000
SETTINGS = (
    "loss, error: the barrier above the line between the ends (Entezari et al. 2022), refined about its maximum to 1 %"
    " of the highest value, with its 95 % interval (paired bootstrap over the images); at t: of the loss; error is"
    " 1 - accuracy; alignment by weight matching (Ainsworth et al. 2023, Algorithm 1) on training images"
)
BOUNDS = {64: 0.12, 256: 0.05}  # of the barriers on test images after alignment
FINDING = (
    "expected   that the barrier after weight matching falls with the width (Ainsworth et al. 2023), and on the test"
    " images that it is above 0.8 on the line at each width, and after alignment below 0.12 at 64 and 0.05 at 256"
)
NARROW = (
    "expected   an alignment in less than 60 s, and no connection: Ainsworth et al. (2023) need 32 times this width for"
    " resnet20"
)


def main() -> None:
    arguments = _arguments()
    if la.zoo.find(DATA) is None:
        print(f"Skipped: {DATA} is not on this machine. On Debian and Ubuntu: apt install dataset-fashion-mnist")
        return
    page = Page(arguments.out)
    page.add(*header("Connectivity", ["torch", "numpy", "scipy", "lossatlas"]))
    page.add(f"data       {DATA}; the networks of a pair differ by the seed of their weights and of their training")
    page.add("columns    " + SETTINGS)
    if arguments.images:
        page.add(f"TRIAL      on {arguments.images:,} images at most of each set: these are no results")
    bench = _Bench(arguments, page)
    for part in PARTS:
        if part in arguments.parts:
            started = time.perf_counter()
            getattr(bench, part)()
            page.add(f"  all of this part: {time.perf_counter() - started:.0f} s, training of absent networks included")
    print(f"\nWritten to {arguments.out}.")


def _arguments() -> argparse.Namespace:
    today = datetime.datetime.now(datetime.UTC).date()
    results = Path(__file__).parent / "results"
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--widths", nargs="+", type=int, default=list(WIDTHS), metavar="N", help="of the MLPs")
    parser.add_argument("--images", type=int, help="at most so many of each set, and one epoch of the curve: a trial")
    parser.add_argument("--out", type=Path, default=results / f"{today}-connectivity.txt")
    parser.add_argument("--networks", type=Path, default=Path("runs/benchmarks/connectivity"), help="their folder")
    return parser.parse_args()


class _Bench:
    """The parts. Networks that are aligned in one part are aligned in the later ones too."""

    def __init__(self, arguments: argparse.Namespace, page: Page) -> None:
        self.arguments, self.page = arguments, page
        self.data = la.zoo.load(DATA)
        self.pair = functools.cache(self._pair)

    def _pair(self, name: str) -> Pair:
        recipe: Recipe = {each.name: each for each in (CNN, RESNET20)}.get(name) or mlp(int(name.removeprefix("mlp")))
        return Pair(recipe, self.data, self.arguments.networks, self.arguments.images)

    # The parts

    def widths(self) -> None:
        self.page.add("", "The barrier over the width: MLP 784-w-w-w-10, 20 epochs", FINDING)
        found: dict[str, dict[int, list[xr.Dataset]]] = {"test": {}, "train": {}}
        for width in self.arguments.widths:
            pair = self.pair(f"mlp{width}")
            self._heading(f"w = {width}", pair)
            for name, objective in (("test", pair.on_test()), ("train", pair.on_train())):
                found[name][width] = _lines(objective, pair)
                self.page.add(*map(barrier_line, found[name][width]))
        for name, bounds in (("test", BOUNDS), ("train", {})):
            self.page.add(f" barriers of the loss over the width, {name} images", *width_lines(found[name], bounds))

    def cnn(self) -> None:
        pair = self.pair(CNN.name)
        self.page.add("", "Three paths between two CNNs of 6 epochs (16 and 32 channels, 128 hidden units)")
        self._heading("simple_cnn", pair)
        train = pair.on_train(None)
        lines = _lines(train, pair)
        epochs = 1 if self.arguments.images else None  # None: as many as make the 3,000 steps of the default
        connection = la.connect(train, pair.first, pair.second, epochs=epochs, progress=False)
        (curve,) = connection.profiles
        self.page.add(*map(barrier_line, [*lines, curve]), curve_line(connection.training, curve))
        self.page.add(*map(error_barrier_line, [*lines, curve]))

    def resnet20(self) -> None:
        pair = self.pair(RESNET20.name)
        self.page.add("", "Two resnet20 of one epoch on 5,000 images; BatchNorm statistics anew at each t", NARROW)
        self._heading("resnet20", pair)
        for objective in (pair.on_test(N_RESNET20), pair.on_train(N_RESNET20)):
            self.page.add(*map(barrier_line, _lines(objective, pair)))

    def repair(self) -> None:
        self.page.add("", "The mean of two networks, plain and after REPAIR (Jordan et al. 2023; by training images)")
        for name in (*(f"mlp{width}" for width in self.arguments.widths), CNN.name):
            pair = self.pair(name)
            self.page.add(f" {name}", MEANS)
            first, second = (pair.on_train().point_of(file) for file in (pair.first, pair.second))
            self._means(pair, "mean", torch.stack([first, second]))
            self._means(pair, "mean after alignment", torch.stack([first, pair.aligned.point]))
        self._merged()

    # What they share

    def _heading(self, title: str, pair: Pair) -> None:
        self.page.add(
            f" {title}: {len(pair.aligned.point):,} parameters", alignment_line(pair.aligned.summary), BARRIERS
        )

    def _merged(self) -> None:
        pair = self.pair(f"mlp{MERGED}")
        objective, files = pair.on_train(), [pair.first, pair.second, pair.file(THIRD)]
        started = time.perf_counter()
        merged = la.merge_many(objective, files)
        seconds = time.perf_counter() - started
        self.page.add(f" mlp{MERGED}, three networks: merged in {seconds:.1f} s, {merged.rounds} rounds", MEANS)
        test = pair.on_test()
        self.page.add(*(mean_line(f"network {i}", test, file) for i, file in enumerate(files, start=1)))
        self._means(pair, "mean", torch.stack([objective.point_of(file) for file in files]))
        self._means(pair, "merge_many", merged.points)

    def _means(self, pair: Pair, name: str, points: torch.Tensor) -> None:
        test, repaired = pair.on_test(), la.repair(pair.on_train(), list(points))
        ratios = ", ".join(f"{ratio:.2f}" for ratio in repaired.statistics["sd_ratio_before"].values)
        self.page.add(
            mean_line(name, test, points.double().mean(0).to(points)) + f"  sd of units / target: {ratios}",
            mean_line(f"{name}, repaired", test, repaired.point),
        )


def _lines(objective: la.Objective, pair: Pair) -> list[xr.Dataset]:
    """The barriers on the line to the second network, and to the second one aligned."""
    first = objective.point_of(pair.first)
    ends = {"line": objective.point_of(pair.second), ALIGNED: pair.aligned.point}
    return [la.barrier(objective, la.Segment(first, end), path=path, progress=False) for path, end in ends.items()]


if __name__ == "__main__":
    main()
