"""How it is measured."""

import torch
import xarray as xr

from lossatlas.results.making import result


def length(objective, *, power=2, progress=True):
    """|theta| in the given norm."""
    value = float(torch.linalg.vector_norm(objective.point, power))
    return result("toy", xr.Dataset({"length": value}), objective.provenance(), power=power)
