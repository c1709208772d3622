"""The results: a section for each kind of Dataset, with its figures, tables, observations and claims."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lossatlas import plot
from lossatlas.drawing.grids import has_error_map
from lossatlas.plot import interactive, isosurfaces
from lossatlas.report import captions, connectivity, curvature, observations
from lossatlas.report.blocks import Build, Datasets, Results, alike, numbered, observed, same_network
from lossatlas.report.document import Block, Picture, Section, Table
from lossatlas.report.values import value
from lossatlas.results.uncertainty import plus_minus

if TYPE_CHECKING:
    import xarray as xr


def _history(datasets: Datasets, results: Results) -> list[Block]:
    picture = Picture("history", plot.history(*datasets), captions.history(datasets))
    tables = [_epoch_table(dataset) for dataset in datasets if dataset.sizes.get("epoch")]
    interpretation = results.interpretation("history", datasets)
    return [picture, observed(observations.history, datasets), interpretation, *tables]


def _epoch_table(dataset: xr.Dataset) -> Table:
    names = [f"{split}_{quantity}" for split in ("train", "test") for quantity in ("loss", "accuracy")]
    present = [name for name in names if name in dataset]
    rows = tuple(
        (f"{epoch:g}", *(value(dataset, name, epoch=k) for name in present))
        for k, epoch in enumerate(dataset["epoch"].to_numpy())
    )
    return Table(
        f"Training of {captions.who(dataset)}: value ± one standard error after each epoch.",
        ("epoch", *(name.replace("_", " ") for name in present)),
        rows,
    )


def _lines(datasets: Datasets, results: Results) -> list[Block]:
    blocks: list[Block] = []
    for k, group in enumerate(alike(datasets, "data", "directions", "normalisation")):
        blocks += [
            Picture(numbered("lines", k), plot.line(*group), captions.line(group)),
            observed(observations.surface, group),
            results.interpretation("surface", group),
        ]
    return [*blocks, *_class_pictures("line", datasets)]


def _class_pictures(part: str, datasets: Datasets) -> list[Block]:
    with_classes = [dataset for dataset in datasets if "class_loss" in dataset]
    width = 0.75 if part == "line" else 1.0
    return [
        Picture(numbered(f"{part}-classes", k), plot.classes(dataset), captions.classes(dataset), width)
        for k, dataset in enumerate(with_classes)
    ]


def _planes(datasets: Datasets, results: Results) -> list[Block]:
    blocks: list[Block] = []
    groups = alike(datasets, "data", "directions", "normalisation")
    pairs = [pair for group in groups for pair in _in_rows(group)]
    for k, pair in enumerate(pairs):
        width = 1.0 if len(pair) > 1 or _has_companion(pair[0]) else 0.72
        blocks += [
            Picture(numbered("planes", k), plot.surface(*pair), captions.surface(pair), width),
            observed(observations.surface, pair),
            results.interpretation("surface", pair),
            *(_view(numbered("plane-3d", 2 * k + j), dataset) for j, dataset in enumerate(pair)),
        ]
    return [*blocks, *_class_pictures("plane", datasets)]


def _in_rows(group: Datasets) -> list[Datasets]:
    """Two planes side by side; one with an error map or a spread takes the width of two."""
    n = 1 if _has_companion(group[0]) else 2
    return [group[k : k + n] for k in range(0, len(group), n)]


def _has_companion(dataset: xr.Dataset) -> bool:
    return has_error_map(dataset) or "plane" in dataset.dims


def _volumes(datasets: Datasets, results: Results) -> list[Block]:
    blocks: list[Block] = []
    for k, dataset in enumerate(datasets):
        turning = isosurfaces.volume_3d(dataset)
        blocks += [
            Picture(numbered("volume", k), plot.volume(dataset), captions.volume(dataset), interactive=turning),
            observed(observations.surface, [dataset]),
            results.interpretation("surface", [dataset]),
        ]
    return blocks


def _view(name: str, dataset: xr.Dataset, road: xr.Dataset | None = None) -> Picture:
    turning = interactive.surface_3d(dataset, road)
    caption = captions.surface_3d(dataset, road is not None)
    return Picture(name, plot.surface_3d(dataset, road), caption, 0.62, interactive=turning, vector=False)


def _principal_planes(datasets: Datasets, results: Results) -> list[Block]:
    """Planes of principal components whose road is missing; those with a road are drawn with it."""
    roads = results.by_kind.get("trajectory", [])
    alone = [dataset for dataset in datasets if not any(same_network(dataset, road) for road in roads)]
    return _planes(alone, results)


def _trajectories(datasets: Datasets, results: Results) -> list[Block]:
    blocks: list[Block] = []
    for k, trajectory in enumerate(datasets):
        planes = [d for d in results.by_kind.get("principal_plane", []) if same_network(d, trajectory)]
        for j, plane in enumerate(planes):
            blocks += [
                Picture(numbered("road", k + j), plot.road(plane, trajectory), captions.road(plane, trajectory), 0.85),
                observed(observations.surface, [plane]),
                results.interpretation("surface", [plane]),
                _view(numbered("road-3d", k + j), plane, trajectory),
                *_error_map(numbered("road-error", k + j), plane),
            ]
        blocks += [
            Picture(numbered("explained", k), plot.explained(trajectory), captions.explained(trajectory)),
            observed(observations.trajectory, [trajectory]),
            results.interpretation("trajectory", [trajectory]),
        ]
    return blocks


def _error_map(name: str, plane: xr.Dataset) -> list[Block]:
    """The plane of a road once more, with its error map beside it, where it was interpolated."""
    return [Picture(name, plot.surface(plane), captions.surface([plane]))] if has_error_map(plane) else []


def _robustness(datasets: Datasets, results: Results) -> list[Block]:
    blocks: list[Block] = []
    absolute_first = sorted(
        alike(datasets, "relative", "data"), key=lambda group: group[0].attrs.get("relative") == "filter"
    )
    for k, group in enumerate(absolute_first):
        context = [*group, *results.by_kind.get("spectrum", [])]
        blocks += [
            Picture(numbered("robustness", k), plot.robustness(*group), captions.robustness(group)),
            observed(observations.robustness, group),
            results.interpretation("robustness", context),
            *(_noise_table(group[j : j + 2]) for j in range(0, len(group), 2)),
        ]
    return blocks


def _noise_table(datasets: Datasets) -> Table:
    names = [name for name in ("loss", "accuracy") if any(name in d for d in datasets)]
    sigmas = np.unique(np.concatenate([d["sigma"].to_numpy() for d in datasets]))
    rows = []
    for sigma in sigmas:
        at = [d.sel(sigma=sigma) if sigma in d["sigma"].to_numpy() else d.isel(sigma=0) * np.nan for d in datasets]
        rows.append((f"{sigma:g}", *(value(each, name) for each in at for name in names)))
    header = ("sigma", *(f"{captions.who(d)}: {name}" for d in datasets for name in names))
    noise = "relative to each filter's norm" if datasets[0].attrs.get("relative") == "filter" else "absolute"
    return Table(f"Weight noise ({noise}): mean over the draws ± one standard error.", header, tuple(rows))


def _comparisons(datasets: Datasets, results: Results) -> list[Block]:
    return [_comparison_table(dataset) for dataset in datasets]


def _comparison_table(dataset: xr.Dataset) -> Table:
    def cell(name: str, k: int) -> str:
        stderr = float(dataset["ours_stderr"][k]) if name == "ours" and "ours_stderr" in dataset else None
        return plus_minus(float(dataset[name][k]), stderr)

    rows = tuple(
        (
            str(quantity),
            cell("published", k),
            cell("ours", k),
            str(dataset["reason"].to_numpy()[k]) if "reason" in dataset else "",
        )
        for k, quantity in enumerate(dataset["quantity"].to_numpy())
    )
    title = dataset.attrs.get("title", "Published numbers beside ours")
    given = str(dataset.attrs.get("source", title))
    source = f" Source of the published numbers: {given}." if given != title else ""
    caption = f"{title}.{source} Ours ± one standard error where it is known."
    return Table(
        caption, ("quantity", "published", "ours", "reason for the difference"), rows, (0.31, 0.13, 0.19, 0.37)
    )


PARTS: tuple[tuple[str, str, Build], ...] = (
    ("Training", "history", _history),
    ("Loss along a line", "line", _lines),
    ("Loss on a plane", "plane", _planes),
    ("Loss in a volume", "volume", _volumes),
    ("The road of training", "trajectory", _trajectories),
    ("Loss on a plane of principal components", "principal_plane", _principal_planes),
    ("Spectrum of the Hessian", "spectrum", curvature.spectra),
    ("Density of the spectrum", "spectral_density", curvature.densities),
    ("Hessian and Gauss-Newton matrix", "gauss_newton_split", curvature.splits),
    ("Criteria on the spectrum", "gabdullin", curvature.criteria),
    ("Power iteration, the baseline", "power_iteration", curvature.power),
    ("Alignment of the two networks", "alignment", connectivity.alignments),
    ("A curve between the two networks", "connection", connectivity.connections),
    ("The way between two networks", "barrier", connectivity.barriers),
    ("The plane of the ways", "ways_plane", connectivity.planes),
    ("Instability to the order of the data", "instability", connectivity.instabilities),
    ("Robustness to weight noise", "robustness", _robustness),
    ("Comparison with published numbers", "comparison", _comparisons),
)
KINDS = {"surface", *(part for _, part, _ in PARTS)} - {"line", "plane", "volume", "principal_plane", "ways_plane"}


def sections(results: Results) -> tuple[Section, ...]:
    """A section for each part that has Datasets, in a fixed order."""
    present = [(title, part, build) for title, part, build in PARTS if results.by_kind.get(part)]
    built = [(title, part, tuple(build(results.by_kind[part], results))) for title, part, build in present]
    return tuple(Section(title, f"results-{part.replace('_', '-')}", blocks) for title, part, blocks in built if blocks)
