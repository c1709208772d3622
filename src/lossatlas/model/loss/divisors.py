"""What a criterion of PyTorch's divides by on each batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lossatlas.errors import DataError, InputError
from lossatlas.model.data.batches import Batches
from lossatlas.model.data.containers import leading_size, tensors_in
from lossatlas.model.data.examples import examples_of_targets
from lossatlas.model.data.fingerprints import contents
from lossatlas.model.loss.criteria import Criterion, Watch
from lossatlas.model.loss.reduction import proportional, sized


class Divisor:
    """What a criterion of PyTorch's divides by on each batch: W_b.

    Where its targets are one of the batch's tensors they are counted there, else ``seen`` runs the loss on a batch.
    """

    def __init__(
        self, criterion: Criterion, first: Any, batches: Batches, seen: Callable[[Any], Criterion | None]
    ) -> None:
        self._criterion, self._batches, self._seen = criterion, batches, seen
        # Tensors are numbered, and the same number is another tensor in a batch of another form.
        place = place_of(criterion.given["target"], first) if _have_one_form(batches) else None
        self._weigh, self.size = weigher(criterion, place), sizer(place)
        self._weights: list[float] | None = None

    def uneven(self) -> bool:
        """Whether some examples weigh more than others, in a batch or from batch to batch."""
        if not sum(self.weights()) > 0:
            raise DataError("Every target is ignored by the loss: give at least one that is not.")
        weighted = self._criterion.by_class and self._criterion.given["weight"] is not None
        return weighted or not proportional(self.weights(), self._batches.sizes)

    def weights(self) -> list[float]:
        """W_b of every batch."""
        if self._weights is None:
            self._weights = [self._of(batch, size) for size, batch in sized(self._batches)]
        return self._weights

    def settle(self) -> str:
        """Give the batches their weights; what was found, in words."""
        name, weights = self._criterion.function.__name__, self.weights()
        uncut = None if self._weigh else f"the targets of {name} are not a tensor of the batch"
        self._batches.settle(weigh=self._weigh, weights=None if self._weigh else weights, uncut=uncut)
        return f"the mean of {name}, which divides by {sum(weights):g} in all"

    def settle_whole(self) -> str:
        """The same for a loss that is undefined where all targets of a batch are ignored."""
        if 0 in (weights := self.weights()):
            raise DataError(
                f"Every target of batch {weights.index(0) + 1} is ignored, where the loss has no value: leave this "
                "batch out, or use larger batches."
            )
        return self.settle()

    def _of(self, batch: Any, size: int) -> float:
        try:
            if self._weigh is not None:
                return self._weigh(batch)
            criterion = self._seen(batch)
        except Exception:  # of the user's loss on this batch: it comes again, and is told, where the batch is evaluated
            return float(size)
        if criterion is None:
            raise InputError(
                "The loss calls a criterion of PyTorch's on some batches only: state weight=lambda batch: ..., what "
                "the batch's loss is a mean of."
            )
        return float(criterion.weights().sum())


def uneven_inside(watch: Watch, first: Any, batches: Batches, run: Callable[[Any], Any]) -> bool:
    """Whether a criterion that is a part of the loss weighs some targets more than others, on any batch."""
    found = [(k, call) for k, call in enumerate(watch.calls) if call.by_class and call.reduction == "mean"]
    return any(Divisor(call, first, batches, _call(run, k)).uneven() for k, call in found)


def _call(run: Callable[[Any], Any], k: int) -> Callable[[Any], Criterion | None]:
    """The k-th criterion that runs on a batch."""

    def seen(batch: Any) -> Criterion | None:
        with Watch() as watch:
            run(batch)
        return watch.calls[k] if k < len(watch.calls) else None

    return seen


def shared_divisor(watch: Watch, first: Any, batches: Batches, run: Callable[[Any], Any]) -> Divisor | None:
    """What all criteria of a loss divide by, where they do on every batch, and not evenly."""

    def seen(batch: Any) -> Criterion | None:
        with Watch() as own:
            run(batch)
        return own.shared()

    if (criterion := watch.shared()) is None:
        return None
    found = Divisor(criterion, first, batches, seen)
    try:
        return found if found.uneven() or criterion.uneven else None
    except InputError:  # they do not on some
        return None


def _have_one_form(batches: Batches) -> bool:
    """Whether all batches hold the same tensors under the same names, up to their lengths."""
    return len({_form(batch) for batch in batches}) == 1


def _form(batch: Any) -> tuple[Any, ...]:
    return tuple((t.dtype, t.ndim, t.layout) if isinstance(t, Tensor) else t for t in contents(batch))


def place_of(target: Tensor, batch: Any) -> int | None:
    """Which of the batch's tensors the targets of a criterion are, up to shape and type; None where it is open."""
    tensors = [t if t.layout is torch.strided and t.ndim else None for t in tensors_in(batch)]
    sized = [k for k, t in enumerate(tensors) if t is not None and t.numel() == target.numel()]
    own = [k for k in sized if _start(tensors[k]) == _start(target)]
    # Tokens can be their own labels in one batch and not in the next: equal numbers tell where one tensor has them.
    equal = [k for k in sized if torch.equal(_numbers(tensors[k]), _numbers(target))]
    found = own or equal
    return found[0] if len(found) == 1 and found[0] in equal else None


def _start(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _numbers(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor.detach().double().flatten()


def weigher(criterion: Criterion, place: int | None) -> Callable[[Any], float] | None:
    """W_b of a batch from its targets, which are its tensor number ``place``; None where they are none of them."""
    if place is None or (not criterion.by_class and criterion.given.get("weight") is not None):
        return None

    def weight(batch: Any) -> float:
        target = list(tensors_in(batch))[place]
        # A loss may flatten targets or change their type, which changes no weight.
        return float(criterion.weights(target.long() if criterion.by_class else target).sum())

    return weight


def sizer(place: int | None) -> Callable[[Any], int] | None:
    """The number of examples of a batch from the criterion's targets, which are its tensor number ``place``."""
    if place is None:
        return None

    def size(batch: Any) -> int:
        tensors = list(tensors_in(batch))
        # A batch of another form fails where it is evaluated, and that is told there.
        return examples_of_targets(tensors[0], len(tensors[place])) if 0 < place < len(tensors) else leading_size(batch)

    return size


def weighted_values(call: Callable[[], Any], n: int | None) -> tuple[Tensor, Tensor]:
    """x_i = (sum of example i's terms) n / W and its weight w_i, both ``(n,)``; W = sum_i w_i.

    Terms that do not belong to the n examples one after the other make one example a term.
    """
    with Watch(unreduced=True) as watch:
        call()
    terms, weights = watch.terms[0], watch.calls[0].weights().to(watch.terms[0])
    each, w = _by_example(terms, n), _by_example(weights.expand_as(terms), n)
    # A batch whose targets are all ignored has the weight 0, and any finite value.
    return each * (len(each) / w.sum().clamp(min=torch.finfo(w.dtype).tiny)), w


def _by_example(terms: Tensor, n: int | None) -> Tensor:
    return terms.reshape(n, -1).sum(1) if n and terms.numel() % n == 0 else terms.flatten()
