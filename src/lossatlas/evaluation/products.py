"""Products with a curvature matrix over a whole data set, as fast as memory allows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel

from lossatlas.batches import form as form_of
from lossatlas.batches import preserved_rng, tensors_in
from lossatlas.errors import InputError, NumericalError
from lossatlas.evaluation.linearised import Linearised, Map, require_differentiable
from lossatlas.evaluation.staged import StagedProduct
from lossatlas.evaluation.tracing import Untraceable
from lossatlas.measures import Sample

# Bytes that autograd's graphs of all batches would keep: for less work than that, tracing takes longer than it saves.
STAGED_FROM = 2**28
AGREEMENT = {torch.float64: 1e-9, torch.float32: 1e-4}


class Products:
    """V -> A V for vectors as rows ``(k, n)``, with A = sum_b w_b A_b / sum_b w_b over the batches b.

    What does not depend on the vectors is computed at the first product and kept for the further ones, as far as
    ``max_memory`` bytes reach (half of what is free by default); the other batches are prepared anew at each call. Two
    routes give the same numbers: graphs of autograd, for any model, and, for larger problems, a traced graph of
    operations (``StagedProduct``), which is faster. It is taken if it agrees with the other one on two batches;
    ``explain`` tells.
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
    ) -> None:
        require_differentiable(form.function)
        if max_memory is not None and max_memory < 0:
            raise InputError(f"max_memory={max_memory}: give a number of bytes, 0 to keep nothing, or None.")
        self.form, self.theta, self.weights = form, theta, weights
        self._batches = batches
        self._budget = free_bytes(theta.device) // 2 if max_memory is None else max_memory
        self._stage = stage
        self._kept: list[Map | None] | None = None
        self._staged: StagedProduct | None = None
        self._staged_form: Any = None
        self._notes: list[str] = []

    def __call__(self, rows: Tensor) -> Tensor:
        """A V ``(k, n)``; ``NumericalError`` where it is not finite."""
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
            product = kept or self._prepared(batch, index)[0]
            yield weight, _stacked(product, rows)

    def forms(self, rows: Tensor) -> list[Sample]:
        """v' A_b v of every batch b, for each row v: its mean is v' A v, its standard error that of the data."""
        return self.samples([(products * rows).sum(1).double().cpu() for _, products in self.by_batch(rows)])

    def samples(self, forms: Sequence[Tensor]) -> list[Sample]:
        """A ``Sample`` for each row from the values ``(k,)`` of the batches."""
        weights = torch.tensor(self.weights, dtype=torch.float64)
        return [Sample(column, weights, "batches") for column in torch.stack(list(forms), dim=1)]

    def explain(self) -> str:
        """By which route products are computed, and what is kept; once the first has been."""
        return "; ".join(self._notes) or "no product has been computed yet"

    def _first(self, rows: Tensor) -> Iterator[tuple[float, Tensor]]:
        """As ``by_batch``, keeping what there is room for."""
        kept: list[Map | None] = []
        used, needed, route = 0, 0, ""
        for index, (weight, batch) in enumerate(zip(self.weights, self._batches, strict=True)):
            route = self._choose(batch) if index == 0 else self._check(batch, route) if index == 1 else route
            product, size = self._prepared(batch, index)
            needed += size
            kept.append(product if used + size <= self._budget else None)
            used += size if kept[-1] else 0
            yield weight, _stacked(product, rows)
        held = sum(product is not None for product in kept)
        self._notes = [route, f"{held} of {len(kept)} batches kept ({used / 1e6:,.0f} of {needed / 1e6:,.0f} MB)"]
        self._kept = kept

    def _choose(self, batch: Any) -> str:
        """Settle on the route by the first batch."""
        product, size = self._autograd(batch, 0)
        if not self._stage or size * sum(self.weights) / max(self.weights[0], 1e-300) < STAGED_FROM:
            return "graphs of autograd"
        try:
            with self._surroundings():
                self._staged = StagedProduct(self.form, self.theta, batch, 0)
        except Untraceable as reason:
            return f"graphs of autograd, since it cannot be traced: {reason}"
        self._staged_form = form_of(batch)
        return self._compared(product, batch, 0) or f"traced, {self._staged.operations:,} operations"

    def _check(self, batch: Any, route: str) -> str:
        """The traced route once more, on a batch that it was not made with."""
        if self._staged is None or form_of(batch) != self._staged_form:
            return route
        return self._compared(self._autograd(batch, 1)[0], batch, 1) or route

    def _compared(self, reference: Map, batch: Any, index: int) -> str | None:
        """Drop the traced route where it differs, and say so."""
        generator = torch.Generator().manual_seed(index)
        draws = torch.randn(2, len(self.theta), generator=generator, dtype=torch.float64).to(self.theta)
        replayed = self._prepared(batch, index)[0]
        for vector in (*draws, draws[0]):  # the first one again: a replay must leave nothing behind
            with self._surroundings():
                expected, found = reference(vector).double(), replayed(vector).double()
            off = float(torch.linalg.vector_norm(found - expected) / torch.linalg.vector_norm(expected))
            if not off <= AGREEMENT.get(self.theta.dtype, 1e-2):
                self._staged = None
                return f"graphs of autograd, since the traced products are {off:.1e} off"
        return None

    def _prepared(self, batch: Any, index: int) -> tuple[Map, int]:
        """The map of a batch and the bytes that it keeps."""
        if self._staged is None or form_of(batch) != self._staged_form:
            return self._autograd(batch, index)
        with self._surroundings():
            replay = self._staged.at(self.theta, batch)
        return replay, _bytes(replay.fixed)

    def _autograd(self, batch: Any, index: int) -> tuple[Map, int]:
        saved: list[Tensor] = []

        def pack(tensor: Tensor) -> Tensor:
            saved.append(tensor.detach())
            return saved[-1]

        with self._surroundings(), torch.enable_grad(), saved_tensors_hooks(pack, lambda tensor: tensor):
            product = self.form.kept(self.theta, batch, index)
        return product, _bytes(saved)

    def _surroundings(self) -> ExitStack:
        # Generators come back as they were; attention by its plain formula, since fused it has no second derivative.
        stack = ExitStack()
        stack.enter_context(preserved_rng(self.theta.device))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        return stack


def _stacked(product: Map, rows: Tensor) -> Tensor:
    return torch.stack([product(row) for row in rows.unbind()])


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


def _bytes(values: Iterable[Any]) -> int:
    """Of the distinct storages behind the tensors."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors_in(list(values))}
    return sum(storages.values())
