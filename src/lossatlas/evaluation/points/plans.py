"""How points are evaluated: the plan, its serialisation, and what was measured when it was chosen."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from lossatlas.errors import InputError
from lossatlas.evaluation.points.loops import REWRITES


@dataclass(frozen=True)
class Plan:
    """How points are evaluated: by the plain loop, or by a prepared one with some rewrites and batches of some size.

    ``threads`` of PyTorch while a point is evaluated, where that is not as many as are set.

    ``str(plan)`` is for people; ``to_json`` and ``from_json`` are the serialisation.

    >>> plan = Plan(prepared=True, rewrites=("shared layer",), batch_size=64)
    >>> print(plan)
    prepared loop; shared layer; batches of 64
    >>> plan.to_json()
    '{"prepared": true, "rewrites": ["shared layer"], "batch_size": 64, "threads": null}'
    >>> Plan.from_json(plan.to_json()) == plan
    True
    """

    prepared: bool = False
    rewrites: tuple[str, ...] = ()
    batch_size: int | None = None
    threads: int | None = None

    def __str__(self) -> str:
        threads = [] if self.threads is None else ["one thread" if self.threads == 1 else f"{self.threads} threads"]
        if not self.prepared:
            return "; ".join(["plain loop", *threads])
        size = "batches as given" if self.batch_size is None else f"batches of {self.batch_size}"
        return "; ".join(["prepared loop", *self.rewrites, size, *threads])

    def to_json(self) -> str:
        """A JSON object with one key for each field."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """The plan that ``to_json`` wrote.

        Raises ``InputError`` for any other text: a missing or further key, a value of another type, an unknown
        rewrite, a plain loop with rewrites or a batch size.
        """
        try:
            fields = json.loads(text)
        except json.JSONDecodeError:
            fields = None
        if isinstance(fields, dict):
            fields = {"threads": None} | fields  # plans of earlier versions name none
        if not _valid(fields):
            raise InputError(
                f"{text!r} is no plan of evaluation: give what Plan.to_json() wrote, such as a surface's "
                'attrs["evaluation"].'
            )
        return cls(fields["prepared"], tuple(fields["rewrites"]), fields["batch_size"], fields["threads"])


def _valid(fields: Any) -> bool:
    if not isinstance(fields, dict) or fields.keys() != asdict(Plan()).keys():
        return False
    prepared, rewrites, size = fields["prepared"], fields["rewrites"], fields["batch_size"]
    known = isinstance(rewrites, list) and all(name in list(REWRITES) for name in rewrites)
    sized = type(size) is int and size > 0
    if fields["threads"] is not None and not (type(fields["threads"]) is int and fields["threads"] > 0):
        return False
    if type(prepared) is not bool or not known or not (size is None or sized):
        return False
    return prepared or (not rewrites and size is None)


class Outcome(StrEnum):
    """What became of a step that was tried."""

    KEPT = "kept"
    LEFT = "left"
    FAILED = "failed"


@dataclass(frozen=True)
class Trial:
    """A step of preparation that was tried: how many times as fast, the largest relative deviation of a mean."""

    name: str
    outcome: Outcome
    speed_up: float = math.nan
    deviation: float = math.nan
    error: str = ""

    def __str__(self) -> str:
        if self.outcome is Outcome.FAILED:
            return f"{self.name}: failed ({self.error})"
        return f"{self.name}: {self.outcome}, {self.speed_up:.2f} x as fast, deviation {self.deviation:.0e}"


@dataclass(frozen=True)
class Findings:
    """What was measured while a plan was chosen.

    ``untried`` names the steps for which no time was left, ``deviation`` is that of the chosen loop from the plain one
    on all data, and ``fallback`` is the reason why the plain loop was taken although a faster one was asked for.
    """

    trials: tuple[Trial, ...] = ()
    untried: tuple[str, ...] = ()
    deviation: float | None = None
    fallback: str = ""

    def lines(self) -> tuple[str, ...]:
        """One sentence for each finding."""
        found = [str(trial) for trial in self.trials]
        if self.untried:
            found.append(f"not tried, since it might cost more than it saves: {', '.join(self.untried)}")
        if self.deviation is not None:
            found.append(f"all data: {self.deviation:.0e} from the plain loop")
        if self.fallback:
            found.append(f"plain loop: {self.fallback}")
        return tuple(found)
