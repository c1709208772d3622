"""KFAC by curvlinops, as an operator like the others."""

from __future__ import annotations

import inspect
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lossatlas.curvature.cotangents import Cotangents, FisherType
from lossatlas.curvature.operators import Operator
from lossatlas.errors import InputError, LossAtlasError, MissingToolError
from lossatlas.evaluation.products.linearised import require_differentiable
from lossatlas.model.data.batches import describe
from lossatlas.objective import Objective

LAYERS = (nn.Linear, nn.Conv2d)


def kfac(objective: Objective, *, fisher: FisherType = "type-2", draws: int = 1, seed: int = 0) -> Operator:
    """K = the block diagonal of A_l (x) B_l: the Kronecker-factored approximation of the Gauss-Newton matrix.

    A_l is the mean over examples of the outer products of layer l's inputs, B_l the sum of those of what flows back to
    its outputs from the loss, which has the objective's own reduction, weights and ignored targets: ``"type-2"`` with
    the exact Hessian of the loss in the outputs, ``"mc"`` with ``draws`` targets drawn from the model as ``la.fisher``
    draws them, ``"empirical"`` with the data's. Positions that share a layer's weights count as independent ones
    (KFAC-expand); weights and biases are separate blocks. The factors are made by ``curvlinops.KFACLinearOperator``.

    Linear and 2-d convolution layers only, each called once.

    Raises
    ------
    MissingToolError : curvlinops is absent (``pip install 'lossatlas[kfac]'``).
    InputError : parameters of other layers, a layer that is called several times, inputs or outputs that are not one
        tensor with a row an example; a loss without a value for each example, for ``"type-2"`` one that is not convex
        in the outputs or has over 1,024 of them an example; as ``la.fisher`` for ``"mc"``.

    Source: Martens & Grosse 2015, "Optimizing Neural Networks with Kronecker-factored Approximate Curvature", section
    3; Eschenhagen et al. 2023, "Kronecker-Factored Approximate Curvature for Modern Neural Network Architectures".

    Examples
    --------
    >>> data = torch.eye(2), torch.zeros(2, 1)
    >>> objective = Objective(nn.Linear(2, 1, bias=False), nn.MSELoss(), data)
    >>> kfac(objective) @ torch.eye(2)  # doctest: +SKIP
    tensor([[1., 0.],
            [0., 1.]])
    """
    implementation = _implementation()
    if fisher not in ("type-2", "mc", "empirical"):
        raise InputError(f"fisher={fisher!r}: choose 'type-2', 'mc' or 'empirical'.")
    if draws < 1:
        raise InputError(f"draws={draws}: give at least one drawn target for each input.")
    require_differentiable(objective.function)
    model = objective.function.parts(objective.point)[0].requires_grad_(False)
    _require_layers(model, objective)
    pairs = Cotangents(objective, fisher, draws, seed)
    try:
        inner = _factored(implementation, model, objective, pairs)
    except LossAtlasError:
        raise
    except Exception as error:  # whatever it meets in a model that it was not written for
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"curvlinops cannot approximate this model by KFAC: {reason}") from error

    def rows(vectors: Tensor) -> Tensor:
        products: Tensor = inner @ vectors.T.contiguous()
        return products.T

    made = {"matrix": f"KFAC ({fisher})", **objective.provenance()}
    return Operator(objective.n_parameters, rows, objective.dtype, objective.device, provenance=lambda: made)


def _implementation() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=DeprecationWarning)  # of what curvlinops itself imports
            from curvlinops import KFACLinearOperator
    except ImportError as error:
        raise MissingToolError(f"KFAC needs curvlinops ({error}): pip install 'lossatlas[kfac]'.") from error
    return KFACLinearOperator


class _Inner(nn.MSELoss):
    """<f, s>, whose gradient in the outputs f is s: curvlinops asks for one of its own losses by type."""

    def __init__(self) -> None:
        super().__init__(reduction="sum")

    def forward(self, outputs: Tensor, cotangents: Tensor) -> Tensor:
        return (outputs * cotangents).sum()


class _Passes(nn.Module):
    """The model, from whose outputs all cotangents of a batch but the first flow back within a forward pass.

    The hooks of curvlinops see each of them, and the layers' inputs once. The first is left to curvlinops.
    """

    def __init__(self, model: nn.Module, parameters: Sequence[Tensor]) -> None:
        super().__init__()
        self.model = model
        self._moving = tuple(parameters)
        self._rest: Iterator[Tensor] = iter(())

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.model(inputs)
        for cotangents in self._rest:
            torch.autograd.grad(outputs, self._moving, cotangents, retain_graph=True)
        return outputs

    def batches(self, pairs: Cotangents) -> Iterator[tuple[Tensor, Tensor]]:
        for inputs, cotangents in pairs:
            first = next(cotangents)
            self._rest = cotangents
            yield inputs, first


@dataclass(frozen=True)
class _Data:
    """What curvlinops loops over, more than once."""

    passes: _Passes
    pairs: Cotangents

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.passes.batches(self.pairs)


def _factored(operator: Any, model: nn.Module, objective: Objective, pairs: Cotangents) -> Any:
    names = [entry.name for entry in objective.space]
    moving = [model.get_parameter(name).requires_grad_() for name in names]
    passes = _Passes(model, moving)
    # Releases until 3.0 take a list, later ones a dict.
    named = "dict" in str(inspect.signature(operator).parameters["params"].annotation).lower()
    parameters: Any = {f"model.{name}": each for name, each in zip(names, moving, strict=True)} if named else moving
    settings = dict(
        check_deterministic=False,
        fisher_type="empirical",
        num_data=sum(len(batch[0]) for batch in objective.batches),
        num_per_example_loss_terms=1,
    )
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # of what curvlinops itself calls
        inner = operator(passes, _Inner(), parameters, _Data(passes, pairs), **settings)
        inner @ torch.zeros(objective.n_parameters, 1).to(objective.point)  # some releases compute the factors here
    return inner


def _require_layers(model: nn.Module, objective: Objective) -> None:
    """``InputError`` where curvlinops would fail or be wrong without a word."""
    if wrong := [entry.name for entry in objective.space if entry.is_complex]:
        raise InputError(
            f"KFAC is defined for real weights, and {wrong[0]!r} is complex: leave it out by parameters=[...] or "
            "objective.restricted([...])."
        )
    owners = {name: model.get_submodule(name.rpartition(".")[0]) for name in (e.name for e in objective.space)}
    for name, owner in owners.items():
        if not isinstance(owner, LAYERS):
            raise InputError(
                f"KFAC is defined for linear and 2-d convolution layers, and {name!r} belongs to a "
                f"{type(owner).__name__}: leave it out by parameters=[...] or objective.restricted([...])."
            )
    inputs = next(iter(objective.batches))[0]
    if not isinstance(inputs, Tensor):
        raise InputError(f"KFAC needs inputs that are one tensor, and these are {describe(inputs)}.")
    calls = Counter[nn.Module]()
    hooks = [module.register_forward_hook(lambda m, *_: calls.update([m])) for module in {*owners.values()}]
    with torch.no_grad():
        outputs = model(inputs.clone())
    for hook in hooks:
        hook.remove()
    if repeated := [name for name, owner in owners.items() if calls[owner] != 1]:
        raise InputError(
            f"KFAC is defined for layers that are called once, and that of {repeated[0]!r} is called "
            f"{calls[owners[repeated[0]]]} times: leave it out by parameters=[...] or objective.restricted([...])."
        )
    if not isinstance(outputs, Tensor) or outputs.ndim < 2 or len(outputs) != len(inputs):
        raise InputError(f"KFAC needs outputs (examples, ...) of two axes or more, and these are {describe(outputs)}.")
