"""Which Datasets belong together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from lossatlas.results.provenance import Provenance

if TYPE_CHECKING:
    import xarray as xr


def alike(
    datasets: Iterable[xr.Dataset], *keys: str, also: Callable[[xr.Dataset], Any] = lambda d: ()
) -> list[list[xr.Dataset]]:
    """Groups that agree in these attributes, and in ``also``, in the order of their first members."""
    groups: dict[Any, list[xr.Dataset]] = defaultdict(list)
    for dataset in datasets:
        groups[(*(str(dataset.attrs.get(key, "")) for key in keys), also(dataset))].append(dataset)
    return list(groups.values())


def by_network(datasets: Iterable[xr.Dataset]) -> dict[str, xr.Dataset]:
    """Label -> Dataset, of those whose network has a label."""
    labelled = {Provenance.of(dataset).network: dataset for dataset in datasets}
    return {label: dataset for label, dataset in labelled.items() if label is not None}


def distinct(datasets: Sequence[xr.Dataset], key: str, spell: Callable[[Any], str] = str) -> str:
    """The values of an attribute over the Datasets, each once, joined; empty where none has it."""
    return "; ".join(dict.fromkeys(spell(d.attrs[key]) for d in datasets if key in d.attrs))
