"""The tuner: what it chooses gives the plain loop's numbers; what it leaves or cannot prepare is in its findings."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles import plain
from oracles.members import BATCH, BY_NAME, DTYPES, MEMBERS, Member
from oracles.refusals import refused
from torch import Tensor, nn

from lossatlas.errors import InputError
from lossatlas.evaluation.points import tuning
from lossatlas.evaluation.points.loops import REWRITES, OnThreads
from lossatlas.evaluation.points.plans import Outcome, Plan, Trial
from lossatlas.evaluation.points.tuning import Evaluator, Tuner
from lossatlas.objective import Objective

AGREE = {torch.float32: 2e-6, torch.float64: 2e-12}  # of two loops that may each be off by one agreement
PROBES = [(0.1, 0.2), (0.3, 0.6)]
ELSEWHERE = [(0.0, 0.0), (-0.7, 0.4), (1.0, -1.0)]

every_member = pytest.mark.parametrize("member", MEMBERS, ids=lambda m: m.name)


@pytest.fixture(autouse=True)
def trials(monkeypatch):
    """However little the plain loop takes, all is tried, and for as long as it takes."""
    monkeypatch.setattr(tuning, "_WORTH", 0.0)
    monkeypatch.setattr(tuning, "_SHARE", 1e9)


@pytest.fixture
def faster(monkeypatch):
    """Every step is found twice as fast, so that only agreement decides."""
    monkeypatch.setattr(Tuner, "_ratio", lambda self, other, best: 0.5)


def directions(o: Objective, scale: float = 0.3) -> Tensor:
    draw = torch.Generator().manual_seed(6)
    return scale * torch.randn(2, o.n_parameters, generator=draw, dtype=torch.float64).to(o.dtype)


def chosen(o: Objective, plan: Plan | None = None, **options: Any) -> Evaluator:
    return o.evaluator(o.point, directions(o, **options), PROBES, 1000, plan)


def at(o: Objective, weights: Sequence[float]) -> Tensor:
    return o.point + torch.tensor(weights, dtype=o.dtype) @ directions(o)


def means(evaluator: Evaluator, weights: Sequence[float]) -> dict[str, float]:
    return {name: sample.mean for name, sample in evaluator(weights).items()}


def agree(evaluator: Evaluator, o: Objective, points: Sequence[Sequence[float]] = ELSEWHERE) -> None:
    """The evaluator gives what the objective gives at these points."""
    for weights in points:
        expected = {name: sample.mean for name, sample in o.samples(at(o, weights)).items()}
        assert means(evaluator, weights) == pytest.approx(expected, rel=AGREE[o.dtype], abs=0), evaluator.seen


def prepared(evaluator: Evaluator, *rewrites: str) -> None:
    """The loop is a prepared one with at least these rewrites, and was verified on all data: nothing fell back."""
    assert evaluator.plan.prepared, evaluator.findings
    assert set(rewrites) <= set(evaluator.plan.rewrites)
    assert evaluator.findings.fallback == ""
    assert evaluator.findings.deviation is not None


def falls_back(evaluator: Evaluator, reason: str) -> None:
    """The plain loop was taken, for this reason."""
    assert evaluator.plan == Plan()
    assert reason in evaluator.findings.fallback
    assert evaluator.seen[-1] == f"plain loop: {evaluator.findings.fallback}"


def trials_of(evaluator: Evaluator, name: str) -> list[Trial]:
    return [trial for trial in evaluator.findings.trials if trial.name == name]


def objective_of(member: Member, dtype: torch.dtype = torch.float32, **options: Any) -> Objective:
    return member.objective(dtype, **options)


def generators() -> list[Any]:
    return [torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()]  # noqa: NPY002


# What it chooses


# What is found to rewrite in each member, in both types
REWRITTEN: dict[str, set[str]] = {
    "mlp-relu": {"shared layer", "in place"},
    "mlp-tanh": {"shared layer"},
    "cnn": {"shared layer", "max pooling", "channels last", "in place"},
    "batch-norm": {"shared layer", "channels last"},
    "attention": set(),
    "tied": {"shared layer"},
    "transposed": {"shared layer"},
    "regression": {"shared layer"},
    "lstm": set(),
    "partly-frozen": {"shared layer"},
}


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
@every_member
def test_what_is_chosen_agrees_with_the_objective_at_points_that_were_no_probes(member, dtype, faster):
    o = objective_of(member, dtype)
    evaluator = chosen(o)
    prepared(evaluator, *REWRITTEN[member.name])
    agree(evaluator, o)


@every_member
def test_what_is_really_faster_agrees_too(member):
    o = objective_of(member)
    evaluator = chosen(o)
    prepared(evaluator)
    assert set(evaluator.plan.rewrites) <= {t.name for t in evaluator.findings.trials if t.outcome is Outcome.KEPT}
    agree(evaluator, o)


@every_member
def test_choosing_and_evaluating_change_nothing(member):
    model = member.make().train()
    o = Objective(model, member.loss, member.data(), batch_size=BATCH)
    before, state, seeds, value = plain.state_of(model), o.state_dict(), generators(), o.value()
    evaluator = chosen(o)
    prepared(evaluator)
    evaluator((0.5, 0.1))
    assert plain.differences(before, plain.state_of(model)) == []
    assert all(torch.equal(tensor, state[name]) for name, tensor in o.state_dict().items())
    assert generators() == seeds
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    assert o.value() == value


def test_the_plan_names_what_was_kept_and_explain_tells_it(faster):
    o = objective_of(BY_NAME["cnn"])
    assert "no surface" in o.explain()
    evaluator = chosen(o)
    first, *seen = o.explain().splitlines()
    assert first == str(evaluator.plan)
    prepared(evaluator, "shared layer", "max pooling", "channels last")
    assert not trials_of(evaluator, "batch norm"), "there is none in this network"
    assert evaluator.plan.batch_size is not None
    for name in evaluator.plan.rewrites:
        trial = trials_of(evaluator, name)[-1]
        assert (trial.outcome, trial.speed_up) == (Outcome.KEPT, 2.0)
        assert str(trial) == f"{name}: kept, 2.00 x as fast, deviation {trial.deviation:.0e}"
        assert str(trial) in seen
    assert f"all data: {evaluator.findings.deviation:.0e} from the plain loop" in seen
    assert any(line.startswith("self-check") for line in seen)
    assert tuple(seen)[: len(evaluator.seen)] == evaluator.seen
    assert f"threads: 1 of {torch.get_num_threads()}" in seen


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_one_thread_is_tried_beside_all_of_them_and_the_plan_keeps_it(faster, two_threads):
    o = objective_of(BY_NAME["mlp-relu"])
    evaluator = chosen(o)
    prepared(evaluator, "shared layer")
    assert evaluator.plan.threads == 1
    assert trials_of(evaluator, "one thread")[-1].outcome is Outcome.KEPT
    assert str(evaluator.plan).endswith("; one thread")
    assert "threads: 1 of 2" in o.explain().splitlines()
    agree(evaluator, o)
    assert torch.get_num_threads() == 2, "set again after each point"
    again = chosen(o, Plan.from_json(evaluator.plan.to_json()))
    assert again.plan == evaluator.plan
    agree(again, o)


def test_all_threads_stay_where_one_is_slower(monkeypatch, two_threads):
    monkeypatch.setattr(Tuner, "_ratio", lambda self, other, best: 1.25)
    o = objective_of(BY_NAME["mlp-relu"])
    assert chosen(o).plan == Plan(prepared=True)
    assert "threads: 2 of 2" in o.explain().splitlines()


def test_a_loop_that_cannot_be_prepared_is_tried_on_one_thread_too(faster, two_threads, monkeypatch):
    monkeypatch.setattr(tuning, "_SHARE", 0.05)
    o = objective_of(BY_NAME["batch-norm"]).with_batch_norm("recompute")
    evaluator = chosen(o)
    assert evaluator.plan == Plan(threads=1)
    assert "recomputed" in evaluator.findings.fallback
    agree(evaluator, o)


def test_a_loop_that_fails_leaves_the_threads_as_they_were(two_threads):
    def fails(_):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        OnThreads(fails, 1)((0.0,))
    assert torch.get_num_threads() == 2


def test_what_is_slower_is_left(monkeypatch):
    monkeypatch.setattr(Tuner, "_ratio", lambda self, other, best: 1.25)
    o = objective_of(BY_NAME["cnn"])
    evaluator = chosen(o)
    assert evaluator.plan == Plan(prepared=True)
    (trial,) = trials_of(evaluator, "max pooling")
    assert (trial.outcome, trial.speed_up) == (Outcome.LEFT, 0.8)
    agree(evaluator, o)


@pytest.mark.parametrize("size", [1, 4, 10, 23, 64])
def test_the_values_of_the_examples_keep_their_order_in_batches_of_another_size(size):
    o = objective_of(BY_NAME["mlp-tanh"], torch.float64)
    evaluator = chosen(o, Plan(prepared=True, batch_size=size))
    assert evaluator.plan == Plan(prepared=True, batch_size=size)
    found = evaluator((0.5, -0.2))["loss"]
    expected = o.samples(at(o, (0.5, -0.2)))["loss"]
    assert found.over == expected.over == "examples"
    torch.testing.assert_close(found.values, expected.values, rtol=1e-11, atol=0)
    assert found.stderr == pytest.approx(expected.stderr, rel=1e-11)


def test_batches_of_another_size_are_tried_on_the_same_examples(faster, monkeypatch):
    monkeypatch.setattr(tuning, "_TRIAL", (20, 20))  # two batches of nine hold fewer, three hold all 23
    evaluator = chosen(objective_of(BY_NAME["mlp-tanh"]))
    sizes = [trial for trial in evaluator.findings.trials if trial.name.startswith("batches of")]
    assert sizes
    assert all(trial.outcome is Outcome.KEPT and trial.deviation <= 1e-6 for trial in sizes), sizes
    prepared(evaluator)
    assert evaluator.plan.batch_size is not None


def test_a_loss_with_one_value_a_batch_keeps_its_batches(faster):
    def contrastive(outputs, targets):
        return -(outputs @ outputs.T).log_softmax(1).diagonal().mean()

    member = BY_NAME["mlp-tanh"]
    o = Objective(member.make(), contrastive, member.data(), batch_size=BATCH, metrics=None)
    evaluator = chosen(o)
    prepared(evaluator, "shared layer")
    assert evaluator.plan.batch_size is None
    assert evaluator((0.1, 0.1))["loss"].over == "batches"
    agree(evaluator, o)


@pytest.mark.parametrize(
    "loss",
    [
        lambda outputs, targets: F.cross_entropy(outputs, targets),
        lambda outputs, targets: F.nll_loss(outputs.log_softmax(1), targets),
        lambda outputs, targets: F.cross_entropy(outputs, targets, reduction="sum"),
        lambda outputs, targets: F.cross_entropy(outputs, targets, reduction="none"),
        nn.CrossEntropyLoss(label_smoothing=0.2),
        lambda outputs, targets: F.mse_loss(outputs.softmax(1), F.one_hot(targets, 3).float()),
    ],
    ids=["lambda", "log-probabilities", "sum", "each", "module", "squares"],
)
def test_a_loss_of_any_form_gives_what_the_objective_gives(loss, faster):
    member = BY_NAME["mlp-tanh"]
    o = Objective(member.make(), loss, member.data(), batch_size=BATCH)
    evaluator = chosen(o)
    prepared(evaluator, "shared layer")
    agree(evaluator, o)


def test_dictionaries_through_a_step_are_prepared(faster):
    member = BY_NAME["mlp-tanh"]
    batches = [{"x": x, "y": y, "name": "text"} for x, y in member.batches()]
    o = Objective.from_step(member.make(), lambda model, batch: member.loss(model(batch["x"]), batch["y"]), batches)
    evaluator = chosen(o)
    prepared(evaluator, "shared layer")
    agree(evaluator, o)


def test_a_weight_of_ones_own_is_taken(faster):
    member = BY_NAME["mlp-tanh"]
    batches = [{"x": x, "y": y} for x, y in member.batches()]
    o = Objective.from_step(
        member.make(),
        lambda model, batch: F.cross_entropy(model(batch["x"]), batch["y"], reduction="none"),
        batches,
        weight=lambda batch: float(batch["y"].sum()),
    )
    evaluator = chosen(o)
    prepared(evaluator, "shared layer")
    assert evaluator.plan.batch_size is None
    agree(evaluator, o)


@pytest.mark.parametrize("different", ["a key more", "other keys", "another number"])
def test_batches_that_differ_in_more_than_numbers_give_what_the_objective_gives(different, faster):
    member = BY_NAME["mlp-tanh"]
    (x, y), *_ = member.batches()
    other = {
        "a key more": {"x": x, "y": y, "z": x},
        "other keys": {"z": -x, "y": y},
        "another number": {"x": x, "y": y},
    }
    batches = [{"x": x, "y": y, "factor": 1.0}, other[different] | {"factor": 3.0}]

    def step(model, batch):
        inputs = batch["x"] if "x" in batch else 2 * batch["z"]
        return batch["factor"] * F.cross_entropy(model(inputs), batch["y"], reduction="none")

    o = Objective.from_step(member.make(), step, batches)
    evaluator = chosen(o)
    prepared(evaluator, "shared layer")
    assert evaluator.plan.batch_size is None
    agree(evaluator, o)


# What it leaves


def output_of(traced):
    return next(node for node in traced.graph.nodes if node.op == "output")


def doubled(traced, frame):
    output = output_of(traced)
    with traced.graph.inserting_before(output):
        twice = traced.graph.call_function(torch.mul, (output.args[0]["loss"], 2.0))
    output.args = ({**output.args[0], "loss": twice},)
    return True


def impossible(traced, frame):
    output = output_of(traced)
    with traced.graph.inserting_before(output):
        node = traced.graph.call_function(torch.reshape, (output.args[0]["loss"], (7, 7, 7)))
    output.args = ({**output.args[0], "loss": node},)
    return True


def broken(traced, frame):
    raise AttributeError("no such\nfunction here")


def mean_only(traced, frame):
    output = output_of(traced)
    with traced.graph.inserting_before(output):
        node = traced.graph.call_function(torch.mean, (output.args[0]["loss"],))
    output.args = ({**output.args[0], "loss": node},)
    return True


def nothing(traced, frame):
    return False


@pytest.mark.parametrize(
    ("rewrite", "line"),
    [
        (doubled, "other: left, 2.00 x as fast, deviation 1e+00"),
        (mean_only, "other: left, 2.00 x as fast, deviation inf"),
        (impossible, "other: failed (shape '[7, 7, 7]'"),
        (broken, "other: failed (no such function here)"),
        (nothing, None),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_wrong_rewrite_is_left_with_what_was_measured(rewrite, line, faster, monkeypatch):
    monkeypatch.setitem(REWRITES, "other", rewrite)
    o = objective_of(BY_NAME["mlp-tanh"])
    evaluator = chosen(o)
    prepared(evaluator, "shared layer")
    assert "other" not in evaluator.plan.rewrites
    found = trials_of(evaluator, "other")
    assert len(found) == (line is not None)
    for trial in found:
        assert trial.outcome in (Outcome.LEFT, Outcome.FAILED)
        assert str(trial).startswith(line)
        assert "\n" not in str(trial)
    agree(evaluator, o)


def wrong_in_the_last_batch(traced, frame):
    output = output_of(traced)
    with traced.graph.inserting_before(output):
        node = traced.graph.call_function(lambda t: t if len(t) == BATCH else 2 * t, (output.args[0]["loss"],))
    output.args = ({**output.args[0], "loss": node},)
    return True


def test_a_loop_that_deviates_as_a_whole_ends_as_the_plain_loop(faster, monkeypatch):
    """What the trials do not see, the last comparison does."""
    monkeypatch.setattr(tuning, "_TRIAL", (BATCH, BATCH))
    monkeypatch.setitem(REWRITES, "other", wrong_in_the_last_batch)
    o = objective_of(BY_NAME["mlp-tanh"])
    evaluator = chosen(o)
    assert trials_of(evaluator, "other")[0].outcome is Outcome.KEPT
    falls_back(evaluator, "the prepared loop deviates from it by ")
    assert o.explain().startswith("plain loop\n")
    agree(evaluator, o)


def test_so_few_points_are_not_worth_it(monkeypatch):
    monkeypatch.setattr(tuning, "_WORTH", float("inf"))
    o = objective_of(BY_NAME["cnn"])
    evaluator = chosen(o)
    falls_back(evaluator, "so few points repay no preparation")
    assert len(evaluator.seen) == 1


def test_trials_end_when_their_share_of_the_time_is_spent(monkeypatch):
    monkeypatch.setattr(tuning, "_SHARE", 0.0)
    o = objective_of(BY_NAME["cnn"])
    evaluator = chosen(o)
    prepared(evaluator)
    assert evaluator.plan.rewrites == ()
    assert evaluator.findings.trials == ()
    assert "shared layer" in evaluator.findings.untried
    assert evaluator.seen[0].startswith("not tried, since it might cost more than it saves: shared layer, ")
    agree(evaluator, o)


# What it cannot prepare


class Forward(nn.Module):
    """Two linear layers and a function that uses them."""

    def __init__(self, function: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.function = nn.Linear(6, 7), nn.Linear(7, 3), function
        self.table = torch.linspace(-1, 2, 7)
        self.register_buffer("count", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self, x))


class Exponential(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.exp()

    @staticmethod
    def backward(ctx, gradient):
        raise NotImplementedError


def forward_objective(function: Callable[[Any, Tensor], Tensor]) -> Objective:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = Forward(function)
    return Objective(model, F.cross_entropy, BY_NAME["mlp-relu"].data(), batch_size=BATCH)


def first_column_zero(m, x):
    x[:, 0] = 0
    return m.first(x)


def counting(m, x):
    m.count += 1
    return m.first(x) * m.count


def without_gradients(m, x):
    with torch.no_grad():
        scale = m.first(x).std()
    return m.first(x) / scale


def view_and_base(m, x):
    h = m.first(x)
    view = h.view(-1)
    h.mul_(2)
    return view.view(-1, 7)


def active_units(m, x):
    h = m.first(x)
    return h.relu() / h[h > 0].numel()


def made_once(m, x):
    if not hasattr(m, "scale"):
        m.scale = 3 * m.table
    return m.first(x) * m.scale


def kept_from_a_call(m, x):
    m.last_seen = m.first(x)
    return m.last_seen * m.table


# name -> the function, and a word of the reason for the plain loop, or None where the loop is prepared
HARD: dict[str, tuple[Callable[[Any, Tensor], Tensor], str | None]] = {
    "a branch": (lambda m, x: m.first(x * 2 if x.sum() > 0 else x), "__bool__"),
    "item": (lambda m, x: m.first(x) * m.first.weight.sum().item(), "item"),
    "writing by index": (first_column_zero, "__setitem__"),
    "NumPy": (lambda m, x: m.first(x) + torch.from_numpy(np.tanh(m.first(x).detach().numpy())), "numpy"),
    "active dropout": (lambda m, x: F.dropout(m.first(x), 0.5, training=True), "draws random numbers"),
    "noise": (lambda m, x: m.first(x) + torch.randn(len(x), 7), "draws random numbers"),
    "noise like it": (lambda m, x: m.first(x) + torch.randn_like(m.first(x)), "draws random numbers"),
    "noise of NumPy's": (lambda m, x: m.first(x) * float(np.random.randn()), "draws random numbers"),  # noqa: NPY002
    "noise of Python's": (lambda m, x: m.first(x) * random.random(), "draws random numbers"),
    "noise in place": (lambda m, x: m.first(x) + torch.empty(7).normal_(), "normal_"),
    "noise of its own generator": (
        lambda m, x: m.first(x) + torch.randn(7, generator=torch.Generator().manual_seed(0)),
        "Generator",
    ),
    "writing into the inputs": (lambda m, x: m.first(x.mul_(2)), None),
    "relu into the inputs": (lambda m, x: m.first(F.relu(x, inplace=True)), None),
    "writing into a buffer": (counting, None),
    "a view of what is written to": (view_and_base, "seen elsewhere"),
    "a tensor attribute": (lambda m, x: m.first(x) * m.table, None),
    "an attribute made at the first call": (made_once, None),
    "an attribute kept from a call": (kept_from_a_call, None),
    "a number of NumPy's": (lambda m, x: m.first(x) / np.sqrt(7.0), None),
    "no_grad": (without_gradients, None),
    "a function of autograd's": (lambda m, x: Exponential.apply(m.first(x)), None),
    "the number of active units": (active_units, "depends on values"),
}


@pytest.mark.parametrize("name", HARD)
def test_a_hard_model_gives_what_the_objective_gives_with_the_reason(name, faster):
    function, reason = HARD[name]
    o, untouched = forward_objective(function), forward_objective(function)
    seeds, kept = generators(), [tensor.clone() for tensor in batch_tensors(o)]
    evaluator = chosen(o)
    agree(evaluator, untouched)
    agree(evaluator, o)
    assert generators() == seeds
    assert all(map(torch.equal, kept, batch_tensors(o)))
    if reason is None:
        prepared(evaluator, "shared layer")
    else:
        falls_back(evaluator, reason)


@pytest.mark.parametrize("name", ["writing by index", "writing into the inputs", "relu into the inputs"])
def test_data_that_cannot_be_cut_are_not_written_to_either(name):
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = Forward(HARD[name][0])
    o = Objective.from_step(
        model,
        lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]),
        BY_NAME["mlp-relu"].batches(),
        weight=lambda batch: 1.0,
    )
    before, kept = o.value(), [tensor.clone() for tensor in batch_tensors(o)]
    evaluator = chosen(o)
    assert evaluator.plan.prepared == (HARD[name][1] is None)
    assert all(map(torch.equal, kept, batch_tensors(o)))
    assert o.value() == before
    agree(evaluator, o)


def batch_tensors(o: Objective) -> list[Tensor]:
    return [tensor for batch in o.batches.kept() or [] for tensor in batch]


def test_a_decision_by_values_that_the_probes_do_not_show_is_not_frozen(faster):
    # All units are active at the probes, and at the center; few are elsewhere.
    o = forward_objective(lambda m, x: (m.first(x) + 5).relu() / (m.first(x) + 5 > 0).nonzero().size(0) * 100)
    rows = 20 * directions(o)
    evaluator = o.evaluator(o.point, rows, [(1e-4, 0.0), (1e-3, 0.0)], 1000)
    falls_back(evaluator, "depends on values")
    far = o.point + torch.tensor([0.5, -0.5]) @ rows
    assert means(evaluator, (0.5, -0.5))["loss"] == pytest.approx(o.value(far), rel=1e-5)


OBSTACLES: dict[str, tuple[Callable[[], Objective], str]] = {
    "statistics at each point": (lambda: objective_of(BY_NAME["batch-norm"], batch_norm="recompute"), "recomputed"),
    "half precision": (lambda: objective_of(BY_NAME["mlp-tanh"], dtype=torch.bfloat16), "bfloat16"),
}


@pytest.mark.parametrize("name", OBSTACLES)
def test_an_obstacle_is_named(name, faster):
    make, word = OBSTACLES[name]
    evaluator = chosen(make())
    falls_back(evaluator, word)


def test_statistics_that_are_recomputed_give_what_the_objective_gives(faster):
    o = objective_of(BY_NAME["batch-norm"], torch.float64, batch_norm="recompute")
    evaluator = chosen(o)
    falls_back(evaluator, "recomputed")
    agree(evaluator, o)


def test_data_that_are_not_kept_are_read_by_the_plain_loop(faster, monkeypatch):
    monkeypatch.setattr("lossatlas.model.data.batches.KEEP_BYTES", 0)
    o = objective_of(BY_NAME["mlp-tanh"])
    evaluator = chosen(o)
    falls_back(evaluator, "not kept")
    agree(evaluator, o)


def test_batch_statistics_are_never_taken_over_other_batches(faster):
    o = objective_of(BY_NAME["batch-norm"], torch.float64, batch_norm="batch")
    evaluator = chosen(o)
    prepared(evaluator, "shared layer", "channels last")
    assert evaluator.plan.batch_size in (None, BATCH)
    agree(evaluator, o)


def test_nan_at_the_probes_is_no_deviation(faster):
    member = BY_NAME["mlp-relu"]
    inputs, targets = member.data()
    inputs[0, 0] = float("nan")
    o = Objective(member.make(), member.loss, (inputs, targets), batch_size=BATCH)
    evaluator = chosen(o)
    prepared(evaluator, "shared layer")
    assert np.isnan(means(evaluator, (0.1, 0.1))["loss"])


# Plans

PLANS = [
    Plan(),
    Plan(prepared=True),
    Plan(threads=1),
    Plan(prepared=True, batch_size=64, threads=1),
    Plan(prepared=True, rewrites=("channels last",)),
    Plan(prepared=True, rewrites=tuple(REWRITES), batch_size=8),
]


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_a_plan_is_read_back_from_its_serialisation(plan):
    assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fast",
        "plain loop",
        "[]",
        "null",
        '{"prepared": true}',
        '{"prepared": true, "rewrites": [], "batch_size": null, "more": 1}',
        '{"prepared": true, "rewrites": ["magic"], "batch_size": 8}',
        '{"prepared": true, "rewrites": [["channels last"]], "batch_size": 8}',
        '{"prepared": true, "rewrites": "channels last", "batch_size": 8}',
        '{"prepared": true, "rewrites": [], "batch_size": "many"}',
        '{"prepared": true, "rewrites": [], "batch_size": true}',
        '{"prepared": true, "rewrites": [], "batch_size": 0}',
        '{"prepared": true, "rewrites": [], "batch_size": null, "threads": 0}',
        '{"prepared": true, "rewrites": [], "batch_size": null, "threads": true}',
        '{"prepared": 1, "rewrites": [], "batch_size": null}',
        '{"prepared": false, "rewrites": [], "batch_size": 8}',
        '{"prepared": false, "rewrites": ["channels last"], "batch_size": null}',
    ],
)
def test_a_text_that_no_plan_wrote_is_refused(text):
    with refused(InputError) as caught:
        Plan.from_json(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_a_plan_that_is_given_is_followed_without_trials(plan, monkeypatch):
    monkeypatch.setattr(Tuner, "choose", None)
    o = objective_of(BY_NAME["cnn"])
    evaluator = chosen(o, plan)
    assert evaluator.plan == plan
    assert o.explain().splitlines()[0] == str(plan)
    agree(evaluator, o)


@every_member
def test_a_plan_that_is_followed_gives_the_numbers_of_the_plan_that_was_chosen(member, faster):
    o = objective_of(member)
    first = chosen(o)
    prepared(first)
    again = chosen(o, Plan.from_json(first.plan.to_json()))
    assert again.plan == first.plan
    for weights in ELSEWHERE:
        assert means(again, weights) == means(first, weights), "bit for bit"


def test_a_plan_with_other_batches_is_refused_where_they_cannot_be_cut():
    member = BY_NAME["mlp-tanh"]
    o = Objective.from_step(
        member.make(),
        lambda model, batch: member.loss(model(batch[0]), batch[1]),
        member.batches(),
        weight=lambda batch: 1.0,
    )
    with pytest.raises(InputError, match="other data"):
        chosen(o, Plan(prepared=True, batch_size=4))


def test_the_plain_plan_is_the_objective_bit_for_bit():
    o = objective_of(BY_NAME["cnn"])
    evaluator = chosen(o, Plan())
    assert evaluator.findings.fallback == "", "it was asked for"
    for weights in ELSEWHERE:
        theta = o.point if not any(weights) else at(o, weights)
        assert means(evaluator, weights) == {name: sample.mean for name, sample in o.samples(theta).items()}


def test_a_deviation_is_relative_and_infinite_where_the_quantity_is_another():
    o = objective_of(BY_NAME["mlp-tanh"], torch.float64)
    evaluator = chosen(o, Plan())
    reference = [evaluator(probe) for probe in PROBES]
    assert evaluator.deviation(reference, PROBES) == 0
    member = BY_NAME["mlp-tanh"]
    by_batch = Objective.from_step(
        member.make(torch.float64),
        lambda model, batch: member.loss(model(batch[0]), batch[1]),
        member.batches(torch.float64),
    )
    other = chosen(by_batch, Plan())
    assert other.deviation(reference, PROBES) == float("inf")


def test_a_plan_that_cannot_be_followed_here_is_refused_with_the_reason():
    member = BY_NAME["batch-norm"]
    o = Objective(member.make(), member.loss, member.data(), batch_norm="recompute")
    with pytest.raises(InputError, match="recomputed"):
        chosen(o, plan=Plan(prepared=True))
