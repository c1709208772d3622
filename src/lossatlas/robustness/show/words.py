"""How a perturbation and its sizes are called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lossatlas.drawing.axes import values
from lossatlas.results.groups import alike

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.drawing.style import FloatArray

DIMENSIONS = ("sigma", "bits", "share", "rate")
NAMES = {
    "gaussian": "weight noise",
    "uniform": "uniform weight noise",
    "multiplicative": "multiplicative weight noise",
    "input": "input noise",
    "quantise": "quantisation",
    "prune": "pruning",
}
RELATIVE = {"filter": " (relative to each filter's norm)", "weight": " (relative to each weight)"}


def attribute(dataset: xr.Dataset, name: str) -> str:
    """An attribute as text; empty where there is none."""
    return str(dataset.attrs.get(name, ""))


def dimension(dataset: xr.Dataset) -> str:
    """In what the sizes of the perturbation are measured."""
    return next(name for name in DIMENSIONS if name in dataset.dims)


def is_noise(dataset: xr.Dataset) -> bool:
    """Whether it is noise, of which one asks from which size on it costs; of the others, up to which it does not."""
    return dimension(dataset) == "sigma"


def from_mild_to_severe(dataset: xr.Dataset) -> list[float]:
    """The sizes at which something is perturbed."""
    name = dimension(dataset)
    return sorted((size for size in values(dataset, name).tolist() if size > 0), reverse=name == "bits")


def perturbation(dataset: xr.Dataset) -> str:
    """What is done: "weight noise"."""
    noise = str(dataset.attrs["noise"])
    return NAMES[noise] if noise in NAMES else f"flips of {dataset.attrs['representation']} bits"


def relative(dataset: xr.Dataset) -> str:
    """What sigma is relative to, where it is and the name of the noise does not tell."""
    return "" if attribute(dataset, "noise") == "multiplicative" else RELATIVE.get(attribute(dataset, "relative"), "")


def of_sizes(dataset: xr.Dataset, sizes: Sequence[float]) -> str:
    """What is done and how strongly: "weight noise of sigma = 0.1 to 0.5", "quantisation to 4 bits"."""
    ends = list(dict.fromkeys((sizes[0], sizes[-1])))
    name = dimension(dataset)
    span = " to ".join(f"{100 * size:g}" if name == "share" else f"{size:g}" for size in ends)
    told = {
        "sigma": f"of sigma = {span}{relative(dataset)}",
        "bits": f"to {span.replace(' to ', ' or ')} bits{per(dataset)}",
        "share": f"of {span} % of the weights",
        "rate": f"at a rate of {span}",
    }
    return f"{perturbation(dataset)} {told[name]}"


def per(dataset: xr.Dataset) -> str:
    """What has a quantisation step of its own, where it is no whole tensor."""
    return " (a step for each channel)" if attribute(dataset, "per") == "channel" else ""


def lowers(dataset: xr.Dataset) -> str:
    """The verb that goes with it."""
    return "lower" if dimension(dataset) == "rate" else "lowers"


def of_size(dataset: xr.Dataset, size: float) -> str:
    """The same with one size."""
    return of_sizes(dataset, (size,))


def row_of(dataset: xr.Dataset, size: float) -> str:
    """A size in a table."""
    return f"{100 * size:g} %" if dimension(dataset) == "share" else f"{size:g}"


def groups(datasets: Sequence[xr.Dataset]) -> list[list[xr.Dataset]]:
    """Those of one perturbation and on the same data, Gaussian and absolute noise first."""

    def place(group: list[xr.Dataset]) -> tuple[Any, ...]:
        first = group[0]
        order = list(NAMES)
        noise = attribute(first, "noise")
        return order.index(noise) if noise in order else len(order), attribute(first, "relative") != "none"

    return sorted(alike(datasets, "noise", "relative", "per", "representation", "data"), key=place)


def finite(dataset: xr.Dataset) -> FloatArray:
    """The share of draws with a finite loss at each size."""
    return values(dataset, "finite")


def axis_label(datasets: Sequence[xr.Dataset]) -> str:
    """The size on an axis, with its unit."""
    first = datasets[0]
    several = {attribute(dataset, "relative") for dataset in datasets}
    unit = {frozenset({"filter"}): " / filter norm", frozenset({"weight"}): " / weight"}.get(frozenset(several), "")
    kind = "input" if attribute(first, "noise") == "input" else "weight"
    told = {
        "sigma": rf"{kind} noise $\sigma${unit}",
        "bits": "bits per weight",
        "share": "weights set to 0 (%)",
        "rate": "flips per bit",
    }
    return told[dimension(first)]
