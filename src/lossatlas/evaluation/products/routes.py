"""Routes to a batch's map v -> A_b v, and the choice between them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel

from lossatlas.errors import InputError, LossAtlasError
from lossatlas.evaluation.points.tracing import Untraceable
from lossatlas.evaluation.products.costs import UNKNOWN, Work
from lossatlas.evaluation.products.differences import Differences
from lossatlas.evaluation.products.kept import Prepared
from lossatlas.evaluation.products.linearised import Linearised, Map
from lossatlas.evaluation.products.staged import StagedProduct, forward_mode
from lossatlas.model.arithmetic import full_precision, plain_recurrence
from lossatlas.model.data.batches import copied, preserved_rng, tensors_in
from lossatlas.model.data.batches import form as form_of
from lossatlas.model.data.randomness import has_drawn
from lossatlas.model.failures import explain_derivative

AGREEMENT = {torch.float64: 1e-9, torch.float32: 1e-4}
SECONDS, REPEATED = 0.3, 20  # in which products are timed, at least two of them and at most so many
GRAPHS = "graphs of autograd"


class Timed(NamedTuple):
    """The first and the last of some products of a map with a random vector, and the shortest of their times."""

    results: tuple[Tensor, Tensor]
    seconds: float


class Routes:
    """Graphs of autograd, for any model; a traced graph of operations, where it is faster; forward over reverse mode.

    ``trace`` asks for the second (``StagedProduct``), for batches of the first one's form; it is dropped unless it
    agrees with autograd on two of them and takes less time. ``forward`` asks for the third, where double backward is
    not finite. ``chosen`` tells.
    """

    tried = "double backward and by forward over reverse mode"  # where a product is not finite
    differences: Differences | None = None  # which are no exact route, where they are taken

    def __init__(self, form: Linearised, theta: Tensor) -> None:
        self._form, self._theta = form, theta
        self._works: list[tuple[Any, Work]] = []  # by the form of the batch
        self._forward = False
        self._staged: StagedProduct | None = None
        self._staged_form: Any = None
        self._unseen = False  # whether the traced route has yet to be compared on a batch that it was not made with
        self.chosen = GRAPHS

    def prepared(self, batch: Any, index: int) -> Prepared:
        """The map of a batch, by the route chosen for its form."""
        if not self._fits(batch):
            return self._plain(batch, index)
        if self._unseen:
            self._unseen = False
            self._verify(batch, index)
            return self.prepared(batch, index)
        return self._replay(batch)

    def trace(self, batch: Any, index: int, plain: Timed, missing: float) -> bool:
        """Whether the traced route is taken from here on; ``missing`` is the share of the batches that is not kept.

        Whoever has ``plain`` measured has let go of its graphs: memory need not hold both forms of a batch.
        """
        try:
            with self._surroundings():
                limit = self._operations(batch)
                self._staged = StagedProduct(self._form, self._theta, copied(batch), index, limit)
                _require_undrawn(self._theta.device)
            self._staged_form = form_of(batch)
            replay = self._replay(batch)
            found = self.timed(replay.product, index)
            self._require_agreement(plain, found)
            _require_faster(found.seconds + missing * replay.seconds, plain.seconds)
        except (Untraceable, _Dropped) as reason:
            self._staged = None
            self.chosen = f"{self._plainly}, since {'it cannot be traced: ' * isinstance(reason, Untraceable)}{reason}"
            return False
        self._unseen = True
        self.chosen = f"traced, {self._staged.operations:,} operations"
        return True

    def forward(self, batch: Any, index: int, rows: Tensor) -> Tensor:
        """Products ``(k, n)`` by forward over reverse mode, which is taken from here on if they are finite."""
        try:
            products = torch.stack([self._forwards(batch, index).product(row) for row in rows.unbind()])
        except (RuntimeError, InputError):  # an operation without forward mode
            return torch.full_like(rows, torch.nan)
        if bool(torch.isfinite(products).all()):
            self._forward, self._staged = True, None
            self.chosen = f"{self._plainly}, since double backward gives NaN or infinite numbers"
        return products

    def draw(self, index: int) -> Tensor:
        """A random vector ``(n,)`` to compare routes on."""
        generator = torch.Generator().manual_seed(index)
        return torch.randn(len(self._theta), generator=generator, dtype=torch.float64).to(self._theta)

    def timed(self, product: Map, index: int) -> Timed:
        draw = self.draw(index)
        results: list[Tensor] = []
        seconds: list[float] = []
        while len(seconds) < 2 or (sum(seconds) < SECONDS and len(seconds) < REPEATED):
            started = time.perf_counter()
            with self._surroundings():
                results[1:] = [product(draw)]  # those between the first and the last are not kept
            if draw.is_cuda:
                torch.cuda.synchronize(draw.device)
            seconds.append(time.perf_counter() - started)
        return Timed((results[0], results[-1]), min(seconds))

    def agree(self, found: Tensor, expected: Tensor) -> bool:
        """Whether products of two routes are the same but for rounding."""
        return self.is_rounding(found - expected, torch.linalg.vector_norm(expected, dtype=torch.float64))

    def is_rounding(self, off: Tensor, size: Tensor) -> bool:
        """Whether products of this norm differ by no more than rounding."""
        return bool(torch.linalg.vector_norm(off, dtype=torch.float64) <= self._agreement * size)

    def work(self, batch: Any) -> Work | None:
        """What autograd's graphs of a batch of this form keep, if one has been made."""
        form = form_of(batch)
        return next((work for known, work in self._works if known == form), None)

    # Inside

    @property
    def _agreement(self) -> float:
        return AGREEMENT.get(self._theta.dtype, 1e-2)

    def _operations(self, batch: Any) -> int:
        work = self.work(batch)
        return work.operations if work else 0

    @property
    def _plainly(self) -> str:
        return "forward over reverse mode" if self._forward else GRAPHS

    def _fits(self, batch: Any) -> bool:
        return self._staged is not None and form_of(batch) == self._staged_form

    def _plain(self, batch: Any, index: int) -> Prepared:
        return self._forwards(batch, index) if self._forward else self._graphs(batch, index)

    def _replay(self, batch: Any) -> Prepared:
        assert self._staged is not None
        started = time.perf_counter()
        with self._surroundings():
            replay = self._staged.at(self._theta, copied(batch))
        return Prepared(replay, self._bytes(replay.fixed), time.perf_counter() - started)

    def _verify(self, batch: Any, index: int) -> None:
        """The traced route is dropped unless it agrees on this batch; at no time are there both forms of it."""
        plain = self.timed(self._plain(batch, index).product, index)
        try:
            self._require_agreement(plain, self.timed(self._replay(batch).product, index))
        except _Dropped as reason:
            self._staged = None
            self.chosen = f"{self._plainly}, since {reason}"

    def _require_agreement(self, plain: Timed, found: Timed) -> None:
        expected = plain.results[0]
        for result in found.results:  # two, since a replay must leave nothing behind
            if not self.agree(result, expected):
                off = float(torch.linalg.vector_norm(result - expected, dtype=torch.float64))
                raise _Dropped(f"the traced products are {off:.1e} off")

    def _forwards(self, batch: Any, index: int) -> Prepared:
        batch = copied(batch)

        def product(vector: Tensor, keep: bool = True) -> Tensor:
            with self._surroundings(), torch.no_grad(), forward_mode():
                return self._form.direct(self._theta, copied(batch), index, vector).detach()

        return Prepared(product, self._bytes(list(tensors_in(batch))), 0.0)

    def _graphs(self, batch: Any, index: int) -> Prepared:
        """Counted by hooks for the first batch of a form: these stay in its graph and take time at each product."""
        started = time.perf_counter()
        work = self.work(batch)
        with self._surroundings(), torch.inference_mode(False), torch.enable_grad(), guarded():
            if work is None:
                product, work = self._counted(batch, index)
                self._works.append((form_of(batch), work))
                return Prepared(product, work.size, time.perf_counter() - started, lasting=False)
            product = self._form.kept(self._theta, copied(batch), index, known=True)
        return Prepared(product, work.size, time.perf_counter() - started)

    def _counted(self, batch: Any, index: int) -> tuple[Map, Work]:
        saved: list[Tensor] = []

        def pack(tensor: Tensor) -> tuple[Tensor, int]:
            saved.append(tensor.detach())
            return saved[-1], tensor._version

        def unpack(packed: tuple[Tensor, int]) -> Tensor:
            tensor, version = packed
            if tensor._version != version:
                raise RuntimeError("a tensor needed for the gradient is changed in place after its use")
            return tensor

        theta, device = self._theta.nbytes, self._theta.device.type
        try:
            with saved_tensors_hooks(pack, unpack):
                product = self._form.kept(self._theta, copied(batch), index)
            rows = next((len(tensor) for tensor in tensors_in(batch) if tensor.ndim), 0)
            largest = max((t.nbytes for t in saved if t.ndim and len(t) == rows), default=0)
            return product, Work(self._bytes(saved), len(saved), theta, device, rows, largest)
        except (RuntimeError, InputError) as error:
            if "saved tensor hooks" not in str(error) and "storage" not in str(error):
                raise
        # A model that uses torch.func inside allows no counting.
        return self._form.kept(self._theta, copied(batch), index), Work(UNKNOWN, 0, theta, device)

    def _bytes(self, values: Iterable[Any]) -> int:
        """Of the distinct storages behind the tensors, without theta's."""
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors_in(list(values))}
        storages.pop(self._theta.untyped_storage().data_ptr(), None)
        return sum(storages.values())

    @contextmanager
    def _surroundings(self) -> Iterator[None]:
        """Generators come back as they were; attention and LSTMs by plain formulas, which have second derivatives."""
        device = self._theta.device
        plain_attention, recurrence = sdpa_kernel(SDPBackend.MATH), plain_recurrence(self._form.function.module)
        with preserved_rng(device), full_precision(device), plain_attention, recurrence:
            yield


class _Dropped(Exception):
    """Why the traced route is not taken."""


def _require_faster(traced: float, plain: float) -> None:
    if not traced < plain:
        raise _Dropped("the traced products are not faster")


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
