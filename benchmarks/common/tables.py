"""Measurements as lines of plain text. Every time given is a median over rounds, with the lowest and the highest."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from common.clock import Timing

WIDTH = 120
CORRECT = 1e-5  # relative deviation from float64 up to which a peer's values are right


class Page:
    """Lines that are printed and, at once, in a file: what was measured before an interrupt is kept."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")

    def add(self, *lines: str) -> None:
        text = "\n".join(map(_wrapped, lines))
        print(text, flush=True)
        with self._path.open("a") as file:
            file.write(text + "\n")


@dataclass(frozen=True)
class SurfaceRow:
    """One contender's exact values."""

    title: str
    batch: str
    point: Timing
    """Seconds a point."""
    deviation: float
    """The largest relative deviation from float64 at the points that were asked for."""
    own_deviation: float
    """The same at the points that it evaluates, where these are others."""
    from_plain: float
    """The largest relative deviation from the plain loop."""

    @property
    def correct(self) -> bool:
        return self.deviation <= CORRECT


def exact_table(rows: list[SurfaceRow], flops: float, peak: float) -> Iterator[str]:
    """The rows, lossatlas's first; the ratio is to its time a point."""
    yield (
        f"  {'contender':<24}{'batch':>6}  {'s a point':<30}{'ratio':>6}{'GFLOP/s':>8}{'of peak':>8}"
        f"{'off asked':>11}{'off own':>10}{'off loop':>10}"
    )
    for row in rows:
        rate = flops / row.point.median / 1e9
        yield (
            f"  {row.title:<24}{row.batch:>6}  {spread(row.point):<30}{row.point.median / rows[0].point.median:>6.2f}"
            f"{rate:>8.1f}{rate / peak:>8.0%}{row.deviation:>11.1e}{row.own_deviation:>10.1e}{row.from_plain:>10.1e}"
        )


def preparation_lines(rows: list[SurfaceRow], choosing: float, call: Timing, cells: int) -> Iterator[str]:
    """The best correct peer, and a whole grid with all that lossatlas does once counted in."""
    ours, best = rows[0].point.median, min((row for row in rows[1:] if row.correct), key=lambda row: row.point.median)
    whole, peer = choosing + call.median + cells * ours, cells * best.point.median
    yield f"  best correct peer: {best.title}, {best.point.median / ours:.2f} times lossatlas's time a point"
    yield (
        f"  {cells:,} points (extrapolated), with what lossatlas does once: {whole:.1f} s, {whole / cells:.4g} s a"
        f" point; the peer {peer:.1f} s, {peer / whole:.2f} times as long"
    )
    yield (
        f"  once: {choosing:.2f} s to choose how to evaluate that many (every trial and compilation in it), then"
        f" {spread(call)} s a call; chosen, with what was measured:"
    )


def tolerance_lines(surface: xr.Dataset, timing: Timing, loop: float) -> Iterator[str]:
    """What was spent on a surface to a tolerance; ``loop`` is the plain loop's time a point."""
    attrs, cells = surface.attrs, surface["loss"].size
    yield (
        f"  tol={attrs['tolerance']:g} on {' x '.join(map(str, surface['loss'].shape))}: {attrs['n_evaluations']}"
        f" evaluations, {attrs['held_out']} of them held out ({attrs['held_out_beyond']} beyond the tolerance);"
        f" {spread(timing)} s, everything included; {attrs['method']};"
        f" at least {attrs['coverage_bound']:.1%} of the pixels within it at {attrs['confidence']:.0%} confidence"
    )
    if "note" in attrs:
        yield f"    {attrs['note']}"
    yield (
        f"    the plain loop's {cells:,} points: {cells * loop:.1f} s (extrapolated from the points above),"
        f" {cells * loop / timing.median:.1f} times as long"
    )


def truth_lines(surface: xr.Dataset, exact: xr.Dataset, seconds: float, loop: float) -> Iterator[str]:
    """The share of pixels truly within the tolerance, by the whole exact grid, which took ``seconds``."""
    off = np.abs(surface["loss"] / exact["loss"] - 1).to_numpy()
    within = np.mean(off <= surface.attrs["tolerance"])
    yield (
        f"    truly within it: {within:.2%} of the pixels (the worst is {off.max():.2%} off,"
        f" {surface.attrs['error_estimate']:.2%} was estimated)"
    )
    yield (
        f"  the whole exact grid, measured once: {seconds:.1f} s, everything included;"
        f" the plain loop's takes {off.size * loop / seconds:.2f} times as long (extrapolated)"
    )


def _wrapped(line: str) -> str:
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.fill(line, WIDTH, subsequent_indent=indent, replace_whitespace=False, break_on_hyphens=False)


def spread(timing: Timing) -> str:
    return f"{timing.median:.4g} [{min(timing.seconds):.4g} .. {max(timing.seconds):.4g}]"
