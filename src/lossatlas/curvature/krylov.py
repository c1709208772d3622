"""A Krylov space with an orthonormal basis, grown a product at a time from one or several vectors.

Band Lanczos (Ruhe 1979) with full reorthogonalisation (Parlett, The Symmetric Eigenvalue Problem, 1998, chapter 13) and
thick restart (Wu & Simon 2000).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh
from torch import Tensor

from lossatlas.curvature.operators import Operator
from lossatlas.errors import NumericalError

Floats = NDArray[np.float64]
FIRST = 64  # vectors for which there is memory at first; it grows as the space does
PIECE = 8192  # numbers that are summed in the vectors' own type


class KrylovSpace:
    """Orthonormal rows V, T = V A V', and A V' = V' T + P' C with orthonormal pending vectors P, not yet multiplied.

    A Ritz pair (theta, y = V' s) has the residual |A y - theta y| = |C s|. V holds ``capacity`` vectors at most; all of
    them are orthogonal to the rows of ``locked``, which span an invariant space to within rounding.
    """

    def __init__(
        self,
        operator: Operator,
        capacity: int,
        generator: torch.Generator,
        locked: Tensor | None = None,
        scale: float = 0.0,
    ):
        self._operator, self._generator = operator, generator
        self._workspace = operator.workspace
        if self._workspace is None:
            self._rows = torch.empty(min(capacity, FIRST), operator.n, dtype=operator.dtype, device=operator.device)
        else:
            self._rows = self._workspace.free(operator.n)
            capacity = min(capacity, len(self._rows))
        self._locked = self._rows[:0] if locked is None else locked.to(self._rows)
        self._scale = scale  # of the operator, where more is known of it than the space shows
        self._T = np.zeros((capacity, capacity))
        self._skew = np.zeros((capacity, capacity))
        self._pending: list[Tensor] = []
        self._C: list[Floats] = []  # a row of length ``capacity`` for each pending vector
        self.capacity = capacity
        self.size = 0
        self.products = 0
        self._restarts = 0

    @property
    def exhausted(self) -> bool:
        """A maps the space into itself."""
        return not self._pending

    @property
    def whole(self) -> bool:
        """No direction is left that would be neither in the space nor pending."""
        return self.size + len(self._pending) >= self.dimension

    @property
    def dimension(self) -> int:
        """Of all there is orthogonal to the locked vectors."""
        return self._operator.n - len(self._locked)

    @property
    def free(self) -> int:
        """How many vectors the memory holds."""
        return self.capacity - self.size

    @property
    def widest(self) -> int:
        """How many vectors it could hold."""
        return self.dimension if self._workspace is None else len(self._rows)

    @property
    def rounding(self) -> float:
        """The residual that rounding alone can leave: some units in the last place of the operator's norm."""
        eps = float(torch.finfo(self._operator.dtype).eps)
        return 16 * (1 + self._restarts) * eps * max(self.norm, self._scale)

    @property
    def resolution(self) -> float:
        """The residual that errors of the products can leave: their rounding, and what is estimated of others."""
        return self.rounding + self._operator.errors.norm

    @property
    def norm(self) -> float:
        """|T|, by its largest row sum."""
        return float(np.linalg.norm(self._T[: self.size, : self.size], ord=np.inf)) if self.size else 0.0

    def extent_of_last(self, count: int) -> tuple[float, float]:
        """The least and the largest Ritz value of the last so many vectors of the basis."""
        inner = slice(self.size - count, self.size)
        values = np.linalg.eigvalsh(self._T[inner, inner])
        return float(values[0]), float(values[-1])

    @property
    def asymmetry(self) -> float:
        """The largest |u' A z - z' A u| over unit vectors u, z of the space: 0 but for errors of the products.

        Of what was multiplied since the last restart.
        """
        skew = self._skew[: self.size, : self.size]
        return float(np.linalg.norm(skew - skew.T, ord=2)) if self.size else 0.0

    @property
    def square(self) -> float:
        """tr V A A V' = |T|^2 + |C|^2."""
        m = self.size
        return float((self._T[:m, :m] ** 2).sum() + sum((row[:m] ** 2).sum() for row in self._C))

    @property
    def beyond(self) -> float:
        """The next off-diagonal entry of T, for a space that was grown from one vector; 0 where there is none."""
        return float(self._C[-1][self.size - 1]) if self._C else 0.0

    @property
    def basis(self) -> Tensor:
        """V ``(m, n)``."""
        return self._rows[: self.size]

    @property
    def trace(self) -> float:
        """tr T."""
        return float(np.trace(self._T[: self.size, : self.size]))

    def widen(self, capacity: int) -> None:
        """Let it grow to so many vectors, where that is more than before."""
        more = capacity - self.capacity
        if more <= 0:
            return
        self._T, self._skew = (np.pad(matrix, (0, more)) for matrix in (self._T, self._skew))
        self._C = [np.pad(row, (0, more)) for row in self._C]
        self.capacity = capacity

    def start(self, vector: Tensor | None = None) -> None:
        """A further pending vector, random by default, that the space does not contain; none where it is whole."""
        if self.whole:
            return
        if vector is None:
            vector = torch.randn(self._operator.n, generator=self._generator, dtype=torch.float64)
        vector = vector.to(self._rows)
        vector = self._orthogonal(vector)[0]
        self._pending.append(unit(vector))
        self._C.append(np.zeros(self.capacity))

    def extend(self, which: int = 0) -> None:
        """Multiply one pending vector, the oldest by default: one product, and what is new of it is pending."""
        vector, known = self._pending.pop(which), self._C.pop(which)
        m = self.size
        if m == len(self._rows):
            self._rows = torch.cat([self._rows, torch.empty_like(self._rows[: self.capacity - m])])
        self._rows[m] = vector
        del vector
        if self._workspace is not None:
            self._workspace.touch(self._rows[m])
        self._T[m, :m] = self._T[:m, m] = known[:m]
        product = self._operator @ self._rows[m]
        if not bool(torch.isfinite(product).all()):
            raise NumericalError("The product with the operator holds NaN or infinite numbers: check the matrix.")
        self.products += 1
        self.size += 1
        left, along, within = self._orthogonal(product)
        self._T[m, m] = within[m]
        self._skew[:m, m] = within[:m] - known[:m]
        for row, coefficient in zip(self._C, along, strict=True):
            row[m] = coefficient
        beta = float(norms(left))
        if beta > self.rounding and not self.whole:
            self._pending.append(left.div_(beta))
            self._C.append(np.zeros(self.capacity))
            self._C[-1][m] = beta

    def ritz(self) -> tuple[Floats, Floats, Floats]:
        """Ritz values (ascending), their coordinates in the basis (columns), and residuals |C s| + rounding."""
        m = self.size
        values, weights = eigh(self._T[:m, :m])
        leading_out = np.array([row[:m] for row in self._C]).reshape(-1, m)
        residuals: Floats = np.linalg.norm(leading_out @ weights, axis=0) + self.rounding
        return values, weights, residuals

    def combine(self, weights: Floats) -> Tensor:
        """The unit vectors ``(k, n)`` with these coordinates in the basis (columns)."""
        return unit(torch.from_numpy(weights.T.copy()).to(self._rows) @ self._rows[: self.size])

    def restart(self, values: Floats, weights: Floats) -> None:
        """Keep only the Ritz vectors with these coordinates (columns); the pending vectors stay."""
        k = len(values)
        kept = torch.from_numpy(weights.T.copy()).to(self._rows)
        for part in self._rows[: self.size].split(PIECE, dim=1):  # in place: memory may hold no more vectors
            part[:k] = kept @ part
        for row in self._C:
            row[:k] = row[: self.size] @ weights
            row[k:] = 0
        self._T[:], self._skew[:] = 0, 0
        self._T[range(k), range(k)] = values
        self.size = k
        self._restarts += 1

    def rotate(self, first: NDArray[np.intp]) -> Tensor:
        """The basis becomes that of the Ritz vectors, these ``first``, which are returned: a view of it."""
        values, weights, _ = self.ritz()
        order = np.concatenate([first, np.setdiff1d(np.arange(self.size), first)])
        self.restart(values[order], weights[:, order])
        for row in self.basis[: len(first)]:
            row /= norms(row).to(row)
        return self.basis[: len(first)]

    def keep(self, columns: NDArray[np.intp]) -> None:
        """Only these of the Ritz vectors that the basis is after ``rotate``, in this order."""
        self.restart(self._T.diagonal()[columns], np.eye(self.size)[:, columns])

    def tridiagonal(self) -> tuple[Floats, Floats]:
        """T's diagonal and off-diagonal, for a space that was grown from one vector without a restart."""
        m = self.size
        return self._T[:m, :m].diagonal().copy(), self._T[:m, :m].diagonal(1).copy()

    def _orthogonal(self, vector: Tensor) -> tuple[Tensor, Floats, Floats]:
        """What is left of a vector, its coefficients along the pending vectors, and those along the basis."""
        along, within = (torch.zeros(count, dtype=torch.float64) for count in (len(self._pending), self.size))
        pending = [(row[None], along[i : i + 1]) for i, row in enumerate(self._pending)]
        for _ in range(2):  # twice is enough (Giraud et al. 2005)
            for rows, total in ((self._locked, None), (self._rows[: self.size], within), *pending):
                coefficients = dots(rows, vector)
                vector = torch.addmv(vector, rows.T, coefficients.to(vector), alpha=-1)
                if total is not None:
                    total += coefficients.cpu()
        return vector, along.numpy(), within.numpy()


def dots(rows: Tensor, vector: Tensor) -> Tensor:
    """``(m,)`` float64: rows ``(m, n)`` times a vector. Summed over pieces, since a long float32 sum loses digits."""
    total = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
    for part, piece in zip(rows.split(PIECE, dim=1), vector.split(PIECE), strict=True):
        total += (part @ piece).double()
    return total


def norms(vectors: Tensor) -> Tensor:
    """|v| along the last axis, in float64: a long float32 sum loses digits."""
    lengths: Tensor = torch.linalg.vector_norm(vectors, dim=-1, dtype=torch.float64)
    return lengths


def unit(vectors: Tensor) -> Tensor:
    """v / |v| along the last axis."""
    return vectors / norms(vectors).unsqueeze(-1).to(vectors)
