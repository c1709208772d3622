"""Every analysis of every family of models in `docs/families.py`, as the table of `docs/models.md`.

    python docs/models.py [docs/models.md]

Families with the weights of a package (`docs/pretrained.py`) are among them where it is installed.

Run by ``make slow``, which fails where a family is analysed otherwise than the table says.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import lossatlas as la

sys.path.insert(0, str(Path(__file__).parent))
from families import Family, families
from pretrained import missing, pretrained

BEGIN, END = "<!-- table: written by docs/models.py -->", "<!-- end of the table -->"
WORKS = "yes"
SEEDS = (0, 1)  # of the model, and of another one of its kind


def main(path: str | Path = "docs/models.md") -> None:
    """Write the table between its marks."""
    if absent := missing():
        sys.exit(f"The table has networks of {' and '.join(absent)}: pip install --no-deps {' '.join(absent)}")
    text = Path(path).read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    Path(path).write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}", encoding="utf-8")


def table() -> str:
    """The table in Markdown, with the reasons of what is refused or approximate below it."""
    notes: list[str] = []
    rows = [f"| {family.name} | {' | '.join(marked(cell, notes) for cell in found(family))} |" for family in every()]
    titles = ["family", *ANALYSES]
    header = [f"| {' | '.join(titles)} |", f"|{'---|' * len(titles)}"]
    return "\n".join([*header, *rows, "", *(f"{k}. {note}" for k, note in enumerate(notes, 1))])


def every() -> Iterator[Family]:
    """Those with random weights, then those with a package's."""
    yield from families()
    yield from pretrained()


def marked(cell: str, notes: list[str]) -> str:
    """The first word, and the number of the note that says the rest."""
    word, _, reason = cell.partition(": ")
    if not reason:
        return word
    if reason not in notes:
        notes.append(reason)
    return f"{word} ({notes.index(reason) + 1})"


def found(family: Family) -> list[str]:
    """One cell for each analysis."""
    made: dict[str, Any] = {}

    def objective() -> la.Objective:
        if "objective" not in made:
            made["objective"] = family.make(family.model(SEEDS[0]))
        return made["objective"]

    return [tried(lambda ask=ask: ask(family, objective())) for ask in ANALYSES.values()]


def tried(ask: Callable[[], str]) -> str:
    """What came of it: what the analysis says, or why it was refused; a warning is told too."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            said = ask()
        except la.errors.LossAtlasError as error:
            return f"refused: {error}"
    told = [str(each.message) for each in caught if each.category.__module__ == la.errors.__name__]
    return f"told: {told[0]}" if told and said == WORKS else said


# The analyses


def derivatives(family: Family, objective: la.Objective) -> str:
    objective.gradient()
    objective.hvp(torch.ones(objective.n_parameters))
    return WORKS


def surface(family: Family, objective: la.Objective) -> str:
    directions = la.random_directions(objective, 2, seed=0)
    la.surface(objective, la.plane(objective.point, *directions, steps=3), progress=False)
    return WORKS


def spectrum(family: Family, objective: la.Objective) -> str:
    result = la.spectrum(objective, 1, density=False, trend=False, max_products=300, progress=False)
    if "differences" in str(result.attrs["route"]):
        off = float(result.attrs["product_error"]) / abs(float(result["eigenvalue"].sel(end="top")[0]))
        bound = 10.0 ** math.ceil(math.log10(off))
        return f"approximate: products by differences of the gradient, less than {bound:g} of lambda_max off"
    exact = float(result["trace_stderr"]) == 0
    return WORKS if exact else "yes, trace estimated"


def gauss_newton(family: Family, objective: la.Objective) -> str:
    la.gauss_newton(objective) @ torch.ones(objective.n_parameters)
    la.fisher(objective) @ torch.ones(objective.n_parameters)
    return WORKS


def robustness(family: Family, objective: la.Objective) -> str:
    la.robustness(objective, (0, 0.1), draws=2, relative="filter", progress=False)
    return WORKS


def barrier(family: Family, objective: la.Objective) -> str:
    la.barrier(objective, la.Segment(objective.point, other(family, objective)), steps=5, draws=100, progress=False)
    return WORKS


def alignment(family: Family, objective: la.Objective) -> str:
    aligned = la.align(objective, objective.point, other(family, objective))
    pinned = aligned.symmetries.pinned
    return f"partly: {'; '.join(map(str, pinned))}" if pinned else WORKS


def other(family: Family, objective: la.Objective) -> Tensor:
    return objective.point_of(family.model(SEEDS[1]))


ANALYSES: dict[str, Callable[[Family, la.Objective], str]] = {
    "gradient, H v": derivatives,
    "surface": surface,
    "spectrum": spectrum,
    "Gauss-Newton, Fisher": gauss_newton,
    "robustness": robustness,
    "barrier": barrier,
    "alignment": alignment,
}


def rows(text: str) -> Iterator[list[str]]:
    """The cells of a table."""
    for line in text.splitlines():
        if line.startswith("| "):
            yield [cell.strip() for cell in line.strip("|").split("|")]


if __name__ == "__main__":
    main(*sys.argv[1:])
