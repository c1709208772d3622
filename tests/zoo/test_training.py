"""Training: the update rules against their formulas, the promises about seeds and kills, and bad input."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from oracles.refusals import refused
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lossatlas import zoo
from lossatlas.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    InputError,
    LossAtlasError,
    NonFiniteLoss,
    OutputError,
)
from lossatlas.trajectory.recorder import Recorder

LEARNING_RATE, MOMENTUM, DECAY, RHO = 0.2, 0.8, 0.01, 0.3


def made(n: int = 60, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    inputs = torch.randn(n, 1, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return inputs, (inputs.mean((1, 2, 3)) > 0).long() + (inputs[:, 0, 0, 0] > 0).long()


def with_everything(seed: int = 0) -> nn.Sequential:
    """A small network with BatchNorm's running statistics and with dropout."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(16, 3)
        )


def quiet(model: nn.Module, data: Any, **options: Any) -> zoo.History:
    return zoo.fit(model, data, **{"epochs": 2, "batch_size": 16, "progress": False} | options)


def bits(model: nn.Module) -> list[bytes]:
    return [value.numpy().tobytes() for value in model.state_dict().values()]


# Update rules, in float64 with one batch an epoch, so that the order of the examples does not matter


def gradients(model: nn.Module, parameters: list[Tensor], data: tuple[Tensor, Tensor]) -> list[Tensor]:
    names = [name for name, _ in model.named_parameters()]
    free = [parameter.detach().requires_grad_() for parameter in parameters]
    outputs = torch.func.functional_call(model, dict(zip(names, free, strict=True)), (data[0],))
    return list(torch.autograd.grad(F.cross_entropy(outputs, data[1]), free))


def by_formula(kind: str, model: nn.Module, data: tuple[Tensor, Tensor], steps: int) -> list[Tensor]:
    """theta after ``steps`` full-batch steps of SGD with momentum, or of SAM (Foret et al. 2021) on top of it."""
    theta = [parameter.detach().clone() for parameter in model.parameters()]
    velocity = [torch.zeros_like(parameter) for parameter in theta]
    for _ in range(steps):
        gradient = gradients(model, theta, data)
        if kind == "sam":
            norm = torch.cat([part.flatten() for part in gradient]).norm()
            gradient = gradients(model, [t + RHO * g / norm for t, g in zip(theta, gradient, strict=True)], data)
        velocity = [MOMENTUM * v + g + DECAY * t for v, g, t in zip(velocity, gradient, theta, strict=True)]
        theta = [t - LEARNING_RATE * v for t, v in zip(theta, velocity, strict=True)]
    return theta


@pytest.mark.parametrize("kind", ["sgd", "sam"])
def test_sgd_with_momentum_and_sam_follow_their_formulas(kind):
    data = made(dtype=torch.float64)
    model = zoo.mlp(16, widths=(5,), classes=3, activation="tanh", seed=0).double()
    expected = by_formula(kind, model, data, steps=5)
    options = {"learning_rate": LEARNING_RATE, "momentum": MOMENTUM, "weight_decay": DECAY, "rho": RHO}
    quiet(model, data, optimizer=kind, epochs=5, batch_size=60, **options)
    for parameter, value in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.detach(), value, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("kind", "torchs"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_adam_and_adamw_are_torchs_with_the_rate_and_the_decay(kind, torchs):
    data = made(dtype=torch.float64)
    models = [zoo.mlp(16, widths=(5,), classes=3, seed=0).double() for _ in range(2)]
    quiet(models[0], data, optimizer=kind, epochs=5, batch_size=60, learning_rate=0.05, weight_decay=0.1)
    plain = torchs(models[1].parameters(), lr=0.05, weight_decay=0.1)
    for _ in range(5):
        plain.zero_grad()
        F.cross_entropy(models[1](data[0]), data[1]).backward()
        plain.step()
    for ours, theirs in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


def test_a_function_that_makes_a_torch_optimiser_is_used():
    data = made()
    models = [zoo.mlp(16, widths=(5,), classes=3, seed=0) for _ in range(2)]
    quiet(models[0], data, optimizer="sgd", learning_rate=0.1, momentum=0.5)
    history = quiet(models[1], data, optimizer=lambda parameters: torch.optim.SGD(parameters, 0.1, 0.5))
    assert bits(models[0]) == bits(models[1])
    assert history.learning_rate == [0.1] * len(history.loss)


def test_batch_norm_under_sam_sees_the_point_and_not_the_perturbed_one():
    data = made()
    models = [with_everything() for _ in range(2)]
    for model, kind in zip(models, ("sgd", "sam"), strict=True):
        quiet(model, data, optimizer=kind, rho=1.0, epochs=1, batch_size=60)
    assert torch.equal(models[0][1].running_mean, models[1][1].running_mean)
    assert torch.equal(models[0][1].running_var, models[1][1].running_var)
    assert models[1][1].num_batches_tracked.item() == 1
    assert not torch.equal(models[0][5].weight, models[1][5].weight)


def test_sam_reports_the_loss_and_the_gradient_at_the_point():
    data = made()
    model = zoo.mlp(16, widths=(5,), classes=3, seed=0)
    outputs = model(data[0])
    loss = F.cross_entropy(outputs, data[1])
    norm = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))]).norm()
    history = quiet(model, data, optimizer="sam", rho=1.0, epochs=1, batch_size=60)
    assert history.loss[0] == pytest.approx(loss.item(), rel=1e-5)
    assert history.gradient_norm[0] == pytest.approx(norm.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        (None, [1, 1, 1, 1, 1, 1, 1, 1]),
        ("cosine", [(1 + math.cos(math.pi * step / 8)) / 2 for step in range(8)]),
        ("step", [1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01]),
        (lambda share: 1 - share, [1 - step / 8 for step in range(8)]),
    ],
)
def test_a_schedule_multiplies_the_learning_rate_at_every_step(schedule, factors):
    history = quiet(zoo.mlp(16, classes=3, seed=0), made(), schedule=schedule, learning_rate=0.05)
    assert history.learning_rate == pytest.approx([0.05 * factor for factor in factors])


# What a step sees


class Listening(nn.Module):
    """Keeps the inputs that it sees in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 2)
        self.seen: list[list[float]] = []

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            self.seen.append(inputs[:, 0].tolist())
        return self.linear(inputs / 100)


def test_an_epoch_sees_each_example_once_and_the_next_in_another_order():
    model = Listening()
    quiet(model, (torch.arange(50.0)[:, None], torch.arange(50) % 2), batch_size=16)
    assert [len(batch) for batch in model.seen] == [16, 16, 16, 2] * 2
    seen = list(itertools.chain(*model.seen))
    first, second = seen[:50], seen[50:]
    assert sorted(first) == sorted(second) == list(range(50))
    assert len({tuple(first), tuple(second), tuple(range(50))}) == 3


def test_batches_of_a_loader_are_taken_as_they_come():
    inputs, targets = torch.arange(50.0)[:, None], torch.arange(50) % 2
    for loader in (
        DataLoader(TensorDataset(inputs, targets), 20),
        list(zip(inputs.split(20), targets.split(20), strict=True)),
    ):
        model = Listening()
        history = quiet(model, loader, epochs=1)
        assert [len(batch) for batch in model.seen] == [20, 20, 10]
        assert list(itertools.chain(*model.seen)) == list(range(50))
        assert len(history.loss) == 3


class Stream(IterableDataset):  # type: ignore[type-arg]
    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        return iter([(torch.full((1,), float(i)), i % 2) for i in range(5)])


def test_a_loader_without_a_length_is_trained_on_too():
    history = quiet(Listening(), DataLoader(Stream(), 2), schedule="cosine", learning_rate=1.0)
    assert history.learning_rate == pytest.approx([1.0] * 3 + [0.5] * 3)  # a schedule then goes by epochs


def test_on_step_is_called_at_zero_and_after_each_step_with_the_values_of_the_history():
    model = zoo.mlp(16, classes=3, seed=0)
    calls: list[tuple[int, dict[str, float], Tensor]] = []
    start = model.fc1.weight.detach().clone()
    history = quiet(
        model, made(), on_step=lambda step, **values: calls.append((step, values, model.fc1.weight.detach().clone()))
    )
    assert [step for step, _, _ in calls] == list(range(9))
    assert calls[0][1] == {}
    assert torch.equal(calls[0][2], start)
    assert torch.equal(calls[-1][2], model.fc1.weight)
    for name in ("loss", "gradient_norm", "learning_rate"):
        assert [values[name] for _, values, _ in calls[1:]] == getattr(history, name)


def test_a_recorder_keeps_the_road():
    model = zoo.mlp(16, classes=3, seed=0)
    record = Recorder(model, every=4)
    quiet(model, made(), on_step=record)
    assert record.trajectory.steps == [0, 4, 8]
    end = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    torch.testing.assert_close(record.trajectory.points[-1], end, rtol=0, atol=0)


# What is measured


def test_the_history_has_means_and_standard_errors_over_examples():
    train, test = made(470, seed=1), made(33, seed=2)  # neither is a whole number of measuring batches
    model = with_everything()
    history = quiet(model, train, test=test)
    model.eval()
    for part, (inputs, targets) in {"train": train, "test": test}.items():
        outputs = model(inputs).detach()
        losses = F.cross_entropy(outputs, targets, reduction="none").double()
        hits = (outputs.argmax(1) == targets).double()
        for name, values in {"loss": losses, "accuracy": hits}.items():
            assert getattr(history, f"{part}_{name}")[-1] == pytest.approx(values.mean().item(), rel=1e-5)
            stderr = values.std().item() / math.sqrt(len(values))
            assert getattr(history, f"{part}_{name}_stderr")[-1] == pytest.approx(stderr, rel=1e-5)


@pytest.mark.parametrize(
    "loss",
    [
        F.mse_loss,
        nn.MSELoss(),
        lambda outputs, targets: ((outputs - targets) ** 2).mean(),
    ],
)
def test_any_mean_loss_is_measured_and_accuracy_is_nan_without_labels(loss):
    inputs = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    model = zoo.mlp(4, classes=2, seed=0)
    history = quiet(model, (inputs, inputs[:, :2]), loss=loss)
    squares = ((model(inputs) - inputs[:, :2]) ** 2).mean(1).double()
    assert history.train_loss[-1] == pytest.approx(squares.mean().item(), rel=1e-5)
    assert history.train_loss_stderr[-1] == pytest.approx(squares.std().item() / math.sqrt(30), rel=1e-5)
    assert math.isnan(history.train_accuracy[-1])


def test_without_a_test_set_its_columns_are_nan():
    history = quiet(zoo.mlp(16, classes=3, seed=0), made())
    assert all(math.isnan(value) for value in history.test_loss + history.test_accuracy_stderr)
    assert len(history.test_loss) == 2


def test_the_dataset_has_the_fields_and_attributes_of_a_history():
    model = zoo.mlp(16, classes=3, seed=0)
    history = quiet(model, made(), test=made(20, seed=1), optimizer="adam", seed=7, folder=None)
    dataset = history.to_dataset()
    assert dataset.sizes == {"step": 8, "epoch": 2}
    assert dataset.step.values.tolist() == list(range(1, 9))
    assert dataset.epoch.values.tolist() == [1, 2]
    assert {name: variable.dims for name, variable in dataset.data_vars.items()} == {
        **dict.fromkeys(("loss", "gradient_norm", "learning_rate"), ("step",)),
        **{
            f"{part}_{value}{error}": ("epoch",)
            for part in ("train", "test")
            for value in ("loss", "accuracy")
            for error in ("", "_stderr")
        },
    }
    assert dataset.loss.values.tolist() == history.loss
    expected = {"kind": "history", "optimizer": "adam", "batch_size": 16, "epochs": 2, "seed": 7}
    expected |= {"model": "MLP", "n_parameters": 16 * 12 + 12 + 12 * 3 + 3, "n_examples": 60, "dtype": "float32"}
    assert {name: dataset.attrs[name] for name in expected} == expected
    assert all(isinstance(value, str | int | float) for value in dataset.attrs.values())


# Promises


@pytest.mark.parametrize("kind", ["sgd", "adam", "sam"])
def test_the_result_depends_on_the_seed_and_not_on_the_global_streams(kind):
    models = [with_everything() for _ in range(3)]
    histories = []
    for number, model in enumerate(models):
        torch.manual_seed(number)
        histories.append(quiet(model, made(), optimizer=kind, seed=0 if number < 2 else 1))
    assert bits(models[0]) == bits(models[1]) != bits(models[2])
    assert histories[0].loss == histories[1].loss


def test_the_global_random_streams_are_left_where_they_were():
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    quiet(with_everything(), DataLoader(TensorDataset(*made()), 16, shuffle=True))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])  # noqa: NPY002


def test_a_shuffling_loader_gives_the_same_run_for_the_same_seed():
    models = [with_everything() for _ in range(2)]
    for model in models:
        quiet(model, DataLoader(TensorDataset(*made()), 16, shuffle=True))
        torch.rand(3)
    assert bits(models[0]) == bits(models[1])


def test_modes_and_frozen_parameters_come_back_as_they_were_and_gradients_are_cleared():
    model = with_everything().eval()
    model[3].train()
    model[0].weight.requires_grad_(False)
    frozen = model[0].weight.clone()
    modes = [module.training for module in model.modules()]
    quiet(model, made())
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(model[0].weight, frozen)
    assert [parameter.requires_grad for parameter in model.parameters()] == [False, *[True] * 5]
    assert all(parameter.grad is None for parameter in model.parameters())


def test_channels_last_changes_the_rounding_only_and_is_undone():
    inputs = torch.randn(40, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    models = [zoo.simple_cnn(in_channels=3, size=6, classes=2, seed=0) for _ in range(2)]
    formats = []
    histories = [
        quiet(
            model,
            (inputs, (inputs.mean((1, 2, 3)) > 0).long()),
            channels_last=flag,
            on_step=lambda *_, model=model, **__: formats.append(model.conv2.weight.is_contiguous()),
        )
        for model, flag in zip(models, (True, False), strict=True)
    ]
    assert formats == [False] * 7 + [True] * 7
    assert histories[0].loss == pytest.approx(histories[1].loss, rel=1e-4)
    assert models[0].conv2.weight.is_contiguous()


class Killed(Exception):
    pass


def kill_at(last: int) -> Callable[..., None]:
    def on_step(step: int, **_: float) -> None:
        if step == last:
            raise Killed

    return on_step


@pytest.mark.parametrize("schedule", [None, "cosine"])
@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw", "sam"])
def test_a_killed_run_goes_on_after_its_last_epoch_and_ends_in_the_same_bits(tmp_path, kind, schedule):
    options = {"optimizer": kind, "schedule": schedule, "epochs": 4, "test": made(20, seed=1), "weight_decay": 0.01}
    whole, killed, resumed = (with_everything() for _ in range(3))
    expected = quiet(whole, made(), **options)
    with pytest.raises(Killed):
        quiet(killed, made(), **options, folder=tmp_path / "run", on_step=kill_at(10))  # in the third epoch of four
    steps: list[int] = []
    history = quiet(resumed, made(), **options, folder=tmp_path / "run", on_step=lambda step, **_: steps.append(step))
    assert steps == list(range(9, 17))
    assert bits(resumed) == bits(whole)
    assert history == expected


# A fork: 60 examples in batches of 16 are 4 steps an epoch


def forked(fork: tuple[int, int] | None, **options: Any) -> tuple[zoo.History, list[list[bytes]]]:
    """The history, and the bits of all parameters and buffers before the first step and after each."""
    model = with_everything()
    kept: list[list[bytes]] = []
    settings = {"epochs": 3, "fork": fork, "test": made(20, seed=1)} | options
    history = quiet(model, made(), on_step=lambda *_, **__: kept.append(bits(model)), **settings)
    return history, kept


@pytest.mark.parametrize("step", [0, 3, 4, 6, 11])
def test_forks_are_the_same_bits_up_to_their_step_and_differ_after_it(step):
    first, other, again = (forked((step, order)) for order in (0, 1, 0))
    plain = forked(None)
    assert len(plain[1]) == 13
    for run in (first, other):
        assert run[1][: step + 1] == plain[1][: step + 1]
        assert all(a != b for a, b in zip(run[1][step + 1 :], plain[1][step + 1 :], strict=True))
    assert all(a != b for a, b in zip(first[1][step + 1 :], other[1][step + 1 :], strict=True))
    assert again == first


def test_a_fork_at_the_end_is_no_fork():
    assert forked((12, 3))[1] == forked(None)[1]


def test_dropout_forks_too():
    # One batch an epoch, so that the order of the examples is all but the rounding of sums.
    first, other = (forked((1, order), batch_size=60) for order in (0, 1))
    assert first[0].loss[0] == other[0].loss[0]
    assert first[0].loss[1] != pytest.approx(other[0].loss[1], rel=1e-3)


@pytest.mark.parametrize("step", [0, 2, 4, 6])
def test_each_epoch_of_a_fork_sees_each_example_once_in_orders_that_are_no_others(step):
    seen = {}
    for order in (None, 0, 1):
        model = Listening()
        data = (torch.arange(50.0)[:, None], torch.arange(50) % 2)
        quiet(model, data, batch_size=16, epochs=3, fork=None if order is None else (step, order))
        assert [len(batch) for batch in model.seen] == [16, 16, 16, 2] * 3
        flat = list(itertools.chain(*model.seen))
        seen[order] = [tuple(flat[start : start + 50]) for start in range(0, 150, 50)]
        assert all(sorted(epoch) == list(range(50)) for epoch in seen[order])
    epochs = {epoch for orders in seen.values() for epoch in orders}
    assert len(epochs) == 9 - 2 * (step // 4)  # the epochs before the fork are shared by all three


@pytest.mark.parametrize(("step", "killed_at"), [(6, 5), (6, 7), (4, 10), (6, 11)])
def test_a_killed_fork_goes_on_and_ends_in_the_same_bits(tmp_path, step, killed_at):
    options = {"epochs": 3, "fork": (step, 1), "test": made(20, seed=1)}
    expected, kept = forked((step, 1))
    with pytest.raises(Killed):
        quiet(with_everything(), made(), **options, folder=tmp_path, on_step=kill_at(killed_at))
    resumed = with_everything()
    assert quiet(resumed, made(), **options, folder=tmp_path) == expected
    assert bits(resumed) == kept[-1]


def test_a_kill_during_the_writing_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    def half(tensors: Any, path: Any, metadata: Any) -> None:
        path.write_bytes(b"half of it")
        raise Killed

    with pytest.raises(Killed):
        quiet(with_everything(), made(), folder=tmp_path, on_step=kill_at(6))  # in the second epoch
    before = (tmp_path / "training.safetensors").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr("lossatlas.model.checkpoints.save_file", half)
        with pytest.raises(Killed):
            quiet(with_everything(), made(), folder=tmp_path)
    assert (tmp_path / "training.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["training.safetensors"]


def test_a_finished_run_is_read_and_not_done_again(tmp_path):
    first, again = (with_everything() for _ in range(2))
    expected = quiet(first, made(), folder=tmp_path, test=made(20))
    history = quiet(again, made(), folder=tmp_path, test=made(20), on_step=kill_at(0))
    assert history == expected
    assert history.attrs == expected.attrs
    assert bits(first) == bits(again)
    assert [path.name for path in tmp_path.iterdir()] == ["training.safetensors"]


def test_tied_weights_are_kept_and_put_back(tmp_path):
    def tied() -> nn.Sequential:
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 16))
        model[3].weight = model[1].weight
        return model

    first, again = tied(), tied()
    again.load_state_dict(first.state_dict())
    quiet(first, made(), folder=tmp_path)
    quiet(again, made(), folder=tmp_path)
    assert bits(first) == bits(again)
    assert again[3].weight is again[1].weight


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"learning_rate": 0.5}, "learning_rate 0.01 there, 0.5 here"),
        ({"optimizer": "adam"}, "optimizer 'sgd' there, 'adam' here"),
        ({"epochs": 3}, "epochs 2 there, 3 here"),
        ({"seed": 1}, "seed 0 there, 1 here"),
        ({"fork": (4, 1)}, "fork None there, 'step 4, order 1' here"),
        ({"schedule": "cosine"}, "schedule 'NoneType' there, 'cosine' here"),
        ({"data": made(seed=5)}, "examples"),
        ({"model": with_everything(seed=5)}, "initial weights"),
        ({"model": zoo.mlp(16, classes=3, seed=0)}, "model 'Sequential' there, 'MLP' here"),
    ],
)
def test_a_folder_of_another_run_is_refused_and_left_alone(tmp_path, change, named):
    quiet(with_everything(), made(), folder=tmp_path)
    before = (tmp_path / "training.safetensors").read_bytes()
    options = {"model": with_everything(), "data": made(), "folder": tmp_path} | change
    with pytest.raises(OutputError, match=named):
        quiet(**options)
    assert (tmp_path / "training.safetensors").read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all"])
def test_a_damaged_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "training.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="remove it"):
        quiet(with_everything(), made(), folder=tmp_path)


def test_a_folder_that_is_a_file_is_an_output_error_before_any_step(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        quiet(with_everything(), made(), folder=tmp_path / "file", on_step=kill_at(0))


# Bad input


def test_a_nan_loss_is_named_with_its_step_and_the_remedy():
    with pytest.raises(NonFiniteLoss, match=r"at step \d+, with learning rate 1e\+12: try a smaller one"):
        quiet(zoo.mlp(16, classes=3, seed=0), made(), learning_rate=1e12, epochs=20)


def test_a_nan_in_the_data_stops_the_first_step_and_leaves_the_weights():
    inputs, targets = made()
    model = zoo.mlp(16, classes=3, seed=0)
    before = bits(model)
    with pytest.raises(NonFiniteLoss, match="is nan at step 1,"):
        quiet(model, (inputs * math.nan, targets))
    assert bits(model) == before
    assert model.training


def test_a_loss_that_is_nan_after_the_last_step_is_refused():
    def poison(step: int, **_: float) -> None:
        if step == 4:
            nn.init.constant_(model.fc1.weight, math.nan)

    model = zoo.mlp(16, classes=3, seed=0)
    with pytest.raises(NonFiniteLoss, match="is nan after epoch 1"):
        quiet(model, made(), on_step=poison, epochs=1)


def frozen() -> nn.Module:
    return zoo.mlp(16, classes=3).requires_grad_(False)


X, Y = made()


@pytest.mark.parametrize(
    ("data", "options", "error", "message"),
    [
        ((X, Y + 1), {}, DataError, "targets run from 1 to 3, but the network has 3 outputs"),
        ((X, Y - 1), {}, DataError, "targets run from -1 to 1"),
        ((X, Y), {"test": (X, Y + 7)}, DataError, "targets run from 7 to 9"),
        ((X[:0], Y[:0]), {}, DataError, "0 inputs and 0 targets"),
        ((X, Y[:5]), {}, DataError, "60 inputs and 5 targets"),
        ((X, Y), {"test": (X[:0], Y[:0])}, DataError, "0 inputs"),
        ([], {}, DataError, "empty"),
        (iter([(X, Y)]), {}, DataError, "read more than once"),
        (zoo.LabelledData("x", (X, Y), (X, Y), ("a",)), {}, DataError, "LabelledData.*load"),
        ([{"x": X}], {}, DataError, "A batch is a dict"),
        ((X, Y), {"epochs": 0}, InputError, "epochs is 0"),
        ((X, Y), {"batch_size": 0}, InputError, "batch_size is 0"),
        ((X, Y), {"seed": -1}, InputError, "seed is -1"),
        ((X, Y), {"fork": (-1, 0)}, InputError, r"fork=\(-1, 0\): give a step and an order"),
        ((X, Y), {"fork": (0, -1)}, InputError, "from 0 up"),
        ((X, Y), {"fork": (9, 0)}, InputError, "2 epochs are 8 steps"),
        ([(X, Y)], {"fork": (0, 0)}, DataError, "list, which brings an order of its own: give the data as tensors"),
        ((X, Y), {"optimizer": "adamax"}, ConfigError, "no optimiser 'adamax': choose one of sgd, adam, adamw, sam"),
        ((X, Y), {"momentum": -1.0}, ConfigError, "refuses its settings: Invalid momentum"),
        ((X, Y), {"schedule": "linear"}, ConfigError, "no schedule 'linear'"),
        ((X, Y), {"loss": nn.CrossEntropyLoss(reduction="none")}, InputError, "0-d tensor"),
        ((X, Y), {"loss": nn.CrossEntropyLoss(reduction="sum")}, InputError, "not the mean over its examples"),
        ((X, Y), {"device": "nowhere"}, InputError, "cannot be moved to nowhere"),
    ],
)
def test_bad_input_is_refused_in_one_line(data, options, error, message):
    with refused(error, match=message):
        quiet(zoo.mlp(16, classes=3, seed=0), data, **options)


def test_a_model_without_trainable_parameters_is_refused():
    with pytest.raises(InputError, match="requires_grad_"):
        quiet(frozen(), made())


def test_a_loader_with_a_generator_of_its_own_cannot_be_resumed(tmp_path):
    loader = DataLoader(TensorDataset(*made()), 16, shuffle=True, generator=torch.Generator())
    with pytest.raises(DataError, match="generator"):
        quiet(with_everything(), loader, folder=tmp_path)


def test_an_optimiser_whose_state_cannot_be_stored_is_refused(tmp_path):
    def lbfgs(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.LBFGS(parameters, lr=0.1, max_iter=2)

    with pytest.raises(LossAtlasError, match="LBFGS keeps a list"):
        quiet(zoo.mlp(16, classes=3, seed=0), made(), optimizer=lbfgs, folder=tmp_path)


def test_sam_refuses_a_step_without_a_closure():
    from lossatlas.zoo.optimizers import SAM

    with pytest.raises(TypeError, match="closure"):
        SAM(list(zoo.mlp().parameters()), lr=0.1).step()  # type: ignore[call-arg]


# From end to end


def test_the_smallest_network_learns_the_digits(capsys):
    data = zoo.load("digits")
    model = zoo.mlp(64, widths=(12,), seed=0)
    history = zoo.fit(model, data.train, test=data.test, epochs=15, batch_size=32, learning_rate=0.05)
    assert history.test_accuracy[-1] > 0.9
    assert f"accuracy {history.test_accuracy[-1]:.4f}" in capsys.readouterr().err  # the progress bar


def test_a_run_without_progress_prints_nothing(capsys):
    quiet(zoo.mlp(16, classes=3, seed=0), made())
    out, err = capsys.readouterr()
    assert out == err == ""
