"""What theory calls invariant stays to 1e-3: the Fashion-MNIST study's CNN, a ResNet with BatchNorm, a transformer.

Each is trained for a short time, and measured on 60 test images before and after every reparametrisation that it has.
The ratios are printed (``-s``).
"""

from __future__ import annotations

import pytest
import torch.nn.functional as F

import lossatlas as la
from lossatlas.sharpness.measure import BASIS, BATCH_NORM, LAYER, LOGITS, NEURON, PERMUTATION

pytestmark = [pytest.mark.slow, pytest.mark.needs("fashion-mnist")]

MEASURES = ("sam", "asam", "asam_filter", "adaptive_average", "relative_flatness", "fisher_rao", "pac_bayes_adaptive")
ALL = {LAYER, NEURON, PERMUTATION, LOGITS}
NETWORKS = {
    "simple_cnn": (la.zoo.simple_cnn, ALL),
    "resnet20": (lambda seed: la.zoo.resnet20(1, 10, "A", seed=seed), ALL | {BATCH_NORM}),
    "vit": (lambda seed: la.zoo.vit(depth=2, seed=seed), ALL | {BASIS}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_what_theory_calls_invariant_stays(name):
    make, expected = NETWORKS[name]
    data, network = la.zoo.load("fashion-mnist"), make(seed=1)
    la.zoo.fit(network, la.zoo.subset(data.train, 2000, seed=0), epochs=2, learning_rate=0.05, seed=1, progress=False)
    objective = la.Objective(network, F.cross_entropy, la.zoo.subset(data.test, 60, seed=0))
    found = la.invariance(objective, MEASURES, tol=0.2, progress=False)
    print(name, found["ratio"].to_pandas().round(5).to_string(), sep="\n")
    there = found.sel(reparametrisation=found["available"])
    assert set(there["reparametrisation"].values) == expected
    assert float(there["deviation"].max()) < 1e-5
    off = abs(there["ratio"] - 1).where(there["expected"] == 1)
    assert off.notnull().sum() > 15
    assert float(off.max()) < 1e-3
    assert bool(there["moved"].sel(measure="sam", reparametrisation=[LAYER, NEURON]).all())
