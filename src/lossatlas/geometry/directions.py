"""Which way to look: random directions on the scale of the weights, differences, orthonormal bases."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lossatlas.errors import DirectionError, InputError
from lossatlas.model.parameters import Blocks, ParameterSpace
from lossatlas.objective import Objective

OneD = Literal["zero", "scale"]

_LOST = 1e-6  # of a block's squared norm: what is left below this after projection is rounding


def random_directions(
    objective: Objective, k: int = 2, *, seed: int, norm: Blocks | None = "filter", one_d: OneD | None = None
) -> Tensor:
    """d_f <- d_f |w_f| / |d_f| for each block f of k Gaussian draws: ``(k, n)``, at the objective's own point.

    ``norm`` names the block: ``"filter"`` (one output unit of a weight: Li et al. 2018, section 4), ``"layer"``
    (one tensor) or ``"model"``; ``None`` leaves their lengths as drawn, N(0, 1) in each entry.

    ``one_d`` says what becomes of tensors with fewer than two dimensions (biases, scales of norms), whose entries
    can be far larger than their effect: ``"zero"``, the default for filters and layers, holds them fixed, as
    ``biasbn`` does in the authors' code; ``"scale"``, the default otherwise, treats each as one block.

    Later directions are made orthogonal to earlier ones *inside every block*, before they are scaled: two random
    directions are nearly orthogonal anyway, but an exact right angle makes distances on the picture distances in
    parameter space, and doing it block by block keeps every block's norm exact as well. A block with fewer than k
    entries cannot hold k orthogonal vectors; it keeps its draw, and ``cosine`` shows what that costs.

    Raises ``InputError`` for an unknown block, or where nothing is left to vary (all weights zero, only 1-D tensors).
    """
    if norm not in ("filter", "layer", "model", None) or one_d not in ("zero", "scale", None):
        raise InputError(
            f"norm={norm!r}, one_d={one_d!r}: choose norm 'filter', 'layer', 'model' or None; one_d 'zero' or 'scale'."
        )
    if k < 1:
        raise InputError(f"k={k}: ask for at least one direction.")
    space = objective.space
    space.check(objective.point, "model's point")
    draws = torch.randn(k, space.n, generator=torch.Generator().manual_seed(seed)).to(objective.point)
    keep = torch.ones(space.n, dtype=torch.bool, device=objective.device)
    if (one_d or ("zero" if norm in ("filter", "layer") else "scale")) == "zero":
        keep = ~space.one_dimensional().to(objective.device)
    draws = _orthogonal_in_blocks(draws * keep, space, norm or "model")
    if norm is not None:
        draws = torch.stack([_scaled(d, objective.point * keep, space, norm) for d in draws])
    if not bool(draws.any(dim=1).all()):
        raise InputError(
            "Nothing is left to vary: the selected parameters are zero or one-dimensional. "
            "Select weights too, or pass one_d='scale' or norm=None."
        )
    return draws


def between(a: Tensor, b: Tensor) -> Tensor:
    """b - a, ``(n,)``: the direction that leads from one point to another.

    >>> between(torch.tensor([1.0, 1.0]), torch.tensor([3.0, 0.0]))
    tensor([ 2., -1.])
    """
    if a.shape != b.shape:
        raise DirectionError(
            f"The points have shapes {tuple(a.shape)} and {tuple(b.shape)}: give two of one architecture."
        )
    return b - a


def orthonormalise(directions: Tensor) -> Tensor:
    """An orthonormal basis ``(k, n)`` of the span of the rows, the first one kept up to its length (QR).

    Raises ``DirectionError`` when the rows are linearly dependent.
    """
    q, r = torch.linalg.qr(directions.T)
    diagonal = r.diagonal()
    if bool((diagonal.abs() <= 1e-6 * torch.linalg.vector_norm(directions, dim=1)).any()):
        raise DirectionError(
            "The directions are linearly dependent: give directions that span their number of dimensions."
        )
    basis: Tensor = (q * diagonal.sign()).T.contiguous()
    return basis


def cosine(first: Tensor, second: Tensor) -> float:
    """<d_1, d_2> / (|d_1| |d_2|), in float64."""
    return float(torch.nn.functional.cosine_similarity(first.double(), second.double(), dim=0))


def normalisation(space: ParameterSpace, point: Tensor, direction: Tensor) -> tuple[str, str]:
    """(blocks, 1-D tensors) of ``direction``, *measured*: how they are scaled against ``point``.

    The first word is ``"filter"``, ``"layer"``, ``"model"`` or ``"none"``, the second ``"zero"`` or ``"scaled"``.

    A direction is filter-normalised when each of its filters has the norm of the filter of ``point`` to 1e-3; the
    second word says whether the entries of 1-D tensors are all zero.
    """
    one_d = space.one_dimensional().to(direction.device)
    fixed = bool(one_d.any()) and not bool(direction[one_d].any())
    keep = ~one_d if fixed else torch.ones_like(one_d)
    blocks: tuple[Blocks, ...] = ("filter", "layer", "model")
    for by in blocks:
        own, weights = (space.block_sum((v * keep).double() ** 2, by)[keep].sqrt() for v in (direction, point))
        if torch.allclose(own, weights, rtol=1e-3, atol=0):
            return by, "zero" if fixed else "scaled"
    return "none", "zero" if fixed else "scaled"


def _orthogonal_in_blocks(rows: Tensor, space: ParameterSpace, by: Blocks) -> Tensor:
    done: list[Tensor] = []
    for row in rows:
        left = row
        for _ in range(2):  # twice is enough: the second pass removes what rounding left behind
            for other in done:
                left = left - other * _ratio(space.block_sum(left * other, by), space.block_sum(other * other, by))
        lost = space.block_sum(left * left, by) <= _LOST * space.block_sum(row * row, by)
        done.append(torch.where(lost, row, left))
    return torch.stack(done)


def _scaled(direction: Tensor, weights: Tensor, space: ParameterSpace, by: Blocks) -> Tensor:
    # Squares in float64: a filter of 1e5 entries would lose digits of its norm in float32.
    own, wanted = (space.block_sum(v.double() ** 2, by) for v in (direction, weights))
    return direction * _ratio(wanted, own).sqrt().to(direction.dtype)


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """above / below, and 0 where ``below`` is 0."""
    return torch.where(below == 0, torch.zeros_like(above), above / torch.where(below == 0, 1, below))
