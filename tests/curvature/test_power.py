"""Power iteration on the Hessian of an objective."""

from __future__ import annotations

import measured
import pytest
import torch
import torch.nn.functional as F

import lossatlas as la
from lossatlas.curvature.power import power_baseline
from lossatlas.errors import InputError


def test_on_all_examples_it_ends_at_the_largest_eigenvalue():
    objective = measured.trained("A").train
    found = power_baseline(objective, steps=60, progress=False)
    pairs = la.top_eigenpairs(la.hessian(objective), 1, which="magnitude", tol=1e-5)
    assert float(found["eigenvalue"][-1]) == pytest.approx(float(pairs.values[0]), rel=1e-3)
    assert (found.attrs["batches"], found.attrs["batch_size"], found.attrs["network"]) == ("fixed", 200, "A")


def test_with_batches_each_product_is_that_of_another_random_batch():
    objective, (inputs, targets) = measured.trained("A").train, measured.data()[0]
    network = la.zoo.mlp(widths=(6,), seed=0)
    network.load_state_dict(objective.state_dict())
    generator = torch.Generator().manual_seed(3)
    batches = [torch.randperm(200, generator=generator)[:20] for _ in range(4)]
    operators = [la.hessian(la.Objective(network, F.cross_entropy, (inputs[i], targets[i]))) for i in batches]
    expected = la.power_iteration(operators, steps=4, seed=3)
    found = power_baseline(objective, batch=20, steps=4, seed=3, progress=False)
    assert found["eigenvalue"].to_numpy() == pytest.approx(expected["eigenvalue"].to_numpy(), rel=1e-6)
    assert found.attrs["data"] == "digits train, another 20 examples at each product"
    assert found.attrs["n_examples"] == found.attrs["batch_size"] == 20


def test_a_batch_is_at_least_one_example_and_at_most_all():
    objective = measured.trained("A").train
    with pytest.raises(InputError, match="batch=0"):
        power_baseline(objective, batch=0)
    assert power_baseline(objective, batch=1000, steps=1, progress=False).attrs["batch_size"] == 200
