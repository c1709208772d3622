"""The map between a flat point theta in R^n and the named tensors of a module."""

from __future__ import annotations

import copy
import fnmatch
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lossatlas.errors import CheckpointError, DirectionError, InputError


@dataclass(frozen=True)
class Entry:
    """One tensor's place in theta: the slice ``[start, stop)``, and its shape.

    The numbers of a complex tensor are its real and imaginary parts: its shape in theta is ``(..., 2)``.
    """

    name: str
    start: int
    shape: tuple[int, ...]
    is_complex: bool = False

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def own_shape(self) -> tuple[int, ...]:
        """The tensor's shape in the model."""
        return self.shape[:-1] if self.is_complex else self.shape

    def tensor(self, numbers: Tensor) -> Tensor:
        """The model's tensor with these numbers ``(size,)``: a view, but for a complex one."""
        shaped = numbers.view(self.shape)
        # No view: complex numbers begin at even places of their storage, as theta's and its gradient's pieces need not.
        return torch.complex(shaped[..., 0], shaped[..., 1]) if self.is_complex else shaped

    @property
    def stop(self) -> int:
        return self.start + self.size

    @property
    def has_one_dimension(self) -> bool:
        """Or none: biases, scales of norms, scalars."""
        return len(self.own_shape) < 2


class ParameterSpace:
    """theta in R^n: the selected parameters of ``module``, in the order of ``named_parameters``, flattened and joined.

    A complex parameter is part of it by the real and the imaginary part of each number, side by side.

    Parameters
    ----------
    module : the network. Parameters that require no gradient stay fixed and are not part of theta;
        tied parameters are one tensor and are counted once.
    select : glob or globs over the parameters' names (``"*.weight"``, ``["layer4.*", "fc.*"]``);
        ``None`` selects all.

    Raises
    ------
    InputError : nothing trainable is selected, or a parameter is sparse, quantised or not yet initialised.

    Examples
    --------
    >>> space = ParameterSpace(nn.Linear(3, 2))
    >>> space.n, [entry.name for entry in space.entries]
    (8, ['weight', 'bias'])
    """

    def __init__(self, module: nn.Module, select: str | Sequence[str] | None = None) -> None:
        chosen = dict(_selected(module, select))
        entries, start = [], 0
        for name, parameter in chosen.items():
            shape = tuple(parameter.shape) + (2,) * parameter.is_complex()
            entries.append(Entry(name, start, shape, parameter.is_complex()))
            start = entries[-1].stop
        self.entries: tuple[Entry, ...] = tuple(entries)
        self.n: int = start

    def restricted(self, select: str | Sequence[str]) -> ParameterSpace:
        """The part of this space whose names match the glob or globs; ``InputError`` where a glob matches none."""
        globs = [select] if isinstance(select, str) else list(select)
        names = [entry.name for entry in self.entries]
        for pattern in globs:
            if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
                raise InputError(f"No parameter that varies matches {pattern!r}; they are {first_of(names)}.")
        other, start = copy.copy(self), 0
        chosen = []
        for entry in self.entries:
            if any(fnmatch.fnmatchcase(entry.name, pattern) for pattern in globs):
                chosen.append(replace(entry, start=start))
                start = chosen[-1].stop
        other.entries, other.n = tuple(chosen), start
        if not chosen:
            raise InputError("No parameters are selected: give a glob such as '*.weight'.")
        return other

    def flatten(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """theta ``(n,)`` from named tensors; the other names in ``tensors`` are passed over."""
        missing = [entry.name for entry in self.entries if entry.name not in tensors]
        if missing:
            raise CheckpointError(f"{len(missing)} parameters are missing: {first_of(missing)}.")
        wrong = [e for e in self.entries if tuple(tensors[e.name].shape) != e.own_shape]
        if wrong:
            listed = "; ".join(f"{e.name} is {tuple(tensors[e.name].shape)}, not {e.own_shape}" for e in wrong[:5])
            raise CheckpointError(f"{len(wrong)} parameters have another shape: {listed}.")
        return torch.cat([real(tensors[entry.name].detach()).reshape(-1) for entry in self.entries])

    def unflatten(self, theta: Tensor) -> dict[str, Tensor]:
        """Named views into ``theta`` ``(n,)``, copies where they are complex: gradients flow back into ``theta``."""
        # One split, not a slice for each: its backward joins the pieces instead of adding n numbers for every one.
        pieces = theta.split([entry.size for entry in self.entries])
        return {entry.name: entry.tensor(piece) for entry, piece in zip(self.entries, pieces, strict=True)}

    def check(self, vector: Tensor, what: str = "point") -> Tensor:
        """``vector`` itself, or a ``DirectionError`` unless it is a finite floating tensor of shape ``(n,)``."""
        if not isinstance(vector, Tensor) or not vector.is_floating_point():
            raise DirectionError(
                f"The {what} must be a floating-point tensor of {self.n} numbers, got {_kind(vector)}."
            )
        if tuple(vector.shape) != (self.n,):
            raise DirectionError(
                f"The {what} has shape {tuple(vector.shape)}, but this objective has {self.n} parameters: "
                f"give a tensor of shape ({self.n},), from this model and this selection of parameters."
            )
        if not bool(torch.isfinite(vector).all()):
            bad = [e.name for e in self.entries if not bool(torch.isfinite(vector[e.start : e.stop]).all())]
            raise DirectionError(
                f"The {what} holds NaN or infinite numbers, in {first_of(bad)}: check the file or the training it "
                "comes from."
            )
        return vector

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)


def real(tensor: Tensor) -> Tensor:
    """The tensor, or the real and imaginary parts of a complex one side by side along its last axis."""
    return torch.view_as_real(tensor.resolve_conj()).flatten(-2) if tensor.is_complex() else tensor


def _selected(module: nn.Module, select: str | Sequence[str] | None) -> Iterator[tuple[str, nn.Parameter]]:
    globs = ["*"] if select is None else [select] if isinstance(select, str) else list(select)
    named = list(module.named_parameters())
    if not globs:
        raise InputError("No parameters are selected: give a glob such as '*.weight', or None for all of them.")
    for pattern in globs:
        matched = [(name, p) for name, p in named if fnmatch.fnmatchcase(name, pattern)]
        if not any(p.requires_grad for _, p in matched):
            state = "are all frozen (requires_grad=False)" if matched else "do not exist"
            raise InputError(
                f"Trainable parameters that match {pattern!r} {state}; this model's parameters are "
                f"{first_of([name for name, _ in named])}."
            )
    for name, parameter in named:
        if parameter.requires_grad and any(fnmatch.fnmatchcase(name, pattern) for pattern in globs):
            if isinstance(parameter, nn.parameter.UninitializedParameter):
                raise InputError(f"The parameter {name} has no shape yet: run one batch through the lazy model first.")
            if parameter.layout != torch.strided:
                raise InputError(
                    f"The parameter {name} is {_kind(parameter)} in the layout {parameter.layout}: only dense "
                    "parameters are supported; give it as parameter.to_dense()."
                )
            yield name, parameter


def first_of(names: Sequence[str], k: int = 5) -> str:
    """The first ``k`` of the names, and how many more there are, for a message."""
    shown = ", ".join(names[:k]) or "none"
    return shown + (f" and {len(names) - k} more" if len(names) > k else "")


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"
