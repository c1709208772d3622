"""Sentences of captions, from the attributes of Datasets. One that is missing drops its sentence, never the caption."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lossatlas.results.groups import distinct

if TYPE_CHECKING:
    import xarray as xr

MOST = 3  # items that a sentence lists


def sentence(datasets: Sequence[xr.Dataset], key: str, template: str, spell: Any = str) -> str:
    """``template`` with the attribute's values over the Datasets; empty where none has it."""
    value = distinct(datasets, key, spell)
    return template.format(value) if value else ""


def joined(*sentences: str) -> str:
    """The sentences that are not empty, as one text."""
    return " ".join(sentence for sentence in sentences if sentence)


def listed(items: Sequence[str]) -> str:
    """Items as a list in running text.

    >>> listed(["A"]), listed(["A", "B"]), listed(["A", "B", "C"])
    ('A', 'A and B', 'A, B and C')
    """
    return " and ".join(part for part in (", ".join(items[:-1]), *items[-1:]) if part)


def few(items: Sequence[str]) -> str:
    """A few items as a list; of more the first and the last, so they come in their order.

    >>> few(["1", "2", "3"]), few(["1", "2", "3", "4"])
    ('1, 2 and 3', '1 to 4')
    """
    return listed(items) if len(items) <= MOST else f"{items[0]} to {items[-1]}"


def count(value: Any) -> str:
    """A whole number with its thousands apart."""
    return f"{int(value):,}"


def sentences(*each: str) -> tuple[str, ...]:
    """Those that are not empty.

    >>> sentences("Seed: 0.", "")
    ('Seed: 0.',)
    """
    return tuple(filter(None, each))


def basis(datasets: Sequence[xr.Dataset]) -> tuple[str, ...]:
    """On which examples, and over what the standard errors are taken, in sentences of their own."""
    return sentences(
        sentence(datasets, "data", "Data: {}."),
        sentence(datasets, "stderr_over", "Standard errors over {}, taken as independent."),
        sentence(datasets, "batch_norm", "Batch normalisation: {}."),
    )
