"""What the parts of the results share: the Datasets by kind, the claims on them, which belong into one figure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from lossatlas.claims import derive
from lossatlas.drawing.grids import axes_of, has_error_map, is_polar
from lossatlas.drawing.overlays import has_ways
from lossatlas.drawing.scales import scale_of
from lossatlas.report.document import Block, Bullets

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.claims import Claim

Datasets = Sequence["xr.Dataset"]
Build = Callable[["Datasets", "Results"], list[Block]]


class Results:
    """The Datasets of a report by kind, and the claims that may interpret them."""

    def __init__(self, datasets: Datasets, claims: Sequence[Claim]) -> None:
        self.by_kind: dict[str, list[xr.Dataset]] = defaultdict(list)
        for dataset in datasets:
            self.by_kind[_part(dataset)].append(dataset)
        self.claims = tuple(claims)

    def interpretation(self, kind: str, datasets: Datasets) -> Bullets:
        """The verdicts of the claims that these Datasets give rise to."""
        allowed = {(claim.hypothesis, claim.detail) for claim in derive(datasets) if claim.kind == kind}
        related = tuple(claim.sentence for claim in self.claims if (claim.hypothesis, claim.detail) in allowed)
        return Bullets(related or ("No claim is tested on this figure.",), lead="Interpretation.")


def _part(dataset: xr.Dataset) -> str:
    kind = str(dataset.attrs["kind"])
    if kind != "surface":
        return kind
    if has_ways(dataset):
        return "ways_plane"
    part = ("line", "plane", "volume")[len(axes_of(dataset)) - 1]
    principal = "principal" in str(dataset.attrs.get("directions", ""))
    return "principal_plane" if part == "plane" and principal and is_plain(dataset) else part


def observed(observe: Callable[[xr.Dataset], Iterable[str]], datasets: Datasets) -> Bullets:
    return Bullets(tuple(sentence for dataset in datasets for sentence in observe(dataset)), lead="Observation.")


def alike(datasets: Datasets, *keys: str) -> list[list[xr.Dataset]]:
    """Datasets that belong into one figure: they agree in these attributes, surfaces also in what is drawn of them."""
    groups: dict[tuple[str, ...], list[xr.Dataset]] = defaultdict(list)
    for dataset in datasets:
        groups[(*(str(dataset.attrs.get(key, "")) for key in keys), *_drawn(dataset))].append(dataset)
    return list(groups.values())


def _drawn(dataset: xr.Dataset) -> tuple[str, ...]:
    if dataset.attrs["kind"] != "surface":
        return ()
    scales = [scale_of(dataset[name].to_numpy().astype(float)).kind for name in axes_of(dataset)]
    parts = ("plane" in dataset.dims, "quadratic" in dataset, has_error_map(dataset))
    return (*axes_of(dataset), *scales, *map(str, parts))


def is_plain(dataset: xr.Dataset) -> bool:
    """Whether it is one flat plane, on which a road can be drawn."""
    return "plane" not in dataset.dims and not is_polar(dataset)


def numbered(base: str, k: int) -> str:
    return base if k == 0 else f"{base}-{k + 1}"


def same_network(a: xr.Dataset, b: xr.Dataset) -> bool:
    return a.attrs.get("network") == b.attrs.get("network")
