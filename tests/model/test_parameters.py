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


def test_a_lazy_and_a_sparse_parameter_are_refused():
    with pytest.raises(InputError, match="one batch"):
        ParameterSpace(nn.LazyLinear(2))
    model = nn.Module()
    model.z = nn.Parameter(torch.eye(2).to_sparse())
    with pytest.raises(InputError, match="to_dense"):
        ParameterSpace(model)


def test_a_complex_parameter_is_its_real_and_imaginary_parts():
    model = nn.Module()
    model.a = nn.Parameter(torch.tensor([5.0]))  # so that no complex number begins at an even place
    model.z = nn.Parameter(torch.tensor([[3 + 4j, 1j], [2 + 0j, 1 - 1j]]))
    model.w = nn.Parameter(torch.tensor([1 + 2j]))
    space = ParameterSpace(model)
    theta = space.flatten(dict(model.named_parameters()))
    assert theta.tolist() == [5, 3, 4, 0, 1, 2, 0, 1, -1, 1, 2]
    assert all(torch.equal(space.unflatten(theta)[name], tensor) for name, tensor in model.named_parameters())
    conjugate = space.flatten({"a": model.a, "z": model.z.conj(), "w": model.w})
    assert conjugate[[2, 4, 8]].tolist() == [-4, -1, 1]
    assert [entry.has_one_dimension for entry in space] == [True, False, True]


def test_derivatives_pass_through_complex_parameters():
    model = nn.Module()
    model.a, model.z = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(2, dtype=torch.complex128))
    model.a.data = model.a.data.double()
    space, theta = ParameterSpace(model), torch.tensor([2.0, 3, 4, 1, 5], dtype=torch.float64)

    def product(theta):
        tensors = space.unflatten(theta)
        return (tensors["a"] * tensors["z"].prod()).real.sum()  # a (x1 x2 - y1 y2)

    a, x1, y1, x2, y2 = theta.tolist()
    hessian = torch.zeros(5, 5, dtype=torch.float64)
    hessian[0, 1:] = hessian[1:, 0] = torch.tensor([x2, -y2, x1, -y1])
    hessian[1, 3] = hessian[3, 1] = a
    hessian[2, 4] = hessian[4, 2] = -a
    assert torch.autograd.functional.hessian(product, theta).allclose(hessian)
    assert torch.func.jacrev(torch.func.grad(product))(theta).allclose(hessian)


def test_a_complex_checkpoint_of_another_shape_is_named_by_its_own_shape():
    model = nn.Module()
    model.z = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    with pytest.raises(CheckpointError, match=r"z is \(3,\), not \(2,\)"):
        ParameterSpace(model).flatten({"z": torch.zeros(3, dtype=torch.complex64)})


def test_missing_and_misshapen_tensors_are_named():
    space = ParameterSpace(nn.Linear(3, 2))
    with pytest.raises(CheckpointError, match="bias"):
        space.flatten({"weight": torch.zeros(2, 3)})
    with pytest.raises(CheckpointError, match=r"weight is \(3, 2\), not \(2, 3\)"):
        space.flatten({"weight": torch.zeros(3, 2), "bias": torch.zeros(2)})
