"""A model and its measure as a pure function of theta and a batch: copy, buffers, BatchNorm, random numbers."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from lossatlas.errors import InputError, LossAtlasError, NumericalError
from lossatlas.model.arithmetic import full_precision, one_path
from lossatlas.model.bags import make_differentiable
from lossatlas.model.bound import Bound
from lossatlas.model.data.batches import Batches, copied, digest, preserved_rng, seed_generators
from lossatlas.model.failures import explain_failure, in_training_mode_only, needs_gradients
from lossatlas.model.filters import Filters
from lossatlas.model.gradients import called_with_gradients
from lossatlas.model.loss.measures import Supervised
from lossatlas.model.loss.steps import StepLoss
from lossatlas.model.modes import Mode, is_batch_norm, put_into, require_mode
from lossatlas.model.parameters import ParameterSpace
from lossatlas.model.private import converted, private_copy, private_copy_and_shared
from lossatlas.model.recomputation import without_recomputation
from lossatlas.model.states import States

BatchNormPolicy = Literal["frozen", "recompute", "batch"]
Route = Literal["exact", "differences"]


class FunctionalModel(States):
    """``measure(tensors(theta), batch, index)``: what a batch yields with the parameters at theta, all else fixed.

    It owns a copy of the model that was given, in eval mode unless ``mode`` says otherwise. Buffers are fresh copies at
    each pass, random numbers a function of the batch's index, and the BatchNorm policy decides which statistics are
    used (``Objective`` documents it).
    """

    def __init__(
        self,
        model: nn.Module,
        measure: Supervised | StepLoss,
        parameters: str | Sequence[str] | None,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
        mode: Mode = "eval",
    ) -> None:
        if not isinstance(model, nn.Module):
            raise InputError(f"The model is a {type(model).__name__}: give a torch.nn.Module.")
        require_mode(mode)
        self.mode = mode
        self._measure = measure
        self.moved: Callable[[Mapping[str, Tensor], Tensor], dict[str, Tensor]] | None = None  # buffers at a theta
        self.differentiates = False  # whether model or loss differentiate while they are evaluated; probe() finds out
        self.written = frozenset[str]()  # parameters and buffers that a call writes into; probe() finds out
        self.draws = False  # whether model or loss draw random numbers; the self-check finds out
        self.rows_depend = False  # whether the model's outputs on an example depend on the others of its batch
        self.derivatives: Any = None  # a DerivativeCheck, for whoever differentiates
        self.choices = {}
        self.filters: dict[str, Filters] = {}  # of the tensors whose use was looked at, for all copies of this one
        self.route: Route | None = None  # of products with the Hessian; None: exact, and differences where that fails
        # By the route that was asked for, what products with the Hessian are where they are not exact. Copies share it.
        self.inexact: dict[Route | None, str] = {}
        self._cast_to = dtype
        own, self.shared = private_copy_and_shared(model)  # what cannot be copied, in words
        self.module = converted(own, device, dtype)
        self.space = ParameterSpace(self.module, parameters)
        self.point = self.space.flatten(dict(self.module.named_parameters()))
        self._share_storage()
        self._remember_own()
        types = {p.dtype.to_real() for p in self.module.parameters() if p.is_floating_point() or p.is_complex()}
        if len(types) > 1:
            raise InputError("The model mixes floating-point types: give one with dtype=, e.g. dtype=torch.float32.")
        if isinstance(measure, Supervised):
            self._measure = measure.copied_to(self.point)
        self._wire()

    def _share_storage(self) -> None:
        """The module's own parameters become views of the point, which no call reads: a large model is there once."""
        own = dict(self.module.named_parameters())
        for name, view in self.space.unflatten(self.point).items():
            kept = own[name].data
            if type(kept) is Tensor and (kept.dtype, kept.shape) == (view.dtype, view.shape) and not kept.is_complex():
                own[name].data = view

    def _wire(self) -> None:
        put_into(self.module.requires_grad_(False), self.mode)
        for module in self.module.modules():
            if isinstance(module, nn.Embedding | nn.EmbeddingBag):
                module.sparse = False  # of the gradient's layout, of which theta has one
            if isinstance(module, nn.EmbeddingBag):
                make_differentiable(module)
        self._bound = Bound(self.module, self._measure)
        self._outputs = Bound(self.module, self._measure.outputs) if isinstance(self._measure, Supervised) else None
        self.norms = [m for m in self.module.modules() if isinstance(m, BatchNorm)]

    def set_batch_norm(self, policy: BatchNormPolicy, count: int | None, data: Batches) -> None:
        """Statistics by ``policy``; under ``"recompute"`` from the first ``count`` batches of ``data`` (None: all)."""
        if policy not in ("frozen", "recompute", "batch"):
            raise InputError(f"batch_norm={policy!r} is unknown: choose 'frozen', 'recompute' or 'batch'.")
        if count is not None and count < 1:
            raise InputError(f"batch_norm_batches={count}: give at least 1, or None for all.")
        self.policy, self.norm_count, self.norm_data = policy, count, data
        for norm in self.norms:
            norm.train(policy == "batch")
        if policy != "frozen" and any(is_batch_norm(m) and m not in self.norms for m in self.module.modules()):
            raise InputError(
                f"batch_norm={policy!r}: the statistics of a TorchScript BatchNorm can only be frozen; give the Python "
                "module that it was made from, with module.load_state_dict(scripted.state_dict())."
            )

    @property
    def recomputes(self) -> bool:
        """Whether statistics depend on the point, so that L has no gradient by backpropagation."""
        return self.policy == "recompute" and bool(self.norms)

    @property
    def frozen_statistics(self) -> bool:
        """Whether the model is evaluated with running statistics, which belong to its own point."""
        return self.policy == "frozen" and self.keeps_statistics

    @property
    def keeps_statistics(self) -> bool:
        """Whether the model keeps running statistics, whatever is used of them."""
        return any(norm.track_running_stats for norm in self.norms)

    def duplicate(self) -> FunctionalModel:
        """The same function on a module of its own, to be given another BatchNorm policy."""
        other = copy.copy(self)
        for module in self.module.modules():  # what a forward pass has left there can be tied to a graph
            for name, value in vars(module).items():
                if isinstance(value, Tensor) and value.grad_fn is not None:
                    setattr(module, name, value.detach())
        other.module = private_copy(self.module)
        other._wire()
        return other

    def cast(self, dtype: torch.dtype) -> FunctionalModel:
        """The same function on a module, and a loss module, of its own in another floating-point type."""
        other = self.duplicate()
        converted(other.module, None, dtype)
        other.point = self.point.to(dtype)
        if isinstance(self._measure, Supervised):
            other._measure = self._measure.copied_to(other.point)
        other._wire()
        other.set_batch_norm(self.policy, self.norm_count, self.norm_data)
        return other

    def measured_by(self, module: nn.Module, batch: Any, index: int) -> dict[str, Tensor]:
        """What ``measure`` yields, by a plain call with a module that holds its own parameters."""
        for entry in self.space if self.differentiates else ():
            module.get_parameter(entry.name).requires_grad_()
        measured: dict[str, Tensor] = self._run(Bound(module, self._measure), {}, batch, index)
        return measured

    def at(self, theta: Tensor) -> FunctionalModel:
        """The same function, with ``theta`` for its own point."""
        other = copy.copy(self)
        other.point = theta.detach().clone()
        return other

    def restricted(self, select: str | Sequence[str]) -> FunctionalModel:
        """The same function of the parameters that match, with the others fixed as they are at its own point."""
        other = self.duplicate()
        with torch.no_grad():
            for name, tensor in self.space.unflatten(self.point).items():
                other.module.get_parameter(name).copy_(tensor)
        other.space = self.space.restricted(select)
        other.point = other.space.flatten(dict(other.module.named_parameters()))
        return self._renewed(other)

    def with_statistics(self, tensors: Mapping[str, Tensor]) -> FunctionalModel:
        """The same function on a module of its own, with these running statistics."""
        other = self.duplicate()
        with torch.no_grad():
            for name, tensor in tensors.items():
                other.module.get_buffer(name).copy_(tensor)
        return self._renewed(other)

    def _renewed(self, other: FunctionalModel) -> FunctionalModel:
        """The other one, with tensors of its own by now, as complete as this one."""
        other.set_batch_norm(self.policy, self.norm_count, self.norm_data)
        other._remember_own()
        if self.derivatives is not None:
            self.derivatives.pass_on(self.module, other.module)
        return other

    def routed(self, route: Route | None) -> FunctionalModel:
        """The same function, whose products with the Hessian are asked for by another route."""
        other = copy.copy(self)
        other.route = route
        return other

    def probe(self, batches: Batches) -> None:
        """Let the measure settle its form on the data, at the model's own point."""
        try:
            self._probe(batches)
        except Exception as error:
            if not self.differentiates and needs_gradients(error):
                self.differentiates = True
                return self.probe(batches)
            self._require_eval(error, batches)
            if isinstance(error, LossAtlasError):
                raise
            raise explain_failure(error, next(iter(batches))) from error

    def _require_eval(self, error: Exception, batches: Batches) -> None:
        """``InputError`` where what failed in evaluation mode works in training mode."""
        if self.mode != "eval":
            return
        other = self.duplicate()
        other.mode = "train"
        other._wire()
        other.set_batch_norm(self.policy, self.norm_count, self.norm_data)
        try:
            other._probe(batches)
        except Exception:  # as it may in any mode
            return
        raise in_training_mode_only(error) from error

    def _probe(self, batches: Batches) -> None:
        probing = Bound(self.module, self._measure.probe)
        modes = [module.training for module in self.module.modules()]
        with torch.no_grad(), preserved_rng(self.point.device):
            at, buffers = self.point.clone(), self.own_buffers()
            named, failure = self.named(at), None
            try:
                self._call(probing, named | buffers, batches)
            except Exception as error:
                failure = error
        if modes != [module.training for module in self.module.modules()]:
            raise InputError(
                "The loss or step switches the model to train mode or back: leave model.train() and model.eval() out "
                "of it; mode='train' is training mode with BatchNorm frozen and dropout off, mode='dropout' with "
                "dropout on, and batch_norm='batch' normalises by each batch's own statistics."
            ) from failure
        if failure is not None:
            raise failure
        self.written = self._written(named, buffers)

    def _written(self, named: dict[str, Tensor], buffers: dict[str, Tensor]) -> frozenset[str]:
        """max_norm=, clipping by hand (which no version counts), queues and running means that are kept in eval too."""
        fixed = {f"model.{name}" for name in self.statistics}
        same = {name: digest(one) == digest(buffers[name]) for name, one in self.own_buffers().items()}
        before = self.named(self.point)
        kept = all(not tensor._version and tensor.equal(before[name]) for name, tensor in named.items())
        parameters = () if kept else named
        return frozenset([*parameters, *(name for name, equal in same.items() if not (equal or name in fixed))])

    def tensors(self, theta: Tensor) -> dict[str, Tensor]:
        """What one pass at ``theta`` uses: views into theta, and fresh buffers with the statistics of the policy."""
        tensors = self.named(theta) | self.own_buffers()
        if self.moved is not None:
            tensors |= self.moved(tensors, theta)
        return self._recomputed(tensors) if self.recomputes else tensors

    def named(self, theta: Tensor) -> dict[str, Tensor]:
        """The parameters at ``theta``, by the names that ``measure`` takes."""
        return {f"model.{name}": tensor for name, tensor in self.space.unflatten(theta).items()}

    def measure(self, tensors: dict[str, Tensor], batch: Any, index: int) -> dict[str, Tensor]:
        """Losses and metrics of ``batch``, the ``index``-th of the data. The caller preserves the generators."""
        measured: dict[str, Tensor] = self._run(self._bound, tensors, batch, index)
        return measured

    def outputs(self, tensors: dict[str, Tensor], batch: Any, index: int) -> Tensor:
        """The model's own outputs on ``batch``, before the loss; refused where a step computes both at once."""
        if self._outputs is None:
            raise InputError(
                "This needs the model's outputs apart from the loss, and a step computes both at once: give its two "
                "halves, Objective.from_step(model, batches=batches, outputs=lambda model, batch: ..., "
                "loss=lambda outputs, batch: ...)."
            )
        outputs = self._run(self._outputs, tensors, batch, index)
        if not isinstance(outputs, Tensor):
            raise InputError(
                f"This needs outputs that are one tensor, and the model returns a {type(outputs).__name__}: "
                "wrap the model in one that returns the tensor that the loss uses, or take it out in "
                "Objective.from_step(model, batches=batches, outputs=..., loss=...)."
            )
        return outputs

    def losses(self, outputs: Tensor, targets: Any) -> Tensor:
        """l(f, y): one value an example where the loss allows it, else the mean over the batch."""
        return self._apart.losses(outputs, targets)

    def targets(self, batch: Any) -> Any:
        """What the loss takes of a batch beside the outputs."""
        return self._apart.targets(batch)

    def with_targets(self, batch: Any, targets: Any) -> Any:
        """The batch with other targets."""
        return self._apart.with_targets(batch, targets)

    @property
    def _apart(self) -> Supervised:
        assert isinstance(self._measure, Supervised), "outputs() refuses a step"
        return self._measure

    def parts(self, theta: Tensor) -> tuple[nn.Module, Any]:
        """A copy of the module at ``theta``, and the loss as it was given; ``InputError`` where a step holds both."""
        if type(self._measure) is not Supervised:
            raise InputError(
                "This calls the model itself on the inputs of a batch: make the objective as Objective(model, loss, "
                "data), with a model that returns one tensor."
            )
        other = self.duplicate()
        other.set_batch_norm(self.policy, self.norm_count, self.norm_data)
        other.module.load_state_dict(self.state_dict(theta))
        return other.module, self._measure.given

    def given(self, tensors: dict[str, Tensor], batch: Any, index: int) -> Tensor:
        """What the loss or step itself returns, before it is taken apart into examples."""
        loss: Tensor = self._run(Bound(self.module, self._measure.plain), tensors, batch, index)
        return loss

    def module_from(self, model: nn.Module, theta: Tensor) -> nn.Module:
        """A new copy of ``model`` that really holds ``theta`` and the buffers of a pass at it, evaluated as here."""
        other = copy.copy(self)
        other.module = converted(private_copy(model), theta.device, self._cast_to)
        other._wire()
        other.set_batch_norm(self.policy, self.norm_count, self.norm_data)
        tensors = self.tensors(theta)
        with torch.no_grad():
            for name, own in itertools.chain(other.module.named_parameters(), other.module.named_buffers()):
                own.copy_(tensors.get(f"model.{name}", own))
        return other.module

    def _run(self, bound: Bound, tensors: dict[str, Tensor], batch: Any, index: int) -> Any:
        # A model that draws random numbers draws the same ones for a batch at every point: L stays a function.
        seed_generators(index, self.point.device)
        # What a call writes into starts anew for each batch, so that theta stays as it is and no order matters.
        tensors = tensors | {name: tensors[name].clone() for name in self.written & tensors.keys()}
        try:
            with one_path(self.module), full_precision(self.point.device):
                return self._call(bound, tensors, batch)
        except LossAtlasError:
            raise
        except torch.OutOfMemoryError as error:
            raise NumericalError(
                "The device ran out of memory: use a smaller batch_size or a smaller dtype."
            ) from error
        except Exception as error:
            raise explain_failure(error, batch) from error

    def _call(self, bound: Bound, tensors: dict[str, Tensor], batch: Any) -> Any:
        with without_recomputation():
            return self._called(bound, tensors, batch)

    def _called(self, bound: Bound, tensors: dict[str, Tensor], batch: Any) -> Any:
        if not self.differentiates:
            return functional_call(bound, tensors, (batch,))
        own = batch if isinstance(batch, Batches) else copied(batch)  # inputs may be made leaves in place
        moving = {f"model.{entry.name}" for entry in self.space}
        return called_with_gradients(lambda given: functional_call(bound, given, (own,)), tensors, moving)

    @property
    def depends_on_batch(self) -> bool:
        """Whether the loss of a batch is none of its examples' alone: by the loss (contrastive), or by the model."""
        return self._measure.depends_on_batch or self.rows_depend

    @property
    def batch_norm(self) -> str:
        """Which statistics the model's BatchNorm uses, for a result."""
        own = [norm.track_running_stats for norm in self.norms]
        return "none" if not own else self.policy if all(own) else "batch" if not any(own) else f"{self.policy}, batch"

    @property
    def reduction(self) -> str:
        """Of what the loss of a batch is a mean, in words."""
        return self._measure.reduction

    @property
    def returns_values(self) -> bool:
        """Whether the loss itself returns values, each of which counts as an example."""
        return self._measure.returns_values

    @property
    def supervised(self) -> bool:
        """Whether model and loss are apart, so that the outputs can be seen."""
        return isinstance(self._measure, Supervised)

    def _recomputed(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        for name, module in self.module.named_modules():
            if isinstance(module, BatchNorm) and module.track_running_stats:
                tensors[f"model.{name}.running_mean"].zero_()
                tensors[f"model.{name}.running_var"].fill_(1)
                tensors[f"model.{name}.num_batches_tracked"].zero_()
        with _collecting_statistics(self.norms):
            for index, batch in enumerate(itertools.islice(self.norm_data, self.norm_count)):
                self.measure(tensors, batch, index)
        return tensors


@contextmanager
def _collecting_statistics(norms: Sequence[BatchNorm]) -> Iterator[None]:
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.train()
            norm.momentum = None  # the plain average over all calls since num_batches_tracked was zero
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.eval()
            norm.momentum = momentum
