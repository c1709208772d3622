"""Products with a curvature matrix over a whole data set, as fast as memory allows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lossatlas.errors import DirectionError, InputError, NumericalError
from lossatlas.evaluation.products.linearised import Hessian, Linearised, Map, require_curvature, require_differentiable
from lossatlas.evaluation.products.routes import Routes, guarded
from lossatlas.model.arithmetic import full_precision
from lossatlas.model.data.batches import describe
from lossatlas.model.loss.samples import Sample


class Products:
    """V -> A V for vectors as rows ``(k, n)``, with A = sum_b w_b A_b / sum_b w_b over the batches b.

    What does not depend on the vectors is computed at the first product and kept for the further ones, as far as
    ``max_memory`` bytes reach (half of what is free by default); the other batches are prepared anew at each call.
    ``stage=False`` leaves out the traced route (see ``Routes``). Where the batches are the data several times over,
    ``period`` is the number of the data's own: the index of a batch seeds the numbers that a model draws.
    """

    def __init__(
        self,
        form: Linearised,
        batches: Iterable[Any],
        weights: Sequence[float],
        theta: Tensor,
        max_memory: int | None = None,
        *,
        stage: bool = True,
        period: int | None = None,
    ) -> None:
        require_differentiable(form.function)
        if isinstance(form, Hessian):
            require_curvature(form.function)
        if max_memory is not None and max_memory < 0:
            raise InputError(f"max_memory={max_memory}: give a number of bytes, 0 to keep nothing, or None.")
        self.weights = weights
        self._batches = batches
        self._budget = free_bytes(theta.device) // 2 if max_memory is None else max_memory
        self._period = period or len(weights)
        with torch.inference_mode(False):
            theta = theta.detach().clone()
        self._routes = Routes(form, theta, sum(weights) / max(weights[0], 1e-300), stage)
        self._n = len(theta)
        self._kept: list[Map | None] | None = None
        self._held = ""

    @torch.inference_mode(False)  # a caller's own would leave no graph
    def __call__(self, rows: Tensor) -> Tensor:
        """A V ``(k, n)``; ``NumericalError`` where it is not finite."""
        if rows.ndim != 2 or rows.shape[1] != self._n:
            raise DirectionError(f"The vectors are {describe(rows)}: give them as rows, (k, {self._n}).")
        if not bool(torch.isfinite(rows).all()):
            raise DirectionError("A vector holds NaN or infinite numbers: give a finite one.")
        total = torch.zeros_like(rows)
        for weight, products in self.by_batch(rows):
            total.add_(products, alpha=weight)
        total /= sum(self.weights)
        if not bool(torch.isfinite(total).all()):
            raise NumericalError(
                "The product holds NaN or infinite numbers at this point: the loss cannot be differentiated there."
            )
        return total

    def by_batch(self, rows: Tensor) -> Iterator[tuple[float, Tensor]]:
        """Each batch's weight and A_b V ``(k, n)``."""
        if self._kept is None:
            yield from self._first(rows)
            return
        batches: Iterable[Any] = self._kept if all(self._kept) else self._batches
        for index, (weight, batch, kept) in enumerate(zip(self.weights, batches, self._kept, strict=True)):
            product = kept or self._routes.prepared(batch, index % self._period)[0]
            yield weight, _stacked(product, rows)

    @torch.inference_mode(False)
    def forms(self, rows: Tensor) -> list[Sample]:
        """v' A_b v of every batch b, for each row v: its mean is v' A v, its standard error that of the data."""
        return self.samples([(products * rows).sum(1).double().cpu() for _, products in self.by_batch(rows)])

    def samples(self, forms: Sequence[Tensor]) -> list[Sample]:
        """A ``Sample`` for each row from the values ``(k,)`` of the batches."""
        weights = torch.tensor(self.weights, dtype=torch.float64)
        return [Sample(column, weights, "batches") for column in torch.stack(list(forms), dim=1)]

    def explain(self) -> str:
        """By which route products are computed, and what is kept; once the first has been."""
        return f"{self._routes.chosen}; {self._held}" if self._held else "no product has been computed yet"

    def _first(self, rows: Tensor) -> Iterator[tuple[float, Tensor]]:
        """As ``by_batch``, keeping what fits into memory."""
        kept: list[Map | None] = []
        used = needed = 0
        for index, (weight, batch) in enumerate(zip(self.weights, self._batches, strict=True)):
            product, size = self._routes.settled(batch, index % self._period)
            needed += size
            kept.append(product if used + size <= self._budget else None)
            used += size if kept[-1] else 0
            yield weight, _stacked(product, rows)
        held = sum(product is not None for product in kept)
        self._held = f"{held} of {len(kept)} batches kept ({used / 1e6:,.0f} of {needed / 1e6:,.0f} MB)"
        self._kept = kept


def free_bytes(device: torch.device) -> int:
    """Memory that is free for use on the device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    info = Path("/proc/meminfo")
    if info.is_file():
        lines = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        if "MemAvailable" in lines:
            return int(lines["MemAvailable"].split()[0]) * 1024
    return 4 * 2**30  # where nothing tells


def _stacked(product: Map, rows: Tensor) -> Tensor:
    with guarded(), full_precision(rows.device):
        # A clone: some operations ask that what they differentiate begins at an even place of its memory.
        return torch.stack([product(row.clone()) for row in rows.unbind()]) if len(rows) else rows
