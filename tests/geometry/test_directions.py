"""Directions on the scale of the weights, their right angles, and the recognition of both."""

from __future__ import annotations

import copy
import pickle
from typing import ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles.members import MEMBERS
from oracles.truth_wrapped import Complex
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import lossatlas as la
from lossatlas.errors import DirectionError, InputError
from lossatlas.geometry.blocks import normalisation
from lossatlas.geometry.directions import Directions, cosine
from lossatlas.objective import Objective

every_member = pytest.mark.parametrize("member", MEMBERS, ids=lambda m: m.name)


def of(model: nn.Module) -> Objective:
    return Objective.from_step(model, lambda m, b: sum(p.sum() for p in m.parameters()), [torch.zeros(1)])


def rows(o: Objective, vector: Tensor, transposed: tuple[str, ...] = ("2.weight",)) -> list[tuple[str, Tensor]]:
    """Every filter on its own, cut out by hand: name and its entries in float64."""
    found, start = [], 0
    for entry in o.space:
        tensor = vector[start : start + entry.size].reshape(entry.shape).double()
        start += entry.size
        if tensor.ndim < 2:
            found.append((entry.name, tensor.reshape(-1)))
        elif entry.name in transposed and tensor.ndim > 2:
            found += [(entry.name, tensor[:, output].reshape(-1)) for output in range(tensor.shape[1])]
        else:
            found += [(entry.name, row.reshape(-1)) for row in tensor]
    return found


def has_one_dimension(o: Objective, name: str) -> bool:
    return next(len(entry.shape) < 2 for entry in o.space if entry.name == name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@every_member
def test_each_filter_of_the_direction_has_the_norm_of_the_models_filter(member, dtype):
    o = member.objective(dtype)
    transposed = ("2.weight",) if member.name == "transposed" else ()
    for direction in la.random_directions(o, 2, seed=3):
        for (name, own), (_, weights) in zip(rows(o, direction, transposed), rows(o, o.point, transposed), strict=True):
            if has_one_dimension(o, name):
                assert not own.any()
            else:
                assert float(own.norm()) == pytest.approx(float(weights.norm()), rel=1e-6)


@every_member
def test_scaled_one_dimensional_tensors_are_blocks_of_their_own(member):
    o = member.objective()
    for direction in la.random_directions(o, 1, seed=3, one_d="scale"):
        for entry in o.space:
            if entry.has_one_dimension:
                own, weights = (v[entry.start : entry.stop].double().norm() for v in (direction, o.point))
                assert float(own) == pytest.approx(float(weights), rel=1e-6)


@every_member
def test_layer_and_model_norms_are_those_of_the_weights(member):
    o = member.objective()
    (layer,) = la.random_directions(o, 1, seed=0, norm="layer", one_d="scale")
    for entry in o.space:
        own, weights = (v[entry.start : entry.stop].double().norm() for v in (layer, o.point))
        assert float(own) == pytest.approx(float(weights), rel=1e-6)
    (model,) = la.random_directions(o, 1, seed=0, norm="model")
    assert float(model.double().norm()) == pytest.approx(float(o.point.double().norm()), rel=1e-6)


@pytest.mark.parametrize("norm", ["filter", "layer", "model", None])
@every_member
def test_the_second_direction_is_orthogonal_to_the_first(member, norm):
    o = member.objective()
    first, second = la.random_directions(o, 2, seed=1, norm=norm)
    assert abs(cosine(first, second)) < 1e-6


def test_the_right_angle_holds_inside_every_filter():
    o = MEMBERS[0].objective()
    first, second = la.random_directions(o, 2, seed=1)
    for (_, a), (_, b) in zip(rows(o, first, ()), rows(o, second, ()), strict=True):
        assert abs(float(a @ b)) <= 1e-6 * float(a.norm() * b.norm()) + 1e-30


@every_member
def test_seeds_are_reproducible_and_different(member):
    o = member.objective()
    first, again, other = (la.random_directions(o, 2, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.testing.assert_close(la.random_directions(member.objective(torch.float64), 2, seed=5).float(), first)


def test_the_first_direction_does_not_depend_on_how_many_are_asked_for():
    o = MEMBERS[1].objective()
    one, many = la.random_directions(o, 1, seed=4), la.random_directions(o, 3, seed=4)
    assert many.shape == (3, o.n_parameters)
    torch.testing.assert_close(many @ many.T, torch.diag((many**2).sum(1)), atol=1e-5, rtol=1e-5)
    assert one.shape == (1, o.n_parameters)


@pytest.mark.parametrize("one_d", ["zero", "scale"])
@pytest.mark.parametrize("norm", ["filter", "layer", "model"])
@every_member
def test_what_was_made_is_recognised(member, norm, one_d):
    o = member.objective()
    for direction in la.random_directions(o, 2, seed=2, norm=norm, one_d=one_d):
        varied = [entry for entry in o.space if one_d == "scale" or not entry.has_one_dimension]
        expected = "layer" if norm == "model" and len(varied) == 1 else norm  # one tensor is both
        assert normalisation(o.space, o.point, direction, o.filters()) == (
            expected,
            "zero" if one_d == "zero" else "scaled",
        )


@every_member
def test_what_was_not_made_is_not_recognised(member):
    o = member.objective()
    (free,) = la.random_directions(o, 1, seed=2, norm=None)
    (scaled,) = la.random_directions(o, 1, seed=2)
    assert normalisation(o.space, o.point, free, o.filters())[0] == "none"
    assert normalisation(o.space, o.point, 1.01 * scaled, o.filters())[0] == "none"
    assert normalisation(o.space, o.point + 1, scaled, o.filters())[0] == "none"


def test_a_plane_with_one_direction_of_another_kind_is_not_called_normalised():
    o = MEMBERS[0].objective()
    (scaled,) = la.random_directions(o, 1, seed=0)
    (free,) = la.random_directions(o, 1, seed=1, norm=None)
    mixed = la.surface(o, la.plane(o.point, scaled, free, steps=2), progress=False)
    pure = la.surface(o, la.plane(o.point, *la.random_directions(o, 2, seed=0), steps=2), progress=False)
    assert mixed.attrs["normalisation"] == "none"
    assert (pure.attrs["normalisation"], pure.attrs["one_d"]) == ("filter", "zero")
    assert pure.attrs["direction_norms"] == pytest.approx([float(d.norm()) for d in la.random_directions(o, 2, seed=0)])


def test_a_filter_that_is_zero_stays_zero():
    model = nn.Linear(4, 3, bias=False)
    with torch.no_grad():
        model.weight[1] = 0
    o = of(model)
    for direction in la.random_directions(o, 2, seed=0):
        assert not direction.reshape(3, 4)[1].any()
        assert direction.reshape(3, 4)[0].any()


def test_a_filter_with_one_entry_cannot_hold_a_right_angle_and_the_cosine_says_so():
    o = of(nn.Sequential(nn.Linear(1, 6, bias=False), nn.Linear(6, 2, bias=False)))
    first, second = la.random_directions(o, 2, seed=0)
    torch.testing.assert_close(first[:6].abs(), o.point[:6].abs())
    torch.testing.assert_close(second[:6].abs(), o.point[:6].abs())
    in_pairs = (first[6:].double() @ second[6:].double()) / (first[6:].norm() * second[6:].norm())
    assert abs(float(in_pairs)) < 1e-6
    expected = float(first[:6].double() @ second[:6].double()) / float(first.double().norm() * second.double().norm())
    assert cosine(first, second) == pytest.approx(expected, abs=1e-6)
    assert expected != 0


@pytest.mark.parametrize("norm", ["filter", "layer"])
def test_directions_are_made_tensor_by_tensor(norm):
    class Largest(TorchDispatchMode):
        """The sizes of what is made beside the directions themselves, in numbers."""

        sizes: ClassVar[list[int]] = []

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            made = func(*args, **(kwargs or {}))
            given = {t.untyped_storage().data_ptr() for t in tree_leaves(args) if isinstance(t, Tensor)}
            if isinstance(made, Tensor) and made.is_floating_point() and made.shape != (2, n):
                self.sizes += [made.numel()] * (made.untyped_storage().data_ptr() not in given)
            return made

    o = of(nn.Sequential(*(nn.Linear(20, 20) for _ in range(9))))
    n, _ = o.n_parameters, o.filters()
    with Largest() as seen:
        la.random_directions(o, 2, seed=0, norm=norm)
    assert [size for size in seen.sizes if size > 400] == [n]  # where the point is looked through for NaN


def test_without_a_norm_the_draws_are_standard_normal():
    o = of(nn.Linear(100, 100))
    (draw,) = la.random_directions(o, 1, seed=0, norm=None)
    assert float(draw.mean()) == pytest.approx(0, abs=0.03)
    assert float(draw.std()) == pytest.approx(1, abs=0.03)
    assert draw.unique().numel() > 10_000


def test_nothing_to_vary_and_unknown_norms_are_refused():
    o = of(nn.Linear(4, 3))
    only_bias = Objective(nn.Linear(4, 3), F.mse_loss, (torch.zeros(2, 4), torch.zeros(2, 3)), parameters="bias")
    with pytest.raises(InputError, match="one_d='scale'"):
        la.random_directions(only_bias, 1, seed=0)
    with pytest.raises(InputError, match="filter"):
        la.random_directions(o, 1, seed=0, norm="row")
    with pytest.raises(InputError, match="k=0"):
        la.random_directions(o, 0, seed=0)


def test_the_difference_leads_from_the_first_to_the_second():
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([4.0, 0.0])
    assert torch.equal(a + la.between(a, b), b)
    with pytest.raises(DirectionError, match="architecture"):
        la.between(a, torch.zeros(3))


def test_an_orthonormal_basis_spans_the_same_rows():
    rows_ = torch.randn(3, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    basis = la.orthonormalise(rows_)
    np.testing.assert_allclose(basis @ basis.T, np.eye(3), atol=1e-14)
    torch.testing.assert_close(rows_ @ basis.T @ basis, rows_)
    assert float(basis[0] @ rows_[0]) == pytest.approx(float(rows_[0].norm()))
    with pytest.raises(DirectionError, match="dependent"):
        la.orthonormalise(torch.stack([rows_[0], 2 * rows_[0]]))


# What directions know of themselves


def test_directions_know_how_they_were_made():
    o = MEMBERS[0].objective()
    for norm, one_d, expected in (("filter", None, "zero"), ("model", None, "scale"), (None, "zero", "zero")):
        made = la.random_directions(o, 2, seed=7, norm=norm, one_d=one_d)
        assert (made.normalisation, made.one_d, made.seed, made.source) == (norm or "none", expected, 7, "random")
        np.testing.assert_allclose(made.cosines, np.eye(2), atol=1e-6)
    assert la.random_directions(o, 3, seed=0).cosines.shape == (3, 3)


def test_the_cosines_are_those_of_the_rows():
    made = Directions(torch.tensor([[1.0, 0.0], [3.0, 4.0]]), normalisation="none", one_d="scale", seed=0)
    np.testing.assert_allclose(made.cosines, [[1, 0.6], [0.6, 1]], rtol=1e-12)
    assert made[1].cosines.tolist() == [[1.0]]


OPERATIONS = {
    "sum": lambda d: d + d,
    "product": lambda d: 2 * d,
    "matmul": lambda d: d @ d.T,
    "stack": lambda d: torch.stack(list(d)),
    "qr": lambda d: torch.linalg.qr(d.T)[0],
    "type": lambda d: d.to(torch.float64),
    "slice": lambda d: d[:1],
    "mask": lambda d: d[d > 0],
    "clone": lambda d: d.clone(),
    "detach": lambda d: d.detach(),
    "vmap": lambda d: torch.func.vmap(torch.sin)(d),
    "relu": F.relu,
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_on_directions_is_the_operation_on_a_tensor(name):
    made = la.random_directions(MEMBERS[0].objective(), 2, seed=1)
    found = OPERATIONS[name](made)
    assert type(found) is Tensor
    assert torch.equal(found, OPERATIONS[name](made.as_subclass(Tensor)))


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d)), lambda d: copy.deepcopy([d, d])[1]],
    ids=["copy", "deepcopy", "pickle", "deepcopy in a list"],
)
def test_a_copy_knows_what_the_original_knows(copied):
    made = la.random_directions(MEMBERS[0].objective(), 2, seed=3, norm="layer")
    for original in (made, made[1]):
        found = copied(original)
        assert type(found) is Directions
        assert torch.equal(found, original)
        assert vars(found) == vars(original)


def test_a_deep_copy_owns_its_numbers():
    made = la.random_directions(MEMBERS[0].objective(), 2, seed=3)
    found = copy.deepcopy(made)
    found.zero_()
    assert bool(made.any())


def test_directions_are_rows():
    with pytest.raises(DirectionError, match=r"\(1, 2, 3\)"):
        Directions(torch.zeros(1, 2, 3), normalisation="none", one_d="scale", seed=0)


MAKERS = {"line": (la.line, 1), "plane": (la.plane, 2), "volume": (la.volume, 3), "polar": (la.polar, 2)}


@pytest.mark.parametrize("name", MAKERS)
def test_whichever_way_directions_are_passed_the_surface_of_the_region_knows_their_seed(name):
    make, k = MAKERS[name]
    o = MEMBERS[0].objective()
    made = la.random_directions(o, k, seed=5, norm="layer")
    regions = [make(o.point, made, steps=4), make(o.point, *made, steps=4), make(o.point, *map(copy.deepcopy, made))]
    expected = {"directions": "random", "seed": 5, "directions_normalisation": "layer", "region": name}
    for region in regions:
        assert type(region.center) is type(region.directions) is Tensor
        assert expected.items() <= region.provenance().items()
    assert len({region.fingerprint() for region in regions}) == 1
    for region in regions[:2]:
        assert expected.items() <= la.surface(o, region, progress=False).attrs.items()
    plain = make(o.point, made.as_subclass(Tensor), steps=4)
    assert plain.fingerprint() == regions[0].fingerprint()
    assert plain.provenance()["directions"] == "given"
    assert "seed" not in plain.provenance()


def test_directions_of_several_draws_give_all_their_seeds():
    o = MEMBERS[0].objective()
    (one,), (other,) = la.random_directions(o, 1, seed=0), la.random_directions(o, 1, seed=9, norm="model")
    found = la.plane(o.point, one, other).provenance()
    assert (found["seed"], found["directions_normalisation"]) == ([0, 9], "mixed")
    half = la.plane(o.point, one, 2 * other).provenance()
    assert half["directions"] == "given"
    assert "seed" not in half


@pytest.mark.parametrize("given", [None, {"inward": -1}], ids=["seen", "by hand"])
def test_a_filter_of_a_complex_weight_holds_both_parts_of_its_numbers(given):
    model = Complex()
    o = la.Objective(model, torch.nn.functional.cross_entropy, (torch.randn(9, 4), torch.arange(9) % 3))
    found = la.random_directions(o, 1, seed=0, **({} if given is None else {"filters": given}))
    moved = o.space.unflatten(torch.as_tensor(found[0]))["inward"]
    assert moved.norm(dim=0).allclose(model.inward.detach().norm(dim=0))
    assert not moved.norm(dim=1).allclose(model.inward.detach().norm(dim=1))
