"""What geometry says about generalisation: sharpness against test results, a point a network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from lossatlas.drawing.axes import log_if_wide
from lossatlas.drawing.style import BLUE, WIDTH, sized, styled
from lossatlas.results import chapters
from lossatlas.results.blocks import Answer, FigureGroup, Picture, Table
from lossatlas.results.captions import MOST, basis, few, listed
from lossatlas.results.claim import Claim, Verdict
from lossatlas.results.uncertainty import DASH, number, plus_minus, with_interval
from lossatlas.results.values import scalar, value
from lossatlas.trajectory.show.ranks import (
    Compared,
    compared,
    gap,
    generalisation_gap,
    has_gap,
    kendall,
    last,
    rank_claim,
)
from lossatlas.trajectory.show.reading import one_each, whom

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

    from lossatlas.results.catalogue import Catalogue

Datasets = Sequence["xr.Dataset"]
Point = tuple[float, float]  # a value and its standard error

FEWEST = 5  # networks with which the permutation test can reject at 5 %
WORDS = {2: "two", 3: "three", 4: "four"}
RESCALED = (
    "Rescaling parameters changes both measures of sharpness and no prediction, and networks differ in more than "
    "sharpness."
)


def answers(histories: Datasets, catalogue: Catalogue) -> Iterator[Answer]:
    """Whether sharper networks generalise worse; where no two can be compared, the gaps alone."""
    found = list(compared(histories, catalogue))
    if found:
        yield _ranks(found[0])
    elif gaps := [history for history in one_each(histories) if has_gap(history)]:
        yield _gaps(gaps)


def _ranks(found: Compared) -> Answer:
    n, claim = len(found.networks), rank_claim(found)
    tau, p, _ = kendall(np.asarray(found.sharpness), np.asarray(found.test))
    told = {
        Verdict.SUPPORTED: "sharper networks generalise worse here",
        Verdict.CONTRADICTED: "sharper networks generalise better here",
        Verdict.UNDECIDED: "which decides nothing",
    }
    rank = f"Over {n} networks the largest eigenvalue and the {found.quantity} have Kendall's tau {number(tau, 2)}"
    return Answer(
        sentence=_of_two(found) if n == 2 else f"{rank} (p = {number(p, 2)}), {_few(n) or told[claim.verdict]}.",
        short=f"With {WORDS[n]} networks, whether the sharper one generalises worse cannot be decided."
        if n < FEWEST
        else f"Across {n} networks, {told[claim.verdict]}: sharpness and {found.quantity} have the rank correlation "
        f"{number(tau, 2)} (p = {number(p, 2)}).".replace("which decides nothing", "nothing is decided"),
        claim=claim,
        finding="sharper networks generalise worse",
        quantity=f"Kendall's tau of sharpness and {found.quantity}",
        limit=RESCALED,
        chapter=chapters.GENERALISATION,
    )


def _few(n: int) -> str:
    return f"which {WORDS[n]} networks are too few to judge: it takes {FEWEST}" if n < FEWEST else ""


def _of_two(found: Compared) -> str:
    """Which network is the sharper, which has the worse test result, and that this decides nothing."""
    (flat, sharp), q = np.argsort(found.sharpness), found.quantity
    of_each = [
        (plus_minus(*_sharpness(found.spectra[k], "eigenvalue")), _shown(_test(found.histories[k], q), q))
        for k in (sharp, flat)
    ]
    names = [f"network {found.networks[k]}" for k in (sharp, flat)]
    undecided = "two networks cannot decide whether sharper ones generalise worse"
    if found.test[sharp] > found.test[flat]:
        told = [f"{name} ({size} and {test})" for name, (size, test) in zip(names, of_each, strict=True)]
        return f"The largest eigenvalue and the {q} are both higher for {told[0]} than for {told[1]}, but {undecided}."
    (size, test), (other_size, other_test) = of_each
    return (
        f"The largest eigenvalue is higher for {names[0]} ({size} against {other_size}), the {found.quantity} for "
        f"{names[1]} ({other_test} against {test}), but {undecided}."
    )


def _gaps(histories: Datasets) -> Answer:
    claims = [generalisation_gap(history) for history in histories]
    texts = [with_interval(claim.value, claim.interval) for claim in claims]
    one = len(histories) == 1
    why = "one network cannot say" if one else "without sharpness on the same data they cannot say"
    return Answer(
        sentence=f"{_gaps_of(histories, claims, texts)}; {why} whether geometry has to do with it.",
        short=f"The generalisation gap of the loss is {texts[0]}, which one network cannot relate to geometry."
        if one
        else f"The generalisation gaps of the loss range from {number(min(claim.value for claim in claims), 2)} to "
        f"{number(max(claim.value for claim in claims), 2)}; no sharpness was measured to compare them with.",
        claim=claims[0],
        finding="the loss is higher on test data",
        quantity="test loss minus training loss",
        limit="A gap between losses depends on how confident a network is, not on its errors alone.",
        chapter=chapters.GENERALISATION,
    )


def _gaps_of(histories: Datasets, claims: Sequence[Claim], texts: Sequence[str]) -> str:
    """The gap of each network in words; of one network with what its interval decides."""
    names = whom(histories)
    if len(histories) > 1:
        each = list(zip(claims, texts, names, strict=True))
        ordered = each if len(each) <= MOST else sorted(each, key=lambda one: one[0].value)
        return f"The test loss minus the training loss is {few([f'{text} ({name})' for _, text, name in ordered])}"
    told = {
        Verdict.SUPPORTED: f"is higher on test data than on training data by {texts[0]}",
        Verdict.CONTRADICTED: f"is lower on test data than on training data, the difference being {texts[0]}",
        Verdict.UNDECIDED: f"is not told apart on test and training data, the difference being {texts[0]}",
    }
    return f"The loss of {names[0]} {told[claims[0].verdict]}"


def figures(histories: Datasets, catalogue: Catalogue) -> Iterator[FigureGroup]:
    """For each data set of the spectra a figure of sharpness against test results, with a table."""
    groups: dict[str, list[Compared]] = {}
    for found in compared(histories, catalogue):
        groups.setdefault(str([spectrum.attrs["id"] for spectrum in found.spectra]), []).append(found)
    for group in groups.values():
        picture = Picture("sharpness-and-test", partial(against_test, group), **_told(group))
        datasets = (*group[0].histories, *group[0].spectra)
        yield FigureGroup(
            datasets, (picture,), (_table(group[0]),), "Sharpness and test results", chapters.GENERALISATION
        )


def _told(group: Sequence[Compared]) -> dict[str, Any]:
    quantities = listed([found.quantity for found in group])
    first, measures = group[0], listed([name for name, _ in _measures(group[0]).values()])
    sharp = [plus_minus(*_sharpness(spectrum, "eigenvalue")) for spectrum in first.spectra]
    tests = [_shown(_test(history, first.quantity), first.quantity) for history in first.histories]
    points = [f"{s} and {t} ({name})" for s, t, name in zip(sharp, tests, first.networks, strict=True)]
    return {
        "caption": f"The {measures} of the Hessian against the {quantities}, a point a network, ± one "
        "standard error where there is one.",
        "how": "Test results after the last epoch; Hessians at the trained points.",
        "pitfall": "What is seen is at most an association over these networks, not a cause.",
        "method": basis(first.spectra),
        "alt": f"Largest eigenvalue and {first.quantity}: {'; '.join(points)}." if len(points) < 6 else "",
    }


def _measures(found: Compared) -> dict[str, tuple[str, str]]:
    """Variable of the spectra -> its name and its symbol, of those that all spectra have."""
    every = {"eigenvalue": ("largest eigenvalue", r"largest eigenvalue $\lambda_{\max}$"), "trace": ("trace", "trace")}
    return {name: told for name, told in every.items() if all(name in spectrum for spectrum in found.spectra)}


@styled
def against_test(group: Sequence[Compared]) -> Figure:
    """A row for each test result, a column for each measure of sharpness; log axes where values span much."""
    measures = _measures(group[0])
    figure = sized(WIDTH if len(measures) > 1 else 3.4, 0.4 + 1.9 * len(group))
    grid = figure.subplots(len(group), len(measures), squeeze=False, sharex="col", sharey="row")
    for row, found in zip(grid, group, strict=True):
        for axes, measure in zip(row, measures, strict=True):
            _points(axes, found, measure)
        unit = " (%)" if found.quantity == "test error" else ""
        row[0].set_ylabel(f"{found.quantity}{unit}")
    for axes, (_, symbol) in zip(grid[-1], measures.values(), strict=True):
        axes.set_xlabel(symbol)
    return figure


def _points(axes: Axes, found: Compared, measure: str) -> None:
    x = np.array([_sharpness(spectrum, measure) for spectrum in found.spectra])
    y = np.array([_test(history, found.quantity) for history in found.histories])
    bars = np.nan_to_num(x[:, 1]), np.nan_to_num(y[:, 1])
    axes.errorbar(x[:, 0], y[:, 0], xerr=bars[0], yerr=bars[1], fmt="o", color=BLUE, elinewidth=0.8, capsize=2)
    axes.margins(0.15)
    log_if_wide(axes, y[:, 0])
    if (x[:, 0] > 0).all() and x[:, 0].max() > 20 * x[:, 0].min():
        axes.set_xscale("log")
    for (at_x, _), (at_y, _), name in zip(x, y, found.networks, strict=True):
        axes.annotate(name, (at_x, at_y), (4, 4), textcoords="offset points", fontsize=8)


def _sharpness(spectrum: xr.Dataset, measure: str) -> Point:
    if measure == "trace":
        return scalar(spectrum, "trace"), scalar(spectrum, "trace_stderr")
    first = spectrum.sel(end="top").isel(rank=0)
    return float(first["eigenvalue"]), float(first["eigenvalue_stderr"])


def _test(history: xr.Dataset, quantity: str) -> Point:
    """The test loss, or the test error in per cent."""
    if quantity == "test error":
        return 100 - 100 * last(history, "test_accuracy"), 100 * last(history, "test_accuracy_stderr")
    return last(history, "test_loss"), last(history, "test_loss_stderr")


def _shown(point: Point, quantity: str) -> str:
    return f"{plus_minus(*point)}{' %' if quantity == 'test error' else ''}"


def _table(found: Compared) -> Table:
    """A row a network."""
    header = ("network", "largest eigenvalue", "trace", "test loss", "test error", "test − training loss")
    rows = tuple(
        (
            name,
            plus_minus(*_sharpness(spectrum, "eigenvalue")),
            value(spectrum, "trace"),
            plus_minus(*_test(history, "test loss")),
            _shown(_test(history, "test error"), "test error"),
            plus_minus(*gap(history)) if has_gap(history) else DASH,
        )
        for name, spectrum, history in zip(found.networks, found.spectra, found.histories, strict=True)
    )
    return Table("Sharpness and test results of each network ± one standard error.", header, rows)
