"""The criteria of PyTorch's that a loss calls, what they divide by, and the shapes that it compares."""

from __future__ import annotations

import inspect
import itertools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lossatlas.errors import InputError, ReductionWarning

CLASSES = (F.cross_entropy, F.nll_loss)
BINARY = (F.binary_cross_entropy_with_logits, F.binary_cross_entropy)
NUMBERS = (F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss)
_SIGNATURES = {f: inspect.signature(f) for f in (*CLASSES, *BINARY, *NUMBERS, F.poisson_nll_loss)}
_COMPARE = (torch.dist, F.gaussian_nll_loss, F.poisson_nll_loss, F.soft_margin_loss, F.kl_div, *NUMBERS, *BINARY)
_KEEP_SUMS = {"add", "radd", "iadd", "sub", "rsub", "isub", "mul", "rmul", "imul", "neg", "to", "double", "float"}
_REDUCTIONS = dict.fromkeys((torch.sum, Tensor.sum, torch.nansum, Tensor.nansum), "sum") | dict.fromkeys(
    (torch.mean, Tensor.mean, torch.nanmean, Tensor.nanmean), "mean"
)


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

    @property
    def uneven(self) -> bool:
        """Whether it is a mean in which some targets, which are classes, weigh more than others."""
        return self.by_class and self.reduction == "mean" and len(self.weights().unique()) > 1

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
        self.reductions: set[str] = set()
        self._sums: list[Tensor] = []
        self._unreduced = unreduced

    def __enter__(self) -> Watch:
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.reductions.add(_REDUCTIONS.get(func) or str(kwargs.get("reduction")))
        if func not in _SIGNATURES:
            return self._looked_at(func, [*args, *kwargs.values()], func(*args, **kwargs), kwargs.get("reduction"))
        bound = _SIGNATURES[func].bind(*args, **kwargs)
        bound.apply_defaults()
        call = Criterion(func, bound.arguments)
        self.reductions.add(call.reduction)
        if self._unreduced:
            self.terms.append(call.terms())
            self.calls.append(call)
            return self.terms[-1].sum()
        result = self._looked_at(func, [*args, *kwargs.values()], func(*args, **kwargs), call.reduction)
        self.calls.append(Criterion(func, bound.arguments, result))
        return result

    def _looked_at(self, func: Any, given: list[Any], result: Any, reduction: str | None) -> Any:
        if self._unreduced or not isinstance(result, Tensor):
            return result
        if self.broadcast is None and (func in _COMPARE or result.ndim > 1):
            self.broadcast = _outer([t for t in given if isinstance(t, Tensor)], result, always=func in _COMPARE)
        kept = getattr(func, "__name__", "").strip("_") in _KEEP_SUMS and any(map(self.is_sum, given))
        if not result.ndim and (kept or "sum" in (_REDUCTIONS.get(func), reduction)):
            self._sums.append(result)
        return result

    def is_sum(self, value: Any) -> bool:
        """Whether ``value`` is the result of a sum over all of a tensor, up to a factor that is multiplied."""
        return any(value is one for one in self._sums)

    @property
    def only_sums(self) -> bool:
        """Whether sums were seen, and no mean."""
        return "sum" in self.reductions and not self.reductions & {"mean", "batchmean"}

    @property
    def uneven(self) -> bool:
        """Whether a criterion that was called is ``uneven``."""
        return any(call.uneven for call in self.calls)

    def criterion(self, value: Any) -> Criterion | None:
        """The one call whose result ``value`` is."""
        if len(self.calls) == 1 and self.calls[0].result is value:
            return self.calls[0]
        return None

    def mean(self, value: Any) -> Criterion | None:
        """The same, where it takes the mean."""
        call = self.criterion(value)
        return call if call is not None and call.reduction == "mean" else None

    def shared(self) -> Criterion | None:
        """The first of the criteria that average over classes, where all of these divide by the same."""
        found = [call for call in self.calls if call.by_class and call.reduction == "mean"]
        same = len({float(call.weights().sum()) for call in found}) == 1
        return found[0] if same else None


def _outer(given: list[Tensor], result: Tensor, *, always: bool) -> tuple[Tensor, Tensor] | None:
    """Two of the tensors that are ``(..., N, 1)`` and ``(..., N)`` with N > 1, and no views of one another.

    An operation that is not ``always`` one on equal shapes broadcasts where its result has the shape that says so.
    """
    for one, other in itertools.combinations(given[:3], 2):
        long, short = sorted((one, other), key=lambda t: -t.ndim)
        if short.ndim < 1 or tuple(long.shape) != (*short.shape, 1) or short.shape[-1] < 2 or _is_view(long, short):
            continue
        if always or tuple(result.shape) == _broadcast(long, short):
            return one, other
    return None


def _is_view(one: Tensor, other: Tensor) -> bool:
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


def _broadcast(one: Tensor, other: Tensor) -> tuple[int, ...] | None:
    try:
        return tuple(torch.broadcast_shapes(one.shape, other.shape))
    except RuntimeError:
        return None


def warn_of_broadcast(watch: Watch) -> None:
    """``ReductionWarning`` where every example is compared with every other one by broadcasting."""
    if watch.broadcast is not None:
        one, other = (tuple(t.shape) for t in watch.broadcast)
        both = tuple(torch.broadcast_shapes(one, other))
        warnings.warn(
            f"The loss compares tensors of shapes {one} and {other}, which broadcast to {both}: every "
            "example is compared with every other one. Give both one shape, e.g. outputs.squeeze(1).",
            ReductionWarning,
            stacklevel=2,
        )


def floating(loss: object) -> Tensor:
    """What a loss returned, if it is a floating-point tensor."""
    if isinstance(loss, Tensor) and loss.is_floating_point():
        return loss
    raise InputError(
        f"The loss is a {type(loss).__name__}, not a floating-point tensor: "
        "return a tensor (for an output object, its .loss)."
    )
