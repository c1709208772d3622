"""The exact diagonal of a Gauss-Newton matrix, from one backward pass for each output, without its products.

For outputs f in R^C, diag G = sum_i sum_c a_ic (J_i' u_ic)^2 / N, with H_i = sum_c a_ic u_ic u_ic' the Hessian of the
loss of example i in its outputs. Where the outputs are piecewise linear in each single weight, it is diag H too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from lossatlas.errors import InputError, NumericalError
from lossatlas.evaluation.points.tracing import POINT_PREFIX, Untraceable, trace
from lossatlas.evaluation.products.layer_squares import Layer, LayerRecorder, NoDiagonal
from lossatlas.evaluation.products.linearised import Hessian
from lossatlas.evaluation.products.piecewise import curved_by
from lossatlas.evaluation.products.precision import InPrecision, cast, in_float64
from lossatlas.model.arithmetic import full_precision
from lossatlas.model.data.batches import Batches, copied, leading_size, preserved_rng, tensors_in
from lossatlas.model.data.containers import mapped
from lossatlas.model.data.cuts import every_second, has_rows
from lossatlas.model.functional import FunctionalModel

ENTRIES = 4  # of the largest ones that are verified
OUTPUTS = 128  # of an example, at most: with more, so many passes are no longer cheap
Axes = Callable[[Tensor], tuple[Tensor, Tensor]]
# |difference to a product| <= share |entry| + noise |column|, in the type of the verification.
TOLERANCE = {torch.float64: (1e-8, 1e-11)}
COARSE = 1e-3, 1e-5
EXAMPLES = 16  # that it is verified on
SINGLE = 1e-3  # |diagonal in the model's type - diagonal in float64| / |diagonal|, on these


@dataclass(frozen=True)
class ExactDiagonal:
    """``values`` ``(n,)`` float64, the diagonal; or None, and ``reason`` is a sentence that says why."""

    values: Tensor | None
    reason: str = ""


def exact_diagonal(function: FunctionalModel, batches: Batches, theta: Tensor, *, of_hessian: bool) -> ExactDiagonal:
    """diag G, or diag H where the outputs are piecewise linear in each single weight.

    There is a reason instead for a curved network, a layer without a rule, outputs or losses of an example that depend
    on others, and backward passes that differ from products with unit vectors, on entries drawn at random. These are
    compared on a few examples in float64, where model and loss work in it, so that rounding does not decide.
    """
    try:
        with preserved_rng(theta.device), sdpa_kernel(SDPBackend.MATH):
            return ExactDiagonal(_over_batches(function, batches, theta, of_hessian))
    except (NoDiagonal, InputError) as error:
        return ExactDiagonal(None, str(error))


def _over_batches(function: FunctionalModel, batches: Batches, theta: Tensor, of_hessian: bool) -> Tensor:
    total = torch.zeros(function.space.n, dtype=torch.float64, device=theta.device)
    precise = None
    for index, (weight, batch) in enumerate(zip(batches.weights, batches, strict=True)):
        if precise is None:
            if of_hessian:
                _require_piecewise_linear(function, theta, batch)
            _require_independent(function, theta, batch)
        try:
            if precise is None:
                few = mapped(batch, lambda tensor: tensor[:EXAMPLES].clone())
                precise = in_float64(function, theta, few)
                _verify(precise, function, theta, of_hessian)
            diagonal = batch_diagonal(function, theta, copied(batch), index, precise.dtype)
        except RuntimeError as error:  # what PyTorch itself cannot do with this model
            text = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise NoDiagonal(f"PyTorch fails in the backward passes ({text}).") from error
        total += weight * diagonal
    if not bool(torch.isfinite(total).all()):
        raise NumericalError("The diagonal holds NaN or infinite numbers: the loss cannot be differentiated there.")
    return total / batches.total


def _require_independent(function: FunctionalModel, theta: Tensor, batch: Any) -> None:
    """The outputs of every second example are the same without the others."""
    if not has_rows(batch, leading_size(batch)):
        raise NoDiagonal("The batch holds tensors without an axis of the examples, so examples are not told apart.")
    part = mapped(batch, lambda tensor: every_second(tensor).clone())
    with torch.no_grad():
        alone = function.outputs(function.tensors(theta), part, 0)
        among = every_second(function.outputs(function.tensors(theta), copied(batch), 0))
    same = alone.shape == among.shape and bool(torch.isclose(alone, among, rtol=1e-3, atol=1e-5, equal_nan=True).all())
    if not same:
        raise NoDiagonal("The outputs of an example depend on the others of its batch.")


def _require_piecewise_linear(function: FunctionalModel, theta: Tensor, batch: Any) -> None:
    tensors = function.tensors(theta.detach().requires_grad_())
    batch = copied(batch)
    moving = {f"{POINT_PREFIX}{i}": tensors[f"model.{e.name}"] for i, e in enumerate(function.space)}
    fixed = {f"batch_{i}": tensor for i, tensor in enumerate(tensors_in(batch))}
    unknown = "so it is not known whether it is piecewise linear in each weight"
    try:
        with torch.enable_grad():
            traced = trace(lambda: {"outputs": function.outputs(tensors, batch, 0)}, moving | fixed)
    except Untraceable as reason:
        raise NoDiagonal(f"The model cannot be traced, {unknown}: {reason}.") from reason
    if traced.hidden:
        raise NoDiagonal(f"Parts of the model are hidden from a trace, {unknown}.")
    if name := curved_by(traced):
        raise NoDiagonal(
            f"The network has {name}, so it is not piecewise linear in each weight, and the diagonal of its Hessian is "
            "not that of the Gauss-Newton matrix."
        )


def _verify(precise: InPrecision, function: FunctionalModel, theta: Tensor, of_hessian: bool) -> None:
    """The rules of the layers, and the diagonal of ``function`` at ``theta``, where these have another precision."""
    batch = precise.batch
    squares = batch_squares(precise.function, precise.theta, copied(batch), 0, _unit_axes)
    _verify_rules(precise, squares, of_hessian)
    if precise.cast:
        reference = batch_diagonal(precise.function, precise.theta, copied(batch), 0, precise.dtype)
        found = batch_diagonal(function, theta, cast(batch, theta.dtype), 0, precise.dtype)
        off = float(torch.linalg.vector_norm(found - reference) / torch.linalg.vector_norm(reference).clamp(1e-300))
        if not off <= SINGLE:
            raise NoDiagonal(f"In the model's own precision the diagonal is {off:.1e} off by rounding.")


def _verify_rules(precise: InPrecision, squares: Tensor, of_hessian: bool) -> None:
    """Entries of ``squares``, diag J'J / N, against products with unit vectors.

    J'J is the Hessian of sum_i |f_i - y_i|^2 / 2 where f'' = 0, whatever y is, and anyway where y = f. Unlike the
    loss's own curvature it is not lost to rounding where the loss is almost 0.
    """
    with torch.enable_grad():
        product = _HalfSquares(precise.function, of_hessian).kept(precise.theta, copied(precise.batch), 0)
    share, noise = TOLERANCE.get(precise.dtype, COARSE)
    for entry in _entries(precise.function, squares):
        column = product(torch.zeros_like(precise.theta).index_fill_(0, torch.tensor(entry).to(squares.device), 1))
        found, expected = float(squares[entry]), float(column[entry])
        norm = float(torch.linalg.vector_norm(column.double()))
        if not abs(found - expected) <= share * abs(found) + noise * norm:
            raise NoDiagonal(
                f"Backward passes do not fit the model: entry {entry} of diag J'J is {found:.6g} by them and "
                f"{expected:.6g} by a product{precise.note}."
            )


class _HalfSquares(Hessian):
    """|f - y|^2 / 2 of each example, with y = f, or at random about f."""

    def __init__(self, function: FunctionalModel, at_random: bool) -> None:
        super().__init__(function)
        self._at_random = at_random

    def losses(self, theta: Tensor, batch: Any, index: int) -> Tensor:
        outputs = self.function.outputs(self.function.tensors(theta), batch, index)
        targets = outputs.detach().clone()
        if self._at_random:
            generator = torch.Generator().manual_seed(0)
            scale = targets.square().mean().sqrt().clamp(min=1)
            targets += scale * torch.randn(targets.shape, generator=generator, dtype=torch.float64).to(targets)
        return (outputs - targets).square().sum(1) / 2


def _entries(function: FunctionalModel, diagonal: Tensor) -> list[int]:
    """One of each tensor, and some of the largest, drawn at random."""
    generator = torch.Generator().manual_seed(0)
    order = diagonal.argsort(descending=True).cpu()
    some = torch.stack([torch.randint(e.start, e.stop, (), generator=generator) for e in function.space if e.size])
    large = order[torch.randint(min(len(order), 1000), (ENTRIES,), generator=generator)]
    entries: list[int] = torch.cat([some, large]).tolist()
    return entries


def batch_diagonal(function: FunctionalModel, theta: Tensor, batch: Any, index: int, dtype: torch.dtype) -> Tensor:
    """``(n,)`` float64: the diagonal of the batch's Gauss-Newton matrix. Raises ``NoDiagonal``.

    ``dtype`` is that of the loss's derivatives in the outputs: p (1 - p) is lost to rounding in float32 where the loss
    is almost 0.
    """
    return batch_squares(function, theta, batch, index, lambda outputs: _loss_axes(function, outputs, batch, dtype))


def batch_squares(function: FunctionalModel, theta: Tensor, batch: Any, index: int, axes_of: Axes) -> Tensor:
    """``(n,)`` float64: sum_i sum_c a_ic (J_i' u_ic)^2 / N with a ``(B, C)`` and u ``(B, C, C)`` of ``axes_of(f)``."""
    with full_precision(theta.device):
        return _batch_squares(function, theta.detach().requires_grad_(), batch, index, axes_of)


def _batch_squares(function: FunctionalModel, theta: Tensor, batch: Any, index: int, axes_of: Axes) -> Tensor:
    if any(entry.is_complex for entry in function.space):
        raise NoDiagonal("Complex parameters have no rule of backward passes.")
    with torch.enable_grad():
        tensors = function.tensors(theta)
        recorder = LayerRecorder({f"model.{e.name}": tensors[f"model.{e.name}"] for e in function.space})
        with recorder:
            outputs = function.outputs(tensors, batch, index)
        layers = recorder.finished(outputs)
        _require_form(outputs)
        scales, axes = axes_of(outputs.detach())
    totals = {
        name: torch.zeros_like(tensors[name], dtype=torch.float64, requires_grad=False) for name in recorder.names
    }
    for c in range(scales.shape[1]):
        if bool(scales[:, c].any()):
            _add_squares(totals, layers, outputs, scales[:, c], axes[:, :, c])
    return torch.cat([totals[f"model.{e.name}"].flatten() for e in function.space]) / len(outputs)


def _require_form(outputs: Tensor) -> None:
    if not bool(torch.isfinite(outputs).all()):
        raise NumericalError("The outputs hold NaN or infinite numbers: the loss cannot be differentiated there.")
    if outputs.ndim == 1:
        raise NoDiagonal("The outputs have one axis, and backward passes need two: (examples, outputs).")
    if outputs.ndim != 2 or outputs.shape[1] > OUTPUTS:
        raise NoDiagonal(f"The outputs have the shape {tuple(outputs.shape)}: more than {OUTPUTS} numbers an example.")


def _add_squares(
    totals: dict[str, Tensor], layers: Sequence[Layer], outputs: Tensor, scale: Tensor, axis: Tensor
) -> None:
    """To ``totals``, in place, sum_i a_i (J_i' u_i)^2 with ``scale`` a ``(B,)`` and ``axis`` u ``(B, C)``."""
    cotangent = axis * scale[:, None].abs().sqrt()
    results = [layer.result for layer in layers]
    deltas = torch.autograd.grad(outputs, results, cotangent, retain_graph=True, materialize_grads=True)
    with torch.no_grad():
        for layer, delta in zip(layers, deltas, strict=True):
            found = layer.squares(delta, scale.sign())
            if found.keys() != set(layer.names):
                raise NoDiagonal("A parameter is given to a function in another place than its weight's.")
            for name, squares in found.items():
                totals[name] += squares.view_as(totals[name])


def _unit_axes(outputs: Tensor) -> tuple[Tensor, Tensor]:
    unit = torch.eye(outputs.shape[1]).to(outputs)
    return torch.ones_like(outputs), unit.expand(len(outputs), *unit.shape)


def _loss_axes(function: FunctionalModel, outputs: Tensor, batch: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Eigenvalues ``(B, C)`` and eigenvectors ``(B, C, C)`` of each example's Hessian of the loss in its outputs."""
    at = outputs.to(dtype, copy=True).requires_grad_()
    losses = function.losses(at.clone(), function.targets(cast(batch, dtype)))
    if losses.ndim != 1 or len(losses) != len(at):
        raise NoDiagonal("The loss has no value for a single example.")
    _require_separate(losses, at)
    slopes = torch.autograd.grad(losses.sum(), at, create_graph=True)[0]
    if not slopes.requires_grad:
        return torch.zeros_like(outputs), torch.zeros(*outputs.shape, outputs.shape[1]).to(outputs)
    columns = [
        torch.autograd.grad(slopes[:, c].sum(), at, retain_graph=True, materialize_grads=True)[0]
        for c in range(outputs.shape[1])
    ]
    return _eigen(torch.stack(columns, dim=2).double(), outputs)


def _require_separate(losses: Tensor, at: Tensor) -> None:
    """The losses of some of the examples do not depend on the outputs of the others."""
    order = torch.arange(len(at), device=at.device)
    for some in (order < len(at) / 2, order % 2 == 0):
        slopes = torch.autograd.grad(losses[some].sum(), at, retain_graph=True, materialize_grads=True)[0]
        if bool(slopes[~some].any()):
            raise NoDiagonal("The loss of an example depends on the outputs of others.")


def _eigen(curved: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    if not bool(torch.isfinite(curved).all()):
        raise NumericalError(
            "The loss's second derivatives hold NaN or infinite numbers: the loss is not smooth there."
        )
    scales, axes = torch.linalg.eigh(curved)
    scales[scales.abs() <= 1e-14 * scales.abs().amax()] = 0
    return scales.to(like), axes.to(like)
