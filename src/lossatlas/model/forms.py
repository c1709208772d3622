"""The loss of a batch as the losses of its examples: forms of a given loss, each tried before it is used."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function
from torch.utils._pytree import tree_leaves, tree_map

from lossatlas.model.reduction import Watch

Loss = Callable[[Any, Any], Tensor]
Kind = Literal["mean", "sum"]
_CHUNK = 16  # examples that are evaluated one by one


def per_example(loss: Loss, outputs: Any, targets: Any, later: Callable[[], Iterable[Any]]) -> tuple[Loss, Kind] | None:
    """A form with one value an example, whose mean or sum over the batch is the loss; None where there is none.

    ``later`` gives the targets of all batches: one batch is not enough, since a class with another weight, or an
    ignored label, may first come in a later one. Outputs other than the model's own are tried as well: a loss that
    is 0 where the model was trained to decides nothing.
    """
    for form in forms(loss):
        kinds = [_kinds(form, loss, outputs, targets), *_kinds_elsewhere(form, loss, outputs, targets)]
        if None in kinds or all(kind == {"zero"} for kind in kinds):
            continue
        kinds += [_kinds(form, loss, _again(outputs, others), others) for others in later()]
        if None in kinds:
            continue
        decided = [kind for kind in kinds if kind and len(kind) == 1 and kind != {"zero"}]
        return form, "sum" if {"sum"} in decided else "mean"
    return None


def kind_by_size(loss: Loss, outputs: Any, targets: Any) -> Kind | None:
    """Whether the loss is a mean or a sum over examples, from its values on parts of a batch."""
    n = length((outputs, targets))
    if n is None or n < 2:
        return None
    kinds = [_of_parts(loss, o, targets, n) for o in (outputs, *elsewhere(outputs))]
    kinds_asked: tuple[Kind, ...] = ("mean", "sum")
    for kind in kinds_asked:
        if any(kinds) and all(one is None or kind in one for one in kinds):
            return kind
    return None


def like_weighted_mean(loss: Loss, outputs: Any, targets: Any) -> bool:
    """Whether the loss of some examples lies between the least and the largest of theirs alone, at several outputs.

    Class weights and ignored targets do that to a mean; a contrast between examples does not.
    """
    n = length((outputs, targets))
    if n is None or n < 2:
        return False
    found = [_between(loss, o, targets, min(n, _CHUNK)) for o in (outputs, *elsewhere(outputs))]
    return bool(found) and all(found)


def elsewhere(outputs: Any) -> Iterator[Any]:
    """Other outputs of the same form: permuted across examples, halfway to that, and moved at random.

    The first two stay in any convex set that the outputs lie in, such as that of probabilities.
    """
    n = length(outputs)
    if n is None:
        return
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(n, generator=generator)
    floats = _on_floats(lambda t: t[order.to(t.device)], outputs)
    yield floats
    leaves = iter(tree_leaves(floats))
    yield tree_map(lambda t: _halfway(t, next(leaves)), outputs)
    yield _on_floats(lambda t: t + (1 + t.std(correction=0)) * torch.randn(t.shape, generator=generator).to(t), outputs)


def length(tree: Any) -> int | None:
    """The common length of all tensors, None where they have none."""
    lengths = {len(t) if t.ndim else 0 for t in tree_leaves(tree) if isinstance(t, Tensor)}
    return lengths.pop() if len(lengths) == 1 and 0 not in lengths else None


def forms(loss: Loss) -> list[Loss]:
    """Losses of single examples: the same loss with ``reduction="none"``, and on every example alone."""
    found: list[Loss] = []
    if isinstance(loss, nn.Module) and hasattr(loss, "reduction"):
        unreduced = copy.copy(loss)
        unreduced.reduction = cast(Any, "none")
        found.append(lambda o, t: flat(unreduced(o, t)))
    elif not isinstance(loss, nn.Module):
        found.append(lambda o, t: flat(cast(Any, loss)(o, t, reduction="none")))
    alone = torch.vmap(lambda o, t: loss(_batch_of_one(o), _batch_of_one(t)))
    return [*found, _as_one_function(lambda o, t: flat(alone(o, t)))]


def flat(values: Tensor) -> Tensor:
    """One value an example: the mean over its positions, if there are any."""
    return values.flatten(1).mean(1) if values.ndim > 1 else values


def kinds_of(parts: Tensor, value: Tensor, means: Tensor) -> set[str] | None:
    """Which of the mean and the sum ``value`` is, of what is given for both; None where it is neither."""
    if not bool(torch.isfinite(value)):
        return None if bool(torch.isfinite(means).any()) else set()
    if not bool(parts.any()) and not bool(value):
        return {"zero"}
    close = torch.isclose(means, value.expand(2), rtol=1e-4, atol=1e-7).tolist()
    return {name for name, holds in zip(("mean", "sum"), close, strict=True) if holds} or None


def kinds_of_parts(calls: Sequence[Callable[[], Tensor]], sizes: Sequence[int]) -> set[str] | None:
    """Which of the mean and the sum of its parts a batch's loss is, as ``kinds_of``: of the whole and of two parts.

    A part's weight in the mean is what its criterion divides by (``Watch``), else its number of examples.
    """
    try:
        whole, *parts = [_value_and_weight(call) for call in calls]
    except Exception:  # whatever a user's loss raises on few examples
        return None
    each = torch.stack([value for value, _ in parts])
    weights = [float(size) if weight is None else weight for size, (_, weight) in zip(sizes, parts, strict=True)]
    if not all(weights):  # a part whose targets are all ignored
        return set()
    shares = torch.tensor(weights).to(each) / sum(weights)
    return kinds_of(each, whole[0], torch.stack([shares @ each, each.sum()]))


def _value_and_weight(call: Callable[[], Tensor]) -> tuple[Tensor, float | None]:
    with Watch() as watch:
        value = call()
    seen = watch.criterion(value)
    counts = seen is not None and seen.reduction == "mean"
    return value.detach().double(), float(seen.weights().sum()) if seen and counts else None


def _kinds(form: Loss, loss: Loss, outputs: Any, targets: Any) -> set[str] | None:
    try:
        each, whole = form(outputs, targets), loss(outputs, targets)
    except Exception:  # whatever a user's loss raises in a form that it was not written for
        return None
    if each.ndim != 1:
        return None
    each = each.double()
    return kinds_of(each, whole.double().mean(), torch.stack([each.mean(), each.sum()]))


def _kinds_elsewhere(form: Loss, loss: Loss, outputs: Any, targets: Any) -> Iterator[set[str] | None]:
    for other in elsewhere(outputs):
        if _finite(loss, other, targets):
            yield _kinds(form, loss, other, targets)


def _finite(loss: Loss, outputs: Any, targets: Any) -> bool:
    """Whether the loss is defined at outputs that the model did not give."""
    try:
        return bool(torch.isfinite(loss(outputs, targets)).all())
    except Exception:  # whatever a user's loss raises outside of its domain
        return False


def _of_parts(loss: Loss, outputs: Any, targets: Any, n: int) -> set[str] | None:
    """The kinds that two parts of unlike size allow; None where they decide nothing."""
    cut = (n + 2) // 3
    pieces = [rows((outputs, targets), s) for s in (slice(n), slice(cut), slice(cut, n))]
    kinds = kinds_of_parts([functools.partial(loss, *piece) for piece in pieces], [cut, n - cut])
    return None if kinds in ({"zero"}, set()) else kinds or set()


def rows(tree: Any, which: slice) -> Any:
    """These examples of every tensor."""
    return tree_map(lambda t: t[which].clone() if isinstance(t, Tensor) else t, tree)


def _between(loss: Loss, outputs: Any, targets: Any, n: int) -> bool:
    try:
        some = float(loss(*rows((outputs, targets), slice(n))))
        alone = [float(loss(*rows((outputs, targets), slice(i, i + 1)))) for i in range(n)]
    except Exception:  # whatever a user's loss raises on other outputs or on one example
        return False
    known = torch.tensor([value for value in alone if value == value])
    return len(known) > 1 and float(known.min()) < some < float(known.max())


def _again(outputs: Any, targets: Any) -> Any:
    """The first batch's outputs, as many as there are targets: a loss knows classes and ignored labels by these."""
    n, m = length(outputs), length(targets)
    if n is None or m is None:
        return outputs
    return tree_map(lambda t: t[torch.arange(m, device=t.device) % n] if isinstance(t, Tensor) else t, outputs)


def _on_floats(change: Callable[[Tensor], Tensor], tree: Any) -> Any:
    return tree_map(lambda t: change(t) if isinstance(t, Tensor) and t.is_floating_point() else t, tree)


def _halfway(one: Any, other: Any) -> Any:
    return (one + other) / 2 if isinstance(one, Tensor) and one.is_floating_point() else one


def _batch_of_one(tree: Any) -> Any:
    return tree_map(lambda t: t.unsqueeze(0) if isinstance(t, Tensor) else t, tree)


def _as_one_function(form: Loss) -> Loss:
    """``form`` as a function that a ``TorchFunctionMode`` sees whole: the tensors inside vmap mean nothing outside."""

    def whole(outputs: Any, targets: Any) -> Tensor:
        leaves = tree_leaves((outputs, targets))
        if has_torch_function(leaves):
            result: Tensor = handle_torch_function(whole, leaves, outputs, targets)
            return result
        return form(outputs, targets)

    return whole
