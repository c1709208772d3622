"""Law: every curvature matrix is the dense float64 one, made by plain autograd from its definition."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
from oracles import plain
from oracles.members import BY_NAME, MEMBERS, Member, N
from oracles.plain import columns, normal, relative_error
from torch import Tensor

import lossatlas as la
from lossatlas.curvature.operators import Operator, drawn_batches
from lossatlas.objective import Objective

MATRICES: dict[str, Callable[[Objective], Operator]] = {
    "hessian": la.hessian,
    "gauss_newton": la.gauss_newton,
    "empirical_fisher": lambda o: la.fisher(o, kind="empirical"),
    "gradient_covariance": la.gradient_covariance,
}
LIKELIHOODS = [m for m in MEMBERS if m.name != "cnn"]  # which smooths its labels, so that exp(-loss) sums to no 1

every_matrix = pytest.mark.parametrize("matrix", MATRICES)
every_member = pytest.mark.parametrize("member", MEMBERS, ids=lambda m: m.name)


@functools.cache
def jacobian(member: Member) -> tuple[Tensor, Tensor]:
    """f ``(N, C)`` and df/dtheta ``(N, C, n)``."""
    model, (inputs, _) = member.make(torch.float64), member.data(torch.float64)
    evaluate, theta = plain.outputs(model, inputs), plain.flat(model)
    return evaluate(theta).detach(), torch.autograd.functional.jacobian(evaluate, theta)


def losses(member: Member, f: Tensor, targets: Tensor) -> Tensor:
    """The loss of every example alone."""
    return torch.stack([member.loss(f[i : i + 1], targets[i : i + 1]) for i in range(len(f))])


def gradients(member: Member, targets: Tensor) -> Tensor:
    """``(N, n)``: the gradient of each example's loss, by the chain rule."""
    f, jac = jacobian(member)
    slopes = torch.autograd.functional.jacobian(lambda at: losses(member, at, targets).sum(), f)
    return torch.einsum("nc,ncp->np", slopes, jac)


@functools.cache
def dense(member: Member, matrix: str) -> Tensor:
    targets = member.data(torch.float64)[1]
    if matrix == "hessian":
        return plain.hessian(member.make(torch.float64), member.loss, member.data(torch.float64))
    if matrix == "gauss_newton":
        f, jac = jacobian(member)
        bend = torch.autograd.functional.hessian(lambda at: member.loss(at, targets), f)
        return torch.einsum("icp,icjd,jdq->pq", jac, bend, jac)
    each = gradients(member, targets)
    uncentered = each.T @ each / N
    return uncentered if matrix == "empirical_fisher" else uncentered - torch.outer(each.mean(0), each.mean(0))


def vectors(n: int, k: int) -> Tensor:
    return normal(k, n, seed=3)


@every_matrix
@every_member
def test_each_matrix_is_its_definition(member, matrix):
    found = columns(MATRICES[matrix](member.objective(torch.float64)))
    assert relative_error(found, dense(member, matrix)) < 1e-11
    if matrix != "hessian":  # the losses are convex in the outputs
        values = torch.linalg.eigvalsh(found)
        assert float(values[0]) > -1e-13 * float(values[-1])


@pytest.mark.parametrize("member", LIKELIHOODS, ids=lambda m: m.name)
def test_the_sampled_fisher_matrix_is_that_of_the_targets_that_were_drawn(member):
    o = member.objective(torch.float64)
    drawn = drawn_batches(o, draws=2, seed=5)
    each = [gradients(member, torch.cat([y.batch[1] for y in drawn[start : start + 3]])) for start in (0, 3)]
    truth = sum(g.T @ g for g in each) / (2 * N)
    assert relative_error(columns(la.fisher(o, draws=2, seed=5)), truth) < 1e-11


@every_matrix
@every_member
def test_each_matrix_is_symmetric_and_linear_and_takes_vectors_rows_and_columns(member, matrix):
    operator = MATRICES[matrix](member.objective(torch.float64))
    u, v = vectors(operator.n, 2)
    au, av = operator @ u, operator @ v
    assert abs(float(u @ av - v @ au)) < 1e-13 * float(au.norm() * v.norm())
    assert float((operator @ (2 * u - 3 * v) - (2 * au - 3 * av)).norm()) < 1e-13 * float(au.norm() + av.norm())
    torch.testing.assert_close(operator.rows(torch.stack([u, v])), torch.stack([au, av]), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(operator @ torch.stack([u, v], 1), torch.stack([au, av], 1), rtol=1e-12, atol=1e-14)


@every_matrix
@every_member
def test_single_precision_agrees_to_single_precision(member, matrix):
    single = Objective(member.make(torch.float64), member.loss, member.data(torch.float64), dtype=torch.float32)
    (v,) = vectors(single.n_parameters, 1)
    found = MATRICES[matrix](single) @ v.float()
    assert found.dtype == torch.float32
    assert relative_error(found, dense(member, matrix) @ v) < 1e-5


@every_matrix
def test_batches_do_not_matter(matrix):
    member = BY_NAME["mlp-tanh"]
    model, data = member.make(torch.float64), member.data(torch.float64)
    (v,) = vectors(Objective(model, member.loss, data).n_parameters, 1)
    for size in (1, 7, 23, 100):
        operator = MATRICES[matrix](Objective(model, member.loss, data, batch_size=size))
        assert relative_error(operator @ v, dense(member, matrix) @ v) < 1e-12


@every_matrix
@pytest.mark.parametrize("member", [BY_NAME["batch-norm"], BY_NAME["tied"]], ids=lambda m: m.name)
def test_the_matrix_of_some_parameters_is_a_block_of_the_whole(member, matrix):
    o = member.objective(torch.float64)
    for entry in o.space:
        block = dense(member, matrix)[entry.start : entry.stop, entry.start : entry.stop]
        torch.testing.assert_close(
            columns(MATRICES[matrix](o.restricted(entry.name))),
            block,
            rtol=1e-10,
            atol=1e-13 * float(block.norm() + 1),
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@every_member
def test_no_eigenpair_states_a_smaller_residual_than_another_objective_measures(member, dtype):
    """The same function in other batches: the value is v' H v, the residual no less than |H v - value v|."""
    tol = 1e-3 if dtype == torch.float32 else 1e-7
    pairs = la.top_eigenpairs(la.hessian(member.objective(dtype)), 3, which="both", tol=tol, floor=tol / 10)
    again = Objective(member.make(dtype), member.loss, member.data(dtype), batch_size=N)
    products = la.hessian(again).rows(pairs.vectors).double()
    unit = pairs.vectors.double()
    measured = (products - pairs.values[:, None] * unit).norm(dim=1)
    noise = 4 * torch.finfo(dtype).eps * pairs.values.abs().max()
    assert (measured <= pairs.residuals + noise).all()
    assert torch.allclose((products * unit).sum(1), pairs.values, rtol=1e-5, atol=float(noise))
    assert pairs.asymmetry <= 100 * noise
