"""Draw the pictures of the README from the results of a study.

    python docs/pictures.py [runs/digits] [docs/pictures]

The study is that of ``make demo``. Any other one serves that has a trajectory with its principal plane, the plane of
the paths between two networks, and a spectrum.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.gridspec import GridSpec
from PIL import Image, ImageOps

import lossatlas as la

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from lossatlas.results.blocks import Picture

SIZE = (840, 640)  # pixels, the same for all: they stand side by side
INCHES = (3.7, 3.0)  # of a figure: its text has its own size, so that a small one is legible on half of those pixels
REMEDY = "run `make demo`, or name the folder of a study that measures trajectory, connect and spectrum."
COLOURS = 200  # a palette: a file half as large, and no difference to see


def main(study: str | Path = "runs/digits", out: str | Path = "docs/pictures") -> None:
    """Write every picture to the folder, as PNG on white."""
    results = [la.load(path) for path in sorted(Path(study, "results").glob("*.nc"))]
    Path(out).mkdir(parents=True, exist_ok=True)
    for name, figure in figures(results):
        target = Path(out) / f"{name}.png"
        target.write_bytes(png(figure))
        print(f"{target}: {target.stat().st_size / 1000:.0f} kB")


def figures(results: list[xr.Dataset]) -> Iterator[tuple[str, Figure]]:
    """The name and the figure of each picture of the README."""
    trajectory, *_ = of_kind(results, "trajectory")
    plane, *_ = of_kind(results, "connectivity_plane")
    spectrum, *_ = of_kind(results, "spectrum")
    # seen from where the valleys lie in front, which is another side of each plane
    yield "trajectory", seen(chosen(is_solid, trajectory, *of_kind(results, "surface")), elev=38, azim=122)
    yield "connectivity", seen(chosen(is_solid, plane), elev=50, azim=120)
    yield "spectrum", last_panel(chosen(is_density, spectrum))


def of_kind(results: list[xr.Dataset], kind: str) -> list[xr.Dataset]:
    found = [dataset for dataset in results if dataset.attrs["kind"] == kind]
    return found or sys.exit(f"There is no result of the kind {kind}: {REMEDY}")


def chosen(wanted: Callable[[Picture], bool], *datasets: xr.Dataset) -> Figure:
    """The first picture of these Datasets that is wanted."""
    found = next(filter(wanted, la.plot.pictures(*datasets)), None)
    return found.figure if found else sys.exit(f"A picture is missing: {REMEDY}")


def is_solid(picture: Picture) -> bool:
    """Whether a surface is drawn in space: such a picture is shaded."""
    return not picture.vector


def is_density(picture: Picture) -> bool:
    return "density" in picture.name


def seen(figure: Figure, **angles: float) -> Figure:
    """The same figure from another side; angles in degrees."""
    axes: Any = next(axes for axes in figure.axes if axes.name == "3d")
    axes.view_init(**angles)
    return figure


def last_panel(figure: Figure) -> Figure:
    """The figure with its last panel only: that of a density has a logarithmic axis, on which every part is seen."""
    *others, last = figure.axes
    for unwanted in (*others, *figure.legends):
        unwanted.remove()
    last.set_subplotspec(GridSpec(1, 1, figure=figure)[0])
    return figure


def png(figure: Figure) -> bytes:
    """The figure on white, whatever page it is shown on, at SIZE and in a palette of COLOURS."""
    figure.set_size_inches(INCHES)
    for axes in figure.axes:
        axes.set_title("")  # the README says what they are
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, dpi=300, facecolor="white", bbox_inches="tight", pad_inches=0.05)
    image = ImageOps.pad(Image.open(drawn).convert("RGB"), SIZE, color="white")
    image.quantize(COLOURS).save(small, "png", optimize=True)
    return small.getvalue()


if __name__ == "__main__":
    main(*sys.argv[1:])
