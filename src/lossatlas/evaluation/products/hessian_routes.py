"""The routes to a Hessian's products: the exact ones, and differences of the gradient where these are none."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from lossatlas.errors import DerivativeWarning, InputError, LossAtlasError
from lossatlas.evaluation.products.differences import Differences
from lossatlas.evaluation.products.kept import Prepared
from lossatlas.evaluation.products.linearised import Hessian, Map
from lossatlas.evaluation.products.routes import Routes, guarded

AGREEMENT = 1e-3  # of two ways to a product, where these are differences


class HessianRoutes(Routes):
    """The function's ``route``: differences where it is those, and where it is None and the first product has no exact
    one; ``differences`` then are these, for all products from then on.

    A fall-back is told by a ``DerivativeWarning``, and of both the function knows (``inexact``).
    """

    def __init__(self, form: Hessian, theta: Tensor) -> None:
        super().__init__(form, theta)
        self._hessian, self._route = form, form.function.route
        self._exact = False  # whether there has been an exact product

    def prepared(self, batch: Any, index: int) -> Prepared:
        if self.differences is not None:
            return self.differences.prepared(batch, index)
        if self._route == "differences":
            return self._by_differences(batch, index, "as asked for")
        if self._route == "exact" or self._exact:
            return super().prepared(batch, index)
        try:
            prepared = super().prepared(batch, index)
        except InputError as reason:
            return self._instead(batch, index, reason)
        return prepared._replace(product=self._first(prepared.product, batch, index))

    def forward(self, batch: Any, index: int, rows: Tensor) -> Tensor:
        if self.differences is not None:
            return torch.full_like(rows, torch.nan)
        return super().forward(batch, index, rows)

    # Inside

    @property
    def _agreement(self) -> float:
        return super()._agreement if self.differences is None else AGREEMENT

    def _first(self, exact: Map, batch: Any, index: int) -> Map:
        """The exact map; where its first product shows that there is no second derivative, that of differences."""
        chosen = [exact]

        def product(vector: Tensor, keep: bool = True) -> Tensor:
            if self._exact or self.differences is not None:
                return chosen[0](vector, keep)
            try:
                with guarded():
                    found = chosen[0](vector, keep)
            except InputError as reason:
                chosen[0] = self._instead(batch, index, reason).product
                return chosen[0](vector, keep)
            self._exact = True
            return found

        return product

    def _instead(self, batch: Any, index: int, reason: InputError) -> Prepared:
        """The map by differences, from here on; ``reason`` is raised where there is no gradient either."""
        try:
            return self._by_differences(batch, index, f"since there is no second derivative: {reason}")
        except LossAtlasError:
            raise reason from None

    def _by_differences(self, batch: Any, index: int, why: str) -> Prepared:
        differences = Differences(self._hessian, self._theta, batch, index)
        prepared = differences.prepared(batch, index)
        self.differences, self.chosen, self.tried = differences, f"{differences}, {why}", "differences of the gradient"
        told, sentence = self._hessian.function.inexact, f"Products with the Hessian are {self.chosen.rstrip('.')}."
        if self._route is None and None not in told:
            warnings.warn(sentence, DerivativeWarning, stacklevel=2)
        told[self._route] = sentence
        return prepared
