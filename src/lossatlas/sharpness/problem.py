"""What the measures of sharpness of one objective share: its derivatives, its spectrum, the noise, and their cost."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from lossatlas.curvature.lanczos import Found, search
from lossatlas.curvature.operators import Operator, hessian
from lossatlas.curvature.progress import Budget, product_bar
from lossatlas.curvature.trace import Known, NormEstimate, Probes
from lossatlas.errors import ConvergenceWarning, InputError
from lossatlas.model.loss.samples import Sample
from lossatlas.objective import Objective
from lossatlas.robustness.noise import normal

Shared = TypeVar("Shared")
FORWARD, GRADIENT, PRODUCT = 1 / 3, 1.0, 2.0  # in gradient passes: a backward pass takes twice a forward pass
FINER = 10  # times: the tolerance of eigenvalues
SEARCH, PRODUCTS = 38, 48  # for the ends of the spectrum, and with what follows: below 100 gradient passes


@dataclass
class Cost:
    """Products with a curvature matrix of all data, all passes in gradient passes, and seconds."""

    products: float = 0.0
    passes: float = 0.0
    seconds: float = 0.0

    def add(self, other: Cost) -> None:
        self.products += other.products
        self.passes += other.passes
        self.seconds += other.seconds


@dataclass
class _Meter:
    """The cost of what runs now, without what is shared, and the names of that."""

    cost: Cost = field(default_factory=Cost)
    shared: set[str] = field(default_factory=set)


class Problem:
    """An objective at its point w, as the measures see it: every evaluation is counted, and what is shared is kept.

    Parameters
    ----------
    tol : the relative error that is enough, of what is solved or drawn.
    batch_size : of the measures that are means over batches.
    previous : ``(n,)``, the parameters before the last update, or None.
    carry : is applied to every random vector: the symmetry by which w was made from another point takes the noise
        along, so that both are measured with the same draws.
    """

    def __init__(
        self,
        objective: Objective,
        *,
        tol: float = 0.01,
        batch_size: int = 64,
        previous: Tensor | None = None,
        seed: int = 0,
        carry: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.objective, self.tol, self.batch_size, self.seed = objective, tol, batch_size, seed
        self.previous = None if previous is None else objective.space.check(previous).to(objective.point)
        self._carry = carry
        self._kept: dict[str, tuple[Any, Cost, set[str]]] = {}
        self._meters = [_Meter()]
        self._inner = 0.0  # seconds of meters inside the current one
        self.total = Cost()  # of all that was measured

    @property
    def point(self) -> Tensor:
        """w ``(n,)``, not to be changed: no copy is made."""
        return self.objective.function.point

    @property
    def n(self) -> int:
        return self.objective.n_parameters

    # Cost

    @contextmanager
    def metered(self) -> Iterator[_Meter]:
        """What runs inside is counted by itself."""
        meter, started = _Meter(), time.perf_counter()
        outside = self._inner
        self._meters.append(meter)
        self._inner = 0.0
        try:
            yield meter
        finally:
            whole = time.perf_counter() - started
            meter.cost.seconds = whole - self._inner
            self._inner = outside + whole
            self._meters.pop()

    def shared(self, name: str, compute: Callable[[], Shared]) -> Shared:
        """``compute()``, once, whoever asks for it."""
        if name not in self._kept:
            with self.metered() as meter:
                value = compute()
            self._kept[name] = value, meter.cost, meter.shared
        value, _, below = self._kept[name]
        self._meters[-1].shared |= {name, *below}
        return cast(Shared, value)

    def alone(self, meter: _Meter) -> Cost:
        """What a measure takes that is asked for alone: its own cost, and all of what it shares."""
        whole = Cost()
        for each in (meter.cost, *(self._kept[name][1] for name in sorted(meter.shared))):
            whole.add(each)
        return whole

    def count(self, passes: float = 0.0, products: float = 0.0) -> None:
        """So much more of the data has been passed through the model."""
        for cost in (self._meters[-1].cost, self.total):
            cost.add(Cost(products, passes))

    # The loss and its derivatives

    @property
    def clean(self) -> dict[str, Sample]:
        """Loss and metrics at w."""
        return self.shared("clean", partial(self.samples, self.point))

    def samples(self, point: Tensor) -> dict[str, Sample]:
        """Loss and metrics at ``point``: a forward pass."""
        self.count(FORWARD)
        return self.objective.samples(point)

    def rise(self, delta: Tensor, name: str = "loss") -> Sample:
        """l_i(w + delta) - l_i(w), paired over the examples."""
        return self.samples(self.point + delta)[name].combined(self.clean[name], -1.0)

    def gradient(self, delta: Tensor | None = None) -> Tensor:
        """grad L(w + delta) ``(n,)``; at w itself it is computed once."""
        if delta is None:
            return self.shared("gradient", partial(self._gradient, self.point))
        return self._gradient(self.point + delta)

    @property
    def outputs(self) -> int:
        """How many outputs an example has."""
        return self.shared("outputs", self._outputs)

    @property
    def hessian(self) -> Operator:
        """H at w, with its products counted."""
        made: Operator = self.shared("hessian", partial(hessian, self.objective))
        return self.counted(made)

    def counted(self, operator: Operator) -> Operator:
        """The same operator, with its products counted."""
        return _Counting(self).counted(operator)

    # The spectrum

    @property
    def ends(self) -> Found:
        """The largest and the smallest eigenvalue of H, and the space that they were found in."""
        return self.shared("ends", self._ends)

    @property
    def probes(self) -> tuple[Probes, NormEstimate]:
        """Random products beyond that space, for a trace of H, and |H| from the first ones."""
        return self.shared("probes", self._probes)

    # Noise and batches

    def normal(self, draw: int, stream: int = 0) -> Tensor:
        """u ~ N(0, I) ``(n,)``: the same for every measure that asks for this draw."""
        own = int(np.random.SeedSequence([self.seed, stream]).generate_state(1, np.uint32)[0])
        noise = normal(self.point, own, draw)
        return noise if self._carry is None else self._carry(noise)

    def batches(self) -> list[Objective]:
        """The data in disjoint batches of ``batch_size`` examples, drawn at random; what is left over is left out.

        Raises ``InputError`` where there are not two of them, or the data cannot be cut anew.
        """
        return self.shared("batches", self._batches)

    # Inside

    def _gradient(self, point: Tensor) -> Tensor:
        self.count(GRADIENT)
        return self.objective.gradient(point)

    def _outputs(self) -> int:
        function, batch = self.objective.function, next(iter(self.objective.batches))
        with torch.no_grad():
            found = function.outputs(function.tensors(self.point), batch, 0)
        return found.numel() // self.objective.batches.sizes[0]

    def _ends(self) -> Found:
        tol = self.tol / FINER
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the residual is in the interval, and the note tells
            return search(self.hessian, 1, which="both", tol=tol, floor=tol, max_products=SEARCH, seed=self.seed)

    def _probes(self) -> tuple[Probes, NormEstimate]:
        made = Probes(self.hessian, Known.of(self.ends.space), self.seed + 2)
        return made, made.norm()

    def _batches(self) -> list[Objective]:
        size, n = self.batch_size, self.objective.n_examples
        if n < 2 * size:
            raise InputError(f"batch_size={size} of {n} examples: give at most {n // 2}, for a mean over batches.")
        cuts = torch.randperm(n, generator=torch.Generator().manual_seed(self.seed))[: n // size * size]
        return [self.objective.examples(rows) for rows in cuts.reshape(-1, size)]


class _Counting(Budget):
    """A budget without a limit, whose products are a problem's."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(product_bar("", shown=False))
        self._problem = problem

    def add(self, products: float) -> None:
        self._problem.count(PRODUCT * products, products)


def joint(*stderrs: float) -> float:
    """sqrt(sum of squares) of independent standard errors; those not known (NaN) are left out."""
    return math.hypot(*(each for each in stderrs if not math.isnan(each)))
