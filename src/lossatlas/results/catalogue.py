"""The Datasets of a report, by kind, and every claim that they allow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from lossatlas.results.discovery import kind_of, kinds
from lossatlas.results.making import identified

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.results.claim import Claim
    from lossatlas.results.kind import Kind


class Catalogue:
    """Datasets, each checked against its kind's schema, in an order that does not depend on the one given.

    Raises ``InputError`` for a Dataset of no kind, or one that is not complete.
    """

    def __init__(self, datasets: Iterable[xr.Dataset]) -> None:
        checked = [identified(kind_of(dataset).schema.check(dataset, dataset.attrs["kind"])) for dataset in datasets]
        self._datasets = sorted(checked, key=_order)

    def __iter__(self) -> Iterator[xr.Dataset]:
        return iter(self._datasets)

    def __len__(self) -> int:
        return len(self._datasets)

    def of(self, kind: Kind) -> list[xr.Dataset]:
        """The Datasets of a kind."""
        return [dataset for dataset in self if dataset.attrs["kind"] == kind.name]

    def present(self) -> list[Kind]:
        """The kinds that have Datasets, in the order of the report."""
        return [kind for kind in kinds().values() if self.of(kind)]

    def claims(self) -> list[Claim]:
        """Every claim that the Datasets allow, in a fixed order."""
        return [claim for kind in self.present() for claim in kind.claims(self.of(kind), self)]


def _order(dataset: xr.Dataset) -> tuple[str, ...]:
    a = dataset.attrs
    everything = repr(sorted((str(k), str(v)) for k, v in a.items()))  # so that no tie is left to the order given
    return *(str(a.get(key, "")) for key in ("kind", "network", "name")), everything
