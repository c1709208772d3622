"""A TorchScript module as a Python module: the same names and tensors, and the script itself as it was."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from oracles import plain
from oracles.truth_wrapped import ForScripts, quietly
from torch import Tensor, nn
from torch.func import functional_call, grad

from lossatlas.errors import InputError
from lossatlas.model.private import private_copy
from lossatlas.objective import Objective

X, Y = plain.normal(12, 4).float(), torch.arange(12) % 3


def made() -> ForScripts:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ForScripts()


def scripted(model: nn.Module | None = None) -> nn.Module:
    return quietly(torch.jit.script, model or made())


def test_names_and_tensors_are_those_of_the_script():
    script, python = scripted(), made()
    own = private_copy(script)
    assert list(own.state_dict()) == list(python.state_dict())
    assert [name for name, _ in own.named_parameters()] == [name for name, _ in python.named_parameters()]
    assert all(torch.equal(tensor, own.state_dict()[name]) for name, tensor in python.state_dict().items())
    assert own.again.weight is own.middle.weight
    assert not {t.data_ptr() for t in own.parameters()} & {t.data_ptr() for t in script.parameters()}


def test_it_computes_with_the_tensors_and_modes_that_it_is_given():
    own, python = private_copy(scripted()).eval(), made().eval()
    other = {name: p + 0.1 for name, p in python.named_parameters()}
    assert functional_call(own, other, (X,)).allclose(functional_call(python, other, (X,)))
    own.norm.train(), python.norm.train()
    assert own(X).allclose(python(X), atol=1e-6)
    assert own.norm.running_mean.allclose(python.norm.running_mean)
    again = copy.deepcopy(own)
    assert (again.norm.training, again.drop.training) == (True, False)
    assert again(X).allclose(own(X))


def test_what_it_writes_into_a_buffer_comes_back():
    own = private_copy(scripted()).eval()
    buffers = {"calls": torch.tensor(5.0)}
    functional_call(own, buffers, (X,))
    assert (float(buffers["calls"]), float(own.calls)) == (6.0, 0.0)


def test_derivatives_are_those_of_the_python_module():
    own, python = private_copy(scripted()).double().eval(), made().double().eval()
    tensors, x = dict(python.named_parameters()), X.double()

    def loss(module):
        return lambda w: functional_call(module, tensors | {"head.weight": w}, (x,)).square().sum()

    at, along = tensors["head.weight"].detach(), torch.ones(3, 5, dtype=torch.float64)
    for derivative in (lambda f: grad(f)(at), lambda f: grad(lambda w: (grad(f)(w) * along).sum())(at)):
        assert derivative(loss(own)).allclose(derivative(loss(python)))


def test_other_methods_of_a_script_are_called_with_the_same_tensors():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)

        @torch.jit.export
        def twice(self, x: Tensor) -> Tensor:
            return 2 * self.inner(x)

    o = Objective.from_step(scripted(Two()), lambda m, b: m.twice(b[0]).square().mean(), [(X, Y)])
    weight, bias = (o.point * 3).split([12, 3])
    assert o.value(3 * o.point) == pytest.approx(float((2 * F.linear(X, weight.view(3, 4), bias)).square().mean()))
    assert float(o.gradient().norm()) > 0


@pytest.mark.parametrize("policy", ["recompute", "batch"])
def test_statistics_of_a_script_are_frozen_or_refused(policy):
    with pytest.raises(InputError, match="can only be frozen"):
        Objective(scripted(), F.cross_entropy, (X, Y), batch_norm=policy)


def test_a_result_and_a_refusal_name_the_class_that_the_script_was_made_from():
    o = Objective(scripted(), F.cross_entropy, (X, Y))
    assert o.provenance()["model"] == "ForScripts"
    assert o.point_of(scripted()).equal(o.point_of(made()))
    assert o.point_of(made()).equal(o.point)
