"""Training on a small scale: seeded, recorded, resumable, measured after each epoch with standard errors."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from lossatlas.errors import DataError, InputError, NonFiniteLoss
from lossatlas.model.data.batches import digest
from lossatlas.zoo import checkpoint
from lossatlas.zoo.batches import Batches, Data, Pair, TensorBatches, count, make_batches
from lossatlas.zoo.history import History
from lossatlas.zoo.isolation import kept_buffers, prepared, random_numbers, restart
from lossatlas.zoo.measuring import Loss, check_labels, measured
from lossatlas.zoo.optimizers import Optimizer, Schedule, make_optimizer, make_schedule

MEASURING_BATCH = 200  # the activations of a small CNN then stay in a CPU's cache


def fit(
    model: nn.Module,
    data: Data,
    *,
    epochs: int,
    seed: int = 0,
    fork: tuple[int, int] | None = None,
    optimizer: Optimizer = "sgd",
    learning_rate: float = 0.01,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    rho: float = 0.05,
    batch_size: int = 128,
    schedule: Schedule = None,
    loss: Loss = nn.functional.cross_entropy,
    on_step: Callable[..., object] | None = None,
    test: Data | None = None,
    channels_last: bool = False,
    device: str | torch.device | None = None,
    folder: str | Path | None = None,
    progress: bool = True,
) -> History:
    """Train ``model`` in place and return what was measured meanwhile.

    The result depends on the initial weights, the data, the settings and ``seed`` alone: random numbers (the order
    of the examples, dropout) come from a stream of ``(seed, epoch)``, and the global ones are left where they were.
    All modules are in training mode during the steps and come back in the mode that they were given in.

    Parameters
    ----------
    model
        its parameters with ``requires_grad`` are trained.
    data
        ``(inputs, targets)`` tensors, shuffled anew in each epoch, or a ``DataLoader`` or other iterable of such
        pairs, which is taken as it comes.
    epochs
        passes over the data.
    seed
        of the random numbers during training (not of the initial weights, which are the model's).
    fork
        ``(step, order)``: the random numbers after so many steps come from the stream of ``(seed, epoch, order)``.
        Runs of one seed and one step are the same bits up to that step whatever their ``order``, and after it see the
        rest of that epoch and the later ones in orders of their own (Frankle et al. 2020). For tensors only.
    optimizer
        ``"sgd"``, ``"adam"``, ``"adamw"``, ``"sam"`` (Foret et al. 2021, over SGD), or a function from a list of
        parameters to a torch optimiser, which then has its own settings in place of the next four.
    learning_rate, momentum, weight_decay, rho
        of the optimiser; momentum is of SGD and SAM, rho the radius of SAM.
    batch_size
        examples a step, for tensors.
    schedule
        ``None``, ``"cosine"`` (to zero), ``"step"`` (a tenth from one half on, a hundredth from three quarters on),
        or a function from the share of the training that is done to a factor on the learning rate. It is applied
        at each step, or at each epoch where the number of batches is not known beforehand.
    loss
        ``loss(outputs, targets)``, a mean over the examples of the batch.
    on_step
        called as ``on_step(0)`` before the first step and as ``on_step(step, loss=, gradient_norm=,
        learning_rate=)`` after each, with the loss and the gradient's norm before the step and the weights after
        it. A ``Recorder`` is such a function.
    test
        measured after each epoch, as ``data`` are.
    channels_last
        keep 4-D weights in channels-last memory while training. On a CPU this makes the steps of a small CNN a
        fifth faster and its evaluation twice as fast; ``forward`` must then not call ``view`` on the outputs of
        convolutions (``flatten`` and ``reshape`` are fine).
    device
        where to train; by default where the model is. The model comes back to where it was.
    folder
        where the state is kept after each epoch. The same call, on the model as it was at the start, goes on after
        the last whole epoch of a killed run and ends in the same bits; ``on_step(0)`` is then not repeated.
    progress
        show a bar.

    Raises
    ------
    NonFiniteLoss : the loss of a batch, or of the training data after an epoch, is NaN or infinite.
    DataError : no data, unequal numbers of inputs and targets, batches that are no pairs, labels out of range.
    InputError, ConfigError : an impossible setting; a model without trainable parameters.
    OutputError : ``folder`` holds a run with other settings, or cannot be written.
    CheckpointError : the file in ``folder`` is damaged.

    Examples
    --------
    >>> inputs = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    >>> targets = (inputs[:, 0] > 0).long()
    >>> history = fit(nn.Linear(4, 2), (inputs, targets), epochs=20, learning_rate=0.5, progress=False)
    >>> len(history.loss), history.train_accuracy[-1] > 0.9
    (20, True)
    """
    _check(model, data, folder, seed, epochs=epochs, batch_size=batch_size)
    factor = make_schedule(schedule)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with prepared(model, device, channels_last) as place:
        built = make_optimizer(
            optimizer,
            parameters,
            learning_rate=learning_rate,
            momentum=momentum,
            weight_decay=weight_decay,
            rho=rho,
        )
        train = make_batches(data, batch_size, place, shuffle=True)
        fork_at = None if fork is None else _fork(fork, train, epochs)
        settings = {
            "model": type(model).__name__,
            "optimizer": _name(optimizer),
            "learning_rate": float(built.param_groups[0]["lr"]),
            "momentum": momentum,
            "weight_decay": weight_decay,
            "rho": rho,
            "batch_size": train.size,
            "schedule": _name(schedule),
            "loss": _name(loss),
            "epochs": epochs,
            "seed": seed,
            "fork": None if fork is None else f"step {fork[0]}, order {fork[1]}",
            "channels_last": int(channels_last),
        }
        run = _Training(
            model=model,
            optimizer=built,
            loss=loss,
            factor=factor,
            train=train,
            test=None if test is None else make_batches(test, MEASURING_BATCH, place),
            epochs=epochs,
            seed=seed,
            fork=fork_at,
            on_step=on_step,
            folder=None if folder is None else Path(folder),
            settings=settings,
        )
        return run.to_the_end(place, progress)


class _Fork(NamedTuple):
    """Where a run leaves the others of its seed: before this batch of this epoch."""

    epoch: int
    batch: int
    order: int


@dataclass
class _Training:
    """A training in progress: what it needs, and the history so far."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Loss
    factor: Callable[[float], float]
    train: Batches
    test: Batches | None
    epochs: int
    seed: int
    fork: _Fork | None
    on_step: Callable[..., object] | None
    folder: Path | None
    settings: dict[str, Any]
    history: History = field(default_factory=History)

    def __post_init__(self) -> None:
        self.rates = [float(group["lr"]) for group in self.optimizer.param_groups]

    def to_the_end(self, device: torch.device, progress: bool) -> History:
        self._resume()
        if self.on_step is not None and not self.history.train_loss:
            self.on_step(0)
        length = count(self.train)
        total = None if length is None else length * self.epochs
        done = len(self.history.loss)
        with tqdm(total=total, initial=done, desc="training", unit="step", disable=not progress) as bar:
            for epoch in range(len(self.history.train_loss), self.epochs):
                started = time.perf_counter()
                order = self.fork.order if self.fork is not None and epoch > self.fork.epoch else None
                with random_numbers(self.seed, epoch, device, order):
                    self._epoch(epoch, self._batches(epoch, device), length, bar)
                    self._measure(epoch)
                self.history.seconds += time.perf_counter() - started
                bar.set_postfix_str(f"epoch {epoch + 1}/{self.epochs}: {self._latest()}")
                self._keep()
        return self.history

    def _batches(self, epoch: int, device: torch.device) -> Iterable[Pair]:
        fork = self.fork
        if fork is None or epoch != fork.epoch or not isinstance(self.train, TensorBatches):
            return self.train
        return self.train.forked(fork.batch, lambda: restart(self.seed, epoch, device, fork.order))

    def _epoch(self, epoch: int, batches: Iterable[Pair], length: int | None, bar: tqdm[Any]) -> None:
        self.model.train()
        before = len(self.history.loss)
        for index, (inputs, targets) in enumerate(batches):
            rate = self._set_rate((epoch + (index / length if length else 0)) / self.epochs)
            loss, norm = self._step(inputs, targets)
            self.history.append(loss=loss, gradient_norm=norm, learning_rate=rate)
            if self.on_step is not None:
                self.on_step(len(self.history.loss), loss=loss, gradient_norm=norm, learning_rate=rate)
            bar.update()
        if len(self.history.loss) == before:
            raise DataError(f"The data gave no batch in epoch {epoch + 1}: give at least one, in every epoch.")

    def _set_rate(self, share: float) -> float:
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * self.factor(share)
        return float(self.optimizer.param_groups[0]["lr"])

    def _step(self, inputs: Tensor, targets: Tensor) -> tuple[float, float]:
        """One step of the optimiser; the loss and the gradient's norm where it began."""
        seen: list[tuple[float, float]] = []

        def closure() -> Tensor:
            # Only the first evaluation is at theta: BatchNorm's running statistics are to see no other point.
            with kept_buffers(self.model) if seen else nullcontext():
                self.optimizer.zero_grad()
                outputs = self.model(inputs)
                check_labels(outputs, targets)
                loss = self.loss(outputs, targets)
                if not seen:
                    self._check_loss(loss)
                loss.backward()
            if not seen:
                seen.append((loss.item(), _gradient_norm(self.model)))
            return loss

        self.optimizer.step(closure)  # type: ignore[arg-type]  # torch's stubs ask for a float
        return seen[0]

    def _check_loss(self, loss: Tensor) -> None:
        if loss.ndim:
            raise InputError(
                f"The loss has shape {tuple(loss.shape)}: give one that returns the mean over the batch, a 0-d tensor."
            )
        if not math.isfinite(loss.item()):
            rate = self.optimizer.param_groups[0]["lr"]
            raise NonFiniteLoss(
                f"The training loss is {loss.item()} at step {len(self.history.loss) + 1}, with learning rate"
                f" {rate:g}: try a smaller one, or look for NaN in the data."
            )

    def _measure(self, epoch: int) -> None:
        train, n_examples = measured(self.model, self.loss, self.train.in_order(MEASURING_BATCH))
        if not math.isfinite(train["loss"]):
            raise NonFiniteLoss(
                f"The training loss is {train['loss']} after epoch {epoch + 1}: try a smaller learning rate,"
                " or look for NaN in the data."
            )
        test = dict.fromkeys(train, math.nan)
        if self.test is not None:
            test, _ = measured(self.model, self.loss, self.test)
        self.history.append(**{f"train_{name}": value for name, value in train.items()})
        self.history.append(**{f"test_{name}": value for name, value in test.items()})
        self.history.attrs = self._attributes(n_examples)

    def _attributes(self, n_examples: int) -> dict[str, str | int | float]:
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        normalised = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in self.model.modules())
        found = {
            **self.settings,
            "data": f"{n_examples:,} training examples",
            "n_parameters": sum(parameter.numel() for parameter in parameters),
            "n_examples": n_examples,
            "dtype": str(parameters[0].dtype).removeprefix("torch."),
            "batch_norm": "frozen" if normalised else "none",
            "stderr_over": "examples",
            "lossatlas": version("lossatlas"),
            "torch": torch.__version__,
        }
        return {name: "none" if value is None else value for name, value in found.items()}

    def _latest(self) -> str:
        part = "train" if self.test is None else "test"
        loss, accuracy = getattr(self.history, f"{part}_loss"), getattr(self.history, f"{part}_accuracy")
        return f"{part} loss {loss[-1]:.4f}, accuracy {accuracy[-1]:.4f}"

    def _resume(self) -> None:
        if self.folder is None:
            return
        tensors = [batches for batches in (self.train, self.test) if isinstance(batches, TensorBatches)]
        self.settings["initial weights"] = digest(list(self.model.state_dict().values()))
        self.settings["examples"] = digest([(b.inputs, b.targets) for b in tensors])
        stored = checkpoint.load(self.folder, self.model, self.optimizer, self.settings)
        if stored is not None:
            self.history = History(**stored)
        else:
            self._keep()  # a folder that cannot be written is found out now, not after an epoch

    def _keep(self) -> None:
        if self.folder is not None:
            checkpoint.save(self.folder, self.model, self.optimizer, self.settings, asdict(self.history))


def _gradient_norm(model: nn.Module) -> float:
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return torch.nn.utils.get_total_norm(gradients).item()


def _check(model: nn.Module, data: Data, folder: str | Path | None, seed: int, **counts: int) -> None:
    if seed < 0:
        raise InputError(f"seed is {seed}: give a whole number from 0 up.")
    for name, number in counts.items():
        if number < 1:
            raise InputError(f"{name} is {number}: give a whole number from 1 up.")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError(
            f"{type(model).__name__} has no parameter with requires_grad=True, so there is nothing to train:"
            " call requires_grad_(True) on what shall be trained."
        )
    if folder is not None and getattr(data, "generator", None) is not None:
        raise DataError(
            "The DataLoader has a generator of its own, whose state a resumed run could not put back:"
            " leave generator= out (fit seeds the order itself), or train without a folder."
        )


def _fork(fork: tuple[int, int], train: Batches, epochs: int) -> _Fork:
    if not isinstance(train, TensorBatches):
        raise DataError(
            f"fork={fork} with a {type(train.loader).__name__}, which brings an order of its own: give the data as"
            " tensors (inputs, targets)."
        )
    step, order = fork
    if min(step, order) < 0:
        raise InputError(f"fork={fork}: give a step and an order, two whole numbers from 0 up.")
    if step > len(train) * epochs:
        raise InputError(f"fork={fork}, but {epochs} epochs are {len(train) * epochs:,} steps: give a step up to that.")
    epoch, batch = divmod(step, len(train))
    return _Fork(epoch, batch, order)


def _name(choice: object) -> str:
    return choice if isinstance(choice, str) else str(getattr(choice, "__name__", type(choice).__name__))
