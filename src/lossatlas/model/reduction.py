"""How many examples a batch has, and of what its loss is a mean: the one rule.

L = sum_b W_b mean_b / sum_b W_b over the batches b, where mean_b is the plain mean of what the loss gives for one.

Examples of a batch (n_b): what ``examples=`` says; as many as the values that the loss returns; else the length of the
targets, and where there are none that of the batch's first tensor. Targets flattened over positions, (n T,) beside
inputs (n, ...), belong to n examples.

Of what the loss is a mean (W_b): what ``weight=`` says; else

- a loss that returns values: W_b is their number;
- a criterion of PyTorch's, called by the loss and returned as it is (``F.cross_entropy``, ``nn.NLLLoss``,
  ``F.mse_loss``; also inside a lambda or a step), with ``reduction="mean"``: W_b is what PyTorch divides by, the
  number of elements, or the sum of the w_i with w_i = 0 for ignored targets and the class's weight for the others. So
  L is the criterion over all data at any batch size. An elementwise weight of the binary losses leaves that number as
  it is, as in PyTorch;
- any other mean over examples: W_b = n_b;
- a sum over the batch, told from a mean by batches of other sizes: it is divided by n_b, so that L is the mean over
  examples of what the sum holds for each (a sum over an example's positions stays a sum);
- a loss that depends on the batch (contrastive, triplet): W_b = n_b, and batches are never cut anew.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.overrides import TorchFunctionMode

from lossatlas.errors import DataError, InputError, ReductionWarning
from lossatlas.model.containers import describe, leading_size, tensors_in

CLASSES = (F.cross_entropy, F.nll_loss)
BINARY = (F.binary_cross_entropy_with_logits, F.binary_cross_entropy)
NUMBERS = (F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss)
_SIGNATURES = {f: inspect.signature(f) for f in (*CLASSES, *BINARY, *NUMBERS, F.poisson_nll_loss)}
_DIFFERENCES = (torch.sub, torch.Tensor.sub, torch.Tensor.__sub__, torch.Tensor.__rsub__, *NUMBERS, *BINARY)
_CHOICES = "state weight=lambda batch: ..., what the batch's loss is a mean of, or return one value an example"


@dataclass(frozen=True)
class Criterion:
    """One call of a criterion of PyTorch's: the function, its arguments by name, and what it returned."""

    function: Callable[..., Tensor]
    given: Mapping[str, Any]
    result: Tensor | None = None

    @property
    def reduction(self) -> str:
        old = self.given.get("size_average"), self.given.get("reduce")
        if old == (None, None):
            return str(self.given["reduction"])
        return "none" if old[1] is False else "sum" if old[0] is False else "mean"

    @property
    def by_class(self) -> bool:
        """Whether the targets are classes."""
        target: Tensor = self.given["target"]
        return self.function in CLASSES and not target.is_floating_point()

    def terms(self) -> Tensor:
        """The values that the reduction sums."""
        old = {"size_average": None, "reduce": None} if "reduce" in self.given else {}
        terms: Tensor = self.function(**{**self.given, **old, "reduction": "none"})
        return terms

    def weights(self, target: Tensor | None = None) -> Tensor:
        """The weight of each term in the mean, of the shape of the terms; ``target`` in place of the call's own."""
        target = cast(Tensor, self.given["target"]) if target is None else target
        if self.by_class:
            kept: Tensor = target != self.given["ignore_index"]
            weight: Tensor | None = self.given["weight"]
            return kept.double() if weight is None else weight.double()[torch.where(kept, target, 0)] * kept
        if self.function in CLASSES:
            return torch.ones_like(target, dtype=torch.float64).select(min(1, target.ndim - 1), 0)
        if self.function in NUMBERS and self.given.get("weight") is not None:
            return cast(Tensor, self.given["weight"]).double().expand_as(target)
        return torch.ones_like(target, dtype=torch.float64)


class Watch(TorchFunctionMode):
    """Sees the criteria that run inside, and shapes that broadcast; ``unreduced``: keeps each criterion's terms."""

    def __init__(self, *, unreduced: bool = False) -> None:
        super().__init__()
        self.calls: list[Criterion] = []
        self.terms: list[Tensor] = []
        self.broadcast: tuple[Tensor, Tensor] | None = None
        self._unreduced = unreduced

    def __enter__(self) -> Watch:
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _DIFFERENCES and self.broadcast is None:
            self.broadcast = _outer([*args, *kwargs.values()][:2])
        if func not in _SIGNATURES:
            return func(*args, **kwargs)
        bound = _SIGNATURES[func].bind(*args, **kwargs)
        bound.apply_defaults()
        call = Criterion(func, bound.arguments)
        if self._unreduced:
            self.terms.append(call.terms())
            self.calls.append(call)
            return self.terms[-1].sum()
        result = func(*args, **kwargs)
        self.calls.append(Criterion(func, bound.arguments, result))
        return result

    def criterion(self, value: Any) -> Criterion | None:
        """The one call whose result ``value`` is."""
        if len(self.calls) == 1 and self.calls[0].result is value:
            return self.calls[0]
        return None

    def mean(self, value: Any) -> Criterion | None:
        """The same, where it takes the mean."""
        call = self.criterion(value)
        return call if call is not None and call.reduction == "mean" else None


def _outer(pair: list[Any]) -> tuple[Tensor, Tensor] | None:
    """The two tensors, where they are ``(N, 1)`` and ``(N,)`` with N > 1, and no views of one another."""
    if len(pair) < 2 or not all(isinstance(x, Tensor) for x in pair):
        return None
    long, short = sorted(pair, key=lambda t: -t.ndim)
    if short.ndim != 1 or tuple(long.shape) != (len(short), 1) or len(short) < 2:
        return None
    return None if long.untyped_storage().data_ptr() == short.untyped_storage().data_ptr() else (pair[0], pair[1])


def warn_of_broadcast(watch: Watch) -> None:
    """``ReductionWarning`` where every example is compared with every other one by broadcasting."""
    if watch.broadcast is not None:
        one, other = (tuple(t.shape) for t in watch.broadcast)
        warnings.warn(
            f"The loss compares tensors of shapes {one} and {other}, which broadcast to {(max(one), max(one))}: every "
            "example is compared with every other one. Give both one shape, e.g. outputs.squeeze(1).",
            ReductionWarning,
            stacklevel=2,
        )


def examples_in(batch: Any) -> int:
    """The number of examples of a batch by the rule above, without its loss.

    >>> examples_in((torch.zeros(5, 3, 2), torch.zeros(3)))  # (time, examples, features) and a target an example
    3
    """
    pair = isinstance(batch, tuple | list) and len(batch) == 2 and not hasattr(batch, "_fields")
    if pair and isinstance(batch[1], Tensor) and batch[1].ndim and not _is_sparse(batch[1]):
        return _from_targets(batch[0], len(batch[1]))
    if isinstance(first := _first(batch), PackedSequence):
        return int(first.batch_sizes[0])
    if isinstance(first, list) and len(first) > 1 and all(isinstance(t, Tensor) and t.ndim > 1 for t in first):
        raise DataError(
            f"A batch starts with a list of {len(first)} tensors ({describe(first[:2])}, ...), and it is open whether "
            "each is an example: state examples=lambda batch: ... and weight=lambda batch: ..."
        )
    return leading_size(batch)


def _from_targets(inputs: Any, m: int) -> int:
    try:
        n = m if isinstance(inputs, list | PackedSequence) else leading_size(inputs)
    except DataError:
        return m
    flattened = 0 < n < m and m % n == 0 and not _time_first(inputs, m)
    return n if flattened else m


def _time_first(inputs: Any, m: int) -> bool:
    return isinstance(inputs, Tensor) and inputs.ndim > 1 and inputs.shape[1] == m


def _is_sparse(tensor: Tensor) -> bool:
    return tensor.layout is not torch.strided


def _first(batch: Any) -> Any:
    """The batch's first entry, whatever it is."""
    if isinstance(batch, Mapping) and batch:
        return next(iter(batch.values()))
    return batch[0] if isinstance(batch, tuple | list) and batch and not hasattr(batch, "_fields") else batch


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
        return _from_targets(tensors[0], len(tensors[place])) if 0 < place < len(tensors) else leading_size(batch)

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


def proportional(one: Iterable[float], other: Iterable[float]) -> bool:
    """Whether two sequences of weights give the same means."""
    a, b = (torch.tensor(list(x), dtype=torch.float64) for x in (one, other))
    return bool(torch.allclose(a * b.sum(), b * a.sum(), rtol=1e-9))


def refuse_ambiguous(counts: list[dict[str, float]]) -> None:
    """``InputError`` where what a batch's own mean is over decides about L; ``counts``: of each batch, by name."""
    first = next(iter(counts[0]))
    for name in counts[0]:
        column = [one.get(name, math.nan) for one in counts]
        if len(set(column)) > 1 and not proportional(column, [one[first] for one in counts]):
            raise InputError(
                f"The loss is a mean over each batch, and it is open over what: {first} is "
                f"{[int(one[first]) for one in counts[:3]]}, {name} is {[int(c) for c in column[:3]]} in the first "
                f"batches (examples, tokens, nodes or graphs?): {_CHOICES}."
            )


def counts_in(batch: Any, n: int) -> dict[str, float]:
    """What a mean over the batch could be over: its examples, lengths of its tensors, whole numbers in them."""
    found = {"the number of examples": float(n)}
    for place, tensor in enumerate(tensors_in(batch)):
        if tensor.ndim and tensor.layout is torch.strided:
            found[f"the length of tensor {place + 1}"] = float(len(tensor))
            if not tensor.is_floating_point() and tensor.ndim > 1:
                found[f"the number of entries of tensor {place + 1}"] = float(tensor.numel())
    return found
