"""What the Datasets of a training hold, and which of them are of one network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from lossatlas.drawing.axes import values
from lossatlas.drawing.style import labels
from lossatlas.results.provenance import Provenance

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.drawing.style import FloatArray


def has_epochs(dataset: xr.Dataset) -> bool:
    return bool(dataset.sizes.get("epoch"))


def after_epochs(dataset: xr.Dataset, quantity: str) -> list[str]:
    """``train_loss`` and ``test_loss``, for the quantity ``loss``: those that were measured after some epoch."""
    names = (f"{split}_{quantity}" for split in ("train", "test"))
    return [name for name in names if known(dataset, name, "epoch")]


def known(dataset: xr.Dataset, name: str, dimension: str) -> bool:
    """Whether the Dataset has the variable over this dimension with some value that is a number."""
    return name in dataset and dataset[name].dims == (dimension,) and bool(dataset[name].notnull().any())


def has_sharpness(trajectory: xr.Dataset) -> bool:
    """Whether lambda_max was measured at some snapshot."""
    return known(trajectory, "lambda_max", "snapshot")


def sharpness_of(trajectory: xr.Dataset) -> tuple[FloatArray, FloatArray]:
    """The steps at which lambda_max was measured, and its values there."""
    measured = trajectory.isel(snapshot=trajectory["lambda_max"].notnull().to_numpy())
    return values(measured, "step"), values(measured, "lambda_max")


def whom(datasets: Sequence[xr.Dataset]) -> list[str]:
    """What each network is called in a sentence; one by itself without a label is "the network"."""
    return labels(datasets) if len(datasets) > 1 else [Provenance.of(dataset).who for dataset in datasets]


def one_each(histories: Sequence[xr.Dataset]) -> list[xr.Dataset]:
    """One history of each network, one with epochs where there is one; those without a label are of one each."""
    best: dict[str, xr.Dataset] = {}
    for history in sorted(histories, key=has_epochs):
        best[Provenance.of(history).network or str(history.attrs["id"])] = history
    return [history for history in histories if any(history is kept for kept in best.values())]


def history_of(trajectory: xr.Dataset, histories: Iterable[xr.Dataset]) -> xr.Dataset | None:
    """The history of the same training: of the same network label, or of the same record; one with epochs first."""
    label, record = trajectory.attrs.get("network"), trajectory.attrs["trajectory_fingerprint"]

    def same(history: xr.Dataset) -> bool:
        named = label is not None and history.attrs.get("network") == label
        return named or bool(history.attrs.get("trajectory_fingerprint") == record)

    return max(filter(same, histories), key=has_epochs, default=None)
