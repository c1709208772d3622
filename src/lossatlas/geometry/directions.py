"""Directions of a region: what they know of their origin, differences, orthonormal bases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor

from lossatlas.errors import DirectionError
from lossatlas.model.filters import Filters

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
