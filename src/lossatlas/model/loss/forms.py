"""The loss of a batch as the losses of its examples: forms of a given loss, each tried before it is used."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function
from torch.utils._pytree import tree_leaves, tree_map

from lossatlas.model.loss.kinds import Kinds, Place, kinds_of, taker
from lossatlas.model.loss.reduction import quietly

Loss = Callable[[Any, Any], Tensor]
_SLOW = "There is a performance drop"  # how PyTorch's warning of what vmap has no rule for begins


def per_example(
    loss: Loss, outputs: Any, targets: Any, later: Callable[[], Iterable[Any]]
) -> tuple[Loss, Literal["mean", "sum"]] | None:
    """A form with one value an example, whose mean or sum over the batch is the loss; None where there is none.

    ``later`` gives the targets of all batches: one batch is not enough, since a class with another weight, or an
    ignored label, may first come in a later one. Outputs other than the model's own are tried as well: a loss that
    is 0 where the model was trained to decides nothing. Twice the batch tells a mean from a sum where it has one
    example.
    """
    for form in forms(loss):
        kinds = [_kinds(form, loss, outputs, targets), *_kinds_elsewhere(form, loss, outputs, targets)]
        if None in kinds or all(kind == {"zero"} for kind in kinds):
            continue
        twice = tree_map(lambda t: torch.cat([t, t]) if isinstance(t, Tensor) and t.ndim else t, targets)
        kinds += [_kinds(form, loss, _again(outputs, others), others) for others in (twice, *later())]
        if None in kinds:
            continue
        decided = [kind for kind in kinds if kind and len(kind) == 1 and kind != {"zero"}]
        return form, "sum" if {"sum"} in decided else "mean"
    return None


def places_at_outputs(loss: Loss, outputs: Any, targets: Any, n: int) -> list[Place]:
    """The loss of the n examples of a batch at its own outputs and at others; none where these cannot be cut."""
    return [place for other in (outputs, *elsewhere(outputs, n)) for place in _places(loss, (other, targets), n)]


def places_at_targets(loss: Loss, outputs: Any, n: int, later: Iterable[tuple[int, Any]]) -> list[Place]:
    """The loss with the targets of other batches, at the outputs of a batch of n examples, repeated."""
    taken = taker(outputs, n)
    if taken is None:
        return []
    return [place for m, others in later for place in _places(loss, (taken(torch.arange(m) % n), others), m)]


def _places(loss: Loss, pair: Any, n: int) -> list[Place]:
    taken = taker(pair, n)
    return [] if taken is None else [Place(lambda which: loss(*taken(which)), n)]


def elsewhere(outputs: Any, n: int | None = None) -> Iterator[Any]:
    """Other outputs of the same form: permuted across examples, halfway to that, and moved at random.

    The first two stay in any convex set that the outputs lie in, such as that of probabilities.
    """
    taken = taker(outputs, n := n or length(outputs) or 0)
    if taken is None:
        return
    generator = torch.Generator().manual_seed(0)
    shuffled = iter(tree_leaves(taken(torch.randperm(n, generator=generator))))
    floats = tree_map(lambda t: _float_of(next(shuffled), t), outputs)
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
        with contextlib.suppress(Exception):  # a scripted loss keeps its own
            unreduced = copy.copy(loss)
            unreduced.reduction = cast(Any, "none")
            found.append(lambda o, t: flat(unreduced(o, t)))
    elif not isinstance(loss, nn.Module):
        found.append(lambda o, t: flat(cast(Any, loss)(o, t, reduction="none")))
    alone = torch.vmap(lambda o, t: loss(_batch_of_one(o), _batch_of_one(t)))
    return [*found, _as_one_function(lambda o, t: flat(_without_word_of_speed(alone, o, t)))]


def _without_word_of_speed(form: Loss, outputs: Any, targets: Any) -> Tensor:
    with warnings.catch_warnings():  # the user did not choose vmap
        warnings.filterwarnings("ignore", message=_SLOW)
        return form(outputs, targets)


def flat(values: Tensor) -> Tensor:
    """One value an example: the mean over its positions, if there are any."""
    return values.flatten(1).mean(1) if values.ndim > 1 else values


def _kinds(form: Loss, loss: Loss, outputs: Any, targets: Any) -> Kinds:
    try:
        with quietly():
            each, whole = form(outputs, targets), loss(outputs, targets)
    except Exception:  # whatever a user's loss raises in a form that it was not written for
        return None
    if each.ndim != 1:
        return None
    each = each.double()
    return kinds_of(each, whole.mean(), torch.stack([each.mean(), each.sum()]).to(whole))


def _kinds_elsewhere(form: Loss, loss: Loss, outputs: Any, targets: Any) -> Iterator[Kinds]:
    for other in elsewhere(outputs):
        if _finite(loss, other, targets):
            yield _kinds(form, loss, other, targets)


def _finite(loss: Loss, outputs: Any, targets: Any) -> bool:
    """Whether the loss is defined at outputs that the model did not give."""
    try:
        with quietly():
            return bool(torch.isfinite(loss(outputs, targets)).all())
    except Exception:  # whatever a user's loss raises outside of its domain
        return False


def _again(outputs: Any, targets: Any) -> Any:
    """The first batch's outputs, as many as there are targets: a loss knows classes and ignored labels by these."""
    n, m = length(outputs), length(targets)
    if n is None or m is None:
        return outputs
    return tree_map(lambda t: t[torch.arange(m, device=t.device) % n] if isinstance(t, Tensor) else t, outputs)


def _on_floats(change: Callable[[Tensor], Tensor], tree: Any) -> Any:
    return tree_map(lambda t: change(t) if isinstance(t, Tensor) and t.is_floating_point() else t, tree)


def _float_of(one: Any, other: Any) -> Any:
    return one if isinstance(one, Tensor) and one.is_floating_point() else other


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
