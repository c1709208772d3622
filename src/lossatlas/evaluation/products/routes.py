"""Two routes to a batch's map v -> A_b v, and the choice between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel

from lossatlas.errors import InputError, LossAtlasError
from lossatlas.evaluation.points.tracing import Untraceable
from lossatlas.evaluation.products.linearised import Linearised, Map
from lossatlas.evaluation.products.staged import StagedProduct
from lossatlas.model.arithmetic import full_precision
from lossatlas.model.data.batches import copied, preserved_rng, tensors_in
from lossatlas.model.data.batches import form as form_of
from lossatlas.model.data.randomness import has_drawn
from lossatlas.model.failures import explain_derivative

# Bytes that autograd's graphs of all batches would keep: for less work than that, tracing takes longer than it saves.
STAGED_FROM = 2**28
AGREEMENT = {torch.float64: 1e-9, torch.float32: 1e-4}
UNKNOWN = 2**40  # the bytes of a graph that cannot be counted: it is not kept


class Routes:
    """Graphs of autograd, for any model; for larger problems a traced graph of operations, which is faster.

    The traced one (``StagedProduct``) is taken for batches of the first one's form, if it agrees with autograd on two
    of them; ``chosen`` tells. ``share`` is the weight of all data over that of the first batch.
    """

    def __init__(self, form: Linearised, theta: Tensor, share: float, stage: bool) -> None:
        self._form, self._theta, self._share, self._stage = form, theta, share, stage
        self._staged: StagedProduct | None = None
        self._staged_form: Any = None
        self._unseen = True  # whether the traced route has yet to be compared on a batch that it was not made with
        self.chosen = "graphs of autograd"

    def settled(self, batch: Any, index: int) -> tuple[Map, int]:
        """As ``prepared``, on the first pass over the batches, when the route is chosen."""
        if index == 0 and self._staged is None and self._stage:
            return self._choose(batch)
        if self._fits(batch) and self._unseen:
            self._unseen = False
            reference = self._autograd(batch, index)
            return self._compared(reference, batch, index)
        return self.prepared(batch, index)

    def prepared(self, batch: Any, index: int) -> tuple[Map, int]:
        """The map of a batch and the bytes that it keeps."""
        if not self._fits(batch):
            return self._autograd(batch, index)
        assert self._staged is not None
        with self._surroundings():
            replay = self._staged.at(self._theta, copied(batch))
        return replay, self._bytes(replay.fixed)

    def _fits(self, batch: Any) -> bool:
        return self._staged is not None and form_of(batch) == self._staged_form

    def _choose(self, batch: Any) -> tuple[Map, int]:
        reference = self._autograd(batch, 0)
        if reference[1] * self._share < STAGED_FROM:
            return reference
        try:
            with self._surroundings():
                self._staged = StagedProduct(self._form, self._theta, copied(batch), 0)
                _require_undrawn(self._theta.device)
        except Untraceable as reason:
            self._staged = None
            self.chosen = f"graphs of autograd, since it cannot be traced: {reason}"
            return reference
        self._staged_form = form_of(batch)
        self.chosen = f"traced, {self._staged.operations:,} operations"
        return self._compared(reference, batch, 0)

    def _compared(self, reference: tuple[Map, int], batch: Any, index: int) -> tuple[Map, int]:
        """The traced map, or, where it differs, autograd's from here on."""
        generator = torch.Generator().manual_seed(index)
        draws = torch.randn(2, len(self._theta), generator=generator, dtype=torch.float64).to(self._theta)
        replayed = self.prepared(batch, index)
        for vector in (*draws, draws[0]):  # the first one again: a replay must leave nothing behind
            with self._surroundings():
                expected, found = reference[0](vector).double(), replayed[0](vector).double()
            off = float(torch.linalg.vector_norm(found - expected))
            if not off <= AGREEMENT.get(self._theta.dtype, 1e-2) * float(torch.linalg.vector_norm(expected)):
                self._staged = None
                self.chosen = f"graphs of autograd, since the traced products are {off:.1e} off"
                return reference
        return replayed

    def _autograd(self, batch: Any, index: int) -> tuple[Map, int]:
        saved: list[Tensor] = []

        def pack(tensor: Tensor) -> tuple[Tensor, int]:
            saved.append(tensor.detach())
            return saved[-1], tensor._version

        def unpack(packed: tuple[Tensor, int]) -> Tensor:
            tensor, version = packed
            if tensor._version != version:
                raise RuntimeError("a tensor needed for the gradient is changed in place after its use")
            return tensor

        with self._surroundings(), torch.inference_mode(False), torch.enable_grad(), guarded():
            try:
                with saved_tensors_hooks(pack, unpack):
                    product = self._form.kept(self._theta, copied(batch), index)
                return product, self._bytes(saved)
            except (RuntimeError, InputError) as error:
                if "saved tensor hooks" not in str(error) and "storage" not in str(error):
                    raise
            # A model that uses torch.func inside allows no counting.
            return self._form.kept(self._theta, copied(batch), index), UNKNOWN

    def _bytes(self, values: Iterable[Any]) -> int:
        """Of the distinct storages behind the tensors, without theta's."""
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors_in(list(values))}
        storages.pop(self._theta.untyped_storage().data_ptr(), None)
        return sum(storages.values())

    @contextmanager
    def _surroundings(self) -> Iterator[None]:
        """Generators come back as they were; attention by its plain formula: fused, it has no second derivative."""
        with preserved_rng(self._theta.device), full_precision(self._theta.device), sdpa_kernel(SDPBackend.MATH):
            yield


@contextmanager
def guarded() -> Iterator[None]:
    """What PyTorch says of a model that it cannot differentiate twice, as an ``InputError``."""
    try:
        yield
    except LossAtlasError:
        raise
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise explain_derivative(error) from error


def _require_undrawn(device: torch.device) -> None:
    """``Untraceable`` where the generators are not as ``seed_generators(0)`` leaves them: a draw would be fixed now."""
    if has_drawn(device):
        raise Untraceable("it draws random numbers")
