"""The map between theta and the named tensors."""

from __future__ import annotations

import pytest
import torch
from oracles.members import MEMBERS
from torch import nn

from lossatlas.errors import CheckpointError, InputError
from lossatlas.model.parameters import ParameterSpace


@pytest.mark.parametrize("member", MEMBERS, ids=lambda m: m.name)
def test_flatten_and_unflatten_are_inverse(member):
    model = member.make()
    space = ParameterSpace(model)
    theta = space.flatten(dict(model.named_parameters()))
    assert theta.shape == (space.n,)
    for name, tensor in space.unflatten(theta).items():
        assert torch.equal(tensor, model.get_parameter(name))
    assert [e.start for e in space][1:] == [e.stop for e in space][:-1]


def test_unflatten_gives_views_also_of_a_strided_vector():
    space = ParameterSpace(nn.Linear(3, 2))
    strided = torch.arange(16.0).reshape(8, 2)[:, 1]
    assert torch.equal(torch.cat([t.reshape(-1) for t in space.unflatten(strided).values()]), strided)


def test_one_dimensional_entries_are_biases_norms_and_scalars():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.norm = nn.Linear(3, 2), nn.LayerNorm(2)
            self.scale = nn.Parameter(torch.tensor(1.0))

    space = ParameterSpace(Net())
    assert {entry.name: entry.has_one_dimension for entry in space} == {
        "scale": True,
        "linear.weight": False,
        "linear.bias": True,
        "norm.weight": True,
        "norm.bias": True,
    }


@pytest.mark.parametrize(
    ("select", "names"),
    [
        (None, ["0.weight", "0.bias", "2.weight", "2.bias"]),
        ("*.weight", ["0.weight", "2.weight"]),
        (["2.*", "0.bias"], ["0.bias", "2.weight", "2.bias"]),
        ("0.weight", ["0.weight"]),
    ],
)
def test_globs_select_in_the_models_own_order(select, names):
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2))
    assert [entry.name for entry in ParameterSpace(model, select)] == names


def test_a_selection_of_nothing_is_refused_and_lists_the_names():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2).requires_grad_(False))
    with pytest.raises(InputError, match=r"'x\.\*' do not exist.*0\.weight"):
        ParameterSpace(model, ["0.*", "x.*"])
    with pytest.raises(InputError, match="frozen"):
        ParameterSpace(model, "1.*")
    with pytest.raises(InputError, match="No parameters are selected"):
        ParameterSpace(model, [])
    with pytest.raises(InputError, match="do not exist"):
        ParameterSpace(nn.ReLU())


def test_a_lazy_and_a_complex_parameter_are_refused():
    with pytest.raises(InputError, match="one batch"):
        ParameterSpace(nn.LazyLinear(2))
    model = nn.Module()
    model.z = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    with pytest.raises(InputError, match="dense real"):
        ParameterSpace(model)


def test_missing_and_misshapen_tensors_are_named():
    space = ParameterSpace(nn.Linear(3, 2))
    with pytest.raises(CheckpointError, match="bias"):
        space.flatten({"weight": torch.zeros(2, 3)})
    with pytest.raises(CheckpointError, match=r"weight is \(3, 2\), not \(2, 3\)"):
        space.flatten({"weight": torch.zeros(3, 2), "bias": torch.zeros(2)})
