"""Curvature matrices of one batch as linear maps v -> A_b v, each computed by two methods that must agree.

``direct`` uses forward-mode differentiation (``torch.func``) and is written to be traced; ``kept`` is made of graphs of
autograd, which need no forward mode and serve any number of vectors. Pearlmutter (1994) for the Hessian, Schraudolph
(2002) for the Gauss-Newton matrix.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.autograd.graph import get_gradient_edge
from torch.func import grad, jvp, vjp
from torch.nn.attention import SDPBackend, sdpa_kernel

from lossatlas.errors import InputError
from lossatlas.evaluation.products.softmax import softmax_slope
from lossatlas.model.arithmetic import full_precision
from lossatlas.model.data.batches import preserved_rng
from lossatlas.model.data.examples import examples_in
from lossatlas.model.failures import explain_derivative
from lossatlas.model.functional import FunctionalModel
from lossatlas.model.loss.metrics import weight_key

Map = Callable[..., Tensor]  # (vector), or (vector, keep): whether it serves once more, else its graphs are freed
_IN_PIECES = "the softmax of so many logits is taken in closed form, piece by piece"
_WRAPPER = once_differentiable(lambda *_: None).__code__.co_filename


class Linearised(ABC):
    """A_b at theta for the batches of one function; symmetric. ``untraced``: why it is not to be traced, in words."""

    untraced = ""

    def __init__(self, function: FunctionalModel) -> None:
        self.function = function

    @abstractmethod
    def direct(self, theta: Tensor, batch: Any, index: int, vector: Tensor) -> Tensor:
        """A_b v by forward over reverse differentiation."""

    @abstractmethod
    def kept(self, theta: Tensor, batch: Any, index: int, known: bool = False) -> Map:
        """v -> A_b v by graphs that are made once, here; ``known``: those of a batch of this form were looked at."""

    def losses(self, theta: Tensor, batch: Any, index: int) -> Tensor:
        return self.function.measure(self.function.tensors(theta), batch, index)["loss"]

    def plain(self, batch: Any) -> Any:
        """The batch as the function takes it."""
        return batch


class Hessian(Linearised):
    """H_b = grad grad' of the mean loss of the batch."""

    def direct(self, theta: Tensor, batch: Any, index: int, vector: Tensor) -> Tensor:
        def loss(at: Tensor) -> Tensor:
            return self.losses(at, batch, index).mean()

        product: Tensor = jvp(grad(loss), (theta,), (vector,))[1]
        return product

    def gradient(self, theta: Tensor, batch: Any, index: int) -> Tensor:
        """Of the mean loss of the batch, ``(n,)``."""
        return loss_and_gradient(self.function, theta, batch, index)[1]

    def kept(self, theta: Tensor, batch: Any, index: int, known: bool = False) -> Map:
        theta = theta.detach().requires_grad_()
        gradient = gradient_of(_twice(self.losses(theta, batch, index), known).mean(), theta, create_graph=True)
        return _pull(gradient, theta)


class GaussNewton(Linearised):
    """G_b = J' H_f J, with J the Jacobian of the batch's outputs f and H_f the Hessian of its mean loss in f."""

    def direct(self, theta: Tensor, batch: Any, index: int, vector: Tensor) -> Tensor:
        if self.untraced and _is_traced():
            raise InputError(f"{self.untraced}.")

        def outputs(at: Tensor) -> Tensor:
            return self._outputs(at, batch, index)

        def loss(f: Tensor) -> Tensor:
            return self.function.losses(f.clone(), self.function.targets(batch)).mean()

        at, tangent = jvp(outputs, (theta,), (vector,))[:2]
        curved = jvp(grad(loss), (at,), (tangent,))[1]
        product: Tensor = vjp(outputs, theta)[1](curved)[0]
        return product

    def kept(self, theta: Tensor, batch: Any, index: int, known: bool = False) -> Map:
        theta = theta.detach().requires_grad_()
        outputs = _twice(_require_graph(self._outputs(theta, batch, index)), known)
        push, pull = _push(outputs, theta), _pull(outputs, theta)
        at = outputs.detach().requires_grad_()
        targets = self.function.targets(batch)
        slope = softmax_slope(self.function.losses, at, targets)
        self.untraced = "" if slope is None else _IN_PIECES  # which is faster than a traced one
        if slope is None:  # a clone, since a loss may write into the outputs
            losses = _twice(self.function.losses(at.clone(), targets), known)
            slope = gradient_of(losses.mean(), at, create_graph=True)
        bend = _pull(slope, at)
        return lambda vector, keep=True: pull(bend(push(vector)), keep)

    def _outputs(self, theta: Tensor, batch: Any, index: int) -> Tensor:
        return self.function.outputs(self.function.tensors(theta), batch, index)


class EmpiricalFisher(Linearised):
    """F_b = mean_i g_i g_i', with g_i the gradient of the loss of the batch's example i and the weights of the loss."""

    def direct(self, theta: Tensor, batch: Any, index: int, vector: Tensor) -> Tensor:
        def losses(at: Tensor) -> Tensor:
            return self._each(at, batch, index)

        tangent = jvp(losses, (theta,), (vector,))[1]
        product: Tensor = vjp(losses, theta)[1](tangent / len(tangent))[0]
        return product

    def kept(self, theta: Tensor, batch: Any, index: int, known: bool = False) -> Map:
        theta = theta.detach().requires_grad_()
        losses = _twice(_require_graph(self._each(theta, batch, index)), known)
        push, pull = _push(losses, theta), _pull(losses, theta)
        return lambda vector, keep=True: pull(push(vector) / len(losses), keep)

    def _each(self, theta: Tensor, batch: Any, index: int) -> Tensor:
        measured = self.function.measure(self.function.tensors(theta), batch, index)
        return measured["loss"] * self.scales(measured, batch)

    def scales(self, measured: Mapping[str, Tensor], batch: Any) -> Tensor:
        """1 / sqrt(share_i) of examples whose losses are l_i share_i, so that squares have the weights of the mean."""
        losses, weights = measured["loss"], measured.get(weight_key("loss"))
        own = self.function.returns_values or weights is not None
        if losses.ndim != 1 or (not own and len(losses) != examples_in(batch)):
            raise InputError(
                "This loss gives one value a batch, and the Fisher matrix and the gradients' covariance need one an "
                "example: return per-example values."
            )
        if weights is None:
            return torch.ones_like(losses)
        shares = weights * (len(weights) / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny))
        return torch.where(shares > 0, shares, 1).rsqrt()


def _is_traced() -> bool:
    """Whether operations are being written down; not imported with the file, which would take a second."""
    from torch.fx.experimental.proxy_tensor import get_proxy_mode

    return get_proxy_mode() is not None


def require_differentiable(function: FunctionalModel) -> None:
    """``InputError`` where the gradient is not that of the value."""
    _require_fixed_statistics(function)
    if function.derivatives is not None:
        function.derivatives.slope(function, loss_and_gradient)


def require_curvature(function: FunctionalModel) -> None:
    """``InputError`` where the gradient is not that of the value, or H v not the derivative of the gradient."""
    _require_fixed_statistics(function)
    if function.derivatives is not None:
        function.derivatives.curvature(function, loss_and_gradient, _product)


def _require_fixed_statistics(function: FunctionalModel) -> None:
    """``InputError`` where BatchNorm's statistics depend on the point."""
    if function.recomputes:
        raise InputError(
            "Derivatives are not defined under batch_norm='recompute', where the statistics depend on the point: "
            "use batch_norm='frozen' or 'batch'."
        )


@torch.inference_mode(False)
def _product(function: FunctionalModel, theta: Tensor, batch: Any, index: int, v: Tensor) -> Tensor:
    with sdpa_kernel(SDPBackend.MATH), torch.enable_grad(), preserved_rng(theta.device), full_precision(theta.device):
        return Hessian(function).kept(theta, batch, index)(v, keep=False)


def loss_and_gradient(function: FunctionalModel, theta: Tensor, batch: Any, index: int) -> tuple[Tensor, Tensor]:
    """L_b and grad L_b ``(n,)`` on one batch; ``index`` seeds what the model draws."""
    require_differentiable(function)
    # A caller's own inference mode would leave no graph; a tensor that was made in it cannot be differentiated by.
    with torch.inference_mode(False), torch.enable_grad(), preserved_rng(theta.device), full_precision(theta.device):
        theta = (theta.clone() if theta.is_inference() else theta.detach()).requires_grad_()
        loss = function.measure(function.tensors(theta), batch, index)["loss"].mean()
        return loss.detach(), gradient_of(loss, theta)


def gradient_of(value: Tensor, at: Tensor, *, create_graph: bool = False) -> Tensor:
    """The gradient of a scalar; ``InputError`` where it does not depend on ``at``."""
    gradient = _gradient_or_none(value, at, create_graph) if value.requires_grad else None
    if gradient is None:
        raise InputError(
            "The loss does not depend on the parameters: compute it with the model that is handed over, without "
            "no_grad() or detach(), and a derivative inside it by torch.autograd.grad(..., create_graph=True)."
        )
    return gradient


def _gradient_or_none(value: Tensor, at: Tensor, create_graph: bool) -> Tensor | None:
    try:
        return torch.autograd.grad(value, at, create_graph=create_graph, allow_unused=True)[0]
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise explain_derivative(error) from error


def _pull(values: Tensor, at: Tensor) -> Map:
    """u -> J' u for J the Jacobian of ``values``; J is symmetric where they are a gradient."""
    if not values.requires_grad:  # constant, such as the gradient of what is linear
        return lambda _, keep=True: torch.zeros_like(at, requires_grad=False)

    edge = get_gradient_edge(values)  # the values themselves, which can be as long as theta, are not kept

    def product(cotangent: Tensor, keep: bool = True) -> Tensor:
        return torch.autograd.grad(edge, at, cotangent, retain_graph=keep, materialize_grads=True)[0]

    return product


def _push(values: Tensor, at: Tensor) -> Map:
    """v -> J v by differentiating u -> J' u, which is linear: reverse mode twice, for what has no forward mode."""
    dummy = torch.zeros_like(values).requires_grad_()
    pulled = torch.autograd.grad(values, at, dummy, create_graph=True, materialize_grads=True)[0]
    return _pull(pulled, dummy)


def _require_graph(values: Tensor) -> Tensor:
    if not values.requires_grad:
        raise InputError(
            "The model's outputs do not depend on the parameters: compute them without no_grad() or detach()."
        )
    return values


def _twice(values: Tensor, known: bool) -> Tensor:
    """The values themselves, if all that made them can be differentiated twice, which may be ``known``.

    Autograd leaves a ``once_differentiable`` function out of a second derivative without a word.
    """
    seen, stack = set[Any](), [None if known else values.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        custom = getattr(type(node), "_forward_cls", None)  # a torch.autograd.Function of the user's
        # once_differentiable wraps backward in a function of PyTorch's own file.
        if custom is not None and custom.backward.__code__.co_filename == _WRAPPER:
            raise InputError(
                "The model or the loss uses a function that autograd differentiates only once (once_differentiable): "
                "replace it by PyTorch's own operations to get an exact curvature."
            )
        seen.add(node)
        stack.extend(following for following, _ in node.next_functions)
    return values
