"""Random directions on the scale of the weights."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lossatlas.errors import InputError, ZeroNormWarning
from lossatlas.geometry.blocks import Blocks, cuts, without_one_dimension
from lossatlas.geometry.directions import Directions, OneD
from lossatlas.model.filters import Axes, Filters, by_text
from lossatlas.model.parameters import ParameterSpace

if TYPE_CHECKING:
    from lossatlas.objective import Objective


def random_directions(
    objective: Objective,
    k: int = 2,
    *,
    seed: int,
    norm: Blocks | None = "filter",
    one_d: OneD | None = None,
    filters: Mapping[str, Axes] | None = None,
) -> Directions:
    """d_f <- d_f |w_f| / |d_f| for each block f of k Gaussian draws: ``(k, n)``, at the objective's own point.

    Later directions are made orthogonal to earlier ones *inside every block*, before they are scaled: two random
    directions are nearly orthogonal anyway, but an exact right angle makes distances on the picture distances in
    parameter space, and doing it block by block keeps every block's norm exact as well. A block with fewer than k
    entries cannot hold k orthogonal vectors; it keeps its draw, and ``cosines`` shows what that costs.

    Parameters
    ----------
    norm : names the block: ``"filter"``, ``"layer"`` (one tensor) or ``"model"``; ``None`` leaves their lengths as
        drawn, N(0, 1) in each entry. A filter is what of a tensor feeds one unit of the output of the operation in
        which it meets the data: a row of a linear layer (a column where the weight is stored as (in, out)), a channel
        of a convolution, also a grouped or transposed one, a row of packed q, k and v. Of an embedding it is a row, the
        vector that one index reads, as in the authors' code. The axes are seen in one pass over the first batch, and
        the region's provenance lists them; axis 0 is assumed, and the reason listed, where they cannot be seen.
    one_d : what becomes of tensors with fewer than two dimensions (biases, scales of norms), whose entries can be far
        larger than their effect: ``"zero"``, the default for filters and layers, holds them fixed, as ``biasbn`` does
        in the authors' code; ``"scale"``, the default otherwise, treats each as one block.
    filters : the axes that count the filters, where others are wanted than were seen: ``{"head.*": 1}``, by name or
        glob one axis, a tuple of them, or None for the whole tensor.

    Returns
    -------
    Directions ``(k, n)`` : a tensor that a region made from it remembers: its normalisation and its seed.

    Raises
    ------
    InputError : an unknown block, k < 1, ``filters`` of no tensor or axis, or nothing is left to vary (all weights
        zero, only 1-D tensors). A ``ZeroNormWarning`` where some tensors are zero and so stay where they are.

    Source: Li et al. 2018, "Visualizing the Loss Landscape of Neural Nets", section 4 (filter normalisation).

    Examples
    --------
    >>> import lossatlas as la
    >>> model = torch.nn.Linear(3, 2, bias=False)
    >>> objective = la.Objective(model, torch.nn.functional.mse_loss, (torch.ones(4, 3), torch.zeros(4, 2)))
    >>> directions = random_directions(objective, 2, seed=0)
    >>> tuple(directions.shape), directions.normalisation, directions.seed
    ((2, 6), 'filter', 0)
    >>> bool(torch.allclose(directions[0].view(2, 3).norm(dim=1), model.weight.norm(dim=1)))
    True
    """
    if norm not in ("filter", "layer", "model", None) or one_d not in ("zero", "scale", None):
        raise InputError(
            f"norm={norm!r}, one_d={one_d!r}: choose norm 'filter', 'layer', 'model' or None; one_d 'zero' or 'scale'."
        )
    if k < 1:
        raise InputError(f"k={k}: ask for at least one direction.")
    if filters and norm != "filter":
        raise InputError(f"filters= is for norm='filter', and norm={norm!r} has other blocks: leave out one of them.")
    point, space = objective.function.point, objective.space
    space.check(point, "model's point")
    one_d = one_d or ("zero" if norm in ("filter", "layer") else "scale")
    known = objective.filters(filters) if norm == "filter" else {}
    rows = torch.randn(k, space.n, generator=torch.Generator().manual_seed(seed)).to(point)
    _normalise(rows, point, space, norm, one_d, known)
    _check_moving(rows, space, norm)
    return Directions(rows, normalisation=norm or "none", one_d=one_d, seed=seed, filters=known)


def _normalise(
    rows: Tensor,
    point: Tensor,
    space: ParameterSpace,
    norm: Blocks | None,
    one_d: OneD,
    filters: Mapping[str, Filters],
) -> None:
    """In place and tensor by tensor: next to the directions and the point there is little more than one tensor."""
    if one_d == "zero":
        without_one_dimension(rows, space)
        point = without_one_dimension(point.clone(), space) if norm == "model" else point
    for cut in cuts(space, norm or "model", filters):
        cut.orthogonalise(rows)
        if norm is not None:
            cut.scale(rows, point)


def _check_moving(rows: Tensor, space: ParameterSpace, norm: Blocks | None) -> None:
    """Refuses directions that are zero, and warns of weights that stay where they are since they are zero."""
    if not bool(rows.any(dim=1).all()):
        raise InputError(
            "Nothing is left to vary: the selected parameters are zero or one-dimensional. "
            "Select weights too, or pass one_d='scale' or norm=None."
        )
    weights = [entry for entry in space if not entry.has_one_dimension]  # a bias may well be zero
    resting = {e.name: "" if bool(rows[:, e.start : e.stop].any()) else "zero" for e in weights}
    if count := sum(map(bool, resting.values())):
        warnings.warn(
            f"{count} of the {len(weights)} weights are zero, and directions with norm={norm!r} leave them so "
            f"({by_text(resting, most=3).removeprefix('zero: ')}): the loss along them may be flat for that reason "
            "alone (adapters at their start). Pass norm='model' or norm=None, or look at a trained point.",
            ZeroNormWarning,
            stacklevel=3,
        )
