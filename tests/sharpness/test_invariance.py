"""Other weights of one function, and which measures of sharpness they move."""

from __future__ import annotations

import copy
import math
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import xarray as xr
from torch import Tensor, nn

import lossatlas as la
from lossatlas.connectivity.alignment import symmetries_of
from lossatlas.errors import ConvergenceWarning, InputError
from lossatlas.results.catalogue import Catalogue
from lossatlas.sharpness.measure import BASIS, BATCH_NORM, LAYER, LOGITS, NEURON, PERMUTATION, REPARAMETRISATIONS, Z
from lossatlas.sharpness.measure import Estimate as E
from lossatlas.sharpness.problem import Problem
from lossatlas.sharpness.ratios import ratio, without_data
from lossatlas.sharpness.reparametrisations import Reparametrisations, Reparametrised
from lossatlas.sharpness.scalings import relations
from lossatlas.sharpness.show.invariance_claims import moved, stays, unmoved

DIGITS = la.zoo.load("digits").test
X, Y = DIGITS[0][:60].double().reshape(-1, 1, 8, 8), DIGITS[1][:60]


class Residual(nn.Module):
    """A convolution, a residual block with BatchNorm, a leaky ReLU and a maximum: all homogeneous."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm1 = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv1, self.norm2 = nn.Conv2d(6, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5)
        self.conv2, self.norm3 = nn.Conv2d(5, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.head = nn.Linear(6 * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.stem(x)))
        x = x + self.norm3(self.conv2(F.leaky_relu(self.norm2(self.conv1(x)), 0.2)))
        return self.head(F.max_pool2d(F.relu(x), 2).flatten(1))


class Attention(nn.Module):
    """PyTorch's own attention (its three projections in one matrix, or apart), tanh units, a mean of the tokens."""

    def __init__(self, packed: bool) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 8)
        self.attention = nn.MultiheadAttention(
            8, 2, batch_first=True, kdim=None if packed else 6, vdim=None if packed else 7
        )
        self.hidden, self.head = nn.Linear(8, 5), nn.Linear(5, 10)
        self.packed = packed

    def forward(self, x: Tensor) -> Tensor:
        rows = x[:, 0]
        query = torch.tanh(self.embed(rows))
        key, value = (query, query) if self.packed else (rows[..., :6], rows[..., :7])
        return self.head(torch.tanh(self.hidden(self.attention(query, key, value)[0])).mean(1))


def generic(model: nn.Module) -> nn.Module:
    """Float64, with statistics, scales and biases that are not those of a new network."""
    draw = torch.Generator().manual_seed(3)
    model = model.double()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=draw, dtype=torch.float64)
                tensor.mul_((0.3 * noise).exp()) if "var" in name else tensor.add_(0.2 * noise)
    return model.eval()


class Two(nn.Module):
    """Two linear layers, with the square of a ReLU between them, or with normalised weights."""

    def __init__(self, normalised: bool) -> None:
        super().__init__()
        self.a, self.b, self.power = nn.Linear(64, 7), nn.Linear(7, 10), 1 if normalised else 2
        for layer in (self.a, self.b) if normalised else ():
            nn.utils.parametrizations.weight_norm(layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x.flatten(1))) ** self.power)


HIDDEN, SCALED = {PERMUTATION, LOGITS}, {PERMUTATION, LOGITS, LAYER, NEURON}
MODELS = {
    "ReLU units": (lambda: la.zoo.mlp(64, (7, 6), seed=0), SCALED),
    "GELU units": (lambda: la.zoo.mlp(64, (7,), activation="gelu", seed=0), HIDDEN),
    "squared ReLU units": (lambda: Two(normalised=False), SCALED),
    "layers whose weights are normalised": (lambda: Two(normalised=True), HIDDEN),
    "a convolutional network": (lambda: la.zoo.simple_cnn(1, 8, seed=0), SCALED),
    "linear units": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.Linear(5, 10)), SCALED | {BASIS}),
    "a residual block with BatchNorm": (Residual, SCALED | {BATCH_NORM}),
    "attention in one matrix": (lambda: Attention(True), SCALED | {BASIS}),
    "attention in three": (lambda: Attention(False), SCALED | {BASIS}),
    "a vision transformer": (lambda: la.zoo.vit(1, 8, patch=4, width=8, depth=1, heads=2, seed=0), SCALED | {BASIS}),
    "one linear layer": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), {LOGITS}),
}


@pytest.mark.parametrize("name", MODELS)
def test_other_weights_give_the_outputs_of_the_model_itself(name):
    make, expected = MODELS[name]
    torch.manual_seed(0)
    model = generic(make())
    before, weights = model(X), {n: t.clone() for n, t in model.state_dict().items()}
    objective = la.Objective(model, F.cross_entropy, (X, Y), check=False)
    made = Reparametrisations(objective, symmetries_of(objective, None))
    found = {kind: made.made(kind, draw=1) for kind in REPARAMETRISATIONS}
    assert {kind for kind, one in found.items() if isinstance(one, Reparametrised)} == expected
    for kind in expected:
        other = copy.deepcopy(model)
        state = found[kind].objective.function.state_dict(found[kind].objective.point)
        other.load_state_dict(state)
        after = other(X)
        factor = 2.0 if kind == LOGITS else 1.0
        torch.testing.assert_close(after, factor * before, rtol=1e-9, atol=1e-9)
        assert found[kind].deviation < 1e-9
        assert max(float((state[n] - t).abs().max()) for n, t in weights.items()) > 0.1, kind
    assert all(torch.equal(t, weights[n]) for n, t in objective.function.state_dict(objective.point).items())


def test_units_that_cannot_be_scaled_are_named_with_the_reason():
    objective = la.Objective(generic(Attention(True)), F.cross_entropy, (X, Y), check=False)
    found = Reparametrisations(objective, symmetries_of(objective, None)).made(LAYER, 0)
    assert "hidden: no scaling of the units keeps the function" in found.left_out.replace("embed, ", "")
    assert all("hidden" not in group for group in found.groups)


def test_the_exponents_are_the_relations_between_columns():
    a, b, c = torch.randn(3, 40, dtype=torch.float64)
    zero = torch.zeros(40, dtype=torch.float64)
    matrix = torch.stack([a, b, a + b, zero, c, -c / 2], dim=1)  # a + b - third = 0, c + 2 last = 0
    found = {tuple(each.tolist()) for each in relations(matrix, 1e-6)}
    assert found == {(1.0, 1.0, -1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0, 1.0, 2.0)}


@cache
def table() -> xr.Dataset:
    """Of a perceptron with one hidden layer, trained on digits."""
    data = la.zoo.subset(la.zoo.load("digits").train, 150, seed=0)
    model = la.zoo.mlp(64, (12,), seed=1)
    la.zoo.fit(model, data, epochs=40, batch_size=25, seed=1, progress=False)
    objective = la.Objective(model, F.cross_entropy, data, batch_size=150, dtype=torch.float64, network="A")
    return la.invariance(objective, [*MOVES], tol=0.1, progress=False)


# What changes a measure: of layers, of units, of the logits (REFERENCE: Dinh et al. 2017, Petzka et al. 2021).
MOVES = {
    "lambda_max": (True, True, True),
    "trace": (True, True, True),
    "sam": (True, True, True),
    "average": (True, True, None),
    "asam_filter": (False, True, True),
    "relative_flatness": (False, True, True),
    "asam": (False, False, True),
    "adaptive_worst": (False, False, True),
    "adaptive_average": (False, False, None),
    "fisher_rao": (False, False, True),
    "pac_bayes_adaptive": (False, False, False),
}


@pytest.mark.parametrize("name", MOVES)
def test_the_table_of_a_perceptron(name):
    at = table().sel(measure=name)
    for kind, moves in zip((LAYER, NEURON, LOGITS), MOVES[name], strict=True):
        one = at.sel(reparametrisation=kind)
        assert moves is None or bool(one["moved"]) is moves, kind
        if moves is False:
            assert float(one["expected"]) == 1
            assert float(one["ratio"]) == pytest.approx(1, abs=1e-3)
    assert float(at["ratio"].sel(reparametrisation=PERMUTATION)) == pytest.approx(
        1, abs=1e-3 if name == "lambda_max" else 1e-8
    )
    assert np.isnan(at["ratio"].sel(reparametrisation=[BATCH_NORM, BASIS])).all()


def test_a_layer_scaled_by_ten_scales_the_hessian_of_the_next_one_by_a_hundred():
    # Rows of theta: [W1, b1 | W2, b2]; H of the last layer is that of its inputs, which grew, or shrank, by 10.
    objective = la.Objective(la.zoo.mlp(64, (5,), seed=0), F.cross_entropy, (X.flatten(1), Y), dtype=torch.float64)
    found = Reparametrisations(objective, symmetries_of(objective, None)).made(LAYER, 0)
    traces = [la.trace(la.hessian(each.restricted("fc2.weight"))).value for each in (objective, found.objective)]
    grew = float(found.objective.point[0] / objective.point[0])
    assert grew == pytest.approx(10) or grew == pytest.approx(0.1)
    assert traces[1] / traces[0] == pytest.approx(grew**2, rel=1e-9)


def test_permuted_weights_are_measured_with_permuted_noise():
    objective = la.Objective(la.zoo.mlp(64, (9,), seed=0), F.cross_entropy, (X.flatten(1), Y), dtype=torch.float64)
    found = Reparametrisations(objective, symmetries_of(objective, None)).made(PERMUTATION, 0)
    noise = 0.3 * Problem(objective).normal(0)
    rises = [
        Problem(found.objective, carry=carry).rise(0.3 * Problem(found.objective, carry=carry).normal(0)).mean
        for carry in (found.carry, None)
    ]
    assert rises[0] == pytest.approx(Problem(objective).rise(noise).mean, rel=1e-12)
    assert rises[1] != pytest.approx(rises[0], rel=1e-3)


def test_the_ratio_has_the_errors_of_solvers_and_draws_but_not_of_data():
    assert without_data(E.normal(2.0, 0.5)) == (2.0, 2.0)
    assert without_data(E.normal(2.0, 0.5, off=0.1, errors=("solver", "data"))) == pytest.approx((1.9, 2.1))
    assert without_data(E.normal(2.0, math.nan, off=0.1, errors=("solver", "data"))) == pytest.approx((1.9, 2.1))
    half = math.hypot(0.3, Z * 0.2)
    drawn = E(2.0, 0.5, 2.0 - half, 2.0 + half, ("draws", "data"), drawn=0.3)
    assert without_data(drawn) == pytest.approx((1.7, 2.3))
    found = ratio(E(2.0, 0.1, 1.7, 2.3, ("draws",)), E(4.0, 0.1, 3.4, 4.6, ("draws",)))
    assert (found.value, found.low, found.high, found.moved) == (
        2.0,
        pytest.approx(3.4 / 2.3),
        pytest.approx(4.6 / 1.7),
        True,
    )
    assert not ratio(E(2.0, 0.1, 1.7, 2.3, ("draws",)), E(2.2, 0.1, 1.9, 2.5, ("draws",))).moved
    assert math.isnan(ratio(E(0.0), E(1.0)).value)
    assert ratio(E(0.0), E(0.0)).value == 1.0


def test_a_measure_that_moves_is_known_and_theory_is_judged():
    dataset = table()
    every = Catalogue([dataset])
    assert moved(every, "sam", dataset) == (LAYER, NEURON, LOGITS)
    assert moved(every, "asam", dataset) == (LOGITS,)
    assert stays(dataset).verdict is la.Verdict.SUPPORTED
    names = ("asam", "adaptive_worst", "adaptive_average", "fisher_rao", "pac_bayes_adaptive")
    assert unmoved(dataset) == [str(dataset["title"].sel(measure=name).item()) for name in names]
    wrong = dataset.copy(deep=True)
    at = {"measure": "asam", "reparametrisation": NEURON}
    for name in ("ratio", "ratio_low", "ratio_high"):
        wrong[name].loc[at] = 1.1
    assert stays(wrong).verdict is la.Verdict.CONTRADICTED


def objective_of(model: nn.Module, **options) -> la.Objective:
    return la.Objective(model.double(), F.cross_entropy, (X, Y), check=False, **options)


def test_a_model_without_hidden_units_has_a_logit_scale_only():
    linear = objective_of(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    found = la.invariance(linear, "sam", progress=False)
    assert found["available"].values.tolist() == [name == LOGITS for name in REPARAMETRISATIONS]
    assert "no hidden units" in found["left_out"].sel(reparametrisation=LAYER).item()
    with pytest.warns(ConvergenceWarning, match="permutation: the model has no hidden units"):
        la.invariance(linear, "sam", reparametrisations=["permutation", "logit_scale"], progress=False)
    with pytest.raises(InputError, match=r"none of the reparametrisations.*no hidden units"):
        la.invariance(linear, "sam", reparametrisations="layer-rescaling", progress=False)


class Opaque(nn.Module):
    """What it does depends on its values, so that no graph holds it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(64, 4), nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.a(x.flatten(1)))
        return self.b(hidden * 2 if hidden.sum().item() > 0 else hidden)


def test_a_model_that_cannot_be_traced_is_refused_with_the_remedy_which_works():
    with pytest.raises(InputError, match=r"cannot be traced.*symmetries=\{"):
        la.invariance(objective_of(Opaque()), "sam", progress=False)
    by_hand = {"a.weight": ("a", None), "a.bias": ("a",), "b.weight": (None, "a")}
    found = la.invariance(objective_of(Opaque()), "asam", symmetries=by_hand, reparametrisations=NEURON, progress=False)
    assert float(found["ratio"].item()) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measures": "asamm"}, "no measure 'asamm' .did you mean 'asam'"),
        (
            {"reparametrisations": "layer rescalin"},
            "no reparametrisation 'layer rescalin' .did you mean 'layer rescaling'",
        ),
        ({"reparametrisations": []}, "No reparametrisations: choose from layer rescaling"),
        ({"draws": 0}, "draws=0: give at least 1"),
        ({"rho": {"sam": -1.0}}, "give a positive number"),
        ({"tol": math.nan}, "tol=nan: give a positive"),
    ],
)
def test_bad_input_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        la.invariance(objective_of(la.zoo.mlp(seed=0)), **({"measures": "sam"} | options), progress=False)
