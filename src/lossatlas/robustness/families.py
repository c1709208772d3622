"""The families of perturbations: in what their size is measured, which sizes there are, and what they do to theta."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from torch import Tensor

from lossatlas.errors import InputError
from lossatlas.model.filters import Filters
from lossatlas.model.parameters import Entry
from lossatlas.objective import Objective
from lossatlas.results.mistakes import suggestion
from lossatlas.robustness.flips import FloatFlips, IntegerFlips
from lossatlas.robustness.noise import Relative, WeightNoise, scale_of
from lossatlas.robustness.pruning import Pruning
from lossatlas.robustness.quantisation import Quantisation

Noise = Literal["gaussian", "uniform", "multiplicative", "quantise", "prune", "flip", "input"]
Representation = Literal["float32", "int8"]
Per = Literal["tensor", "channel"]
Perturb = Callable[[float, int, Sequence[Entry]], Tensor]  # (size, number of the draw, tensors) -> theta (n,)

SIGMAS = (0.0, 0.01, 0.02, 0.05, 0.1)
BITS = (8, 4, 3, 2)
SHARES = (0.0, 0.2, 0.5, 0.8, 0.9)
RATES = (1e-6, 1e-5, 1e-4, 1e-3)
MOST_BITS = 16


@dataclass(frozen=True)
class Family:
    """What the sizes of a perturbation are.

    Parameters
    ----------
    kind : of the results.
    dimension, keyword : the name of the sizes in a Dataset, and in the verb.
    default : the sizes by default.
    possible : whether a number is a size.
    words : what to give, for a message.
    drawn : whether there is something to draw.
    """

    kind: str
    dimension: str
    keyword: str
    default: tuple[float, ...]
    possible: Callable[[float], bool]
    words: str
    drawn: bool = True

    def checked(self, sizes: Sequence[float]) -> np.ndarray:
        """The sizes ``(m,)``, or ``InputError``."""
        try:
            values = np.asarray(sizes, dtype=float)
        except (TypeError, ValueError):
            values = np.empty(0)
        if values.ndim != 1 or not len(values) or not all(map(self.possible, values)):
            raise InputError(f"{self.keyword}={sizes}: give a list of {self.words}.")
        return values.astype(int) if self.dimension == "bits" else values


def _finite(size: float) -> bool:
    return math.isfinite(size) and size >= 0


def _share(size: float) -> bool:
    return 0 <= size <= 1


def _bits(size: float) -> bool:
    return size in range(2, MOST_BITS + 1)


SIGMA = Family("robustness", "sigma", "sigmas", SIGMAS, _finite, "standard deviations that are finite and not negative")
QUANTISE = Family(
    "quantisation",
    "bits",
    "bits",
    BITS,
    _bits,
    f"whole numbers from 2 to {MOST_BITS}: of fewer than 2 bits no symmetric level but 0 is left",
    drawn=False,
)
PRUNE = Family(
    "pruning", "share", "shares", SHARES, _share, "shares of the weights to set to 0, from 0 to 1", drawn=False
)
FLIP = Family("bit_flips", "rate", "rates", RATES, _share, "probabilities of a flip for each bit, from 0 to 1")
FAMILIES: Mapping[str, Family] = {
    "gaussian": SIGMA,
    "uniform": SIGMA,
    "multiplicative": SIGMA,
    "quantise": QUANTISE,
    "prune": PRUNE,
    "flip": FLIP,
    "input": SIGMA,
}


@dataclass(frozen=True)
class Choices:
    """Which perturbation, as a user chose it; ``filters`` and ``layers``: whether they were asked for."""

    noise: Noise
    relative: Relative = "none"
    per: Per = "tensor"
    representation: Representation = "float32"
    filters: bool = False
    layers: bool = False

    @property
    def family(self) -> Family:
        """What its sizes are; ``InputError`` with the near name where there is no noise of this name."""
        require_choice("noise", self.noise, Noise)
        return FAMILIES[self.noise]

    @property
    def by_filters(self) -> bool:
        """Whether filters have sizes of their own."""
        return self.relative == "filter" or self.per == "channel"

    @property
    def of_matrices(self) -> bool:
        """Whether biases and norms are left out."""
        return not self.family.drawn or self.representation == "int8"

    @property
    def zero_is_clean(self) -> bool:
        """Whether size 0 is the network as trained."""
        return self.representation == "float32"

    def check(self) -> None:
        """``InputError`` for an option of another noise."""
        family = self.family
        for name, kind in (("relative", Relative), ("per", Per), ("representation", Representation)):
            require_choice(name, getattr(self, name), kind)
        scaled = {"gaussian": get_args(Relative), "uniform": get_args(Relative), "multiplicative": ("none", "weight")}
        if self.relative not in scaled.get(self.noise, ("none",)):
            raise InputError(f"relative={self.relative!r} is for noise='gaussian' or 'uniform': leave it out.")
        if self.representation == "int8" and self.noise != "flip":
            raise InputError("representation='int8' is for noise='flip': leave it out, or ask for flips of bits.")
        if self.per == "channel" and not (self.noise == "quantise" or self.representation == "int8"):
            raise InputError("per='channel' is for noise='quantise': leave it out, or ask for quantised weights.")
        if self.filters and not self.by_filters:
            raise InputError(
                "filters= is for relative='filter' or per='channel': leave it out, or ask for noise relative to them."
            )
        if self.layers and family.kind == "robustness" and self.noise == "input":
            raise InputError("layers=True perturbs the weights of one layer at a time: leave it out for noise='input'.")

    def sizes(self, **given: Sequence[float]) -> np.ndarray:
        """Those of the noise, checked; ``InputError`` where those of another noise are given."""
        own = self.family
        for family in (SIGMA, QUANTISE, PRUNE, FLIP):
            sizes = given[family.keyword]
            if family is not own and not np.array_equal(np.asarray(sizes), np.asarray(family.default)):
                noises = [repr(name) for name, each in FAMILIES.items() if each is family]
                raise InputError(
                    f"{family.keyword}={sizes} is for noise={' or '.join(noises)}, and noise={self.noise!r} has "
                    f"{own.keyword}: give noise={noises[0]} too, or {own.keyword}= alone."
                )
        return own.checked(given[own.keyword])

    @property
    def _told_relative(self) -> Relative:
        return "weight" if self.noise == "multiplicative" else self.relative

    def provenance(self) -> dict[str, object]:
        """What a Dataset's ``attrs`` say of it; None where it does not apply."""
        kind = self.family.kind
        return {
            "noise": self.noise,
            "relative": self._told_relative if kind == "robustness" else None,
            "per": self.per if self.noise == "quantise" or self.representation == "int8" else None,
            "representation": self.representation if self.noise == "flip" else None,
        }


def require_choice(name: str, given: object, choices: Any) -> None:
    """``InputError`` where ``given`` is none of a ``Literal``'s, with the near name."""
    if given not in get_args(choices):
        near = suggestion(str(given), get_args(choices))
        raise InputError(f"{name}={given!r}{near}: choose one of {', '.join(map(repr, get_args(choices)))}.")


def perturbation(objective: Objective, choices: Choices, filters: Mapping[str, Filters], seed: int) -> Perturb:
    """theta under a perturbation of a size, in chosen tensors; ``filters`` where it is relative to them, or by them."""
    point, noise = objective.function.point, choices.noise
    if noise == "quantise":
        return Quantisation(objective, filters)
    if noise == "prune":
        return Pruning(point)
    if noise == "flip":
        int8 = choices.representation == "int8"
        return IntegerFlips(point, Quantisation(objective, filters), seed) if int8 else FloatFlips(point, seed)
    scale = scale_of(objective, "weight" if noise == "multiplicative" else choices.relative, filters)
    return WeightNoise(point, scale, "uniform" if noise == "uniform" else "gaussian", seed)
