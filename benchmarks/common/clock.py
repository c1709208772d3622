"""Interleaved timing: in each round every task runs once, in a rotated order, so that all see the same machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

SHORTEST = 0.2  # seconds: a shorter task is repeated within its turn


@dataclass
class Timing:
    """Seconds a call, and its result, one each round."""

    seconds: list[float] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)

    @property
    def median(self) -> float:
        return median(self.seconds)


def interleaved(tasks: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, Timing]:
    """Every task once a round; each round begins one task later than the one before."""
    timings = {name: Timing() for name in tasks}
    names = list(tasks)
    for turn in range(rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            seconds, result = timed(tasks[name])
            timings[name].seconds.append(seconds)
            timings[name].results.append(result)
    return timings


def timed(task: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds a call, over as many calls as take ``SHORTEST`` seconds, and the last result."""
    started, calls = time.perf_counter(), 0
    while True:
        result = task()
        calls += 1
        elapsed = time.perf_counter() - started
        if elapsed >= SHORTEST:
            return elapsed / calls, result
