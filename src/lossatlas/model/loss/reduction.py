"""How many examples a batch has, and of what its loss is a mean: the one rule.

L = sum_b W_b mean_b / sum_b W_b over the batches b, where mean_b is the plain mean of what the loss gives for one.

Examples of a batch (n_b): what ``examples=`` says; as many as the values that the loss returns; else the length of the
targets, and where there are none that of the batch's first tensor. Targets flattened over positions, (n T,) beside
inputs (n, ...), belong to n examples.

Of what the loss is a mean (W_b): what ``weight=`` says, by which a loss that is a sum is divided; else

- a loss that returns values: W_b is their number;
- a criterion of PyTorch's, called by the loss and returned as it is (``F.cross_entropy``, ``nn.NLLLoss``,
  ``F.mse_loss``; also inside a lambda or a step), with ``reduction="mean"``: W_b is what PyTorch divides by, the
  number of elements, or the sum of the w_i with w_i = 0 for ignored targets and the class's weight for the others. So
  L is the criterion over all data at any batch size. An elementwise weight of the binary losses leaves that number as
  it is, as in PyTorch;
- a loss that is made of such criteria, all of which divide by the same (two heads on the same targets, a penalty on
  the parameters beside): the same W_b;
- any other mean over examples: W_b = n_b;
- a sum over the batch, told from a mean by batches of other sizes: it is divided by n_b, so that L is the mean over
  examples of what the sum holds for each (a sum over an example's positions stays a sum);
- a loss that depends on the batch (contrastive, triplet, a root of a mean): W_b = n_b, and batches are never cut
  anew. Where it lies between the losses of its examples, as a mean that is weighted by hand, that is a warning;
- a loss that draws random numbers, which are others for parts of a batch: a mean, W_b = n_b.

Refused, with the choices: a mean plus a sum, a sum over batches that cannot be cut to see that it is one, and means
over tokens or nodes whose numbers an example differ from batch to batch.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lossatlas.errors import InputError, ReductionWarning
from lossatlas.model.data.batches import Batches
from lossatlas.model.data.containers import leading_size, refill, tensors_in
from lossatlas.model.data.examples import examples_of_targets, is_pair, is_time_first
from lossatlas.model.data.randomness import has_drawn, seed_generators
from lossatlas.model.loss.criteria import Watch, floating

_CHOICES = "state weight=lambda batch: ..., what the batch's loss is a mean of, or return one value an example"
MEAN, SUM, VALUES = "a mean over examples", "a sum, divided by the number of examples", "one value an example"
STATED, STATED_SUM = "a mean over what weight= states", "a sum, divided by what weight= states"
CONTRAST = "the loss of a batch is none of its examples alone (it depends on the batch)"
_JOINED = 8  # examples that come one a batch are looked at together
_LOOKED_AT = 4  # batches that tell of what a step is a mean


def settle_layout(batches: Batches) -> None:
    """One example whose targets are flattened over positions looks time first: the other batches tell."""
    found = {_layout(batch[0], len(batch[1])) for batch in batches if is_pair(batch)}
    if found >= {"open", "flattened"}:
        batches.settle(size=lambda batch: leading_size(batch[0]))


def _layout(inputs: Any, m: int) -> str | None:
    if isinstance(inputs, Tensor) and is_time_first(inputs, m) and len(inputs) == 1 < m:
        return "open"
    return "flattened" if examples_of_targets(inputs, m) < m else None


def typical(batches: Batches, run: Callable[[Any], Any]) -> tuple[int, Any]:
    """The number of examples and the first batch with more than one of them; single ones are joined where that runs."""
    found = next(((n, batch) for n, batch in sized(batches) if n > 1), None)
    joined = _joined([batch for _, batch in _spread(batches, _JOINED)]) if found is None else None
    if joined is not None:
        with contextlib.suppress(Exception), quietly():  # models may take one example only
            run(joined[1])
            return joined
    return found or next(sized(batches))


def _joined(batches: list[Any]) -> tuple[int, Any] | None:
    """Batches of one example each as one batch; None where they hold more than equal tensors of one row."""
    columns = list(zip(*map(tensors_in, batches), strict=False))
    one = all(len({(t.shape, t.dtype, t.layout) for t in column}) == 1 for column in columns)
    rows = one and all(t.layout is torch.strided and not t.is_nested and t.ndim and len(t) == 1 for t, *_ in columns)
    if len(batches) < 2 or not rows or not all(isinstance(leaf, Tensor) for leaf in tree_leaves(batches)):
        return None
    return len(batches), refill(batches[0], iter([torch.cat(column) for column in columns]))


def several(batches: Batches) -> list[tuple[int, Any]]:
    """A few batches from all of the data."""
    return _spread(batches, _LOOKED_AT)


def _spread(batches: Batches, count: int) -> list[tuple[int, Any]]:
    chosen = set(torch.linspace(0, len(batches) - 1, min(count, len(batches))).round().int().tolist())
    return [one for index, one in enumerate(sized(batches)) if index in chosen]


def sized(batches: Batches) -> Iterator[tuple[int, Any]]:
    """The number of examples of each batch, and the batch."""
    return zip(batches.sizes, batches, strict=True)


def proportional(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two sequences of weights give the same means."""
    a, b = (torch.tensor(list(x), dtype=torch.float64) for x in (one, other))
    return bool(torch.allclose(a * b.sum(), b * a.sum(), rtol=1e-9))


def refuse_ambiguous(counts: list[dict[str, float]], *, constant: bool = False) -> None:
    """``InputError`` where what a batch's own mean is over decides about L; ``counts``: of each batch, by name.

    What is the same number in every batch counts where it is ``constant``: batches that cannot be cut tell no more.
    """
    first = next(iter(counts[0]))
    for name in counts[0]:
        column = [one.get(name, math.nan) for one in counts]
        open_ = constant or len(set(column)) > 1
        if open_ and not proportional(column, [one[first] for one in counts]):
            raise InputError(
                f"The loss is a mean over each batch, and it is open over what: {first} is "
                f"{[int(one[first]) for one in counts[:3]]}, {name} is {[round(c) for c in column[:3]]} in the first "
                f"batches (examples, tokens, nodes or graphs?): {_CHOICES}."
            )


def entries_in(targets: Any, n: int) -> dict[str, float]:
    """What a mean over examples could be over besides: the entries of their targets."""
    many = [t for t in tensors_in(targets) if t.ndim > 1]
    return {"the number of examples": float(n)} | {
        f"the number of entries of tensor {place + 1} of the targets": float(t.numel()) for place, t in enumerate(many)
    }


def counts_in(batch: Any, n: int) -> dict[str, float]:
    """What a mean over the batch could be over: its examples, lengths of its tensors, whole numbers in them."""
    found = {"the number of examples": float(n)}
    for place, tensor in enumerate(tensors_in(batch)):
        if tensor.ndim and tensor.layout is torch.strided:
            found[f"the length of tensor {place + 1}"] = float(len(tensor))
            if not tensor.is_floating_point() and tensor.ndim > 1:
                found[f"the number of entries of tensor {place + 1}"] = float(tensor.numel())
    return found


@dataclass(frozen=True)
class Observed:
    """A call of the loss: what it calls, its value, and whether it draws random numbers."""

    watch: Watch
    value: Tensor
    draws: bool


def observed(call: Callable[[], Any], model: nn.Module) -> Observed:
    """A call of the loss, whose random numbers are the same each time."""
    device = next(model.parameters()).device
    seed_generators(0, device)
    with Watch() as watch:
        value = floating(call())
    return Observed(watch, value, has_drawn(device))


def refuse_uncertain(kind: str | None, seen: Observed) -> None:
    """``InputError`` for a mean plus a sum, and for sums (none else is seen) over what cannot be cut to verify it."""
    if kind == "both":
        raise InputError(
            "The loss is a mean over the batch plus a sum over it, so that it depends on the batch size: make both a "
            f"mean or both a sum, or {_CHOICES}."
        )
    if kind is None and seen.watch.only_sums and seen.watch.is_sum(seen.value):
        raise InputError(
            "The loss seems to be a sum, and it is open over how many examples, since its batches cannot be cut to see "
            "(or random numbers are drawn): divide it in the loss or step, as in total / n, by what L is to be a mean "
            "of, or return one value an example."
        )


def warn_of_weights(batches: Batches) -> None:
    """``ReductionWarning`` for a loss that is no mean over examples, but one that is weighted, or a function of it.

    One batch that was given as it is leaves nothing open.
    """
    if len(batches) == 1 and not batches.cut_from_tensors:
        return
    warnings.warn(
        "The loss of a batch is not the mean of its examples' losses, as where examples are weighted or ignored, or a "
        "function of a mean or a sum is taken: L depends on the batch size. State weight=lambda batch: ..., what the "
        "loss divides by, or return one value an example.",
        ReductionWarning,
        stacklevel=2,
    )


def counter(outputs: Any, targets: Any, n: int, later: Iterable[tuple[int, Any]]) -> Callable[[Any, Any], int]:
    """The number of examples of a batch from the length of its targets, or of its outputs if it has none.

    ``later``: the numbers and the targets of all batches.
    """
    own = next(tensors_in(targets), None)
    rows = len(next(tensors_in(outputs)) if own is None else own)

    def count(outputs: Any, targets: Any) -> int:
        return len(next(tensors_in(outputs if own is None else targets))) * n // rows

    if rows % n or (own is not None and any(count(None, others) != m for m, others in later)):
        raise InputError(
            "The loss is a sum, and its targets do not tell the number of examples that it is to be divided by: "
            "return a mean over the batch, or one value an example."
        )
    return count


def refuse_open_layout(batches: Batches) -> None:
    """``InputError`` for a sum over inputs ``(1, T, ...)`` with ``(T,)`` targets: of one example, or of T of them."""
    if not batches.examples_given and all(is_pair(one) and _layout(one[0], len(one[1])) == "open" for one in batches):
        raise InputError(
            "The loss is a sum, and each batch has inputs (1, T, ...) and T targets: one example of T positions, or T "
            "examples? State examples=lambda batch: 1, or examples=lambda batch: len(batch[1])."
        )


def require_repeated(value: Tensor, again: Tensor) -> None:
    """``InputError`` where a loss keeps something between calls."""
    one, two = value.detach().double().mean(), again.detach().double().mean()
    if not torch.isclose(one, two, rtol=16 * torch.finfo(value.dtype).eps, atol=0.0, equal_nan=True):
        raise InputError(
            f"The loss is {float(one)} and then {float(two)} at the same outputs and targets: remove what it keeps "
            "between calls (a running mean, a queue, a counter), and hand it over with the data, or as a constant."
        )


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """What is only tried does not warn: vmap of what is slow there, statistics of one example."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
