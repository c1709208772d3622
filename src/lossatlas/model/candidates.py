"""The states that a checkpoint holds, and the one that is a model's: by its names and shapes, or by ``key``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from lossatlas.errors import CheckpointError
from lossatlas.model.naming import Fit, Names, is_adapter, without_wrappers
from lossatlas.model.parameters import first_of

State = tuple[str, Mapping[str, Tensor]]  # and where it is: "" for the whole of what was given, else "a.b"


def states_in(contents: object, path: str = "") -> Iterator[State]:
    """Every mapping from names to tensors, at any depth, without what else stands there (epochs, options)."""
    if not isinstance(contents, Mapping):
        return
    named = {name: value for name, value in contents.items() if isinstance(name, str)}
    if tensors := {name: value for name, value in named.items() if isinstance(value, Tensor)}:
        yield path, tensors
    for name, value in named.items():
        yield from states_in(value, f"{path}.{name}" if path else name)


def only_state(contents: object, what: str) -> Mapping[str, Tensor]:
    """The one state in it; ``CheckpointError`` for none, or several."""
    states = list(_states(contents, what))
    if len(states) > 1:
        raise CheckpointError(f"{what} holds several states, {_listed(states)}: save the one that is meant by itself.")
    return states[0][1]


def chosen(names: Names, contents: object, what: str, key: str | None = None) -> Fit:
    """How the state that ``what`` holds is the model's: the only one that is, or the one that ``key`` picks.

    Raises ``CheckpointError`` where none or several are, or where it holds entries that are not the model's.
    """
    states = list(_states(contents, what))
    if key:
        states = list(_below(states, key)) or _no_such(states, what, key)
    fits = [fit for path, state in states for fit in names.fits(path, state)]
    complete = [fit for fit in fits if fit.complete]
    if not complete:
        fits += [fit for path, state in states if is_adapter(state) for fit in names.adapters(path, state)]
        complete = [fit for fit in fits if fit.complete]
    if len(complete) > 1:
        complete = [fit for fit in complete if fit.key == key] or _several(complete, what)
    if not complete:
        raise CheckpointError(_refusal(names, fits, states, what))
    return _without_more(names, complete[0], fits, what)


def _states(contents: object, what: str) -> Iterator[State]:
    states = list(states_in(contents))
    if not states:
        kind = type(contents)
        of = f" with {first_of(list(map(str, contents)))}" if isinstance(contents, Mapping) and contents else ""
        raise CheckpointError(
            f"{what} holds a {kind.__name__}{of} and no state dict: where the code of what it holds is at hand, load "
            "it there and save model.state_dict()."
        )
    yield from states


def _below(states: list[State], key: str) -> Iterator[State]:
    """What stands under ``key``, which names a state, what holds states, or what the names in a state begin with."""
    for path, state in states:
        if path == key or path.startswith(f"{key}.") or (key == "." and not path):
            yield path, state
        elif not path or key.startswith(f"{path}."):
            prefix = without_wrappers(key.removeprefix(path).strip("."))
            inside = {name: t for name, t in state.items() if f"{without_wrappers(name)}.".startswith(f"{prefix}.")}
            if prefix and inside:
                yield path, inside


def _no_such(states: list[State], what: str, key: str) -> list[State]:
    raise CheckpointError(f"key={key!r} names nothing in {what}, which holds {_listed(states)}.")


def _several(complete: list[Fit], what: str) -> list[Fit]:
    keys = [fit.key for fit in complete]
    if any(fit.partial for fit in complete):
        raise CheckpointError(
            f"{what} fits several adapters of the model: {first_of(sorted(fit.note for fit in complete))}: give a "
            "state dict whose names hold the adapter's, as model.state_dict() has them."
        )
    raise CheckpointError(
        f"{what} holds weights of this model several times, under {first_of(keys, 8)}: pick one by {_picked(keys[-1])}."
    )


def _without_more(names: Names, fit: Fit, fits: list[Fit], what: str) -> Fit:
    """The fit itself, where all that its state holds is the model's, or that of another fit which was not picked."""
    others = {name for other in fits if other.complete and other.state is fit.state for name in other.names}
    more = [name for name in fit.unexpected if name not in others]
    if more and (not fit.outer or fit.partial):
        raise CheckpointError(_refusal(names, [fit], [], what))
    if more:
        raise CheckpointError(
            f"{what} holds the model's weights below {fit.outer!r} and besides them {first_of(more)}: where these "
            f"are no part of the model, leave them out by {_picked(fit.key)}."
        )
    return fit


def _refusal(names: Names, fits: list[Fit], states: list[State], what: str) -> str:
    best = max(fits, key=lambda fit: (len(fit.names) - len(fit.wrong), len(fit.names), -len(fit.unexpected)))
    lists = (("missing", best.missing), ("unexpected", best.unexpected))
    found = [f"{len(some)} {word} ({first_of(some)})" for word, some in lists if some]
    if best.wrong:
        found.append(f"{len(best.wrong)} of another shape ({first_of(best.wrong)})")
    if best.names and best.key != ".":
        found.append(f"nearest are those under {best.key!r}, of which {len(best.names)} names fit")
    if len(states) > 1:
        found.append(f"it holds {_listed(states)}")
    return f"{what} holds the weights of another network: {'; '.join(found)}. {_remedy(names, best)}"


def _remedy(names: Names, best: Fit) -> str:
    if is_adapter(best.state) and not names.adapter_names and not is_adapter(names.shapes):
        return "They are adapters alone: make the objective of the model that holds them (PeftModel.from_pretrained)."
    like = f"Give weights saved from a {names.owner} like this one"
    if best.wrong or not best.names:
        return f"{like}."
    return f"{like}; where they are meant to differ, use model.load_state_dict(state, strict=False) and give the model."


def _picked(key: str) -> str:
    return f"objective.point_of(source, key={key!r}), or by the path of the file, 'FILE:{key}'"


def _listed(states: list[State]) -> str:
    ordered = sorted(states, key=lambda state: -len(state[1]))
    return first_of([f"{path or '.'} ({len(state)} tensors)" for path, state in ordered])
