"""The tables of benchmarks/curvature.py as lines of plain text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from statistics import median

from common.clock import Timing
from common.curvature_tools import Found, Values
from common.tables import spread


@dataclass(frozen=True)
class Product:
    """One tool's product H v."""

    title: str
    batch: str
    timing: Timing
    once: float
    """Seconds that are spent before the first product and in it, beyond a later one."""
    deviation: float
    """|H v - truth| / |truth|."""


@dataclass(frozen=True)
class CurvatureRow:
    """One tool in one setting; without a timing where it was not run."""

    tool: str
    setting: str
    timing: Timing | None
    expected: float
    """Seconds it would have taken, about, where it was not run."""

    @property
    def found(self) -> list[Found]:
        return self.timing.results if self.timing else []

    @property
    def products(self) -> float:
        return median(found.products for found in self.found)

    def deviations(self, reference: Values) -> list[float]:
        """The largest relative deviation of the values of each run; infinite where values are missing."""
        return [
            float(abs(found.values / reference - 1).max()) if len(found.values) == len(reference) else float("inf")
            for found in self.found
        ]


def product_table(rows: list[Product]) -> Iterator[str]:
    yield f"  {'contender':<30}{'batch':>6}  {'s a product':<32}{'ratio':>6}{'once, s':>9}{'off':>10}"
    ours = rows[0].timing.median
    for row in rows:
        yield (
            f"  {row.title:<30}{row.batch:>6}  {spread(row.timing):<32}{row.timing.median / ours:>6.2f}"
            f"{max(row.once, 0):>9.2f}{row.deviation:>10.1e}"
        )


def run_table(
    rows: list[CurvatureRow], base: CurvatureRow, off: Callable[[CurvatureRow], list[str]], columns: str
) -> Iterator[str]:
    """The rows; the ratio is to ``base``; ``off`` gives the columns that are named by ``columns``."""
    yield f"  {'contender':<24}{'setting':<23}{'s':<26}{'ratio':>6}{'products':>9}{columns}  reported"
    assert base.timing is not None
    for row in rows:
        if row.timing is None:
            yield f"  {row.tool:<24}{row.setting:<23}not run: it would take about {row.expected:.0f} s"
            continue
        reported = "; ".join(dict.fromkeys(found.reported for found in row.found if found.reported))
        once = len(row.timing.seconds) == 1
        seconds = f"{row.timing.median:.4g} (once)" if once else spread(row.timing)
        yield (
            f"  {row.tool:<24}{row.setting:<23}{seconds:<26}{row.timing.median / base.timing.median:>6.2f}"
            f"{row.products:>9g}{''.join(off(row))}  {reported}".rstrip()
        )


def reaching(rows: Iterable[CurvatureRow], reference: Values, target: float) -> Iterator[str]:
    """For each tool the least time in which its values came within ``target`` of the reference in every round."""
    best: dict[str, CurvatureRow] = {}
    absent: dict[str, None] = {}
    for row in rows:
        if row.timing is None:
            continue
        absent[row.tool] = None
        reached = max(row.deviations(reference)) <= target
        if reached and (row.tool not in best or row.timing.median < _seconds(best[row.tool])):
            best[row.tool] = row
    for tool in best:
        del absent[tool]
    reached_by = ", ".join(
        f"{tool} {_seconds(row):.4g} s and {row.products:g} products ({row.setting})"
        for tool, row in sorted(best.items(), key=lambda item: _seconds(item[1]))
    )
    yield f"  values within {target:g}: {reached_by or 'nobody'}"
    if absent:
        yield f"    not reached by {', '.join(absent)}"


def _seconds(row: CurvatureRow) -> float:
    assert row.timing is not None
    return row.timing.median
