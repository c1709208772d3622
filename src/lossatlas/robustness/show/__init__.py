"""Robustness to perturbations of the weights and the inputs, as kinds of results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field

from lossatlas.results import chapters
from lossatlas.results.blocks import Reference
from lossatlas.results.kind import Kind, Options, function_at
from lossatlas.results.provenance import COMMON, OBJECTIVE
from lossatlas.results.schema import Schema

_SHOW = "lossatlas.robustness.show"
Sigma = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Bits = Annotated[int, Field(ge=2, le=16)]
Share = Annotated[float, Field(ge=0, le=1)]
Noise = Literal["gaussian", "uniform", "multiplicative", "quantise", "prune", "flip", "input"]
Relative = Literal["none", "filter", "weight"]


class RobustnessOptions(Options):
    """The keywords of ``robustness``."""

    sigmas: tuple[Sigma, ...] = Field((0.0, 0.01, 0.02, 0.05, 0.1), description="standard deviations of the noise")
    noise: Noise = Field("gaussian", description="what is done to the weights, or to the inputs")
    relative: Relative = Field("none", description="absolute noise, or relative to filter norms or to each weight")
    layers: bool = Field(False, description="also each module alone perturbed")
    bits: tuple[Bits, ...] = Field((8, 4, 3, 2), description="for --noise quantise")
    shares: tuple[Share, ...] = Field((0.0, 0.2, 0.5, 0.8, 0.9), description="of the weights, for --noise prune")
    rates: tuple[Share, ...] = Field((1e-6, 1e-5, 1e-4, 1e-3), description="flips of a bit, for --noise flip")
    per: Literal["tensor", "channel"] = Field("tensor", description="what has a quantisation step of its own")
    representation: Literal["float32", "int8"] = Field("float32", description="whose bits are flipped")
    draws: int = Field(10, ge=2, description="draws of the noise")
    seed: int = Field(0, ge=0, description="of the draws")


class BasinOptions(Options):
    """The keywords of ``basin``."""

    fall: float = Field(0.01, gt=0, allow_inf_nan=False, description="of the score, at which the basin ends")
    metric: str = Field("accuracy", description="the score: a metric that is best when large, or loss, which rises")
    direction: Literal["random", "worst", "both"] = Field("both", description="random noise, or the worst direction")
    relative: Relative = Field("none", description="absolute sizes, or relative to filter norms or to each weight")
    steps: int = Field(8, ge=1, description="of the ascent that looks for the worst direction")
    limit: int = Field(60, ge=20, description="evaluations of the data for each direction")
    seed: int = Field(0, ge=0, description="of the draws")


def _shown() -> dict[str, Any]:
    """What all results over the sizes of a perturbation are shown with."""
    places = {"figures": "figures", "numbers": "figures", "claims": "claims", "answers": "answers"}
    return {name: function_at(f"{_SHOW}.{module}:{name}") for name, module in places.items()}


def _schema(size: str, *attrs: str, optional: tuple[str, ...] = ()) -> Schema:
    """Of a result over the sizes of a perturbation."""
    every = ("loss", "loss_stderr", "loss_change", "loss_change_stderr", "loss_change_degrees", "finite")
    return Schema(
        variables={size: (size,)} | dict.fromkeys(every, (size,)),
        optional={
            "draw": ("draw",),
            "*_draws": (size, "draw"),
            "layer": ("layer",),
            "layer_*": ("layer", size),
            "*_clean": (),
            "*_clean_stderr": (),
            "*": (size,),
        },
        attrs=(*OBJECTIVE, "noise", "draws", "stderr_over", *attrs),
        optional_attrs=(*COMMON, *optional, "filters", "filters_assumed"),
    )


def _theory(name: str) -> Callable[..., Any]:
    return function_at(f"{_SHOW}.theory:{name}")


ROBUSTNESS = Kind(
    name="robustness",
    title="Robustness to noise",
    chapter=chapters.ROBUSTNESS,
    verb=function_at("lossatlas.robustness.robustness:robustness"),
    help="Loss and accuracy under noise, quantisation, pruning and flips of bits, with paired errors.",
    options=RobustnessOptions,
    schema=_schema("sigma", "relative", "seed"),
    **_shown(),
    panels=function_at(f"{_SHOW}.figures:panels"),
    theory=_theory("of_noise"),
)
QUANTISATION = Kind(
    name="quantisation",
    title="Quantisation of the weights",
    chapter=chapters.ROBUSTNESS,
    schema=_schema("bits", "per"),
    **_shown(),
    theory=_theory("of_quantisation"),
)
PRUNING = Kind(
    name="pruning",
    title="Pruning of the weights",
    chapter=chapters.ROBUSTNESS,
    schema=_schema("share"),
    **_shown(),
    theory=_theory("of_pruning"),
)
BIT_FLIPS = Kind(
    name="bit_flips",
    title="Flips of bits",
    chapter=chapters.ROBUSTNESS,
    schema=_schema("rate", "representation", "seed", optional=("per",)),
    **_shown(),
    theory=_theory("of_flips"),
)
BASIN = Kind(
    name="basin",
    title="The basin of the score",
    chapter=chapters.ROBUSTNESS,
    verb=function_at("lossatlas.robustness.basin:basin"),
    help="The size of weight noise, and of the worst perturbation found, at which the score falls by a stated amount.",
    options=BasinOptions,
    schema=Schema(
        variables={
            "direction": ("direction",),
            "size": ("direction",),
            "low": ("direction",),
            "high": ("direction",),
            "outcome": ("direction",),
            "evaluations": ("direction",),
            "gradients": ("direction",),
            "trial_size": ("direction", "trial"),
            "trial_fall": ("direction", "trial"),
            "trial_fall_stderr": ("direction", "trial"),
            "trial_draws": ("direction", "trial"),
            "trial_side": ("direction", "trial"),
            "score": (),
            "score_stderr": (),
        },
        attrs=(*OBJECTIVE, "metric", "fall", "relative", "limit", "seed", "stderr_over"),
        optional_attrs=(*COMMON, "filters", "filters_assumed", "steps"),
    ),
    figures=function_at(f"{_SHOW}.basins:figures"),
    numbers=function_at(f"{_SHOW}.basins:numbers"),
    claims=function_at(f"{_SHOW}.basins:claims"),
    answers=function_at(f"{_SHOW}.basins:answers"),
    theory=_theory("of_basin"),
    references={
        "chen2025": Reference(
            "H. Chen, Y. Dong, Z. Wei, Y. Huang, Y. Zhang, H. Su, J. Zhu",
            2025,
            "Unveiling the basin-like loss landscape in large language models",
            "arXiv:2505.17646",
            "https://arxiv.org/abs/2505.17646",
        )
    },
)
KINDS = (ROBUSTNESS, QUANTISATION, PRUNING, BIT_FLIPS, BASIN)
