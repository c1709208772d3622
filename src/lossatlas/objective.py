"""L(theta): the loss of a model on fixed data as a pure function of its flat parameters."""

from __future__ import annotations

import copy
import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from lossatlas.batches import Batches, describe, preserved_rng, seed_generators, tensor_bytes
from lossatlas.checkpoints import state_of, without_wrappers
from lossatlas.errors import (
    CheckpointError,
    DirectionError,
    InputError,
    LossAtlasError,
    NonFiniteLoss,
    NumericalError,
)
from lossatlas.measures import Loss, Metric, Sample, Step, Supervised, explain_failure
from lossatlas.parameters import ParameterSpace

BatchNormPolicy = Literal["frozen", "recompute", "batch"]


@dataclass(frozen=True)
class Evaluation:
    """The loss and the metrics at one point, each with the standard error of its mean over the data."""

    loss: float
    loss_stderr: float
    metrics: dict[str, tuple[float, float]]


class Objective:
    """L(theta) = sum_i l(f_theta(x_i), y_i) / N, the mean loss over N examples, for theta in R^n.

    The only place that calls the model. It works on a private copy: the model that was given is read once and
    never touched, and the function does not change when training goes on.

    Parameters
    ----------
    model : any ``nn.Module``. Evaluated in eval mode (dropout off), with random numbers, if it draws any, from a
        fixed seed, so that L is a function.
    loss : ``loss(outputs, targets)``, a mean over the batch (``F.cross_entropy``) or one value an example. A loss
        with ``reduction="sum"`` is divided by the number of examples: L is always a mean.
    data : ``(inputs, targets)`` tensors, a list of such batches, a ``DataLoader``; the same at every pass, or refused.
    parameters : glob or globs of the parameters that make up theta; all trainable ones by default. The others,
        and those with ``requires_grad=False``, stay as they are.
    metrics : name -> ``metric(outputs, targets)``, one value an example (or a 0-d mean); ``"auto"`` takes the
        accuracy when the targets are classes.
    batch_norm : ``"frozen"`` uses the running statistics as trained; ``"recompute"`` estimates them anew at each
        point from the first ``batch_norm_batches`` batches of ``batch_norm_data`` (all of ``data`` by default;
        equal weight a batch, as ``torch.optim.swa_utils.update_bn``); ``"batch"`` normalises by each batch's own.
    batch_size : into how many examples a batch a pair of tensors is cut.
    dtype, device : of the private copy and of every point; the model's own by default.
    name : what the data are called on plots and in reports.

    Raises
    ------
    InputError : nothing to vary, or a model or loss that fails on the first batch; ``DataError`` as in ``Batches``.

    Examples
    --------
    >>> model, data = nn.Linear(1, 1, bias=False), (torch.ones(4, 1), torch.zeros(4, 1))
    >>> objective = Objective(model, nn.functional.mse_loss, data)
    >>> objective.value(torch.tensor([3.0])), objective.gradient(torch.tensor([3.0]))
    (9.0, tensor([6.]))
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        data: Any,
        *,
        parameters: str | Sequence[str] | None = None,
        metrics: Mapping[str, Metric] | Literal["auto"] | None = "auto",
        batch_norm: BatchNormPolicy = "frozen",
        batch_norm_batches: int | None = None,
        batch_norm_data: Any = None,
        batch_size: int = 512,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        name: str = "data",
    ) -> None:
        if not callable(loss):
            raise InputError(
                f"The loss is a {type(loss).__name__}: give a function loss(outputs, targets), e.g. F.cross_entropy."
            )
        self._build(model, Supervised(loss, metrics), parameters, dtype, device)
        self._set_data(data, batch_size, None, name)
        self._set_batch_norm(batch_norm, batch_norm_batches, batch_norm_data)
        self._probe()

    @classmethod
    def from_step(
        cls,
        model: nn.Module,
        step: Callable[[Any, Any], Tensor],
        batches: Any,
        *,
        weight: Callable[[Any], float] | None = None,
        parameters: str | Sequence[str] | None = None,
        batch_norm: BatchNormPolicy = "frozen",
        batch_norm_batches: int | None = None,
        batch_size: int = 512,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        name: str = "data",
    ) -> Objective:
        """L(theta) = sum_b w_b step(model, b) / sum_b w_b over batches of any kind (dicts, models with a loss inside).

        ``step(model, batch)`` returns the mean loss of the batch, or one value an example, computed with the model
        that it is handed. ``weight(batch)`` is the batch's weight: its number of examples by default.
        """
        objective = cls.__new__(cls)
        objective._build(model, Step(step), parameters, dtype, device)
        objective._set_data(batches, batch_size, weight, name)
        objective._set_batch_norm(batch_norm, batch_norm_batches, None)
        objective._probe()
        return objective

    # What it is made of

    @property
    def n_parameters(self) -> int:
        """n, the length of theta."""
        return self.space.n

    @property
    def n_examples(self) -> int:
        """N, the number of examples (the sum of the batches' weights)."""
        return round(self._batches.total)

    @property
    def dtype(self) -> torch.dtype:
        return self.point.dtype

    @property
    def device(self) -> torch.device:
        return self.point.device

    @property
    def batch_norm(self) -> BatchNormPolicy:
        return self._policy

    @property
    def has_batch_norm(self) -> bool:
        """Whether the model keeps running statistics that belong to its own point."""
        return any(m.track_running_stats for m in self._norms)

    def point_of(self, source: nn.Module | Mapping[str, Tensor] | str | Path) -> Tensor:
        """theta ``(n,)`` of a module, a state dict or a file (``.safetensors``, ``.pt``) of the same architecture.

        Only the selected parameters are taken; the others, and the buffers, stay those of this objective's model.
        Raises ``CheckpointError`` when names or shapes differ, listing the first of them.
        """
        first = self._first_names()
        own = {first.get(name, name): tensor for name, tensor in self._model.state_dict().items()}
        given = without_wrappers(state_of(source), own)
        state = {first.get(name, name): tensor for name, tensor in given.items()}
        missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
        if missing or unexpected:
            raise CheckpointError(
                f"These are the weights of another network: missing {missing[:5]}, unexpected {unexpected[:5]}. "
                f"Give weights saved from a {type(self._model).__name__} like this one."
            )
        if wrong := [name for name in own if _shape(state[name]) != _shape(own[name])]:
            listed = "; ".join(f"{name} is {_shape(state[name])}, not {_shape(own[name])}" for name in wrong[:5])
            raise CheckpointError(
                f"These are the weights of another network, {len(wrong)} tensors have another shape: {listed}."
            )
        return self.space.check(self.space.flatten(state).to(self.device, self.dtype), "checkpoint")

    def state_dict(self, point: Tensor | None = None) -> dict[str, Tensor]:
        """The model's full state dict with theta = ``point``: for saving, or for ``model.load_state_dict``."""
        state, first = self._model.state_dict() | self.space.unflatten(self._at(point)), self._first_names()
        # A tied tensor has several names, and load_state_dict takes the last one's.
        return {name: state[first.get(name, name)].detach().clone() for name in state}

    def with_batch_norm(self, policy: BatchNormPolicy, batches: int | None = None, data: Any = None) -> Objective:
        """The same objective on the same data under another BatchNorm policy.

        ``batches`` and ``data`` for the statistics are this objective's own unless they are given.
        """
        other = copy.copy(self)
        other._model = copy.deepcopy(self._model)
        other._wire()
        other._set_batch_norm(policy, batches or self._norm_count, data)
        if data is None:
            other._norm_data = self._norm_data
        return other

    def provenance(self) -> dict[str, str | int]:
        """What a Dataset's ``attrs`` say about where its numbers come from."""
        return {
            "data": self.name,
            "model": type(self._model).__name__,
            "n_parameters": self.n_parameters,
            "n_examples": self.n_examples,
            "dtype": str(self.dtype).removeprefix("torch."),
            "batch_norm": self._policy if self._norms else "none",
            "model_fingerprint": self._fingerprint(),
            "data_fingerprint": self._batches.fingerprint,
            "lossatlas": version("lossatlas"),
            "torch": str(torch.__version__),
        }

    # Values

    def value(self, point: Tensor | None = None) -> float:
        """L(theta); NaN or infinite where the model is."""
        return self.samples(point)["loss"].mean

    def values(self, points: Tensor) -> Tensor:
        """``(k,)`` float64: L at each row of ``points`` ``(k, n)``."""
        return torch.tensor([self.value(point) for point in points], dtype=torch.float64)

    def evaluate(self, point: Tensor | None = None) -> Evaluation:
        """Loss and metrics at ``point``, with standard errors over the data."""
        samples = self.samples(point)
        loss = samples.pop("loss")
        return Evaluation(loss.mean, loss.stderr, {name: (s.mean, s.stderr) for name, s in samples.items()})

    def samples(self, point: Tensor | None = None) -> dict[str, Sample]:
        """The values behind the means: ``"loss"`` and each metric, one value an example (or a batch), in order."""
        measured = self._sweep(self._at(point))
        return {name: self._sample([one[name] for one in measured]) for name in measured[0]}

    def example_losses(self, point: Tensor | None = None) -> Tensor:
        """``(N,)`` float64: l_i at ``point``. Raises ``InputError`` when the loss has no value for a single example."""
        sample = self.samples(point)["loss"]
        if sample.over != "examples":
            raise InputError(
                "This loss gives one value a batch, not one an example: use batch_losses, or return per-example values."
            )
        return sample.values

    def batch_losses(self, point: Tensor | None = None) -> Tensor:
        """``(m,)`` float64: the mean loss of each of the m batches at ``point``."""
        return torch.stack([one["loss"].double().mean().cpu() for one in self._sweep(self._at(point))])

    def require_finite(self) -> None:
        """Raises ``NonFiniteLoss`` when L is NaN or infinite at the model's own point."""
        losses = self.batch_losses()
        bad = (~torch.isfinite(losses)).nonzero().flatten().tolist()
        if bad:
            raise NonFiniteLoss(
                f"The loss at the model's own point is {losses[bad[0]].item()} (batch {bad[0] + 1} of {len(losses)}, "
                f"{len(bad)} such batches): check the checkpoint and the inputs for NaN, the training for divergence."
            )

    # Derivatives

    def gradient(self, point: Tensor | None = None) -> Tensor:
        """grad L(theta), ``(n,)``."""
        theta = self._at(point).detach().requires_grad_()
        total = torch.zeros_like(theta, requires_grad=False)
        for index, (weight, batch) in enumerate(self._weighted()):
            total += weight * self._batch_gradient(theta, batch, index, create_graph=False)
        return _finite(total / self._batches.total, "gradient")

    def hvp(self, vector: Tensor, point: Tensor | None = None) -> Tensor:
        """H v with H the Hessian of L at ``point``: ``(n,)``, or ``(k, n)`` for the rows of a block of vectors.

        Exact, by differentiating the gradient's graph along v (double backward; Pearlmutter 1994). For ReLU networks
        it is the Hessian almost everywhere, which does not see the kinks.
        """
        rows = self._rows(vector)
        total = torch.zeros_like(rows)
        for weight, products in self._batch_products(rows, point):
            total += weight * products
        return _finite(total / self._batches.total, "Hessian-vector product").view_as(vector)

    def batch_curvatures(self, vectors: Tensor, point: Tensor | None = None) -> Sample | list[Sample]:
        """v' H_b v of every batch b as a ``Sample``: one for ``(n,)``, a list for the rows of ``(k, n)``.

        Its mean is v' H v, and its standard error is the data-sampling error of a curvature.
        """
        rows = self._rows(vectors)
        forms = [(p * rows).sum(1).double().cpu() for _, p in self._batch_products(rows, point)]
        weights = torch.tensor(self._batches.weights, dtype=torch.float64)
        samples = [Sample(column, weights, "batches") for column in torch.stack(forms, dim=1)]
        return samples if vectors.ndim == 2 else samples[0]

    # Inside

    def _build(
        self,
        model: nn.Module,
        measure: Supervised | Step,
        parameters: str | Sequence[str] | None,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise InputError(f"The model is a {type(model).__name__}: give a torch.nn.Module.")
        self._measure_batch = measure
        self._model = _private_copy(model).to(device=device, dtype=dtype)
        self.space = ParameterSpace(self._model, parameters)
        self.point = self.space.flatten(dict(self._model.named_parameters()))
        if len({p.dtype for p in self._model.parameters() if p.is_floating_point()}) > 1:
            raise InputError("The model mixes floating-point types: give one with dtype=, e.g. dtype=torch.float32.")
        self._wire()

    def _wire(self) -> None:
        self._model.requires_grad_(False).eval()
        self._bound = _Bound(self._model, self._measure_batch)
        self._norms = [m for m in self._model.modules() if isinstance(m, BatchNorm)]

    def _set_data(self, data: Any, batch_size: int, weight: Callable[[Any], float] | None, name: str) -> None:
        self.name = name
        self._batch_size = batch_size
        self._batches = Batches(data, batch_size=batch_size, device=self.device, dtype=self.dtype, weight=weight)

    def _set_batch_norm(self, policy: BatchNormPolicy, batches: int | None, data: Any) -> None:
        if policy not in ("frozen", "recompute", "batch"):
            raise InputError(f"batch_norm={policy!r} is unknown: choose 'frozen', 'recompute' or 'batch'.")
        if batches is not None and batches < 1:
            raise InputError(f"batch_norm_batches={batches}: give at least 1, or None for all.")
        self._policy = policy
        self._norm_count = batches
        self._norm_data = self._batches
        if data is not None:
            self._norm_data = Batches(data, batch_size=self._batch_size, device=self.device, dtype=self.dtype)
        for norm in self._norms:
            norm.train(policy == "batch")

    def _probe(self) -> None:
        probe = _Bound(self._model, self._measure_batch.probe)
        try:
            with torch.no_grad(), preserved_rng(self.device):
                functional_call(probe, self._own_buffers(), (self._batches,))
        except LossAtlasError:
            raise
        except Exception as error:
            raise explain_failure(error, next(iter(self._batches))) from error

    def _at(self, point: Tensor | None) -> Tensor:
        if point is None:
            return self.point
        return self.space.check(point).to(self.device, self.dtype)

    def _rows(self, vector: Tensor) -> Tensor:
        if vector.ndim not in (1, 2) or vector.shape[-1] != self.n_parameters or not vector.is_floating_point():
            raise DirectionError(
                f"The vector is {describe(vector)}: give floats, ({self.n_parameters},) or (k, {self.n_parameters})."
            )
        if not bool(torch.isfinite(vector).all()):
            raise DirectionError("The vector holds NaN or infinite numbers: give a finite one.")
        return vector.to(self.device, self.dtype).reshape(-1, self.n_parameters)

    def _first_names(self) -> dict[str, str]:
        """Every name of a parameter -> its first one; they differ where parameters are tied."""
        first = {id(parameter): name for name, parameter in self._model.named_parameters()}
        named = self._model.named_parameters(remove_duplicate=False)
        return {name: first[id(parameter)] for name, parameter in named}

    def _named(self, theta: Tensor) -> dict[str, Tensor]:
        return {f"model.{name}": tensor for name, tensor in self.space.unflatten(theta).items()}

    def _own_buffers(self) -> dict[str, Tensor]:
        """Fresh copies for one pass, so that nothing a forward call writes outlives it."""
        return {f"model.{name}": buffer.clone() for name, buffer in self._model.named_buffers()}

    def _buffers(self, theta: Tensor) -> dict[str, Tensor]:
        buffers = self._own_buffers()
        return self._recomputed(theta, buffers) if self._policy == "recompute" and self._norms else buffers

    def _recomputed(self, theta: Tensor, buffers: dict[str, Tensor]) -> dict[str, Tensor]:
        for name, module in self._model.named_modules():
            if isinstance(module, BatchNorm) and module.track_running_stats:
                buffers[f"model.{name}.running_mean"].zero_()
                buffers[f"model.{name}.running_var"].fill_(1)
                buffers[f"model.{name}.num_batches_tracked"].zero_()
        with _collecting_statistics(self._norms):
            for index, batch in enumerate(itertools.islice(self._norm_data, self._norm_count)):
                self._measure(theta, buffers, batch, index)
        return buffers

    def _sweep(self, theta: Tensor) -> list[dict[str, Tensor]]:
        """What each batch yields at ``theta``, without gradients."""
        # Not inference_mode: a model may keep what it computes here (a table of positions) for a pass with gradients.
        with torch.no_grad(), preserved_rng(self.device):
            buffers = self._buffers(theta)
            return [self._measure(theta, buffers, batch, index) for index, batch in enumerate(self._batches)]

    def _measure(self, theta: Tensor, buffers: dict[str, Tensor], batch: Any, index: int) -> dict[str, Tensor]:
        # A model that draws random numbers draws the same ones for a batch at every point: L stays a function.
        seed_generators(index, self.device)
        try:
            measured: dict[str, Tensor] = functional_call(self._bound, self._named(theta) | buffers, (batch,))
        except LossAtlasError:
            raise
        except torch.OutOfMemoryError as error:
            raise NumericalError(
                "The device ran out of memory: use a smaller batch_size or a smaller dtype."
            ) from error
        except Exception as error:
            raise explain_failure(error, batch) from error
        return measured

    def _sample(self, parts: list[Tensor]) -> Sample:
        weights = torch.tensor(self._batches.weights, dtype=torch.float64)
        if all(part.ndim for part in parts) and all(
            len(part) == w for part, w in zip(parts, self._batches.weights, strict=True)
        ):
            values = torch.cat([part.double().cpu() for part in parts])
            return Sample(values, torch.ones_like(values), "examples")
        return Sample(torch.stack([part.double().mean().cpu() for part in parts]), weights, "batches")

    def _weighted(self) -> Iterator[tuple[float, Any]]:
        return zip(self._batches.weights, self._batches, strict=True)

    def _batch_gradient(self, theta: Tensor, batch: Any, index: int, *, create_graph: bool) -> Tensor:
        if self._policy == "recompute" and self._norms:
            raise InputError(
                "Derivatives are not defined under batch_norm='recompute', where the statistics depend on the point: "
                "use batch_norm='frozen' or 'batch'."
            )
        # Fused attention has no second derivative on a CPU; the plain formula has.
        with torch.enable_grad(), preserved_rng(self.device), sdpa_kernel(SDPBackend.MATH):
            loss = self._measure(theta, self._buffers(theta), batch, index)["loss"].mean()
            gradient = (
                torch.autograd.grad(loss, theta, create_graph=create_graph, allow_unused=True)[0]
                if loss.requires_grad
                else None
            )
            if gradient is None:
                raise InputError(
                    "The loss does not depend on the parameters: compute it with the model that is handed over, "
                    "without no_grad() or detach()."
                )
            return gradient

    def _batch_products(self, rows: Tensor, point: Tensor | None) -> Iterator[tuple[float, Tensor]]:
        """Each batch's weight and its H_b v, ``(k, n)``; one graph of the gradient serves all k vectors."""
        theta = self._at(point).detach().requires_grad_()
        for index, (weight, batch) in enumerate(self._weighted()):
            gradient = self._batch_gradient(theta, batch, index, create_graph=True)
            if index == 0:
                _require_second_derivative(gradient)
            yield weight, _products(gradient, rows, theta)

    def _fingerprint(self) -> str:
        sha = hashlib.sha256(repr([(e.name, e.shape) for e in self.space]).encode())
        for tensor in [self.point, *self._model.state_dict().values()]:
            sha.update(tensor_bytes(tensor))
        return sha.hexdigest()[:16]


class _Bound(nn.Module):
    """Model and measure as one module, so that ``functional_call`` reaches whatever a step does with the model."""

    def __init__(self, model: nn.Module, measure: Callable[[nn.Module, Any], Any]) -> None:
        super().__init__()
        self.model = model
        self._measure = measure

    def forward(self, batch: Any) -> Any:
        return self._measure(self.model, batch)


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


def _private_copy(model: nn.Module) -> nn.Module:
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        model = model.module
    model = getattr(model, "_orig_mod", model)  # torch.compile keeps the module itself there
    try:
        return copy.deepcopy(model)
    except Exception as error:
        raise InputError(
            f"The model cannot be copied ({type(error).__name__}: {' '.join(str(error).split())}): detach the tensors "
            "that it keeps as attributes, or build it anew and load its state dict."
        ) from error


def _products(gradient: Tensor, rows: Tensor, theta: Tensor) -> Tensor:
    if not gradient.requires_grad:  # a loss that is linear in theta
        return torch.zeros_like(rows)
    products = [torch.autograd.grad(gradient, theta, row, retain_graph=True, materialize_grads=True)[0] for row in rows]
    return torch.stack(products)


def _require_second_derivative(gradient: Tensor) -> None:
    """Autograd leaves a ``once_differentiable`` function out of a second derivative without a word."""
    seen, stack = set[Any](), [gradient.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        if node.name() == "torch::autograd::Error":
            raise InputError(
                "The model or the loss uses a function that autograd differentiates only once (once_differentiable): "
                "replace it by PyTorch's own operations to get a Hessian."
            )
        seen.add(node)
        stack.extend(following for following, _ in node.next_functions)


def _shape(value: object) -> tuple[int, ...]:
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def _finite(vector: Tensor, what: str) -> Tensor:
    if not bool(torch.isfinite(vector).all()):
        raise NumericalError(
            f"The {what} holds NaN or infinite numbers at this point: the loss cannot be differentiated there."
        )
    return vector
