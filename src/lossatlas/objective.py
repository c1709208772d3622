"""L(theta): the loss of a model on fixed data as a pure function of its flat parameters."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lossatlas.errors import DirectionError, InputError, NonFiniteLoss, NumericalError
from lossatlas.evaluation.forward import Forward
from lossatlas.evaluation.points.loops import sweep
from lossatlas.evaluation.points.tuning import Evaluator, Plan, Tuner
from lossatlas.evaluation.products.diagonal import NoDiagonal, exact_diagonal
from lossatlas.evaluation.products.likelihood import draw
from lossatlas.evaluation.products.linearised import (
    EmpiricalFisher,
    GaussNewton,
    Hessian,
    Linearised,
    gradient_of,
    require_differentiable,
)
from lossatlas.evaluation.products.products import Products
from lossatlas.model.batches import Batches, copied, describe, form, preserved_rng
from lossatlas.model.functional import BatchNormPolicy, FunctionalModel
from lossatlas.model.measures import Loss, Metric, Sample, Step, Supervised, samples_of
from lossatlas.model.parameters import ParameterSpace
from lossatlas.model.points import Points
from lossatlas.model.strata import Strata, stratified

Source = Tensor | nn.Module | Mapping[str, Tensor] | str | Path
Matrix = Literal["hessian", "gauss_newton", "empirical_fisher"]


@dataclass(frozen=True)
class Evaluation:
    """The loss and the metrics at one point, each with the standard error of its mean over the data."""

    loss: float
    loss_stderr: float
    metrics: dict[str, tuple[float, float]]


class Objective:
    """L(theta) = sum_i l(f_theta(x_i), y_i) / N, the mean loss over N examples, for theta in R^n.

    The only place that calls the model. It works on a private copy: the model that was given is read once and
    never touched, and the function does not change when training goes on. Forward hooks are copied with it and run.

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
    batch_size : into how many examples a batch a pair of tensors is cut. Small batches keep a CPU's memory warm; a GPU
        wants larger ones.
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

    _function: FunctionalModel
    _batches: Batches

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
        batch_size: int = 128,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        name: str = "data",
    ) -> None:
        if not callable(loss):
            raise InputError(
                f"The loss is a {type(loss).__name__}: give a function loss(outputs, targets), e.g. F.cross_entropy."
            )
        function = FunctionalModel(model, Supervised(loss, metrics), parameters, dtype, device)
        self._build(function, data, batch_size, None, (batch_norm, batch_norm_batches, batch_norm_data), name)

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
        batch_size: int = 128,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        name: str = "data",
    ) -> Objective:
        """L(theta) = sum_b w_b step(model, b) / sum_b w_b over batches of any kind (dicts, models with a loss inside).

        ``step(model, batch)`` returns the mean loss of the batch, or one value an example, computed with the model
        that it is handed. ``weight(batch)`` is the batch's weight: its number of examples by default.
        """
        objective = cls.__new__(cls)
        function = FunctionalModel(model, Step(step), parameters, dtype, device)
        objective._build(function, batches, batch_size, weight, (batch_norm, batch_norm_batches, None), name)
        return objective

    # What it is made of

    @property
    def space(self) -> ParameterSpace:
        """Which part of theta is which tensor."""
        return self._function.space

    @property
    def point(self) -> Tensor:
        """theta ``(n,)`` of the model that was given."""
        return self._function.point

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
        return self._function.policy

    @property
    def has_batch_norm(self) -> bool:
        """Whether the model keeps running statistics that belong to its own point."""
        return any(m.track_running_stats for m in self._function.norms)

    def point_of(self, source: Source) -> Tensor:
        """theta ``(n,)`` of a module, a state dict or a file (``.safetensors``, ``.pt``) of the same architecture.

        A point is checked and handed through, on this objective's device and in its dtype.

        Only the selected parameters are taken; the others, and the buffers, stay those of this objective's model.
        Raises ``CheckpointError`` when names or shapes differ, listing the first of them.
        """
        return self._at(source) if isinstance(source, Tensor) else self._function.point_of(source)

    def state_dict(self, point: Tensor | None = None) -> dict[str, Tensor]:
        """The model's full state dict with theta = ``point``: for saving, or for ``model.load_state_dict``."""
        return self._function.state_dict(self._at(point))

    def with_batch_norm(self, policy: BatchNormPolicy, batches: int | None = None, data: Any = None) -> Objective:
        """The same objective on the same data under another BatchNorm policy.

        ``batches`` and ``data`` for the statistics are this objective's own unless they are given.
        """
        other = copy.copy(self)
        other._function = self._function.duplicate()
        own = self._function
        other._function.set_batch_norm(
            policy, own.norm_count if batches is None else batches, own.norm_data if data is None else self._fixed(data)
        )
        return other

    def labels(self) -> Tensor | None:
        """``(N,)``: the class of each example, where targets are classes; None where they are not."""
        return self._batches.labels()

    def restricted(self, select: str | Sequence[str], point: Tensor | None = None) -> Objective:
        """The same loss as a function of the parameters whose names match a glob or globs (``"layer4.*"``).

        The others stay as they are at ``point``, the model's own by default. Raises ``InputError`` where none match.
        """
        other = copy.copy(self)
        other._function = self._function.restricted(select, self._at(point))
        return other

    def subset(self, count: int, *, seed: int = 0) -> tuple[Objective, Strata]:
        """The same loss on about ``count`` examples, drawn class by class, and how they were drawn.

        Raises ``InputError`` where the examples have no classes, or for an impossible count.
        """
        labels = self.labels()
        if labels is None:
            raise InputError(
                "A stratified subset needs the class of each example: give data as (inputs, class indices) in memory."
            )
        strata = stratified(labels, count, seed)
        return self.examples(strata.indices), strata

    def examples(self, indices: Tensor) -> Objective:
        """The same loss on the examples with these indices ``(m,)``.

        Raises ``InputError`` where batches cannot be cut anew: data that are not held in memory, or of unequal forms.
        """
        batches = self._batches.take(indices, self._batch_size)
        if batches is None:
            raise InputError("These batches cannot be cut anew: give the data as tensors (inputs, targets).")
        other = copy.copy(self)
        other._batches = self._fixed(batches)
        return other

    def provenance(self) -> dict[str, str | int]:
        """What a Dataset's ``attrs`` say about where its numbers come from."""
        return {
            "data": self.name,
            "model": type(self._function.module).__name__,
            "n_parameters": self.n_parameters,
            "n_examples": self.n_examples,
            "dtype": str(self.dtype).removeprefix("torch."),
            "batch_norm": self.batch_norm if self._function.norms else "none",
            "model_fingerprint": self._function.fingerprint(),
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
        return samples_of(sweep(self._function, self._batches, self._at(point)), self._batches.weights)

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
        return torch.stack(
            [one["loss"].double().mean().cpu() for one in sweep(self._function, self._batches, self._at(point))]
        )

    def require_finite(self) -> None:
        """Raises ``NonFiniteLoss`` when L is NaN or infinite at the model's own point."""
        losses = self.batch_losses()
        bad = (~torch.isfinite(losses)).nonzero().flatten().tolist()
        if bad:
            raise NonFiniteLoss(
                f"The loss at the model's own point is {losses[bad[0]].item()} (batch {bad[0] + 1} of {len(losses)}, "
                f"{len(bad)} such batches): check the checkpoint and the inputs for NaN, the training for divergence."
            )

    def evaluator(
        self,
        center: Tensor,
        directions: Tensor,
        probes: Sequence[Sequence[float]],
        count: int,
        plan: Plan | None = None,
    ) -> Evaluator:
        """A fast ``evaluator(weights)`` -> samples at center + sum_j w_j d_j, for about ``count`` points.

        It is chosen by trials: a step of preparation is kept if it is faster and agrees, on some of the data and at
        the last of the ``probes``, to 1e-6 (float32; 1e-12 in float64), and all of it if it agrees with the plain loop
        on all data at every probe; ``explain`` tells what was seen. A ``plan`` that agrees is followed without trials.
        """
        points = Points(self._at(center), directions.to(self.device, self.dtype))
        tuner = Tuner(self._function, self._batches, points, probes, count)
        evaluator = tuner.choose() if plan is None else tuner.verified(plan)
        self._explanation[:] = [str(evaluator.plan), *evaluator.seen]
        return evaluator

    def explain(self) -> str:
        """How points were last evaluated: what was chosen, and what was measured on the way."""
        return "\n".join(self._explanation)

    # Derivatives

    def gradient(self, point: Tensor | None = None) -> Tensor:
        """grad L(theta), ``(n,)``."""
        require_differentiable(self._function)
        theta = self._at(point).detach().requires_grad_()
        total = torch.zeros_like(theta, requires_grad=False)
        form = Hessian(self._function)
        for index, (weight, batch) in enumerate(zip(self._batches.weights, self._batches, strict=True)):
            with torch.enable_grad(), preserved_rng(self.device):
                total += weight * gradient_of(form.losses(theta, batch, index).mean(), theta)
        total /= self._batches.total
        if not bool(torch.isfinite(total).all()):
            raise NumericalError(
                "The gradient holds NaN or infinite numbers at this point: the loss cannot be differentiated there."
            )
        return total

    def hvp(self, vector: Tensor, point: Tensor | None = None) -> Tensor:
        """H v with H the Hessian of L at ``point``: ``(n,)``, or ``(k, n)`` for the rows of a block of vectors.

        Exact, by differentiating the gradient's graph along v (double backward; Pearlmutter 1994), which is computed
        anew at each call: ``hessian`` is the operator for many products. For ReLU networks it is the Hessian almost
        everywhere, which does not see the kinks.
        """
        return self.products("hessian", point, max_memory=0, stage=False)(self._rows(vector)).view_as(vector)

    def products(
        self,
        matrix: Matrix,
        point: Tensor | None = None,
        *,
        data: Sequence[Any] | None = None,
        max_memory: int | None = None,
        stage: bool = True,
    ) -> Products:
        """V -> A V for one of the curvature matrices at ``point``: what the operators are made of.

        ``data`` are other batches with the same weights in place of the objective's own; ``stage=False`` never traces.
        """
        forms: dict[Matrix, Callable[[FunctionalModel], Linearised]] = {
            "hessian": Hessian,
            "gauss_newton": GaussNewton,
            "empirical_fisher": EmpiricalFisher,
        }
        batches: Iterable[Any] = self._batches if data is None else data
        weights = self._batches.weights
        if data is not None:
            weights = weights * (len(data) // len(weights))
        form, period = forms[matrix](self._function), len(self._batches.weights)
        return Products(form, batches, weights, self._at(point), max_memory, stage=stage, period=period)

    def exact_diagonal(self, matrix: Matrix, point: Tensor | None = None) -> Tensor | str:
        """``(n,)`` float64: the diagonal of H or G by one backward pass for each output; or why that is not possible.

        For H the network must be piecewise linear in each single weight (ReLU, pooling, linear, convolution, frozen
        BatchNorm), where it is that of G almost everywhere. Found by tracing, and verified on entries at random.
        """
        require_differentiable(self._function)
        try:
            return exact_diagonal(self._function, self._batches, self._at(point), of_hessian=matrix == "hessian")
        except NoDiagonal as reason:
            return str(reason)
        except InputError as error:
            return str(error)

    def drawn(self, point: Tensor | None = None, draws: int = 1, seed: int = 0) -> list[Any]:
        """The batches, ``draws`` times over, with targets drawn from the model at ``point`` in place of the data's.

        Raises ``InputError`` for a loss that is no negative log-likelihood from which could be drawn.
        """
        function, generator = self._function, torch.Generator().manual_seed(seed)
        with torch.no_grad(), preserved_rng(self.device):
            tensors = function.tensors(self._at(point))
            return [
                (batch[0], draw(function.losses, function.outputs(tensors, copied(batch), index), batch[1], generator))
                for _ in range(draws)
                for index, batch in enumerate(self._batches)
            ]

    def parts(self, point: Tensor | None = None) -> tuple[nn.Module, Loss, list[Any]]:
        """A copy of the model at ``point``, the loss as it was given, the batches: for a library that wants them."""
        require_differentiable(self._function)
        model, loss = self._function.parts(self._at(point))
        return model, loss, list(self._batches)

    def batch_curvatures(self, vectors: Tensor, point: Tensor | None = None) -> Sample | list[Sample]:
        """v' H_b v of every batch b as a ``Sample``: one for ``(n,)``, a list for the rows of ``(k, n)``.

        Its mean is v' H v, and its standard error is the data-sampling error of a curvature.
        """
        samples = self.products("hessian", point, max_memory=0, stage=False).forms(self._rows(vectors))
        return samples if vectors.ndim == 2 else samples[0]

    def mini_batches(self, size: int, seed: int) -> tuple[list[float], Iterable[Any]]:
        """The data once over in an order drawn from ``seed``: weights of mean 1, and batches of at most ``size``.

        The mean of weight * grad L_b over the batches is grad L. Batches that cannot be cut anew come as they are: in
        random order where they are kept in memory, else in their own.
        """
        return self._batches.shuffled(size, seed)

    def batch_gradient(self, batch: Any, point: Tensor | None = None, index: int = 0) -> tuple[float, Tensor]:
        """L_b and grad L_b ``(n,)`` on one batch of the data; ``index`` seeds what the model draws."""
        require_differentiable(self._function)
        theta = self._at(point).detach().requires_grad_()
        with torch.enable_grad(), preserved_rng(self.device):
            loss = Hessian(self._function).losses(theta, batch, index).mean()
            return loss.item(), gradient_of(loss, theta)

    # The model itself

    def forward(self) -> Forward:
        """The model's outputs as a graph of functions of its tensors, BatchNorm statistics as they are given.

        Raises ``Untraceable`` for a model that is no fixed sequence of functions.
        """
        return Forward(self._with_given_statistics(), next(iter(self._batches)))

    def state(self, source: Source | None = None) -> dict[str, Tensor]:
        """Every parameter and buffer by name: of a point, a module, a state dict or a file; of the model without one.

        A point has no BatchNorm statistics: they are estimated on the data, unless it is the model's own.
        Raises ``CheckpointError`` for the weights of another network, ``DirectionError`` for NaN, by name.
        """
        own = self._function
        if source is None or isinstance(source, Tensor):
            point = self._at(source)
            policy: BatchNormPolicy = (
                "frozen" if torch.equal(point, self.point) or not self.has_batch_norm else "recompute"
            )
            with torch.no_grad(), preserved_rng(self.device):
                tensors = self.with_batch_norm(policy)._function.tensors(point)
            rest = dict(own.module.named_parameters(prefix="model"))
            return {name.removeprefix("model."): tensor.detach().clone() for name, tensor in (rest | tensors).items()}
        state = own.state_of(source)
        own.space.check(own.space.flatten(state), "checkpoint")
        if bad := [n for n, t in state.items() if t.is_floating_point() and not bool(torch.isfinite(t).all())]:
            raise DirectionError(
                f"The checkpoint holds NaN or infinite numbers, in {', '.join(bad[:5])}: check the file."
            )
        return {n.removeprefix("model."): tensor for n, tensor in own.tensors_of(state).items()}

    def as_state_dict(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``state``, by first names and with every buffer, as ``model.load_state_dict`` takes it."""
        return self._function.saved(state)

    def outputs(self, state: Mapping[str, Tensor]) -> Iterator[Tensor]:
        """f, batch by batch, with every parameter and buffer from ``state``; of a step its losses."""
        function = self._with_given_statistics()
        for index, batch in enumerate(self._batches):
            # Nothing is yielded inside: whoever takes one batch and leaves would stay without gradients.
            with torch.no_grad(), preserved_rng(self.device):
                tensors = function.tensors_of(state)
                run = function.outputs if function.supervised else function.measure
                found = run(tensors, batch, index)
            yield found if isinstance(found, Tensor) else found["loss"]

    def movable(self) -> set[str]:
        """The tensors that theta decides: its parameters, and the running statistics of BatchNorm."""
        return {entry.name for entry in self.space} | self._function.statistics

    def like_the_first(self) -> Iterator[Any]:
        """The batches of the first one's form: those that ``forward`` can be run on."""
        wanted = None
        for batch in self._batches:
            wanted = form(batch) if wanted is None else wanted
            if form(batch) == wanted:
                yield batch

    def _with_given_statistics(self) -> FunctionalModel:
        return self.with_batch_norm("frozen")._function

    # Inside

    def _build(
        self,
        function: FunctionalModel,
        data: Any,
        batch_size: int,
        weight: Callable[[Any], float] | None,
        batch_norm: tuple[BatchNormPolicy, int | None, Any],
        name: str,
    ) -> None:
        self.name = name
        self._explanation = ["no surface was asked for yet"]  # one list for all that are made of this one
        self._function = function
        self._batch_size = batch_size
        self._batches = self._fixed(data, weight)
        policy, count, statistics = batch_norm
        function.set_batch_norm(policy, count, self._batches if statistics is None else self._fixed(statistics))
        function.probe(self._batches)

    def _fixed(self, data: Any, weight: Callable[[Any], float] | None = None) -> Batches:
        return Batches(data, batch_size=self._batch_size, device=self.device, dtype=self.dtype, weight=weight)

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
