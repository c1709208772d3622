"""The theory of the paths between two networks: barriers, curves, permutation symmetry, REPAIR, instability."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lossatlas.results.blocks import Formula, Topic, paragraph

if TYPE_CHECKING:
    import xarray as xr


def _curved(dataset: xr.Dataset) -> bool:
    return bool(dataset.attrs["curve"] != "Segment")


BARRIER = Topic(
    "Linear mode connectivity and barriers",
    (
        paragraph(
            "Between two trained networks $\\theta_{A}$ and $\\theta_{B}$ the loss is followed along a path, the "
            "straight line $\\theta_{t} = (1 - t) \\theta_{A} + t \\theta_{B}$ or a curve with the same ends. The "
            "barrier of Entezari et al. [@entezari2022] is the greatest height above the straight line between the "
            "losses of the ends:"
        ),
        Formula(r"B = \max_{t \in [0, 1]} \left[ L(\theta_{t}) - (1 - t) L(\theta_{A}) - t L(\theta_{B}) \right]."),
        paragraph(
            "Frankle et al. [@frankle2020] use the error $E$ (one minus accuracy) and the mean of the ends, and call "
            "two networks linearly mode connected where the barrier is below 2 %:"
        ),
        Formula(
            r"B_{E} = \max_{t \in [0, 1]} E(\theta_{t}) - \frac{1}{2} \left( E(\theta_{A}) + E(\theta_{B}) \right)."
        ),
        paragraph(
            "Draxler et al. [@draxler2018] measure from the worse end. The definitions differ where the ends do. A "
            "barrier on the straight line does not rule out a curved path of low loss [@garipov2018]."
        ),
        paragraph(
            "The maximum is searched on a grid of $t$ that is refined about it, which assumes no peak narrower than "
            "the first grid. A maximum over noisy heights is biased upwards. The interval is from a bootstrap over "
            "the examples that draws the same examples at every $t$ and takes the maximum anew in each draw. It is "
            "about the data: other networks from the same training would have other barriers."
        ),
    ),
)

CURVES = Topic(
    "Curves between two networks",
    (
        paragraph(
            "Where the straight line crosses a barrier, a curve of low loss can often be trained [@garipov2018] "
            "[@draxler2018]. A Bezier curve with bends $p_{1}, \\dots, p_{m-1}$ and the networks as $p_{0}$ and "
            "$p_{m}$ is"
        ),
        Formula(
            r"\phi(t) = \sum_{k=0}^{m} \binom{m}{k} t^{k} (1 - t)^{m - k} p_{k}, \qquad \phi(0) = p_{0}, "
            r"\quad \phi(1) = p_{m};"
        ),
        paragraph(
            "a polygonal chain joins the points by straight lines. The ends stay, and the bends minimise the mean "
            "loss over a uniform $t$, by stochastic gradients at one random $t$ and one mini-batch a step:"
        ),
        Formula(
            r"\min_{p_{1}, \dots, p_{m-1}} \mathbb{E}_{t \sim U(0, 1)} L(\phi(t)), \qquad \nabla_{p_{k}} L(\phi(t)) = "
            r"\binom{m}{k} t^{k} (1 - t)^{m - k} \, g(\phi(t))."
        ),
        paragraph(
            "This is the mean over the parameter $t$, not over the length of the curve. The bends themselves are "
            "control points and need not have a low loss. Batch normalisation statistics of an end are wrong for "
            "every other point, so they are estimated anew at each $t$ of a profile."
        ),
    ),
    needed=_curved,
)

SYMMETRY = Topic(
    "Permutation symmetry and alignment",
    (
        paragraph(
            "The hidden units of a layer can be reordered without changing the function: with a permutation matrix "
            "$P_{l}$ for the units of layer $l$, the weights become"
        ),
        Formula(r"W_{l} \rightarrow P_{l} W_{l} P_{l-1}^{\top}, \qquad b_{l} \rightarrow P_{l} b_{l}."),
        paragraph(
            "Units joined by a residual addition share one permutation, a channel that is flattened moves with its "
            "block of inputs, and attention heads move as blocks. Much of the barrier between two networks can come "
            "from their order: Entezari et al. conjecture that most networks trained alike have no barrier once their "
            "units are matched [@entezari2022]. Weight matching [@ainsworth2023] looks for the permutations that "
            "bring the second network closest to the first,"
        ),
        Formula(
            r"\max_{P_{1}, \dots, P_{L}} \sum_{l} \left\langle W_{l}^{A}, P_{l} W_{l}^{B} P_{l-1}^{\top} "
            r"\right\rangle_{F},"
        ),
        paragraph(
            "for one layer at a time, the others held fixed: a linear assignment problem, solved exactly, repeated "
            "until nothing gains. The whole problem is NP-hard and this ascent has local optima, so it is begun from "
            "several starts and the best is kept. Activation matching pairs the units by the correlation of their "
            "activations instead. That the permuted network computes the same function is checked on the data."
        ),
    ),
)

VARIANCE = Topic(
    "Variance collapse and REPAIR",
    (
        paragraph(
            "In the middle between two aligned networks the activations of a unit have a smaller variance than at "
            "either end, since matched units are only partly correlated. REPAIR [@jordan2023] restores them: each "
            "unit is given the mean and the standard deviation"
        ),
        Formula(r"\mu = (1 - t) \, \mu_{A} + t \, \mu_{B}, \qquad \sigma = (1 - t) \, \sigma_{A} + t \, \sigma_{B}."),
    ),
)

INSTABILITY = Topic(
    "Instability analysis",
    (
        paragraph(
            "A network is trained for $k$ steps; from there two copies are trained on, with the data in different "
            "orders. The training is called stable at $k$ where the error barrier $B_{E}$ between the two ends is "
            "below 2 % [@frankle2020]. The smallest such $k$ says when the outcome, up to a linearly connected "
            "region, is decided. One pair of orders gives one barrier; how much barriers scatter over pairs can be "
            "seen only where several were run."
        ),
    ),
)


def of_alignment() -> tuple[Topic, ...]:
    """What a report explains where it holds an alignment."""
    return SYMMETRY, VARIANCE


def of_connection() -> tuple[Topic, ...]:
    """What it explains where it holds the training of a curve."""
    return (CURVES,)


def of_barrier() -> tuple[Topic, ...]:
    """What it explains where it holds a barrier: curves too where its path is one."""
    return BARRIER, CURVES


def of_instability() -> tuple[Topic, ...]:
    """What it explains where it holds an instability analysis."""
    return BARRIER, INSTABILITY


def of_repair() -> tuple[Topic, ...]:
    """What it explains where it holds a mean of networks after REPAIR."""
    return (VARIANCE,)
