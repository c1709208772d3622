"""Barriers, alignments and means of networks as lines of plain text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import xarray as xr

import lossatlas as la
from lossatlas.objective import Source
from lossatlas.results.uncertainty import plus_minus, with_interval

BARRIERS = f"  {'path':<21}{'images':<13}{'loss':<26}{'at t':<6}{'error':<30}{'loss of ends':<15}{'s':>5}"
ABOVE = 0.05  # the curve's highest training loss above its worse end, at most
MEANS = f"  {'network':<34}{'loss on test':<22}{'error on test':<22}"


def barrier_line(found: xr.Dataset) -> str:
    """One row under ``BARRIERS``."""
    ends = f"{float(found['loss'][0]):.3f}, {float(found['loss'][-1]):.3f}"
    images = f"{found.attrs['n_examples']:,} {found.attrs['data']}"
    return (
        f"  {found.attrs['path']:<21}{images:<13}{_height(found, ''):<26}{float(found['t_max']):<6.3f}"
        f"{_height(found, '_error'):<30}{ends:<15}{found.attrs['seconds']:>5.0f}"
    )


def alignment_line(summary: xr.Dataset) -> str:
    """What one alignment took and did."""
    attrs = summary.attrs
    moved = float((summary["moved"] * summary["size"]).sum() / summary["size"].sum())
    return (
        f"  aligned in {attrs['seconds']:.1f} s, {attrs['seconds_assignment'] / attrs['seconds']:.0%} of it in the"
        f" assignment solver ({attrs['assignments']} calls, {attrs['seconds_assignment']:.2f} s);"
        f" {summary.sizes['group']} groups, {moved:.0%} of the units moved; similarity"
        f" {float(summary['similarity_before']):.4f} to {float(summary['similarity_after']):.4f}, distance"
        f" {float(summary['distance_before']):.4g} to {float(summary['distance_after']):.4g}; outputs deviate by"
        f" {float(summary['deviation']):.1e}; starts: {attrs['starts']}"
    )


def curve_line(training: xr.Dataset, found: xr.Dataset) -> str:
    """How a curve was fitted, and how high it rises above the worse of its ends."""
    fit, top, worse = training.attrs, int(found["loss"].values.argmax()), float(found["loss"][[0, -1]].max())
    highest = float(found["highest_loss"])
    return (
        f"  curve: {training.sizes['step']:,} steps of {fit['batch_size']} images (epochs: {fit['epochs']}); length"
        f" {float(found['length_ratio']):.3f} of the line; highest training loss {highest:.4f} at t ="
        f" {float(found['t'][top]):.3f}, {highest - worse:.4f} above the worse end's {worse:.4f} (at most {ABOVE} is"
        f" expected: {_yes_or_no(highest - worse <= ABOVE)}); fitted in {fit['seconds']:.0f} s, with its profile"
        f" {fit['seconds'] + found.attrs['seconds']:.0f} s"
    )


def error_barrier_line(found: xr.Dataset) -> str:
    """Frankle's error barrier with its interval; below 2 % they call two networks connected."""
    own = found.sel(definition="frankle")
    low, value, high = (float(own[f"height_error{end}"]) for end in ("_low", "", "_high"))
    return f"  {found.attrs['path']}: Frankle's error barrier {value:.4g}, 95 % interval [{low:.4g}, {high:.4g}]"


def mean_line(name: str, objective: la.Objective, point: Source) -> str:
    """One row under ``MEANS``: a network's loss and error with standard errors."""
    found = objective.evaluate(objective.point_of(point))
    accuracy, stderr = found.metrics["accuracy"]
    loss, error = plus_minus(found.loss, found.loss_stderr), plus_minus(1 - accuracy, stderr)
    return f"  {name:<34}{loss:<22}{error:<22}"


def width_lines(by_width: Mapping[int, Sequence[xr.Dataset]], bounds: Mapping[int, float]) -> Iterator[str]:
    """The barriers of the loss over the widths, before and after alignment, and whether they are as expected."""
    line, matched = ({width: float(both[i]["barrier"]) for width, both in sorted(by_width.items())} for i in (0, 1))
    for name, heights in (("before alignment", line), ("after", matched)):
        yield f"  {name}: " + ", ".join(f"{value:.4f} at {width}" for width, value in heights.items())
    if bounds:
        yield f"    before above 0.8 at each width: {_yes_or_no(min(line.values()) > 0.8)}"
    for width in sorted(bounds.keys() & matched.keys()):
        yield f"    after below {bounds[width]} at {width}: {_yes_or_no(matched[width] < bounds[width])}"
    if len(matched) > 1:
        fallen = list(matched.values())
        yield f"    after the lower the wider: {_yes_or_no(fallen == sorted(fallen, reverse=True))}"


def _height(found: xr.Dataset, suffix: str) -> str:
    value, low, high = (float(found[f"barrier{suffix}{bound}"]) for bound in ("", "_low", "_high"))
    return with_interval(value, (low, high))


def _yes_or_no(held: bool) -> str:
    return "yes" if held else "NO"
