"""Power iteration: the method of many codes, kept for comparison."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import torch
import xarray as xr

from lossatlas.curvature.operators import Operator, hessian, require_operator
from lossatlas.curvature.progress import counted, product_bar
from lossatlas.errors import InputError
from lossatlas.objective import Objective
from lossatlas.results.making import result


def power_iteration(operators: Operator | Iterable[Operator], *, steps: int = 15, seed: int = 0) -> xr.Dataset:
    """v <- A v / |A v|, lambda = v' A v, ``steps`` times.

    Converges, slowly, to the eigenvalue of largest magnitude, without a stopping rule and without an error bound;
    use ``top_eigenpairs`` for a number with its error. Given several operators, each product takes the next one, as
    where every product draws another batch; it does not converge then.

    Returns a Dataset over ``("iteration",)`` with ``eigenvalue``, the Rayleigh quotient v' A v before each update.

    Raises
    ------
    NumericalError : a product holds NaN or infinite numbers.

    Source: von Mises & Pollaczek-Geiringer 1929; Golub & Van Loan 2013, "Matrix Computations", section 8.2.

    Examples
    --------
    >>> values = torch.tensor([4.0, -1.0, 0.5])
    >>> operator = Operator(3, lambda rows: rows * values, torch.float32, torch.device("cpu"))
    >>> round(float(power_iteration(operator)["eigenvalue"][-1]), 4)
    4.0
    """
    if not isinstance(operators, Iterable):
        require_operator(operators)
    changing = not isinstance(operators, Operator)
    source = iter(operators) if not isinstance(operators, Operator) else itertools.repeat(operators)
    vector, values = torch.empty(0), list[float]()
    for operator in itertools.islice(source, steps):
        if not values:
            vector = torch.randn(operator.n, generator=torch.Generator().manual_seed(seed)).to(
                operator.device, operator.dtype
            )
            vector /= torch.linalg.vector_norm(vector)
        product = operator @ vector
        values.append(float(vector @ product))
        vector = product / torch.linalg.vector_norm(product).clamp(min=torch.finfo(product.dtype).tiny)
    found = xr.Dataset({"eigenvalue": ("iteration", values)}, coords={"iteration": range(1, len(values) + 1)})
    known = operators.provenance() if isinstance(operators, Operator) else {}
    return result("power_iteration", found, known, batches="changing" if changing else "fixed", seed=seed)


def power_baseline(
    objective: Objective, *, batch: int | None = None, steps: int = 15, seed: int = 0, progress: bool = True
) -> xr.Dataset:
    """v <- H v / |H v|, lambda = v' H v on the Hessian of the objective, ``steps`` times: ``power_iteration``.

    With ``batch`` each product takes another random batch of so many examples (all where there are fewer), as many
    codes do; each batch has another Hessian, so that it does not converge.

    Returns a Dataset over ``("iteration",)`` with ``eigenvalue``, v' H v before each update; ``attrs["batch_size"]``.

    Raises
    ------
    InputError : a ``batch`` below 1, or data that cannot be cut into other batches.
    NumericalError : a product holds NaN or infinite numbers.

    Source: as ``power_iteration``.

    Examples
    --------
    >>> data = torch.tensor([[1.0], [2.0]]), torch.zeros(2, 1)
    >>> objective = Objective(torch.nn.Linear(1, 1, bias=False), torch.nn.functional.mse_loss, data)
    >>> power_baseline(objective, steps=1, progress=False)["eigenvalue"].values.tolist()
    [5.0]
    """
    if batch is not None and batch < 1:
        raise InputError(f"batch={batch}: give at least one example a batch, or None for all at each product.")
    with product_bar("power iteration", progress, steps) as bar:
        if batch is None:
            found = power_iteration(counted(hessian(objective), bar), steps=steps, seed=seed)
            return result("power_iteration", found, batch_size=objective.n_examples)
        size = min(batch, objective.n_examples)
        operators = (counted(operator, bar) for operator in _on_random_batches(objective, size, seed))
        found = power_iteration(operators, steps=steps, seed=seed)
    label = f"{objective.name.partition(',')[0]}, another {size:,} examples at each product"
    basis = {"data": label, "n_examples": size, "batch_size": size}
    return result("power_iteration", found, objective.provenance(), basis)


def _on_random_batches(objective: Objective, size: int, seed: int) -> Iterator[Operator]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        chosen = torch.randperm(objective.n_examples, generator=generator)[:size]
        yield hessian(objective.examples(chosen))
