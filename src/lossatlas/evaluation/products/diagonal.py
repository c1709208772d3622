"""The exact diagonal of a Gauss-Newton matrix, from one backward pass for each output, without its products.

For outputs f in R^C, diag G = sum_i sum_c a_ic (J_i' u_ic)^2 / N, with H_i = sum_c a_ic u_ic u_ic' the Hessian of the
loss of example i in its outputs. The squares of each example's gradient need only what a layer is given and what flows
back into it (Goodfellow 2015; Dangel et al. 2020).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from lossatlas.errors import LossAtlasError, NumericalError
from lossatlas.evaluation.points.tracing import POINT_PREFIX, Untraceable, trace
from lossatlas.evaluation.products.linearised import GaussNewton, Hessian
from lossatlas.evaluation.products.piecewise import curved_by
from lossatlas.model.batches import Batches, copied, leading_size, preserved_rng, refill, tensors_in
from lossatlas.model.functional import FunctionalModel

ENTRIES = 4  # of the largest ones that are verified
OUTPUTS = 128  # of an example, at most: with more, so many passes are no cheap way
_EXAMPLES = 2**24  # numbers in a stack of examples' gradients


class NoDiagonal(LossAtlasError):
    """Why it cannot be had in this way."""


@dataclass(frozen=True)
class _Layer:
    """One use of parameters: what it was given and gave, and the squares of the gradients that flow back to them.

    ``squares(delta, signs)``: name -> sum_i signs_i (gradient of example i)^2.
    """

    names: tuple[str, ...]
    given: Tensor
    version: int
    result: Tensor
    squares: Callable[[Tensor, Tensor], dict[str, Tensor]]


def exact_diagonal(function: FunctionalModel, batches: Batches, theta: Tensor, *, of_hessian: bool) -> Tensor:
    """``(n,)`` float64: diag G, or diag H where the outputs are piecewise linear in each single weight.

    Raises ``NoDiagonal`` with the reason where it cannot be had in this way: a curved network, a layer for which there
    is no rule, or a result that differs, on entries of the first batch drawn at random, from products with e_i.
    """
    total = torch.zeros(function.space.n, dtype=torch.float64, device=theta.device)
    with preserved_rng(theta.device), sdpa_kernel(SDPBackend.MATH):
        for index, (weight, batch) in enumerate(zip(batches.weights, batches, strict=True)):
            if index == 0 and of_hessian:
                _require_piecewise_linear(function, theta, batch)
            if index == 0:
                _require_independent(function, theta, batch)
            try:
                diagonal = batch_diagonal(function, theta, copied(batch), index)
                if index == 0:
                    _verify(function, theta, batch, diagonal, of_hessian)
            except RuntimeError as error:  # what PyTorch itself cannot do with this model
                raise NoDiagonal(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}") from error
            total += weight * diagonal
    if not bool(torch.isfinite(total).all()):
        raise NumericalError("The diagonal holds NaN or infinite numbers: the loss cannot be differentiated there.")
    return total / batches.total


def _require_independent(function: FunctionalModel, theta: Tensor, batch: Any) -> None:
    """The outputs of half of the examples are the same without the other half."""
    tensors, half = list(tensors_in(batch)), (leading_size(batch) + 1) // 2
    if any(tensor.ndim == 0 or len(tensor) != leading_size(batch) for tensor in tensors):
        raise NoDiagonal("the batch holds tensors without an axis of the examples")
    part = refill(batch, iter([tensor[:half].clone() for tensor in tensors]))
    with torch.no_grad():
        alone = function.outputs(function.tensors(theta), part, 0)
        among = function.outputs(function.tensors(theta), copied(batch), 0)[:half]
    same = alone.shape == among.shape and bool(torch.isclose(alone, among, rtol=1e-3, atol=1e-5, equal_nan=True).all())
    if not same:
        raise NoDiagonal("the outputs of an example depend on the others of its batch")


def _require_piecewise_linear(function: FunctionalModel, theta: Tensor, batch: Any) -> None:
    tensors = function.tensors(theta.detach().requires_grad_())
    batch = copied(batch)
    moving = {f"{POINT_PREFIX}{i}": tensors[f"model.{e.name}"] for i, e in enumerate(function.space)}
    fixed = {f"batch_{i}": tensor for i, tensor in enumerate(tensors_in(batch))}
    try:
        with torch.enable_grad():
            traced = trace(lambda: {"outputs": function.outputs(tensors, batch, 0)}, moving | fixed)
    except Untraceable as reason:
        raise NoDiagonal(f"whether the network is piecewise linear in each weight is not known: {reason}") from reason
    if traced.hidden:
        raise NoDiagonal("parts of the network are hidden from a trace")
    if name := curved_by(traced):
        raise NoDiagonal(f"the network is not piecewise linear in each weight ({name})")


def _verify(function: FunctionalModel, theta: Tensor, batch: Any, diagonal: Tensor, of_hessian: bool) -> None:
    """Against products with unit vectors, on the first batch: an entry of each tensor, and some of the largest."""
    form = (Hessian if of_hessian else GaussNewton)(function)
    with torch.enable_grad():
        product = form.kept(theta, copied(batch), 0)
    generator = torch.Generator().manual_seed(0)
    order = diagonal.argsort(descending=True).cpu()
    some = torch.stack([torch.randint(e.start, e.stop, (), generator=generator) for e in function.space if e.size])
    large = order[torch.randint(min(len(order), 1000), (ENTRIES,), generator=generator)]
    share, noise = (1e-3, 1e-5) if theta.dtype == torch.float32 else (1e-8, 1e-11)
    for entry in torch.cat([some, large]).tolist():
        column = product(torch.zeros_like(theta).index_fill_(0, torch.tensor(entry, device=theta.device), 1)).double()
        allowed = share * float(diagonal[entry].abs()) + noise * float(torch.linalg.vector_norm(column))
        if not abs(float(column[entry] - diagonal[entry])) <= allowed:
            raise NoDiagonal(
                f"entry {entry} is {float(diagonal[entry]):.6g} in this way and {float(column[entry]):.6g} by a product"
            )


def batch_diagonal(function: FunctionalModel, theta: Tensor, batch: Any, index: int) -> Tensor:
    """``(n,)`` float64: the diagonal of the batch's Gauss-Newton matrix. Raises ``NoDiagonal``."""
    theta = theta.detach().requires_grad_()
    with torch.enable_grad():
        tensors = function.tensors(theta)
        recorder = _Recorder({f"model.{e.name}": tensors[f"model.{e.name}"] for e in function.space})
        with recorder:
            outputs = function.outputs(tensors, batch, index)
        layers = recorder.finished(outputs)
        if not bool(torch.isfinite(outputs).all()):
            raise NumericalError("The outputs hold NaN or infinite numbers: the loss cannot be differentiated there.")
        scales, axes = _loss_axes(function, outputs, batch)
        totals = {
            name: torch.zeros_like(tensors[name], dtype=torch.float64, requires_grad=False) for name in recorder.names
        }
        for c in range(scales.shape[1]):
            signs = scales[:, c].sign()
            if not bool(signs.any()):
                continue
            cotangent = axes[:, :, c] * scales[:, c : c + 1].abs().sqrt()
            deltas = torch.autograd.grad(
                outputs, [layer.result for layer in layers], cotangent, retain_graph=True, materialize_grads=True
            )
            with torch.no_grad():
                for layer, delta in zip(layers, deltas, strict=True):
                    found = layer.squares(delta, signs)
                    if found.keys() != set(layer.names):
                        raise NoDiagonal("a parameter is given to a function in another place than its weight's")
                    for name, squares in found.items():
                        totals[name] += squares.view_as(totals[name])
    return torch.cat([totals[f"model.{e.name}"].flatten() for e in function.space]) / len(outputs)


def _loss_axes(function: FunctionalModel, outputs: Tensor, batch: Any) -> tuple[Tensor, Tensor]:
    """Eigenvalues ``(B, C)`` and eigenvectors ``(B, C, C)`` of each example's Hessian of the loss in its outputs."""
    if outputs.ndim == 1:
        raise NoDiagonal("the outputs have one axis; (examples, outputs) are needed")
    if outputs.ndim != 2 or outputs.shape[1] > OUTPUTS:
        raise NoDiagonal(f"the outputs have the shape {tuple(outputs.shape)}: more than {OUTPUTS} numbers an example")
    at = outputs.detach().requires_grad_()
    losses = function.losses(at.clone(), batch[1])
    if losses.ndim != 1 or len(losses) != len(at):
        raise NoDiagonal("the loss has no value for a single example")
    slopes = torch.autograd.grad(losses.sum(), at, create_graph=True)[0]
    if not slopes.requires_grad:
        return torch.zeros_like(outputs), torch.zeros(*outputs.shape, outputs.shape[1]).to(outputs)
    columns = [
        torch.autograd.grad(slopes[:, c].sum(), at, retain_graph=True, materialize_grads=True)[0]
        for c in range(outputs.shape[1])
    ]
    curved = torch.stack(columns, dim=2).double()
    if not bool(torch.isfinite(curved).all()):
        raise NumericalError(
            "The loss's second derivatives hold NaN or infinite numbers: the loss is not smooth there."
        )
    scales, axes = torch.linalg.eigh(curved)
    scales[scales.abs() <= 1e-14 * scales.abs().amax()] = 0
    return scales.to(outputs), axes.to(outputs)


class _Recorder(TorchFunctionMode):
    """Notes each function that is given one of the parameters."""

    def __init__(self, parameters: dict[str, Tensor]) -> None:
        super().__init__()
        self.names = list(parameters)
        self._parameters = parameters
        self._of = {id(tensor): name for name, tensor in parameters.items()}
        self._layers: list[_Layer] = []

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
            raise NoDiagonal(f"parameters are used by {name}, for which there is no rule")
        try:
            given, squares = _RULES[name](lambda tensor: self._of.get(id(tensor), ""), *args, **kwargs)
        except TypeError as error:
            raise NoDiagonal(f"{name} is called in a form for which there is no rule") from error
        self._layers.append(_Layer(used, given, given._version, result, squares))
        return result.clone()  # what comes next may write into it

    def finished(self, outputs: Tensor) -> list[_Layer]:
        """The layers, after the checks on the whole."""
        used = [name for layer in self._layers for name in layer.names]
        if len(set(used)) < len(used):
            raise NoDiagonal("a parameter is used more than once")
        others = [tensor for name, tensor in self._parameters.items() if name not in used]
        reached = torch.autograd.grad(outputs.sum(), others, retain_graph=True, allow_unused=True) if others else ()
        if any(gradient is not None for gradient in reached):
            raise NoDiagonal("parameters reach the outputs in a way that no function shows")
        if any(layer.given._version != layer.version for layer in self._layers):
            raise NoDiagonal("what a layer was given is written to later")
        for layer in self._layers:
            if not len(layer.given) == len(layer.result) == len(outputs):
                raise NoDiagonal("a layer mixes the axis of the examples with others")
        return self._layers


Named = Callable[[Any], str]
Squares = Callable[[Tensor, Tensor], dict[str, Tensor]]


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
        raise NoDiagonal(f"there is no rule for a convolution with padding={padding!r}")
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
        raise NoDiagonal("BatchNorm takes its statistics from the batch, and joins its examples")
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
        raise NoDiagonal("there is no rule for this sum of parameters")
    if parameter.ndim == other.ndim and len(parameter) != 1:
        raise NoDiagonal("a parameter has the axis of the examples")

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
