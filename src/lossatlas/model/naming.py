"""The names of a checkpoint's tensors as a model's own: wrappers, prefixes at any depth, tied tensors, adapters."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TypeVar

from torch import Tensor

from lossatlas.errors import CheckpointError
from lossatlas.model.data.fingerprints import equal

T = TypeVar("T")

# What DataParallel, torch.compile, FSDP and activation checkpointing put between the names of modules.
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
_COUNTER = "n_averaged"  # beside the weights in an AveragedModel
# The modules in which PEFT keeps one child for each adapter, and the adapter's name.
_KINDS = "lora|ia3|hada|lokr|b?oft|vera|ln_tuning|fourierft|hra|vblora|bone|miss|randlora|shira|c3a|trainable_tokens"
_ADAPTER = re.compile(rf"(?:^|\.)(?:(?:{_KINDS})_\w*|modules_to_save)\.(?!weight\b|bias\b)(\w+)")
_OF_ADAPTER = re.compile(rf"(?:^|\.)(?:{_KINDS})_")


@dataclass(frozen=True)
class Fit:
    """How the tensors of one state, those below ``outer``, are a model's.

    Attributes
    ----------
    key : of the state and the prefix in what was given; "." for the whole of it.
    outer, inner : what is left out before the state's names, without wrappers, and what is put there.
    names : the state's names -> the model's, each tied tensor by its first one.
    missing, unexpected : the model's names that the state lacks, and the state's that are not the model's.
    wrong : the shapes that differ, in words.
    note : what was chosen and left out; empty where the names are the model's own.
    partial : whether it is adapters alone, and what it lacks is the base.
    """

    key: str
    outer: str
    inner: str
    state: Mapping[str, Tensor]
    names: Mapping[str, str]
    missing: list[str]
    unexpected: list[str]
    wrong: list[str]
    note: str
    partial: bool = False

    @property
    def complete(self) -> bool:
        return not self.missing and not self.wrong

    def tensors(self) -> dict[str, Tensor]:
        """By the model's names. Raises ``CheckpointError`` where one tensor of the model is two that differ."""
        found: dict[str, Tensor] = {}
        for given, name in self.names.items():
            if name in found and not equal(found[name], self.state[given].to(found[name])):
                other = next(one for one, first in self.names.items() if first == name)
                raise CheckpointError(
                    f"{other} and {given} are one tensor in this model and two that differ in the checkpoint: "
                    "leave out the one that the model does not use."
                )
            found[name] = _whole(self.state[given])
        return found


class Names:
    """The names of a model's tensors, to which those of checkpoints are fitted.

    Parameters
    ----------
    owner : what the model is called in messages.
    first : every name of a tensor -> its first one; they differ where tensors are tied.
    shapes : by first name.

    Examples
    --------
    >>> names = Names("Net", {"fc.weight": "fc.weight"}, {"fc.weight": (1,)})
    >>> [(fit.key, fit.outer) for fit in names.fits("state_dict", {"model.fc.weight": Tensor([1.0])})]
    [('state_dict.model', 'model.')]
    """

    def __init__(self, owner: str, first: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.owner, self.shapes = owner, shapes
        self._own = {name: first[given] for name, given in _bare_names(first).items()}
        # A head that is tied to the embedding stands outside of the part that its file holds.
        without_ties = [name for name, given in _bare_names(first).items() if first[given] == given]
        self._commons = list(dict.fromkeys(map(_common_prefix, (self._own, without_ties))))

    def fits(self, path: str, state: Mapping[str, Tensor]) -> list[Fit]:
        """How the names of a state, which is at ``path`` in what was given, are the model's, prefix by prefix."""
        found: list[Fit] = []
        for common in self._commons:
            found += self._fits(path, state, common, self._own, self.shapes)
            if any(fit.complete for fit in found):
                break
        return found

    @property
    def adapter_names(self) -> set[str]:
        """Of the adapters that the model holds, as PEFT names them."""
        return {found[1] for name in self._own if (found := _ADAPTER.search(name))}

    def adapters(self, path: str, state: Mapping[str, Tensor]) -> list[Fit]:
        """How a state of adapters alone, as PEFT saves it, is one of the adapters of the model, whole.

        PEFT leaves the base out of a file, and the adapter's name (``lora_A.weight`` for ``lora_A.default.weight``).
        """
        found = []
        for adapter in sorted(self.adapter_names):
            own = {_without(name, adapter): one for name, one in self._own.items()}
            needed = [one for name, one in self._own.items() if adapter in _ADAPTER.findall(name)]
            fits = self._fits(path, state, self._commons[0], own, dict.fromkeys(needed))
            of = f"taken from {path!r}" if path else "taken"
            note = f"{of} as the adapters {adapter!r} alone; all else as in the objective's model"
            found += [replace(fit, partial=True, note=note) for fit in fits]
        return [fit for fit in found if fit.names]

    def _fits(
        self,
        path: str,
        state: Mapping[str, Tensor],
        common: str,
        own: Mapping[str, str],
        needed: Collection[str],
    ) -> list[Fit]:
        short = {name.removeprefix(common): one for name, one in own.items()}
        hits: dict[str, dict[str, str]] = defaultdict(dict)
        for name, given in _bare_names(state).items():
            for start in _starts(name):
                if name[start:] in short:
                    hits[name[:start]][given] = short[name[start:]]
        found = dict(hits) or {common: {}}
        return [
            self._fit(path, state, _without_common_end(prefix, common), names, needed)
            for prefix, names in found.items()
        ]

    def _fit(
        self,
        path: str,
        state: Mapping[str, Tensor],
        prefixes: tuple[str, str],
        names: Mapping[str, str],
        needed: Collection[str],
    ) -> Fit:
        found, beside = set(names.values()), [name for name in state if name not in names]
        counters = [name for name in beside if name.endswith(_COUNTER) and _COUNTER not in self._own]
        return Fit(
            key=_joined(path, prefixes[0]) or ".",
            outer=prefixes[0],
            inner=prefixes[1],
            state=state,
            names=names,
            missing=[name for name in needed if name not in found],
            unexpected=[name for name in beside if name not in counters],
            wrong=self._differing(state, names),
            note=self._note(path, prefixes, names, counters),
        )

    def _differing(self, state: Mapping[str, Tensor], names: Mapping[str, str]) -> list[str]:
        shapes = {one: tuple(state[given].shape) for given, one in names.items()}
        return [
            f"{one} is {shape}, not {self.shapes[one]}" for one, shape in shapes.items() if shape != self.shapes[one]
        ]

    def _note(self, path: str, prefixes: tuple[str, str], names: Mapping[str, str], left_out: list[str]) -> str:
        parts = [f"taken from {path!r}"] if path else []
        changes = zip(prefixes, ("left out of", "put before"), strict=True)
        parts += [f"{prefix!r} {change} the names" for prefix, change in changes if prefix]
        own = {part for name in self.shapes for part in name.split(".")}
        if wrappers := sorted({part for name in names for part in name.split(".")} & _WRAPPERS - own):
            parts.append(f"{' and '.join(wrappers)} left out of the names")
        return "; ".join([*parts, *(f"{name} left out, the counter of AveragedModel" for name in left_out)])


def below(prefix: str, tensors: Mapping[str, T]) -> dict[str, T]:
    """By their names without wrappers, and without ``prefix`` where they have it."""
    return {without_wrappers(name).removeprefix(prefix): tensor for name, tensor in tensors.items()}


def is_adapter(state: Collection[str]) -> bool:
    """Whether it is what PEFT saves: it holds adapters, and the name of none."""
    return any(map(_OF_ADAPTER.search, state)) and not any(map(_ADAPTER.search, state))


def without_wrappers(name: str) -> str:
    """A name without what DataParallel, ``torch.compile``, FSDP and checkpointing put between its parts."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _bare_names(names: Iterable[str]) -> dict[str, str]:
    """Names without wrappers -> names; all with them where two would be one."""
    given = list(names)
    bare = {without_wrappers(name): name for name in given}
    return bare if len(bare) == len(given) else {name: name for name in given}


def _starts(name: str) -> Iterator[int]:
    """Where each of the names begins that are left of a name without some of its first parts."""
    yield 0
    yield from (index + 1 for index, letter in enumerate(name) if letter == ".")


def _common_prefix(names: Iterable[str]) -> str:
    parts = [name.split(".")[:-1] for name in names]
    return "".join(f"{level[0]}." for level in takewhile(lambda level: len(set(level)) == 1, zip(*parts, strict=False)))


def _without_common_end(one: str, other: str) -> tuple[str, str]:
    """Both prefixes without the parts that they end with alike."""
    first, second = one.split(".")[:-1], other.split(".")[:-1]
    alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first[::-1], second[::-1], strict=False)))
    left, right = ("".join(f"{part}." for part in parts[: len(parts) - alike]) for parts in (first, second))
    return left, right


def _whole(tensor: Tensor) -> Tensor:
    """All of a tensor that is distributed over processes (DTensor)."""
    full: Tensor = getattr(tensor, "full_tensor", lambda: tensor)()
    return full


def _without(name: str, adapter: str) -> str:
    name = re.sub(r"(\.lora_magnitude_vector\.\w+)\.weight$", r"\1", name)  # a module that PEFT saves as a tensor
    return ".".join(part for part in name.split(".") if part not in (adapter, "modules_to_save"))


def _joined(*parts: str) -> str:
    return ".".join(part.strip(".") for part in parts if part.strip("."))
