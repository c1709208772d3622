"""Directions of a region: random ones on the scale of the weights, differences, orthonormal bases."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor

from lossatlas.errors import DirectionError, InputError, ZeroNormWarning
from lossatlas.geometry.blocks import Blocks, cuts, without_one_dimension
from lossatlas.model.filters import Axes, Filters, by_text
from lossatlas.model.parameters import ParameterSpace

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
    filters : the filters of each tensor, where these are the blocks.

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
    filters: Mapping[str, Filters]

    def __new__(
        cls,
        data: Tensor,
        *,
        normalisation: Normalisation,
        one_d: OneD,
        seed: int,
        source: str = "random",
        filters: Mapping[str, Filters] | None = None,
    ) -> Self:
        if data.ndim not in (1, 2):
            raise DirectionError(f"The directions have shape {tuple(data.shape)}: give rows (k, n), or one (n,).")
        self = data.detach().as_subclass(cls)
        self.normalisation, self.one_d, self.seed, self.source = normalisation, one_d, seed, source
        self.filters = dict(filters or {})
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
        return {name: getattr(self, name) for name in ("normalisation", "one_d", "seed", "source", "filters")}


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


def filters_of_rows(rows: Sequence[Tensor]) -> Mapping[str, Filters]:
    """The filters by which all of the rows were scaled; none where they are not known to be scaled alike."""
    known = [row.filters if isinstance(row, Directions) else {} for row in rows]
    return known[0] if all(one == known[0] for one in known) else {}


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
    resting = {e.name: "zero" for e in weights if not bool(rows[:, e.start : e.stop].any())}
    if resting:
        warnings.warn(
            f"{len(resting)} of the {len(weights)} weights are zero, and directions with norm={norm!r} leave them so "
            f"({by_text(resting).removeprefix('zero: ')}): the loss along them may be flat for that reason alone "
            "(adapters at their start). Pass norm='model' or norm=None, or look at a trained point.",
            ZeroNormWarning,
            stacklevel=3,
        )


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


def normalisation(
    space: ParameterSpace, point: Tensor, direction: Tensor, filters: Mapping[str, Filters]
) -> tuple[str, str]:
    """(blocks, 1-D tensors) of ``direction``, *measured*: how they are scaled against ``point``.

    The first word is ``"filter"``, ``"layer"``, ``"model"`` or ``"none"``, the second ``"zero"`` or ``"scaled"``.

    A direction is filter-normalised when each of its filters has the norm of the filter of ``point`` to 1e-3; the
    second word says whether the entries of 1-D tensors are all zero.
    """
    one_d = [entry for entry in space if entry.has_one_dimension]
    fixed = bool(one_d) and not any(bool(direction[e.start : e.stop].any()) for e in one_d)
    weights = without_one_dimension(point.clone(), space) if fixed else point
    blocks: tuple[Blocks, ...] = ("filter", "layer", "model")
    for by in blocks:
        pairs = ((cut.norms(direction), cut.norms(weights)) for cut in cuts(space, by, filters))
        if all(torch.allclose(own, target, rtol=1e-3, atol=0) for own, target in pairs):
            return by, "zero" if fixed else "scaled"
    return "none", "zero" if fixed else "scaled"
