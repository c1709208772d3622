"""What a training run recorded, as a result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr

from lossatlas.results.making import result


def history_dataset(columns: Mapping[str, Any], steps: Sequence[int], **attrs: object) -> xr.Dataset:
    """The Dataset of a history: ``columns``, name -> ("step" or "epoch", values); epochs are counted from 1."""
    epochs = max((len(values) for dim, values in columns.values() if dim == "epoch"), default=0)
    coords = {"step": steps} | ({"epoch": list(range(1, epochs + 1))} if epochs else {})
    return result("history", xr.Dataset(dict(columns), coords), **attrs)
