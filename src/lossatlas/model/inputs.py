"""One rule for what a model is called with: one argument, or several.

    a tensor, a packed sequence, any object     model(inputs)
    a tuple or a list                           model(*inputs)      where ``forward`` takes so many
    a mapping                                   model(**inputs)     where ``forward`` takes these names
    a tuple, a list or a mapping                model(inputs)       where ``forward`` takes one argument and not these,
                                                                    or says by its annotation that it is such a one,
                                                                    or they hold no tensor (texts, crystals)

What fits neither is refused: ``Objective.from_step`` calls the model in any way. A list is a tuple here, since loaders
make lists of tuples; where ``forward`` takes one argument, lists of one and of several entries (images of different
sizes) would be handed over in two ways, and ``require_one_way`` refuses them.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from lossatlas.errors import InputError
from lossatlas.model.data.containers import tensors_in

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
    annotated = _as_annotated(model, inputs)
    alone = _binds(signature, whole) and annotated is not False
    whole_is_meant = annotated or next(tensors_in(inputs), None) is None
    if _binds(signature, several) and not (alone and whole_is_meant):
        return several
    if alone:
        return whole
    raise InputError(
        f"{type(model).__name__}.forward{signature} does not take {_described(inputs)}: inputs that are a dict are "
        "passed by name, a tuple or list one by one; for another way use Objective.from_step(model, step, batches)."
    )


def require_one_way(model: nn.Module, batches: Iterable[Any]) -> None:
    """Raises ``InputError`` where lists of inputs are one argument in some of the pairs (inputs, targets) only.

    Reads no further than the first batch unless its inputs are a tuple or a list and ``forward`` takes one argument.
    """
    ways = set()
    for inputs, targets in batches:
        if not isinstance(inputs, tuple | list):
            return
        given, _ = arguments(model, inputs)
        whole = bool(given) and given[0] is inputs
        ways.add(whole)
        if len(ways) > 1 or (not whole and _may_be_examples(model, inputs, targets)):
            raise InputError(
                f"{type(model).__name__}.forward may take these lists as one argument or entry by entry: annotate it "
                "(images: list[Tensor]), or use Objective.from_step(model, lambda model, batch: ..., batches)."
            )
        if not _takes_one(model, inputs):
            return


def _may_be_examples(model: nn.Module, inputs: Any, targets: Any) -> bool:
    """Whether there are as many entries as targets, with other lengths than that, and one argument would do."""
    if len(inputs) < 2 or not isinstance(targets, Tensor) or not targets.ndim or len(inputs) != len(targets):
        return False
    dense = [t for t in inputs if isinstance(t, Tensor) and not t.is_nested and t.ndim]
    return _takes_one(model, inputs) and len(dense) == len(inputs) and all(len(t) != len(targets) for t in dense)


def _takes_one(model: nn.Module, inputs: Any) -> bool:
    signature = _signature(model)
    if signature is None or _as_annotated(model, inputs) is False:
        return False
    return _binds(signature, ((inputs,), {}))


def _signature(model: nn.Module) -> inspect.Signature | None:
    return _known(getattr(model.forward, "__func__", model.forward), inspect.ismethod(model.forward))[0]


@functools.lru_cache(maxsize=256)  # read once for a class, since it takes longer than a small model
def _known(forward: Callable[..., Any], bound: bool) -> tuple[inspect.Signature | None, tuple[type, ...]]:
    """What ``forward`` takes, and the classes that its first argument is annotated with: none where unknown."""
    try:
        signature = inspect.signature(forward)
    except (TypeError, ValueError):  # a method of C++, as a ScriptModule's
        return None, ()
    given = list(signature.parameters.values())[1 if bound else 0 :]
    try:
        wanted = typing.get_type_hints(forward).get(given[0].name) if given else None
    except Exception:  # an annotation that only a type checker can read says nothing here
        wanted = None
    choices = typing.get_args(wanted) if typing.get_origin(wanted) in (typing.Union, types.UnionType) else (wanted,)
    classes = tuple(typing.get_origin(choice) or choice for choice in choices)
    known = all(isinstance(one, type) and one not in (object, typing.Any) for one in classes)
    return signature.replace(parameters=given), cast(tuple[type, ...], classes) if known else ()


def _binds(signature: inspect.Signature, given: Arguments) -> bool:
    try:
        signature.bind(*given[0], **given[1])
    except TypeError:
        return False
    return True


def _as_annotated(model: nn.Module, inputs: Any) -> bool | None:
    """Whether the first argument is annotated as what the inputs are (``list[Tensor]``); None where that is unknown."""
    classes = _known(getattr(model.forward, "__func__", model.forward), inspect.ismethod(model.forward))[1]
    return isinstance(inputs, classes) if classes else None


def _described(inputs: Any) -> str:
    if isinstance(inputs, Mapping):
        return f"arguments named {sorted(map(str, inputs))}"
    return f"{len(inputs)} arguments"
