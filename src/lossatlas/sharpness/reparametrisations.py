"""Random reparametrisations of a network at a point: other weights of the same function, or of the same predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from lossatlas.connectivity.symmetry.symmetries import Permutations, Symmetries
from lossatlas.connectivity.symmetry.verification import difference
from lossatlas.model.data.batches import preserved_rng
from lossatlas.objective import Objective
from lossatlas.sharpness.measure import BASIS, BATCH_NORM, LAYER, LOGITS, NEURON, PERMUTATION
from lossatlas.sharpness.places import Scaling, State
from lossatlas.sharpness.scalings import Scalings, scalings
from lossatlas.sharpness.slopes import Network

FACTOR = 10.0  # of a layer, or one divided by it
LOGIT_FACTOR = 2.0  # a power of two, so that no rounding changes which logit is the largest
SPREAD = 0.5  # of the logarithms of the singular values of a change of basis
KEEPS, COARSE = {torch.float64: 1e-8}, 1e-5  # relative deviation of f: above rounding, far below any change
AGREES = 1e-3  # of the outputs on all data, in the objective's own type
EVERY = 10**12  # examples
NAMED = 6  # groups that a reason names

Apply = Callable[[State], dict[str, Tensor]]


@dataclass(frozen=True)
class Unavailable:
    """Why a network has no such reparametrisation."""

    reason: str


@dataclass(frozen=True)
class Reparametrised:
    """The same data seen by the network with other weights.

    ``deviation``: max |f' - f| / max(1, max |f|) over all data, in the objective's own type; f is twice the outputs
    under a logit scale. ``groups``: whose units were changed; ``left_out``: of which none could be, and why.
    ``carry`` takes a vector of theta to the place that its entries have now.
    """

    objective: Objective
    deviation: float
    groups: tuple[str, ...]
    left_out: str = ""
    carry: Callable[[Tensor], Tensor] | None = None


class Reparametrisations:
    """Those of one objective at its point: each draw is another one, the same for the same seed.

    A scaling or a change of basis is used where it keeps the outputs on some of the data, by itself.
    """

    def __init__(self, objective: Objective, of: Symmetries, seed: int = 0) -> None:
        self.objective, self.symmetries, self._seed = objective, of, seed
        self.network = Network(objective)
        self.state = self.network.state(objective)

    @cached_property
    def scalings(self) -> Scalings:
        """What leaves the function as it is, or doubles it, found by derivatives."""
        return scalings(self.network, self.state, self.symmetries, self._seed)

    def made(self, name: str, draw: int) -> Reparametrised | Unavailable:
        """The draw of the reparametrisation with this name."""
        makers = {
            LAYER: self._layers,
            NEURON: self._neurons,
            BATCH_NORM: self._batch_norms,
            PERMUTATION: self._permuted,
            BASIS: self._bases,
            LOGITS: self._logits,
        }
        entropy = np.random.SeedSequence([self._seed, list(makers).index(name), draw]).generate_state(1, np.uint64)[0]
        return makers[name](torch.Generator().manual_seed(int(entropy)))

    # One of each kind

    def _layers(self, generator: torch.Generator) -> Reparametrised | Unavailable:
        # What meets along an axis is one layer: a filter of the next one is scaled as a whole.
        layers = _joined(_axes(scaling) for several in self.scalings.groups.values() for scaling in several)
        ups = (torch.rand(len(layers), generator=generator) < 0.5).tolist()

        def factors(scaling: Scaling) -> Tensor:
            up = next(up for up, axes in zip(ups, layers, strict=True) if _axes(scaling) <= axes)
            return torch.full((scaling.size,), FACTOR if up else 1 / FACTOR, dtype=torch.float64)

        return self._scaled(factors)

    def _neurons(self, generator: torch.Generator) -> Reparametrised | Unavailable:
        return self._scaled(lambda scaling: _log_normal(scaling.size, generator))

    def _batch_norms(self, generator: torch.Generator) -> Reparametrised | Unavailable:
        if not self.network.statistics:
            return Unavailable("the model has no BatchNorm that keeps running statistics")

        # A filter of another layer that takes the same units in would not be scaled as a whole.
        def change(scaling: Scaling) -> Apply | None:
            factors = _log_normal(scaling.size, generator)
            alone = all(exponent == 1 for _, exponent in scaling.exponents)
            return (lambda state: scaling.applied(state, factors)) if alone else None

        return self._changed(change, statistics=True, reason="no BatchNorm alone takes the units in")

    def _permuted(self, generator: torch.Generator) -> Reparametrised | Unavailable:
        of = self.symmetries
        if not of.groups:
            return Unavailable(self._none_hidden())
        permutations = of.random(int(torch.randint(2**62, (), generator=generator)))
        state = of.permuted(self.state, permutations)
        carry = _Carry(self.objective, of, permutations)
        return self._finished(state, [group.name for group in of.roots()], _pinned(of), carry=carry)

    def _bases(self, generator: torch.Generator) -> Reparametrised | Unavailable:
        def change(scaling: Scaling) -> Apply | None:
            inner = self.symmetries.groups[scaling.group].size
            outer = scaling.size // inner
            if not self._mixes(scaling, inner):  # no large matrix is made for what passes through a ReLU
                return None
            drawn = [_well_conditioned(inner, generator) for _ in range(outer)]
            blocks, inverses = (torch.stack(each) for each in zip(*drawn, strict=True))
            return lambda state: scaling.mixed(state, blocks, inverses)

        return self._changed(change, statistics=False, reason="what the units pass through is not linear")

    def _logits(self, generator: torch.Generator) -> Reparametrised | Unavailable:
        names = self.scalings.last_layer
        if not self.objective.function.supervised or self.objective.batches.labels() is None:
            return Unavailable("the targets are not one class an example")
        if not names:
            return Unavailable("the outputs are not proportional to the parameters of any one layer")
        state = self.state | {name: LOGIT_FACTOR * self.state[name] for name in names}
        return self._finished(state, [names[0].rpartition(".")[0] or names[0]], "", LOGIT_FACTOR)

    # How they are made

    def mixing(self) -> list[tuple[Scaling, int]]:
        """The scalings of units of which a change of basis keeps the function, and how many have one in common."""
        several = [
            (scaling, self.symmetries.groups[g].size) for g, all_ in self.scalings.groups.items() for scaling in all_
        ]
        return [(scaling, inner) for scaling, inner in several if self._mixes(scaling, inner)]

    def _mixes(self, scaling: Scaling, inner: int) -> bool:
        """Seen by two of its units."""
        if not scaling.can_mix or inner < 2:
            return False
        return self._kept(_turned(scaling, scaling.size // inner, inner)) is not None

    def _scaled(self, factors: Callable[[Scaling], Tensor]) -> Reparametrised | Unavailable:
        def change(scaling: Scaling) -> Apply:
            drawn = factors(scaling)
            return lambda state: scaling.applied(state, drawn)

        return self._changed(change, statistics=False, reason="no scaling of the units keeps the function")

    def _changed(
        self, change: Callable[[Scaling], Apply | None], statistics: bool, reason: str
    ) -> Reparametrised | Unavailable:
        """Every group changed that can be; one after the other, each by itself looked at on some of the data."""
        if not self.symmetries.groups:
            return Unavailable(self._none_hidden())
        state = dict(self.state)
        used, failing = list[str](), list[str]()
        for group, several in self.scalings.groups.items():
            those = [scaling for scaling in several if scaling.statistics is statistics]
            kept = [own for scaling in those if (own := self._kept(change(scaling)))]
            for apply in kept:
                state = apply(state)
            (used if kept else failing).append(group)
        left_out = "; ".join(filter(None, (_about(failing, reason), _pinned(self.symmetries))))
        return self._finished(state, used, left_out) if used else Unavailable(left_out)

    def _kept(self, apply: Apply | None) -> Apply | None:
        if apply is None or not self.network.deviation(self.state, apply(self.state)) <= self._tol:
            return None
        return apply

    @property
    def _tol(self) -> float:
        return KEEPS.get(self.network.dtype, COARSE)

    def _finished(
        self,
        state: State,
        used: Sequence[str],
        left_out: str,
        factor: float = 1.0,
        carry: Callable[[Tensor], Tensor] | None = None,
    ) -> Reparametrised | Unavailable:
        """The objective with this state, if it keeps the function on some of the data."""
        off = self.network.deviation(self.state, state, factor)
        if not off <= self._tol:
            return Unavailable(f"the outputs change where they should not, by {off:.1e}: please report the model")
        other = with_state(self.objective, state)
        found = difference(_pairs(self.objective, other, factor), EVERY)
        if not found <= AGREES:
            return Unavailable(f"the outputs deviate by {found:.1e} in {self.objective.dtype}")
        return Reparametrised(other, found, tuple(used), left_out, carry)

    def _none_hidden(self) -> str:
        return _pinned(self.symmetries) or "the model has no hidden units"


@dataclass(frozen=True)
class _Carry:
    """A vector of theta with its entries permuted as the weights are."""

    objective: Objective
    of: Symmetries
    permutations: Permutations

    def __call__(self, vector: Tensor) -> Tensor:
        space = self.objective.space
        return space.flatten(self.of.permuted(space.unflatten(vector), self.permutations))


def with_state(objective: Objective, state: Mapping[str, Tensor]) -> Objective:
    """The objective at the parameters of a state, with its running statistics for its own."""
    other = objective.at(objective.space.flatten(state).to(objective.point))
    statistics = {name: state[name] for name in other.function.statistics if name in state}
    if statistics:
        other.function = other.function.with_statistics(statistics)
    return other


def _pairs(one: Objective, other: Objective, factor: float) -> Iterator[tuple[Tensor, Tensor]]:
    with torch.no_grad():
        found = [objective.function.tensors(objective.point) for objective in (one, other)]
    for index, batch in enumerate(one.batches):
        with torch.no_grad(), preserved_rng(one.device):
            before, after = (_outputs(o, t, batch, index) for o, t in zip((one, other), found, strict=True))
        yield factor * before, after


def _outputs(objective: Objective, tensors: dict[str, Tensor], batch: object, index: int) -> Tensor:
    function = objective.function
    if function.supervised:
        return function.outputs(tensors, batch, index)
    return function.measure(tensors, batch, index)["loss"]


def _log_normal(size: int, generator: torch.Generator) -> Tensor:
    """exp N(0, 1)."""
    return torch.randn(size, generator=generator, dtype=torch.float64).exp()


def _well_conditioned(size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A = U diag(exp(0.5 N(0, 1))) V with random rotations U, V, and A^-T."""
    u, v = (torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))[0] for _ in range(2))
    values = (SPREAD * torch.randn(size, generator=generator, dtype=torch.float64)).exp()
    return u * values @ v, u / values @ v


def _turned(scaling: Scaling, outer: int, inner: int) -> Apply:
    """Its first two units turned by 45 degrees."""
    turn = torch.eye(inner, dtype=torch.float64).repeat(outer, 1, 1)
    turn[0, :2, :2] = torch.tensor([[1.0, -1.0], [1.0, 1.0]], dtype=torch.float64) / 2**0.5
    return lambda state: scaling.mixed(state, turn, turn)


Axes = set[tuple[str, int]]


def _axes(scaling: Scaling) -> Axes:
    """The axes of tensors that it scales along."""
    return {(place.tensor, place.dim) for place, _ in scaling.exponents}


def _joined(several: Iterable[Axes]) -> list[Axes]:
    """Sets joined until none shares an axis with another."""
    found: list[Axes] = []
    for axes in several:
        apart = [other for other in found if not other & axes]
        found = [*apart, axes.union(*(other for other in found if other & axes))]
    return found


def _about(groups: Sequence[str], reason: str) -> str:
    """Which groups, and the reason."""
    more = f" and {len(groups) - NAMED} more" if len(groups) > NAMED else ""
    return f"{', '.join(groups[:NAMED])}{more}: {reason}" if groups else ""


def _pinned(of: Symmetries) -> str:
    return "; ".join(of.pinned)
