"""Directions of a region: random ones on the scale of the weights, differences, orthonormal bases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor

from lossatlas.errors import DirectionError, InputError
from lossatlas.geometry.blocks import orthogonal_in_blocks, scaled
from lossatlas.model.parameters import Blocks, ParameterSpace

if TYPE_CHECKING:
    from lossatlas.objective import Objective

OneD = Literal["zero", "scale"]
Normalisation = Literal["filter", "layer", "model", "none"]


class Directions(Tensor):
    """d_1 .. d_k as rows of a tensor ``(k, n)`` that knows how they were made: what ``random_directions`` returns.

    It is a tensor in every use: any operation on it (``+``, ``@``, ``torch.stack``, a slice, ``.to`` to another type or
    device) gives a plain ``torch.Tensor``, which knows no origin. Its rows do: iterating over it, or an index that is
    one integer, gives ``Directions`` ``(n,)``. So ``plane(point, directions)`` and ``plane(point, *directions)``
    remember the same. An operation in place changes the numbers and not what is known of their origin. ``copy``,
    ``deepcopy`` and ``pickle`` keep everything.

    Parameters
    ----------
    data : the directions ``(k, n)``, or one of them ``(n,)``. The memory is shared.
    normalisation : the blocks that were scaled to the norms of the weights: ``"filter"``, ``"layer"``, ``"model"``,
        or ``"none"``.
    one_d : ``"zero"`` where tensors with fewer than two dimensions are held fixed, or ``"scale"``.
    seed : of the random draws.
    source : what they are, ``"random"``.

    Raises
    ------
    DirectionError : ``data`` is neither ``(k, n)`` nor ``(n,)``.

    Source: the normalisations are those of Li et al. 2018, "Visualizing the Loss Landscape of Neural Nets", section 4.

    Examples
    --------
    >>> directions = Directions(torch.eye(2, 3), normalisation="none", one_d="scale", seed=4)
    >>> directions[1].seed, type(2 * directions).__name__, directions.cosines.tolist()
    (4, 'Tensor', [[1.0, 0.0], [0.0, 1.0]])
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    normalisation: Normalisation
    one_d: OneD
    seed: int
    source: str

    def __new__(
        cls, data: Tensor, *, normalisation: Normalisation, one_d: OneD, seed: int, source: str = "random"
    ) -> Self:
        if data.ndim not in (1, 2):
            raise DirectionError(f"The directions have shape {tuple(data.shape)}: give rows (k, n), or one (n,).")
        self = data.detach().as_subclass(cls)
        self.normalisation, self.one_d, self.seed, self.source = normalisation, one_d, seed, source
        return self

    def __init__(self, *args: Any, **made: Any) -> None:
        """All is done in ``__new__``: a tensor is made there."""

    @property
    def cosines(self) -> Tensor:
        """<d_i, d_j> / (|d_i| |d_j|), ``(k, k)``, in float64."""
        rows = torch.nn.functional.normalize(torch.atleast_2d(self).double(), dim=1)
        return rows @ rows.T

    def __getitem__(self, index: Any) -> Tensor:
        found: Tensor = super().__getitem__(index)
        row = self.ndim == 2 and isinstance(index, int) and not isinstance(index, bool)
        return type(self)(found, **self._made()) if row else found

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        memo[id(self)] = copied = type(self)(self.clone(), **self._made())
        return copied

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _restored, (type(self), self.as_subclass(Tensor), self._made())

    def _made(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("normalisation", "one_d", "seed", "source")}


def _restored(cls: type[Directions], data: Tensor, made: dict[str, Any]) -> Directions:
    return cls(data, **made)


def origin(rows: Sequence[Tensor]) -> dict[str, object]:
    """What a region's provenance says of its directions: where all are ``Directions``, the seed and normalisation.

    Rows of several draws have the list of their seeds, and ``"mixed"`` where they were scaled differently.
    """
    known = [row for row in rows if isinstance(row, Directions)]
    if not known or len(known) < len(rows) or len({row.source for row in known}) > 1:
        return {"directions": "given"}
    seeds = [row.seed for row in known]
    scalings = {row.normalisation for row in known}
    return {
        "directions": known[0].source,
        "seed": seeds[0] if len(set(seeds)) == 1 else seeds,
        "directions_normalisation": scalings.pop() if len(scalings) == 1 else "mixed",
    }


def random_directions(
    objective: Objective, k: int = 2, *, seed: int, norm: Blocks | None = "filter", one_d: OneD | None = None
) -> Directions:
    """d_f <- d_f |w_f| / |d_f| for each block f of k Gaussian draws: ``(k, n)``, at the objective's own point.

    Later directions are made orthogonal to earlier ones *inside every block*, before they are scaled: two random
    directions are nearly orthogonal anyway, but an exact right angle makes distances on the picture distances in
    parameter space, and doing it block by block keeps every block's norm exact as well. A block with fewer than k
    entries cannot hold k orthogonal vectors; it keeps its draw, and ``cosines`` shows what that costs.

    Parameters
    ----------
    norm : names the block: ``"filter"`` (one output unit of a weight), ``"layer"`` (one tensor) or ``"model"``;
        ``None`` leaves their lengths as drawn, N(0, 1) in each entry.
    one_d : what becomes of tensors with fewer than two dimensions (biases, scales of norms), whose entries can be far
        larger than their effect: ``"zero"``, the default for filters and layers, holds them fixed, as ``biasbn`` does
        in the authors' code; ``"scale"``, the default otherwise, treats each as one block.

    Returns
    -------
    Directions ``(k, n)`` : a tensor that a region made from it remembers: its normalisation and its seed.

    Raises
    ------
    InputError : an unknown block, k < 1, or nothing is left to vary (all weights zero, only 1-D tensors).

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
    objective.space.check(objective.point, "model's point")
    one_d = one_d or ("zero" if norm in ("filter", "layer") else "scale")
    rows = _normalised(_draws(objective, k, seed), objective, norm, one_d)
    if not bool(rows.any(dim=1).all()):
        raise InputError(
            "Nothing is left to vary: the selected parameters are zero or one-dimensional. "
            "Select weights too, or pass one_d='scale' or norm=None."
        )
    return Directions(rows, normalisation=norm or "none", one_d=one_d, seed=seed)


def _draws(objective: Objective, k: int, seed: int) -> Tensor:
    return torch.randn(k, objective.space.n, generator=torch.Generator().manual_seed(seed)).to(objective.point)


def _normalised(draws: Tensor, objective: Objective, norm: Blocks | None, one_d: OneD) -> Tensor:
    space = objective.space
    keep = torch.ones(space.n, dtype=torch.bool, device=objective.device)
    if one_d == "zero":
        keep = ~space.one_dimensional().to(objective.device)
    rows = orthogonal_in_blocks(draws * keep, space, norm or "model")
    return rows if norm is None else torch.stack([scaled(d, objective.point * keep, space, norm) for d in rows])


def between(a: Tensor, b: Tensor) -> Tensor:
    """b - a, ``(n,)``: the direction that leads from one point ``(n,)`` to another.

    Raises
    ------
    DirectionError : the two differ in size.

    Source: the line from a to b is that of Goodfellow et al. 2015, "Qualitatively Characterizing Neural Network
    Optimization Problems", section 2.

    Examples
    --------
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

    Raises
    ------
    DirectionError : the rows are linearly dependent.

    Source: Golub & Van Loan, "Matrix Computations", section 5.2 (Householder QR, signs so that the diagonal of R is
    positive).

    Examples
    --------
    >>> orthonormalise(torch.tensor([[3.0, 4.0], [0.0, 5.0]]))
    tensor([[ 0.6000,  0.8000],
            [-0.8000,  0.6000]])
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
