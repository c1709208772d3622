"""L(theta): the loss of a model on fixed data as a pure function of its flat parameters."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from lossatlas.errors import BufferWarning, DirectionError, InputError, LossAtlasError, NonFiniteLoss, NumericalError
from lossatlas.evaluation.derivative_check import DerivativeCheck
from lossatlas.evaluation.points.loops import sweep
from lossatlas.evaluation.points.plans import Plan
from lossatlas.evaluation.points.tuning import Evaluator, Tuner
from lossatlas.evaluation.products.linearised import Hessian, loss_and_gradient
from lossatlas.evaluation.products.products import Products
from lossatlas.model.data.batches import Batches, describe
from lossatlas.model.data.cuts import MIXED, CutCheck, reason_of_form
from lossatlas.model.data.strata import Strata, stratified
from lossatlas.model.data.tokenised import Pairs, Texts
from lossatlas.model.filter_axes import filters_of
from lossatlas.model.filters import Axes, Filters, overridden
from lossatlas.model.functional import BatchNormPolicy, FunctionalModel, Route
from lossatlas.model.likeness import other_attributes
from lossatlas.model.loss.halves import measure_of
from lossatlas.model.loss.heads import Head, call_of, kind_of_loss, pairing
from lossatlas.model.loss.measures import Loss, Supervised
from lossatlas.model.loss.metrics import Metric
from lossatlas.model.loss.samples import Sample, samples_of
from lossatlas.model.modes import Mode, in_words
from lossatlas.model.naming import Fit
from lossatlas.model.parameters import ParameterSpace
from lossatlas.model.points import Points
from lossatlas.model.scripted import name_of
from lossatlas.model.selfcheck import check_values
from lossatlas.model.states import Given

Source = Tensor | Given


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
    model : any ``nn.Module``. Evaluated in eval mode (dropout off) unless ``mode`` says otherwise, with random
        numbers, if it draws any, from a fixed seed, so that L is a function. Complex parameters are part of theta by
        their real and imaginary parts.
    loss : ``loss(outputs, targets)``, a mean over the batch (``F.cross_entropy``) or one value an example. Under a
        criterion of PyTorch's with class weights or ignored targets L is that criterion over all data, at any
        ``batch_size``. A loss that sums over the batch is divided by the number of examples. A loss that depends on the
        batch (contrastive, triplet) keeps the batches as they are.
    data : ``(inputs, targets)`` tensors, a list of such batches, a ``DataLoader``; the same at every pass, or refused.
    parameters : glob or globs of the parameters that make up theta; all trainable ones by default. The others,
        and those with ``requires_grad=False``, stay as they are.
    metrics : name -> ``metric(outputs, targets)``, one value an example (or a 0-d mean), or a pair (sums, counts) for
        a ratio of sums over the data; ``"auto"`` takes the accuracy where targets certainly are classes, or 0 and 1,
        on what the loss does not ignore.
    weight : ``weight(batch)``, of what the loss of a batch is a mean (its number of tokens, say), where the loss itself
        does not tell; L = sum_b w_b mean_b / sum_b w_b.
    examples : ``examples(batch)``, how many examples a batch has: the length of its targets by default.
    batch_norm : ``"frozen"`` uses the running statistics as trained; ``"recompute"`` estimates them anew at each
        point from the first ``batch_norm_batches`` batches of ``batch_norm_data`` (all of ``data`` by default;
        equal weight a batch, as ``torch.optim.swa_utils.update_bn``); ``"batch"`` normalises by each batch's own.
    mode : for a model whose loss exists in training mode only: ``"train"`` is that mode with dropout off (Dropout and
        DropPath modules, attention, recurrent layers; ``F.dropout`` in a ``forward`` stays on, which is told) and
        BatchNorm by ``batch_norm``, never updated; ``"dropout"`` is the same with dropout on, where a batch drops the
        same at every point.
    batch_size : into how many examples a batch a pair of tensors is cut. Small batches keep a CPU's memory warm; a GPU
        needs larger ones.
    max_batches : more batches than this are refused, never left out; by default the data's own length, and for data
        without one 10 000 batches or 64 GiB, so that an endless loader is no endless wait.
    check : once, on the first and the last batch: that the loss is a function of theta and nothing else, and, when a
        derivative is first asked for, that gradient and curvature are those of the loss, by differences; what is not
        is refused. ``"warn"``: of derivatives a ``DerivativeWarning`` instead. False: no checks.
    dtype, device : of the private copy and of every point; the model's own by default. On a GPU float32 is float32:
        TF32 is off while lossatlas evaluates.
    name : what the data are called in figures and reports.
    network : the label of the network there ("A"); every Dataset that is measured carries it.

    Attributes
    ----------
    point : theta ``(n,)`` of the model, or the one that ``at`` was given.
    function, batches : the model and the data that it is made of, for what needs more than the mean loss.
    name, network : as they were given.

    Raises
    ------
    InputError : nothing to vary, or a model or loss that fails on the first batch.
    DataError : no data, or data that are not the same at every pass.

    Source: Li et al. 2018, "Visualizing the Loss Landscape of Neural Nets", section 1 (L as a function of the weights).

    Examples
    --------
    >>> model, data = nn.Linear(1, 1, bias=False), (torch.ones(4, 1), torch.zeros(4, 1))
    >>> objective = Objective(model, nn.functional.mse_loss, data)
    >>> objective.value(torch.tensor([3.0])), objective.gradient(torch.tensor([3.0]))
    (9.0, tensor([6.]))
    """

    function: FunctionalModel
    batches: Batches
    name: str
    network: str | None

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        data: Any,
        *,
        parameters: str | Sequence[str] | None = None,
        metrics: Mapping[str, Metric] | Literal["auto"] | None = "auto",
        weight: Callable[[Any], float] | None = None,
        examples: Callable[[Any], int] | None = None,
        batch_norm: BatchNormPolicy = "frozen",
        batch_norm_batches: int | None = None,
        batch_norm_data: Any = None,
        mode: Mode = "eval",
        batch_size: int = 128,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        max_batches: int | None = None,
        check: bool | Literal["warn"] = True,
        name: str = "data",
        network: str | None = None,
    ) -> None:
        if not callable(loss) or isinstance(loss, type):
            given = f"the class {loss.__name__}" if isinstance(loss, type) else f"a {type(loss).__name__}"
            raise InputError(
                f"The loss is {given}: give a function loss(outputs, targets), e.g. F.cross_entropy or "
                "nn.CrossEntropyLoss()."
            )
        self._max_batches = max_batches
        function = FunctionalModel(model, Supervised(loss, metrics), parameters, dtype, device, mode)
        self._build(function, data, batch_size, (weight, examples), (batch_norm, batch_norm_batches, batch_norm_data))
        self._check(model, check)
        self.name, self.network = name, network

    @classmethod
    def from_step(
        cls,
        model: nn.Module,
        step: Callable[[Any, Any], Tensor] | None = None,
        batches: Any = None,
        *,
        outputs: Callable[[Any, Any], Any] | None = None,
        loss: Loss | None = None,
        metrics: Mapping[str, Metric] | Literal["auto"] | None = "auto",
        weight: Callable[[Any], float] | None = None,
        examples: Callable[[Any], int] | None = None,
        parameters: str | Sequence[str] | None = None,
        batch_norm: BatchNormPolicy = "frozen",
        batch_norm_batches: int | None = None,
        mode: Mode = "eval",
        batch_size: int = 128,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        max_batches: int | None = None,
        check: bool | Literal["warn"] = True,
        name: str = "data",
        network: str | None = None,
    ) -> Objective:
        """L(theta) = sum_b w_b step(model, b) / sum_b w_b over batches of any kind (dicts, models with a loss inside).

        ``step(model, batch)`` returns the mean loss of the batch, or one value an example, computed with the model
        that it is handed. Its two halves are ``outputs(model, batch)``, which returns a tensor, and ``loss(outputs,
        batch)``: what needs the outputs (Gauss-Newton and Fisher matrices, exact diagonals, metrics, alignment) needs
        these in place of the step. ``metrics`` are ``metric(outputs, batch)``, of halves only. ``weight(batch)`` is
        the batch's weight: by default the number of values that are returned, what the criterion of PyTorch's that is
        returned divides by, or its number of examples, ``examples(batch)``.

        Examples
        --------
        >>> def step(model, batch):
        ...     return nn.functional.mse_loss(model(batch["x"]), batch["y"])
        >>> batches = [{"x": torch.ones(4, 1), "y": torch.zeros(4, 1)}]
        >>> objective = Objective.from_step(nn.Linear(1, 1, bias=False), step, batches)
        >>> objective.value(torch.tensor([2.0]))
        4.0
        >>> def outputs(model, batch):
        ...     return model(batch["x"])
        >>> def loss(outputs, batch):
        ...     return nn.functional.mse_loss(outputs, batch["y"])
        >>> halves = Objective.from_step(nn.Linear(1, 1, bias=False), batches=batches, outputs=outputs, loss=loss)
        >>> halves.value(torch.tensor([2.0]))
        4.0
        """
        if batches is None:
            raise InputError("from_step was given no batches: give batches=, a list of them or a DataLoader.")
        function = FunctionalModel(model, measure_of(step, outputs, loss, metrics), parameters, dtype, device, mode)
        objective = cls.__new__(cls)
        objective._max_batches = max_batches
        objective._build(function, batches, batch_size, (weight, examples), (batch_norm, batch_norm_batches, None))
        objective._check(model, check)
        objective.name, objective.network = name, network
        return objective

    @classmethod
    def from_hf(
        cls,
        model: nn.Module,
        data: Any,
        *,
        metrics: Mapping[str, Metric] | Literal["auto"] | None = "auto",
        parameters: str | Sequence[str] | None = None,
        batch_size: int = 8,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        max_batches: int | None = None,
        check: bool | Literal["warn"] = True,
        name: str = "data",
        network: str | None = None,
    ) -> Objective:
        """L(theta) of a Hugging Face model: the mean over all targets that count, over all data.

        For causal, masked and sequence-to-sequence language models and for classifiers: any model that takes tensors
        by name and returns ``.loss`` and ``.logits`` where it is given ``labels``. L is computed from the logits; which
        loss it is, and whether a label is that of the next position, is found by the model's own value on the first
        batch. Labels of -100 do not count: L does not depend on how texts are batched or padded.

        Parameters
        ----------
        data : tokenised texts, in any of these forms: batches ``{name: tensor}`` (a list, a ``DataLoader`` with
            ``shuffle=False``), columns (what a tokenizer returns), or rows (a ``datasets.Dataset``, a list of dicts),
            which are cut into batches of ``batch_size`` and padded. Names that the model does not take are left out,
            which ``explain`` tells. Without labels the loss is that of the next token, at all places with attention.
        metrics : as for ``Objective``, on logits and targets; of a language model the targets are the next tokens.

        The others are as for ``Objective``.

        Raises
        ------
        InputError : a model without labels, loss or logits, or whose loss is another function of these.
        DataError : as for ``Objective``.

        Examples
        --------
        >>> from types import SimpleNamespace
        >>> class Bigrams(nn.Module):  # transformers.GPT2LMHeadModel(...) in its place
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.table = nn.Embedding(3, 3)
        ...
        ...     def forward(self, input_ids, attention_mask=None, labels=None):
        ...         logits, loss = self.table(input_ids), None
        ...         if labels is not None:
        ...             loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        ...         return SimpleNamespace(loss=loss, logits=logits)
        >>> objective = Objective.from_hf(Bigrams(), [{"input_ids": [0, 1, 2]}, {"input_ids": [0, 2]}])
        >>> objective.value(torch.zeros(9))  # log 3, over three tokens that follow another one
        1.0986...
        """
        call = call_of(model)
        texts = Texts(data, batch_size, call.names)
        kind = kind_of_loss(model, call, next(iter(texts)))
        function = FunctionalModel(model, Head(kind.loss, call, metrics), parameters, dtype, device)
        objective = cls.__new__(cls)
        objective._max_batches = max_batches
        objective._build(function, Pairs(texts, pairing(kind, call)), batch_size, (None, None), ("frozen", None, None))
        objective._check(model, check)
        left = f"; {', '.join(sorted(texts.left_out))} left out, which it does not take" if texts.left_out else ""
        objective._explanation.append(f"the model's loss is {kind.name}{left}")
        objective.name, objective.network = name, network
        return objective

    # What it is made of

    @property
    def space(self) -> ParameterSpace:
        """Which part of theta is which tensor."""
        return self.function.space

    @property
    def point(self) -> Tensor:
        """theta ``(n,)`` of the model that was given; a copy."""
        return self.function.point.clone()

    @property
    def n_parameters(self) -> int:
        """n, the length of theta."""
        return self.space.n

    @property
    def n_examples(self) -> int:
        """N, the number of examples."""
        return self.batches.n_examples

    @property
    def dtype(self) -> torch.dtype:
        return self.function.point.dtype

    @property
    def device(self) -> torch.device:
        return self.function.point.device

    def point_of(self, source: Source, key: str | None = None) -> Tensor:
        """theta ``(n,)`` of a module, a mapping or a file of the same architecture.

        A file is by ``torch.save``, ``.safetensors``, or an index of its shards; a folder holds one of these. At any
        depth of what it holds (Lightning, timm, a training checkpoint with an average beside the weights) the names and
        shapes of one state must be the model's, up to what stands before all of them (``model.``) and the parts of
        names that wrappers leave (``module.``, ``_orig_mod.``). ``key`` picks where several are (``"state_dict_ema"``,
        ``"state_dict.teacher"``), as does the end of a path, ``"file.pt:state_dict_ema"``; ``explain()`` tells what
        was taken. Of an adapter's file, as PEFT saves it, all else is this model's. Nothing in a file is run.

        A point is checked and handed through, on this objective's device and in its dtype.

        Only the selected parameters are taken; the others, and the buffers, stay those of this objective's model.

        Raises
        ------
        CheckpointError : no state has these names and shapes, listing the first that differ; or several have, or one
            that holds more, with the ``key`` to give.

        Examples
        --------
        >>> data = torch.ones(4, 1), torch.zeros(4, 1)
        >>> objective = Objective(nn.Linear(1, 1, bias=False), nn.functional.mse_loss, data)
        >>> checkpoint = {"state_dict": {"model.weight": torch.ones(1, 1)}, "ema": {"weight": torch.zeros(1, 1)}}
        >>> objective.point_of(checkpoint, key="ema"), objective.point_of(checkpoint, key="state_dict")
        (tensor([0.]), tensor([1.]))
        """
        if isinstance(source, Tensor):
            return self._at(source)
        fit = self.function.fit_of(source, key)
        state = self.function.state_from(source, fit)
        if differing := self.function.other_buffers(state):
            warnings.warn(
                f"The model that was given has other buffers than the objective's ({', '.join(differing[:4])}): values "
                "and surfaces at its point keep the objective's own, and only paths (barrier, connectivity, connect) "
                "carry them along; for the model's own loss make its own Objective.",
                BufferWarning,
                stacklevel=2,
            )
        return self._end_from(source, fit, state, stacklevel=3)

    def end_of(self, source: Source) -> Tensor:
        """The same, of a model that a path ends at, which carries its buffers along."""
        if isinstance(source, Tensor):
            return self._at(source)
        fit = self.function.fit_of(source)
        return self._end_from(source, fit, self.function.state_from(source, fit), stacklevel=4)

    def _end_from(self, source: Given, fit: Fit, state: Mapping[str, Tensor], stacklevel: int) -> Tensor:
        point = self.function.point_from(state)
        if isinstance(source, nn.Module):
            batch = next(iter(self.batches))
            if differing := other_attributes(self.function, source, fit, point, batch):
                warnings.warn(
                    f"The model that was given is another than the objective's in what no state dict holds "
                    f"({', '.join(differing[:4])}), and has another loss by it: its point is evaluated with the "
                    "objective's own; for the model's own loss make its own Objective.",
                    BufferWarning,
                    stacklevel=stacklevel,
                )
        return point

    def state_dict(self, point: Tensor | None = None) -> dict[str, Tensor]:
        """The model's full state dict with theta = ``point``: for saving, or for ``model.load_state_dict``."""
        return self.function.state_dict(self._at(point))

    def with_batch_norm(self, policy: BatchNormPolicy, batches: int | None = None, data: Any = None) -> Objective:
        """The same objective on the same data under another BatchNorm policy.

        ``batches`` and ``data`` for the statistics are this objective's own unless they are given.
        """
        other = copy.copy(self)
        other.function = self.function.duplicate()
        own = self.function
        other.function.set_batch_norm(
            policy, own.norm_count if batches is None else batches, own.norm_data if data is None else self._fixed(data)
        )
        return other

    def with_route(self, route: Route | None) -> Objective:
        """The same objective, with another route of the products with its Hessian, in whatever is measured of it.

        ``"exact"`` differentiates the gradient, and refuses what has no second derivative. ``"differences"`` takes
        H v = (g(theta + h v) - g(theta - h v)) / 2h + O(h^2), two gradients a product, in float64 where model and loss
        work in it, with h = sqrt(eps) |theta| / |v|; the error is estimated by what the two one-sided differences are
        apart. None takes the exact route where there is one, else differences, with a ``DerivativeWarning``.

        Raises ``InputError`` for another route.

        Source: Nocedal & Wright 2006, "Numerical Optimization", section 8.1 (differences of the gradient, steps).

        Examples
        --------
        >>> data = torch.ones(4, 1), torch.zeros(4, 1)
        >>> objective = Objective(nn.Linear(1, 1, bias=False), nn.functional.mse_loss, data).with_route("differences")
        >>> objective.hvp(torch.tensor([3.0]))
        tensor([6.])
        """
        if route not in (None, *get_args(Route)):
            raise InputError(f"route={route!r}: choose 'exact', 'differences', or None.")
        other = copy.copy(self)
        other.function = self.function.routed(route)
        return other

    def at(self, point: Tensor) -> Objective:
        """The same function seen from ``point`` ``(n,)``: what defaults to the model's own point takes this one.

        Costs a copy of the point: data and model are shared, and BatchNorm's running statistics stay as they are.
        Raises ``DirectionError`` for a point of another shape, or one that is not finite.

        Examples
        --------
        >>> model, data = nn.Linear(1, 1, bias=False), (torch.ones(4, 1), torch.zeros(4, 1))
        >>> objective = Objective(model, nn.functional.mse_loss, data).at(torch.tensor([3.0]))
        >>> objective.point, objective.value()
        (tensor([3.]), 9.0)
        """
        other = copy.copy(self)
        other.function = self.function.at(self._at(point))
        return other

    def restricted(self, select: str | Sequence[str]) -> Objective:
        """The same loss as a function of the parameters whose names match a glob or globs (``"layer4.*"``).

        The others stay as they are at ``point``: ``objective.at(point).restricted(select)`` fixes them elsewhere.
        Raises ``InputError`` where none match.

        Examples
        --------
        >>> data = torch.ones(4, 2), torch.zeros(4, 1)
        >>> objective = Objective(nn.Linear(2, 1), nn.functional.mse_loss, data)
        >>> objective.n_parameters, objective.restricted("bias").n_parameters
        (3, 1)
        """
        other = copy.copy(self)
        other.function = self.function.restricted(select)
        return other

    def subset(self, count: int, *, seed: int = 0) -> tuple[Objective, Strata]:
        """The same loss on about ``count`` examples, drawn class by class, and how they were drawn.

        Raises ``InputError`` where the examples have no classes, or for an impossible count.
        """
        labels = self.batches.labels()
        if labels is None:
            raise InputError(
                "A stratified subset needs the class of each example: give data as (inputs, class indices) in memory."
            )
        strata = stratified(labels, count, seed)
        return self.examples(strata.indices), strata

    def examples(self, indices: Tensor) -> Objective:
        """The same loss on the examples with these indices ``(m,)``.

        Raises ``InputError`` where batches cannot be cut anew: data that are not held in memory, of unequal forms, or
        with rows that are no examples of their own (graphs); every second row of a batch is tried where form decides
        nothing.
        """
        batches = self.batches.take(indices, self._batch_size)
        if batches is None:
            raise InputError(
                f"These batches cannot be cut anew, since {self.batches.uncut}: give the data as tensors "
                "(inputs, targets) with one row an example."
            )
        other = copy.copy(self)
        other.batches = self._fixed(batches)
        other.batches.settle(size=self.batches.size, weigh=self.batches.weigh)
        return other

    def filters(self, given: Mapping[str, Axes] | None = None) -> dict[str, Filters]:
        """By tensor of theta, the slices of it that each feed one unit of what it computes.

        Their axes are seen in one pass over the first batch: those that are not summed over where the tensor meets the
        data. ``given`` overrides them, ``{name or glob: axis, axes or None}``; None makes the tensor one filter.
        """
        if any(entry.name not in self.function.filters for entry in self.space):
            self.function.filters.update(filters_of(self.function, next(iter(self.batches))))
        return overridden(self.space, self.function.filters, given or {})

    def provenance(self) -> dict[str, str | int]:
        """What a Dataset's ``attrs`` say about where its numbers come from."""
        label: dict[str, str | int] = {} if self.network is None else {"network": self.network}
        if self.function.depends_on_batch:
            label["batch_dependence"] = "kept as they are, since the loss of an example depends on its batch"
        if self.function.draws:
            label["random_numbers"] = "drawn by model or loss, from a fixed seed for each batch"
        if mode := in_words(self.function.mode):
            label["mode"] = mode
        failures = self.function.derivatives.failures(self.function) if self.function.derivatives else []
        if told := [*failures, *self._inexact]:
            label["derivatives"] = " ".join(told)
        return label | {
            "data": self.name,
            "model": name_of(self.function.module),
            "n_parameters": self.n_parameters,
            "n_examples": self.n_examples,
            "dtype": str(self.dtype).removeprefix("torch."),
            "batch_norm": self.function.batch_norm,
            "model_fingerprint": self.function.fingerprint(),
            "data_fingerprint": self.batches.fingerprint,
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
        return samples_of(sweep(self.function, self.batches, self._at(point)), self.batches.weights)

    def example_losses(self, point: Tensor | None = None) -> Tensor:
        """``(N,)`` float64: l_i at ``point``. Raises ``InputError`` when the loss has no value for a single example."""
        sample = self.samples(point)["loss"]
        if sample.over != "examples":
            raise InputError(
                "This loss gives one value a batch, not one an example: return per-example values, or use samples()."
            )
        return sample.values

    def require_finite(self) -> None:
        """Raises ``NonFiniteLoss`` when L is NaN or infinite at ``point``."""
        measured = sweep(self.function, self.batches, self.function.point)
        losses = torch.stack([one["loss"].double().mean().cpu() for one in measured])
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
        tuner = Tuner(self.function, self.batches, points, probes, count)
        evaluator = tuner.choose() if plan is None else tuner.verified(plan)
        checks = [line for line in self._explanation if line.startswith("self-check")]
        self._explanation[:] = [str(evaluator.plan), *evaluator.seen, *checks, evaluator.threads]
        return evaluator

    def explain(self) -> str:
        """How points were last evaluated and why so, what the self-checks found, of what the loss is a mean, and what
        was taken of checkpoints.
        """
        shared = ", ".join(self.function.shared)
        told = [f"shared with the model that was given, since it cannot be copied: {shared}"] if shared else []
        read = [f"weights of {what}: {note}" for what, note in self.function.choices.items()]
        return "\n".join([*self._explanation, *told, *self._inexact, f"loss: {self.function.reduction}", *read])

    @property
    def _inexact(self) -> list[str]:
        """A sentence on products with the Hessian that are not exact, by the objective's route, if there were any."""
        return [told for route, told in self.function.inexact.items() if route == self.function.route]

    # Derivatives

    @torch.inference_mode(False)  # a caller's own would leave no graph
    def value_and_gradient(self, point: Tensor | None = None) -> tuple[float, Tensor]:
        """L(theta), summed in float64, and grad L(theta) ``(n,)``, from one pass; NaN or infinite where they are."""
        theta, value = self._at(point), 0.0
        total = torch.zeros_like(theta, requires_grad=False)
        for index, (weight, batch) in enumerate(zip(self.batches.weights, self.batches, strict=True)):
            loss, gradient = loss_and_gradient(self.function, theta, batch, index)
            value, total = value + weight * float(loss), total.add_(gradient, alpha=weight)
        return value / self.batches.total, total / self.batches.total

    def gradient(self, point: Tensor | None = None) -> Tensor:
        """grad L(theta), ``(n,)``. Raises ``NumericalError`` where it is not finite."""
        total = self.value_and_gradient(point)[1]
        if not bool(torch.isfinite(total).all()):
            raise NumericalError(
                "The gradient holds NaN or infinite numbers at this point: the loss cannot be differentiated there."
            )
        return total

    @torch.inference_mode(False)
    def hvp(self, vector: Tensor, point: Tensor | None = None) -> Tensor:
        """H v with H the Hessian of L at ``point``: ``(n,)``, or ``(k, n)`` for the rows of a block of vectors.

        Exact, by differentiating the gradient's graph along v (double backward; Pearlmutter 1994), which is computed
        anew at each call: ``hessian`` is the operator for many products. For ReLU networks it is the Hessian almost
        everywhere, which does not see the kinks. ``with_route`` chooses another route, and what has no second
        derivative is told by a ``DerivativeWarning``.
        """
        form, weights = Hessian(self.function), self.batches.weights
        products = Products(form, self.batches, weights, self._at(point), max_memory=0, stage=False)
        return products(self._rows(vector)).view_as(vector)

    # Inside

    def _build(
        self,
        function: FunctionalModel,
        data: Any,
        batch_size: int,
        counting: tuple[Callable[[Any], float] | None, Callable[[Any], int] | None],
        batch_norm: tuple[BatchNormPolicy, int | None, Any],
    ) -> None:
        self._explanation = ["no surface was asked for yet"]  # one list for all that are made of this one
        self.function = function
        self._batch_size = batch_size
        self.batches = self._fixed(data, *counting)
        policy, count, statistics = batch_norm
        function.set_batch_norm(policy, count, self.batches if statistics is None else self._fixed(statistics))
        function.probe(self.batches)
        self.batches.cut_check = CutCheck(function)

    def _check(self, model: nn.Module, check: bool | Literal["warn"]) -> None:
        if check not in (True, False, "warn"):
            raise InputError(f"check={check!r}: give True, False, or 'warn' for derivatives that only warn.")
        if check:
            self._explanation.append(check_values(self.function, model, self.batches))
            self._look_for_mixed_rows()
            self.function.derivatives = DerivativeCheck(self.batches, check == "warn", self._explanation)

    def _look_for_mixed_rows(self) -> None:
        batch, size = next(iter(self.batches)), self.batches.sizes[0]
        try:
            mixed = reason_of_form([batch], [size]) is None and CutCheck(self.function).mixed(batch)
        except LossAtlasError:  # rows that fail alone, which is told where they are to be cut
            return
        if mixed:
            self.function.rows_depend = True
            self.batches.settle(uncut=MIXED)
            self._explanation.append(f"batches are kept as they are: {MIXED}")

    def _fixed(
        self, data: Any, weight: Callable[[Any], float] | None = None, examples: Callable[[Any], int] | None = None
    ) -> Batches:
        return Batches(
            data,
            batch_size=self._batch_size,
            device=self.device,
            dtype=self.dtype,
            weight=weight,
            examples=examples,
            max_batches=self._max_batches,
        )

    def _at(self, point: Tensor | None) -> Tensor:
        if point is None:
            return self.function.point
        return self.space.check(point).to(self.device, self.dtype)

    def _rows(self, vector: Tensor) -> Tensor:
        if vector.ndim not in (1, 2) or vector.shape[-1] != self.n_parameters or not vector.is_floating_point():
            raise DirectionError(
                f"The vector is {describe(vector)}: give floats, ({self.n_parameters},) or (k, {self.n_parameters})."
            )
        if not bool(torch.isfinite(vector).all()):
            raise DirectionError("The vector holds NaN or infinite numbers: give a finite one.")
        return vector.to(self.device, self.dtype).reshape(-1, self.n_parameters)
