"""One rule for what a model is called with: one argument, or several.

    a tensor, a packed sequence, any object     model(inputs)
    a tuple or a list                           model(*inputs)      where ``forward`` takes so many
    a mapping                                   model(**inputs)     where ``forward`` takes these names
    a tuple, a list or a mapping                model(inputs)       where ``forward`` takes one argument and not these,
                                                                    or says by its annotation that it is such a one

What fits neither is refused: ``Objective.from_step`` calls the model in any way. A list is a tuple here, since loaders
make lists of tuples; where ``forward`` takes one argument, lists of one and of several entries (images of different
sizes) would be handed over in two ways, and ``require_one_way`` refuses them.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from lossatlas.errors import InputError

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def applied(model: nn.Module, inputs: Any) -> Any:
    """``model`` of ``inputs``, by the rule above."""
    if isinstance(inputs, Tensor):
        return model(inputs)
    args, named = arguments(model, inputs)
    return model(*args, **named)


def arguments(model: nn.Module, inputs: Any) -> Arguments:
    """What the model is called with for these inputs; ``InputError`` where they fit in no way."""
    whole: Arguments = (inputs,), {}
    if not isinstance(inputs, tuple | list | Mapping) or isinstance(inputs, PackedSequence):
        return whole
    several: Arguments = ((), dict(inputs)) if isinstance(inputs, Mapping) else (tuple(inputs), {})
    signature = _signature(model)
    if signature is None:
        return several
    alone = _binds(signature, whole)
    if _binds(signature, several) and not (alone and _asks_for(model, signature, inputs)):
        return several
    if alone:
        return whole
    raise InputError(
        f"{type(model).__name__}.forward{signature} takes neither {_described(inputs)} nor one argument: use "
        "Objective.from_step(model, lambda model, batch: ..., batches), which calls the model in any way."
    )


def require_one_way(model: nn.Module, batches: Iterable[Any]) -> None:
    """Raises ``InputError`` where lists of inputs are one argument in some of the pairs (inputs, targets) only.

    Reads no further than the first batch unless its inputs are a tuple or a list and ``forward`` takes one argument.
    """
    ways = set()
    for inputs, _ in batches:
        if not isinstance(inputs, tuple | list) or not _one_only(model):
            return
        ways.add(arguments(model, inputs)[0][0] is inputs)
    if len(ways) > 1:
        raise InputError(
            f"{type(model).__name__}.forward takes one argument, and the inputs are lists of one entry and of several: "
            "annotate it (images: list[Tensor]), or use Objective.from_step(model, lambda model, batch: ..., batches)."
        )


def _one_only(model: nn.Module) -> bool:
    signature = _signature(model)
    return signature is not None and not _binds(signature, ((None, None), {}))


def _signature(model: nn.Module) -> inspect.Signature | None:
    try:
        return inspect.signature(model.forward)
    except (TypeError, ValueError):  # a method of C++, as a ScriptModule's
        return None


def _binds(signature: inspect.Signature, given: Arguments) -> bool:
    try:
        signature.bind(*given[0], **given[1])
    except TypeError:
        return False
    return True


def _asks_for(model: nn.Module, signature: inspect.Signature, inputs: Any) -> bool:
    """Whether the first argument is annotated as what the inputs are: ``list[Tensor]``, a class of one's own."""
    name = next(iter(signature.parameters), "")
    try:
        wanted = typing.get_type_hints(model.forward).get(name)
    except Exception:  # an annotation that only a type checker can read says nothing here
        return False
    choices = typing.get_args(wanted) if typing.get_origin(wanted) in (typing.Union, types.UnionType) else (wanted,)
    classes = [typing.get_origin(choice) or choice for choice in choices]
    return any(isinstance(one, type) and one is not object and isinstance(inputs, one) for one in classes)


def _described(inputs: Any) -> str:
    if isinstance(inputs, Mapping):
        return f"the names {sorted(map(str, inputs))}"
    return f"{len(inputs)} arguments"
