"""The squares of single examples' gradients, layer by layer: what diagonals of curvature matrices are made of.

They need only what a layer is given and what flows back into it (Goodfellow 2015, "Efficient Per-Example Gradient
Computations"; Dangel et al. 2020, "BackPACK").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lossatlas.errors import LossAtlasError
from lossatlas.model.data.batches import tensors_in

_EXAMPLES = 2**24  # numbers in a stack of examples' gradients

Named = Callable[[Any], str]
Squares = Callable[[Tensor, Tensor], dict[str, Tensor]]


class NoDiagonal(LossAtlasError):
    """Why the diagonal is not had by backward passes: a full sentence."""


@dataclass(frozen=True)
class Layer:
    """One use of parameters: what it was given and gave, and the squares of the gradients that flow back to them.

    ``squares(delta, signs)``: name -> sum_i signs_i (gradient of example i)^2.
    """

    names: tuple[str, ...]
    given: Tensor
    version: int
    result: Tensor
    squares: Squares


class LayerRecorder(TorchFunctionMode):
    """Notes each function that is given one of the parameters. Raises ``NoDiagonal`` where there is no rule for it."""

    def __init__(self, parameters: dict[str, Tensor]) -> None:
        super().__init__()
        self.names = list(parameters)
        self._parameters = parameters
        self._of = {id(tensor): name for name, tensor in parameters.items()}
        self._layers: list[Layer] = []

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        used = tuple(self._of[id(tensor)] for tensor in tensors_in([args, kwargs]) if id(tensor) in self._of)
        result = function(*args, **kwargs)
        name = getattr(function, "__name__", str(function))
        if not used or not any(tensor.requires_grad for tensor in tensors_in([result])):
            return result
        if name not in _RULES or not isinstance(result, Tensor):
            raise NoDiagonal(f"Parameters are used by {name}, for which there is no rule of backward passes.")
        try:
            given, squares = _RULES[name](lambda tensor: self._of.get(id(tensor), ""), *args, **kwargs)
        except TypeError as error:
            raise NoDiagonal(f"Parameters are used by {name}, called in a form for which there is no rule.") from error
        self._layers.append(Layer(used, given, given._version, result, squares))
        return result.clone()  # what comes next may write into it

    def finished(self, outputs: Tensor) -> list[Layer]:
        """The layers, after the checks on the whole."""
        used = [name for layer in self._layers for name in layer.names]
        if len(set(used)) < len(used):
            raise NoDiagonal("A parameter is used more than once, for which there is no rule: its gradient is a sum.")
        others = [tensor for name, tensor in self._parameters.items() if name not in used]
        reached = torch.autograd.grad(outputs.sum(), others, retain_graph=True, allow_unused=True) if others else ()
        if any(gradient is not None for gradient in reached):
            raise NoDiagonal("Parameters reach the outputs by code that PyTorch does not show, such as TorchScript.")
        if any(layer.given._version != layer.version for layer in self._layers):
            raise NoDiagonal("The model overwrites what a layer was given, which its rule needs.")
        for layer in self._layers:
            if not len(layer.given) == len(layer.result) == len(outputs):
                raise NoDiagonal("A layer mixes the axis of the examples with others, so examples are not told apart.")
        return self._layers


def _linear(name: Named, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Squares]:
    def squares(delta: Tensor, signs: Tensor) -> dict[str, Tensor]:
        if x.ndim == 2:
            signed = delta**2 * signs[:, None]
            return _known({name(weight): signed.T @ x**2, name(bias): signed.sum(0)})
        rows, columns = delta.flatten(1, -2), x.flatten(1, -2)
        return _known(
            {
                name(weight): _outer_squares(rows.transpose(1, 2), columns, signs),
                name(bias): _sum_of_squares(rows.sum(1), signs),
            }
        )

    return x, squares


def _conv2d(
    name: Named,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> tuple[Tensor, Squares]:
    if isinstance(padding, str) and padding != "valid":
        raise NoDiagonal(f"There is no rule for a convolution with padding={padding!r}.")
    pads = 0 if isinstance(padding, str) else padding

    unfolded: list[Tensor] = []  # once for all outputs

    def squares(delta: Tensor, signs: Tensor) -> dict[str, Tensor]:
        if not unfolded:
            unfolded.append(F.unfold(x, weight.shape[2:], dilation=dilation, padding=pads, stride=stride))
        patches = unfolded[0]
        b, rows = len(x), delta.flatten(2)
        # One matrix product for each example and group, of what flows back with what was seen.
        per_group = _outer_squares(
            rows.reshape(b * groups, -1, rows.shape[2]),
            patches.reshape(b * groups, -1, patches.shape[2]).transpose(1, 2),
            signs.repeat_interleave(groups),
            groups,
        )
        return _known({name(weight): per_group.reshape(weight.shape), name(bias): _sum_of_squares(rows.sum(2), signs)})

    return x, squares


def _batch_norm(
    name: Named,
    x: Tensor,
    mean: Tensor | None,
    variance: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Tensor, Squares]:
    if training or mean is None or variance is None:
        raise NoDiagonal("BatchNorm takes its statistics from the batch, so outputs depend on other examples.")
    shape = [1, -1] + [1] * (x.ndim - 2)

    def squares(delta: Tensor, signs: Tensor) -> dict[str, Tensor]:
        normal = (x - mean.view(shape)) / (variance.view(shape) + eps).sqrt()
        scales = (delta * normal).flatten(2).sum(2) if x.ndim > 2 else delta * normal
        shifts = delta.flatten(2).sum(2) if x.ndim > 2 else delta
        return _known({name(weight): _sum_of_squares(scales, signs), name(bias): _sum_of_squares(shifts, signs)})

    return x, squares


def _layer_norm(
    name: Named, x: Tensor, shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> tuple[Tensor, Squares]:
    size = len(tuple(shape))

    def squares(delta: Tensor, signs: Tensor) -> dict[str, Tensor]:
        normal = F.layer_norm(x, shape, None, None, eps)
        between = list(range(1, x.ndim - size))
        scales, shifts = delta * normal, delta
        if between:
            scales, shifts = scales.sum(between), shifts.sum(between)
        return _known({name(weight): _sum_of_squares(scales, signs), name(bias): _sum_of_squares(shifts, signs)})

    return x, squares


def _add(name: Named, first: Any, second: Any, **kwargs: Any) -> tuple[Tensor, Squares]:
    parameter, other = (first, second) if name(first) else (second, first)
    if kwargs or not isinstance(other, Tensor) or name(other) or parameter.ndim > other.ndim:
        raise NoDiagonal("Parameters are added in a form for which there is no rule.")
    if parameter.ndim == other.ndim and len(parameter) != 1:
        raise NoDiagonal("A parameter has an axis for the examples, for which there is no rule.")

    def squares(delta: Tensor, signs: Tensor) -> dict[str, Tensor]:
        shape = (1,) * (delta.ndim - parameter.ndim) + tuple(parameter.shape)
        axes = [axis for axis in range(1, delta.ndim) if shape[axis] == 1 and delta.shape[axis] > 1]
        each = delta.sum(axes, keepdim=True) if axes else delta
        return {name(parameter): _sum_of_squares(each, signs).reshape(parameter.shape)}

    return other, squares


_RULES: dict[str, Callable[..., tuple[Tensor, Squares]]] = {
    "linear": _linear,
    "conv2d": _conv2d,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "add": _add,
    "__add__": _add,
    "__radd__": _add,
}


def _sum_of_squares(each: Tensor, signs: Tensor) -> Tensor:
    """sum_i signs_i each_i^2 over the first axis."""
    total: Tensor = torch.tensordot(signs, each**2, dims=1)
    return total


def _outer_squares(rows: Tensor, columns: Tensor, signs: Tensor, groups: int = 1) -> Tensor:
    """sum_i signs_i (rows_i @ columns_i)^2 for each group, some examples at a time."""
    step = max(1, _EXAMPLES // (rows.shape[1] * columns.shape[2] * groups)) * groups
    total = torch.zeros(groups, rows.shape[1], columns.shape[2], dtype=rows.dtype, device=rows.device)
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        each = (rows[part] @ columns[part]) ** 2 * signs[part, None, None]
        total += each.view(-1, groups, *each.shape[1:]).sum(0)
    return total[0] if groups == 1 else total


def _known(squares: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without what is no parameter: a fixed weight, a bias that is absent."""
    return {name: tensor for name, tensor in squares.items() if name}
