"""Relative flatness of layers, and the Fisher-Rao norm: curvature along the weights themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import t
from torch import Tensor, nn

from lossatlas.curvature.activations import activation_hessian
from lossatlas.curvature.krylov import norms, unit
from lossatlas.curvature.operators import drawn_batches, gauss_newton
from lossatlas.errors import InputError
from lossatlas.sharpness.measure import BASIS, BATCH_NORM, LAYER, NEURON, PERMUTATION, Estimate, Measure
from lossatlas.sharpness.problem import FORWARD, PRODUCT, Problem

FIRST, MOST, ALL = 10, 45, 100  # products: at least, of one layer, of all layers together
OUTPUTS = 45  # of a layer, at most, for a product with each
AGREES = 1e-3  # of |v| |H v|
QUANTILE = float(t.ppf(0.975, FIRST - 1))


@dataclass(frozen=True)
class _Layer:
    """Entries ``[start, stop)`` of theta, a weight ``shape`` whose rows lie along ``axis``."""

    name: str
    start: int
    stop: int
    shape: tuple[int, ...]
    axis: int

    def rows(self, vector: Tensor) -> Tensor:
        """``(m, d)``: a row for each unit that the layer feeds."""
        return vector[self.start : self.stop].view(self.shape).movedim(self.axis, 0).flatten(1)

    def entries(self, rows: Tensor) -> Tensor:
        """The same as entries of theta."""
        rest = [size for axis, size in enumerate(self.shape) if axis != self.axis]
        return rows.view(-1, *rest).movedim(0, self.axis).flatten()


def relative_flatness(problem: Problem) -> Estimate:
    """kappa = sum_{s, s'} <w_s, w_s'> tr H_{s, s'} of the last weight matrix W, with rows w_s.

    tr H_{s, s'} is over the inputs of the layer. For a linear layer z = W x + b it is exact, from a product for each
    output: kappa = E_i |x_i|^2 tr W' (grad grad' l_i(z_i)) W. Elsewhere it is estimated, as the sum over all layers is.
    Petzka et al. 2021, "Relative Flatness and Generalization", definition 3.
    """
    layer = _layers(problem)[-1]
    name, _, kind = layer.name.rpartition(".")
    module = problem.objective.function.module.get_submodule(name)
    small = kind == "weight" and isinstance(module, nn.Linear) and len(module.weight) <= OUTPUTS
    inputs = _inputs(problem, module) if small else None
    exact = None if inputs is None else _exact(problem, layer, name, inputs)
    return _flatness(problem, [layer], MOST) if exact is None else exact


def _inputs(problem: Problem, module: nn.Module) -> Tensor | None:
    """``(N, d)``: the inputs of a layer; None where it is not called once a batch with a vector for each example."""
    found: list[Tensor] = []

    def seen(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        found.extend(each.detach() for each in inputs)

    handle = module.register_forward_hook(seen)
    try:
        problem.samples(problem.point)
    finally:
        handle.remove()
    if [each.shape[:-1] for each in found] != [(size,) for size in problem.objective.batches.sizes]:
        return None
    return torch.cat(found)


def _exact(problem: Problem, layer: _Layer, module: str, inputs: Tensor) -> Estimate | None:
    """sum_r b_r u_r' A u_r, u_r = (|x_i| q_r)_i: A is the Hessian in the outputs, W W' = sum_r b_r q_r q_r'.

    None where the weight is used elsewhere too, as a tied one is: then (V x_i)' A (V x_i) is not vec(V)' H vec(V),
    which is tried for a random V.
    """
    weight = layer.rows(problem.point)
    operator = activation_hessian(problem.objective, module)
    matrix = layer.rows(problem.normal(0, stream=2))
    row, vector = (inputs @ matrix.T).flatten(), torch.zeros_like(problem.point)
    vector[layer.start : layer.stop] = layer.entries(matrix)
    product = problem.hessian @ vector
    off = abs(float(row.double() @ (operator @ row).double()) - float(vector.double() @ product.double()))
    if not off <= AGREES * float(norms(vector) * norms(product)):
        return None
    betas, vectors = torch.linalg.eigh(weight.double() @ weight.double().T)
    value, sizes = 0.0, norms(inputs)
    for beta, one in zip(betas.tolist(), vectors.T, strict=True):
        row = torch.outer(sizes, one).flatten()
        value += beta * float(row @ (operator @ row.to(operator.dtype)).double())
    problem.count(passes=PRODUCT * len(weight))
    return Estimate(value, 0.0, value, value, note=f"Of {layer.name}, exact.")


def relative_flatness_sum(problem: Problem) -> Estimate:
    """The sum of kappa over all weight matrices and convolutions, from the same products: layers add independent signs.

    Petzka et al. 2021, section 4.
    """
    return _flatness(problem, _layers(problem), ALL)


def fisher_rao(problem: Problem) -> Estimate:
    """<w, F w> = E_i E_{y ~ p} <w, grad log p(y | f_i)>^2, with the exact Fisher matrix F at the model's own p.

    Liang et al. 2019, "Fisher-Rao Metric, Geometry, and Complexity of Neural Networks", definition 2. F is the
    Gauss-Newton matrix of a loss that is a negative log-likelihood; their short form of it holds without biases only.
    """
    objective = problem.objective
    drawn_batches(objective)  # refuses a loss that is no negative log-likelihood
    problem.count(FORWARD)
    operator = gauss_newton(objective)
    assert operator.products is not None
    sample = operator.products.forms(problem.point[None])[0]
    problem.count(PRODUCT, 1)
    return Estimate.normal(sample.mean, sample.stderr)


def _layers(problem: Problem) -> list[_Layer]:
    objective = problem.objective
    filters = objective.filters()
    found = [
        _Layer(entry.name, entry.start, entry.stop, filters[entry.name].shape, filters[entry.name].axes[0])
        for entry in objective.space
        if not entry.has_one_dimension and len(filters[entry.name].axes) == 1
    ]
    if not found:
        raise InputError("No weight matrix or convolution varies: a layer with rows is needed.")
    return found


def _flatness(problem: Problem, layers: Sequence[_Layer], most: int) -> Estimate:
    """Products until their standard error is ``tol`` of the mean, or so many."""
    operator, forms = problem.hessian, list[float]()
    while len(forms) < FIRST or (len(forms) < most and _stderr(forms) > problem.tol * abs(np.mean(forms))):
        vector = _probe(problem, layers, len(forms))
        forms.append(float(vector.double() @ (operator @ vector).double()))
    value, stderr = float(np.mean(forms)), _stderr(forms)
    names = layers[0].name if len(layers) == 1 else f"{len(layers)} layers"
    half = QUANTILE * stderr
    return Estimate(value, stderr, value - half, value + half, ("draws",), note=f"Of {names}; {len(forms)} products.")


def _probe(problem: Problem, layers: Sequence[_Layer], draw: int) -> Tensor:
    """v = vec(W x z') in each layer, 0 elsewhere.

    x and z are uniform on spheres, of mean square 1, and made of the rows of a random matrix of the layer's shape: a
    permutation of units that takes that matrix along takes v along.
    """
    vector = torch.zeros_like(problem.point)
    noise = [problem.normal(draw, stream) for stream in (2, 3)]
    for layer in layers:
        weight = layer.rows(problem.point)
        x, z = (math.sqrt(weight.shape[1]) * unit(layer.rows(each).sum(0)) for each in noise)
        vector[layer.start : layer.stop] = layer.entries(torch.outer(weight @ x, z))
    return vector


def _stderr(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) / math.sqrt(len(values))


MEASURES = (
    Measure(
        "relative_flatness",
        "relative flatness of the last layer",
        r"\sum_{s,s'} \langle w_s, w_{s'} \rangle\, \mathrm{tr}\, H_{s,s'}",
        "petzka2021",
        relative_flatness,
        frozenset({LAYER, BATCH_NORM, PERMUTATION}),
        20,
    ),
    Measure(
        "relative_flatness_sum",
        "relative flatness of all layers",
        r"\sum_{l} \sum_{s,s'} \langle w^l_s, w^l_{s'} \rangle\, \mathrm{tr}\, H^l_{s,s'}",
        "petzka2021",
        relative_flatness_sum,
        frozenset({LAYER, BATCH_NORM, PERMUTATION}),
        200,
    ),
    Measure(
        "fisher_rao",
        "Fisher-Rao norm",
        r"\langle w, F w \rangle",
        "liang2019",
        fisher_rao,
        frozenset({LAYER, NEURON, BATCH_NORM, PERMUTATION, BASIS}),
        2,
    ),
)
