"""Objective: what it accepts, what makes up theta, and what it refuses."""

from __future__ import annotations

import copy
import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles import plain
from oracles.members import BY_NAME, Tied, perceptron
from oracles.refusals import assert_refused
from torch import Tensor, nn

import lossatlas as la
from lossatlas.errors import (
    CheckpointError,
    DirectionError,
    InputError,
    NonFiniteLoss,
    NumericalError,
)
from lossatlas.objective import Objective

MEMBER = BY_NAME["mlp-tanh"]
INPUTS, TARGETS = MEMBER.data()


def weighted(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets, weight=torch.tensor([1.0, 5.0, 20.0]))


def mean_of_batches(model: nn.Module, loss, batches) -> float:
    total = sum(len(y) for _, y in batches)
    return sum(len(y) * plain.loss_of(model, loss, (x, y)) for x, y in batches) / total


PER_EXAMPLE = {
    "function": F.cross_entropy,
    "partial": functools.partial(F.cross_entropy, label_smoothing=0.2),
    "module": nn.CrossEntropyLoss(label_smoothing=0.1),
    "lambda": lambda outputs, targets: F.cross_entropy(outputs, targets),
    "lambda on probabilities": lambda outputs, targets: F.nll_loss(outputs.log_softmax(1), targets),
    "one value an example": lambda outputs, targets: F.cross_entropy(outputs, targets, reduction="none"),
}


@pytest.mark.parametrize("name", PER_EXAMPLE)
def test_a_loss_of_any_form_yields_the_loss_of_every_example(name):
    model, loss = MEMBER.make(), PER_EXAMPLE[name]
    o = Objective(model, loss, (INPUTS, TARGETS), batch_size=9)
    one_by_one = [
        plain.loss_of(model, lambda o, t: loss(o, t).mean(), (x[None], y[None]))
        for x, y in zip(INPUTS, TARGETS, strict=True)
    ]
    np.testing.assert_allclose(o.example_losses(), one_by_one, rtol=1e-5)
    assert o.value() == pytest.approx(np.mean(one_by_one), rel=1e-6)


@pytest.mark.parametrize(
    "loss",
    [nn.CrossEntropyLoss(reduction="sum"), functools.partial(F.cross_entropy, reduction="sum")],
    ids=["module", "partial"],
)
def test_a_sum_is_divided_by_the_number_of_examples(loss):
    model = MEMBER.make()
    o = Objective(model, loss, (INPUTS, TARGETS), batch_size=9)
    assert o.value() == pytest.approx(plain.loss_of(model, F.cross_entropy, (INPUTS, TARGETS)), rel=1e-6)
    torch.testing.assert_close(o.gradient(), Objective(model, F.cross_entropy, (INPUTS, TARGETS)).gradient())


ORDERS = {"mixed": torch.arange(23), "sorted by class": TARGETS.argsort()}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("loss", [weighted, nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 20.0]))])
def test_a_loss_weighted_by_class_is_the_criterion_on_all_data_however_it_is_cut(loss, order):
    model, order = MEMBER.make(), ORDERS[order]
    inputs, targets = INPUTS[order], TARGETS[order]
    o = Objective(model, loss, list(zip(inputs.split(5), targets.split(5), strict=True)))
    assert o.value() == pytest.approx(plain.loss_of(model, loss, (inputs, targets)), rel=1e-6)
    alone = F.cross_entropy(model(inputs), targets, reduction="none").detach()
    np.testing.assert_allclose(o.example_losses(), alone, rtol=1e-5)
    np.testing.assert_allclose(o.samples()["loss"].weights, torch.tensor([1.0, 5.0, 20.0])[targets])


def test_ignored_labels_that_come_late_are_ignored():
    model, targets = MEMBER.make(), TARGETS.clone()
    targets[20:] = -100
    batches = [*zip(INPUTS[:17].split(7), targets[:17].split(7), strict=True), (INPUTS[17:], targets[17:])]
    o = Objective(model, F.cross_entropy, batches)
    assert o.value() == pytest.approx(plain.loss_of(model, F.cross_entropy, (INPUTS, targets)), rel=1e-6)


def test_a_loss_that_compares_examples_is_taken_batch_by_batch():
    def contrastive(outputs, targets):
        return -(outputs @ outputs.T).log_softmax(1).diagonal().mean()

    model = MEMBER.make()
    batches = MEMBER.batches()
    assert Objective(model, contrastive, batches).value() == pytest.approx(
        mean_of_batches(model, contrastive, batches), rel=1e-6
    )


def test_a_loss_that_asserts_something_of_its_batch_is_not_refused():
    def loss(outputs, targets):
        assert len(outputs) > 1
        return F.cross_entropy(outputs, targets)

    model = MEMBER.make()
    assert Objective(model, loss, (INPUTS, TARGETS)).value() == pytest.approx(
        plain.loss_of(model, loss, (INPUTS, TARGETS)), rel=1e-6
    )


def test_accuracy_is_measured_for_classes_and_not_for_numbers():
    model = MEMBER.make()
    with torch.no_grad():
        right = (model(INPUTS).argmax(1) == TARGETS).float()
    accuracy, stderr = Objective(model, F.cross_entropy, (INPUTS, TARGETS), batch_size=9).evaluate().metrics["accuracy"]
    assert accuracy == pytest.approx(float(right.mean()))
    assert stderr == pytest.approx(float(right.std()) / 23**0.5, rel=1e-6)
    regression = BY_NAME["regression"]
    assert Objective(regression.make(), regression.loss, regression.data()).evaluate().metrics == {}


def test_metrics_of_the_users_own_are_measured():
    o = Objective(
        MEMBER.make(),
        F.cross_entropy,
        (INPUTS, TARGETS),
        batch_size=9,
        metrics={"margin": lambda outputs, targets: outputs.max(1).values, "size": lambda o, t: o.new_tensor(2.0)},
    )
    found = o.evaluate().metrics
    with torch.no_grad():
        assert found["margin"][0] == pytest.approx(float(MEMBER.make()(INPUTS).max(1).values.mean()), rel=1e-6)
    assert found["size"][0] == 2.0
    assert_refused(
        InputError,
        lambda: Objective(MEMBER.make(), F.cross_entropy, (INPUTS, TARGETS), metrics={"bad": lambda o, t: o[:2, 0]}),
        "'bad'",
    )


def test_a_glob_restricts_theta_exactly():
    model = MEMBER.make(torch.float64)
    data = MEMBER.data(torch.float64)
    whole, part = Objective(model, MEMBER.loss, data), Objective(model, MEMBER.loss, data, parameters="2.*")
    chosen = torch.cat([torch.full((p.numel(),), name.startswith("2.")) for name, p in model.named_parameters()])
    assert torch.equal(part.point, whole.point[chosen])
    torch.testing.assert_close(part.gradient(), whole.gradient()[chosen], rtol=1e-12, atol=1e-15)
    moved = whole.point.clone()
    moved[chosen] += 1
    assert part.value(part.point + 1) == pytest.approx(whole.value(moved), rel=1e-12)
    dense = plain.hessian(model, MEMBER.loss, data)[chosen][:, chosen]
    eye = torch.eye(part.n_parameters, dtype=torch.float64)
    torch.testing.assert_close(la.hessian(part) @ eye, dense, rtol=1e-10, atol=1e-12)


def test_frozen_parameters_are_no_part_of_theta():
    member = BY_NAME["partly-frozen"]
    o = Objective(member.make(), member.loss, member.data())
    assert [entry.name for entry in o.space] == ["scale", "second.weight", "second.bias"]
    assert o.n_parameters == 1 + 15 + 3


def test_tied_weights_are_counted_once_and_move_together():
    model = Tied()
    data = BY_NAME["tied"].data()
    o = Objective(model, F.mse_loss, data)
    assert o.n_parameters == 25 + 5
    theta = o.point + 1
    there = Tied()
    there.load_state_dict(o.state_dict(theta))
    assert torch.equal(plain.flat(there), theta)
    assert o.value(theta) == pytest.approx(plain.loss_of(there, F.mse_loss, data), rel=1e-6)
    shared = {name: t for name, t in o.state_dict(theta).items() if name != "decoder.weight"}
    assert torch.equal(o.point_of(shared), theta)


def test_wrappers_around_the_model_and_around_its_names_are_taken_off():
    model = MEMBER.make()
    o = Objective(nn.DataParallel(model), MEMBER.loss, (INPUTS, TARGETS))
    assert o.value() == Objective(model, MEMBER.loss, (INPUTS, TARGETS)).value()
    prefixed = {f"module._orig_mod.{name}": tensor for name, tensor in model.state_dict().items()}
    assert torch.equal(o.point_of(prefixed), o.point)


def test_provenance_changes_with_the_weights_and_with_the_data():
    model = MEMBER.make()
    first = Objective(model, MEMBER.loss, (INPUTS, TARGETS), name="here").provenance()
    again = Objective(copy.deepcopy(model), MEMBER.loss, (INPUTS, TARGETS), name="here").provenance()
    assert first == again
    other = Objective(MEMBER.make(seed=1), MEMBER.loss, (INPUTS + 1, TARGETS)).provenance()
    assert first["model_fingerprint"] != other["model_fingerprint"]
    assert first["data_fingerprint"] != other["data_fingerprint"]
    assert first["data"] == "here"
    assert first["n_examples"] == 23


def test_a_weight_of_ones_own_weighs_the_batches():
    model = MEMBER.make()
    batches = [
        {"x": x, "y": y, "tokens": torch.tensor(w)} for (x, y), w in zip(MEMBER.batches(), [1, 2, 7], strict=True)
    ]
    o = Objective.from_step(
        model, lambda m, b: F.cross_entropy(m(b["x"]), b["y"]), batches, weight=lambda b: b["tokens"].item()
    )
    losses = [plain.loss_of(model, F.cross_entropy, batch) for batch in MEMBER.batches()]
    assert o.value() == pytest.approx(np.average(losses, weights=[1, 2, 7]), rel=1e-6)
    slopes = [plain.gradient(model, F.cross_entropy, batch).float() for batch in MEMBER.batches()]
    torch.testing.assert_close(o.gradient(), (slopes[0] + 2 * slopes[1] + 7 * slopes[2]) / 10)


def test_a_step_may_return_one_value_an_example():
    model = MEMBER.make()
    o = Objective.from_step(model, lambda m, b: F.cross_entropy(m(b[0]), b[1], reduction="none"), MEMBER.batches())
    assert o.example_losses().shape == (23,)
    assert o.value() == pytest.approx(plain.loss_of(model, F.cross_entropy, (INPUTS, TARGETS)), rel=1e-6)


def test_many_points_are_the_points_one_by_one():
    o = Objective(MEMBER.make(), MEMBER.loss, (INPUTS, TARGETS))
    points = torch.stack([o.point, o.point + 1])
    assert o.values(points).tolist() == [o.value(), o.value(o.point + 1)]


# Another point, and the network's label


def test_the_objective_at_a_point_is_that_of_the_model_with_these_parameters():
    model, data = MEMBER.make(torch.float64), MEMBER.data(torch.float64)
    o = Objective(model, MEMBER.loss, data, network="A")
    theta = o.point + 0.3
    moved, same = o.at(theta), Objective(plain.at(model, theta), MEMBER.loss, data, network="A")
    assert torch.equal(moved.point, theta)
    assert moved.samples()["loss"].values.equal(o.samples(theta)["loss"].values)
    assert moved.gradient().equal(o.gradient(theta))
    assert moved.provenance() == same.provenance()
    assert moved.provenance()["model_fingerprint"] != o.provenance()["model_fingerprint"]
    part, expected = moved.restricted("0.*"), same.restricted("0.*")
    assert part.value() == expected.value() == moved.value()
    for made in (moved.with_batch_norm("batch"), moved.examples(torch.arange(3)), moved.at(o.point)):
        assert made.network == "A"
    assert torch.equal(moved.at(o.point).gradient(), o.gradient())


def test_the_point_that_is_given_may_be_written_to_later():
    o = Objective(MEMBER.make(), MEMBER.loss, (INPUTS, TARGETS))
    theta = o.point.double() + 1
    moved = o.at(theta)
    before = moved.value()
    theta += 1
    assert (moved.dtype, moved.value()) == (torch.float32, before)


def test_running_statistics_stay_those_of_the_model_at_another_point():
    member = BY_NAME["batch-norm"]
    o = Objective(member.make(torch.float64), member.loss, member.data(torch.float64))
    theta = o.point * 1.1
    assert o.at(theta).value() == o.value(theta)
    buffers = dict(member.make(torch.float64).named_buffers())
    assert all(torch.equal(o.at(theta).state_dict()[name], buffer) for name, buffer in buffers.items())


def test_every_dataset_carries_the_label_of_the_network():
    o = Objective(MEMBER.make(), MEMBER.loss, (INPUTS, TARGETS), network="A")
    found = la.robustness(o.restricted("0.*"), [0.0, 0.1], draws=2, progress=False)
    assert found.attrs["network"] == "A"
    assert "network" not in Objective(MEMBER.make(), MEMBER.loss, (INPUTS, TARGETS)).provenance()


# What is refused


def test_a_checkpoint_of_another_network_is_refused_with_the_names():
    o = Objective(MEMBER.make(), MEMBER.loss, (INPUTS, TARGETS))
    assert_refused(CheckpointError, lambda: o.point_of(Tied()), "missing", "0.bias", "unexpected", "encoder.weight")
    wider = perceptron(nn.Tanh, 4)
    assert_refused(CheckpointError, lambda: o.point_of(wider), "2.weight is (4, 7), not (3, 7)")
    first = Objective(MEMBER.make(), MEMBER.loss, (INPUTS, TARGETS), parameters="0.*")
    assert_refused(CheckpointError, lambda: first.point_of(wider), "2.weight")


def test_points_and_vectors_of_the_wrong_kind_are_refused():
    o = Objective(MEMBER.make(), MEMBER.loss, (INPUTS, TARGETS))
    n = o.n_parameters
    assert_refused(DirectionError, lambda: o.value(torch.zeros(n + 1)), str(n), str(n + 1))
    assert_refused(DirectionError, lambda: o.value(torch.zeros(n, 1)))
    assert_refused(DirectionError, lambda: o.value(torch.zeros(n, dtype=torch.int64)), "floating-point")
    assert_refused(DirectionError, lambda: o.value([0.0] * n), "list")
    assert_refused(DirectionError, lambda: o.gradient(torch.full((n,), torch.nan)), "NaN")
    assert_refused(DirectionError, lambda: o.at(torch.zeros(n + 1)), str(n))
    assert_refused(DirectionError, lambda: o.at(torch.full((n,), torch.nan)), "NaN")
    assert_refused(DirectionError, lambda: o.hvp(torch.zeros(n - 1)), str(n))
    assert_refused(DirectionError, lambda: o.hvp(torch.zeros(n, dtype=torch.int64)))
    assert_refused(DirectionError, lambda: o.hvp(torch.full((n,), torch.inf)), "NaN or infinite")
    assert_refused(DirectionError, lambda: la.hessian(o) @ torch.zeros(n + 1))


def test_a_loss_that_is_not_finite_is_refused_by_every_verb():
    model = MEMBER.make()
    o = Objective(model, lambda outputs, targets: F.cross_entropy(outputs, targets) * torch.nan, (INPUTS, TARGETS))
    assert np.isnan(o.value())
    direction = torch.ones(o.n_parameters)
    for ask in (
        o.require_finite,
        lambda: la.surface(o, la.line(o.point, direction, steps=3), progress=False),
        lambda: la.robustness(o, [0.0], progress=False),
        lambda: la.spectrum(o, 1),
        lambda: la.barrier(o, la.Segment(o.point, o.point + 1), steps=3, progress=False),
    ):
        assert_refused(NonFiniteLoss, ask, "nan")


def test_the_batch_whose_loss_is_not_finite_is_named():
    inputs = INPUTS.clone()
    inputs[12] = torch.inf
    o = Objective(MEMBER.make(), MEMBER.loss, (inputs, TARGETS), batch_size=9)
    assert_refused(NonFiniteLoss, o.require_finite, "batch 2 of 3")


def test_a_gradient_that_is_not_finite_is_a_numerical_error():
    o = Objective(MEMBER.make(), lambda outputs, _: (outputs.sum() - outputs.sum()).sqrt(), (INPUTS, TARGETS))
    with pytest.raises(NumericalError, match="gradient"):
        o.gradient()


def test_labels_out_of_range_are_refused_wherever_they_come():
    targets = TARGETS.clone()
    targets[0] = 3
    assert_refused(InputError, lambda: Objective(MEMBER.make(), MEMBER.loss, (INPUTS, targets)), "label")
    late = TARGETS.clone()
    late[-1] = 3
    assert_refused(
        InputError, lambda: Objective(MEMBER.make(), MEMBER.loss, (INPUTS, late), batch_size=9).value(), "label"
    )


def test_an_output_object_is_refused_with_the_way_out():
    class Output:
        def __init__(self, logits):
            self.logits = logits
            self.loss = logits.mean()

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(6, 3)

        def forward(self, x):
            return Output(self.linear(x))

    assert_refused(InputError, lambda: Objective(Model(), F.cross_entropy, (INPUTS, TARGETS)), "from_step")
    assert_refused(InputError, lambda: Objective.from_step(Model(), lambda m, b: m(b[0]), [(INPUTS, TARGETS)]), ".loss")
    o = Objective.from_step(Model(), lambda m, b: m(b[0]).loss, [(INPUTS, TARGETS)])
    assert np.isfinite(o.value())


def test_one_example_is_too_few_for_batch_statistics():
    member = BY_NAME["batch-norm"]
    inputs, targets = member.data()

    def ask():
        return Objective(
            member.make(), member.loss, (inputs[:10], targets[:10]), batch_size=9, batch_norm="batch"
        ).value()

    assert_refused(InputError, ask, "larger batches", "frozen")


def test_arguments_that_are_no_model_no_loss_and_no_policy_are_refused():
    data = (INPUTS, TARGETS)
    assert_refused(InputError, lambda: Objective("model", F.cross_entropy, data), "nn.Module")
    assert_refused(InputError, lambda: Objective(MEMBER.make(), "cross_entropy", data), "function")
    assert_refused(InputError, lambda: Objective(MEMBER.make(), F.cross_entropy, data, batch_norm="eval"), "recompute")
    assert_refused(InputError, lambda: Objective(MEMBER.make(), F.cross_entropy, data, batch_norm_batches=0))
    assert_refused(InputError, lambda: Objective(MEMBER.make(), lambda o, t: o[:2, 0], data), "shape")
    assert_refused(InputError, lambda: Objective(MEMBER.make(), lambda o, t: 1.0, data), "float")
    assert_refused(InputError, lambda: Objective(MEMBER.make(), F.cross_entropy, (INPUTS, TARGETS, TARGETS)), "pair")
    assert_refused(InputError, lambda: Objective(nn.Linear(5, 3), F.cross_entropy, data), "float32 (23, 6)")


def test_mixed_types_need_one_named():
    model = perceptron(nn.Tanh)
    model[2].double()
    assert_refused(InputError, lambda: Objective(model, F.cross_entropy, (INPUTS, TARGETS)), "dtype=")
    assert np.isfinite(Objective(model, F.cross_entropy, (INPUTS, TARGETS), dtype=torch.float64).value())


def test_a_step_with_another_model_has_no_gradient_and_says_so():
    model = MEMBER.make()
    data = [(INPUTS, TARGETS)]
    o = Objective.from_step(MEMBER.make(), lambda _, b: F.cross_entropy(model(b[0]), b[1]), data, check=False)
    assert_refused(InputError, o.gradient, "handed over")
    with torch.no_grad():
        fixed = Objective.from_step(MEMBER.make(), lambda m, b: m(b[0]).detach().mean(), [(INPUTS, TARGETS)])
    assert_refused(InputError, fixed.gradient, "detach")


def test_a_failure_in_a_later_batch_is_told_in_one_line():
    batches = [{"x": INPUTS, "y": TARGETS}, {"x": INPUTS}]

    def step(model, batch):
        return F.cross_entropy(model(batch["x"]), batch["y"])

    assert_refused(InputError, lambda: Objective.from_step(MEMBER.make(), step, batches), "KeyError", "float32 (23, 6)")
    o = Objective.from_step(MEMBER.make(), step, [*batches, batches[0]])
    assert_refused(InputError, o.value, "KeyError", "float32 (23, 6)")


def test_a_function_that_is_differentiable_once_has_no_hessian_and_says_so():
    class Doubling(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, gradient):
            return 2 * gradient

    o = Objective(MEMBER.make(), lambda out, t: F.cross_entropy(Doubling.apply(out), t), (INPUTS, TARGETS))
    assert float(o.gradient().norm()) > 0
    assert_refused(InputError, lambda: o.with_route("exact").hvp(o.point), "only once")


def test_a_model_that_cannot_be_copied_is_refused():
    model = MEMBER.make()
    model.kept = [next(model.parameters()) * 2]  # a graph leads out of it
    assert_refused(InputError, lambda: Objective(model, F.cross_entropy, (INPUTS, TARGETS)), "cannot be copied", "kept")
