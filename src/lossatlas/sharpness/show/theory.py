"""What the measures of sharpness are, and why it matters how weights are written down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from lossatlas.curvature.show.theory import CRITERIA
from lossatlas.results.blocks import Formula, Topic, paragraph

if TYPE_CHECKING:
    import xarray as xr


def _has(*names: str) -> Callable[[xr.Dataset], bool]:
    return lambda dataset: bool(set(names) & set(dataset["measure"].to_numpy().tolist()))


RESCALING = Topic(
    "Sharpness and reparametrisation",
    (
        paragraph(
            "Where a layer is followed by a ReLU, its weights can be multiplied by $a > 0$ and those of the next layer "
            "divided by it: the function stays the same, since $\\mathrm{ReLU}(a z) = a\\, \\mathrm{ReLU}(z)$, and so "
            "does the loss of every example. The Hessian does not: its blocks become"
        ),
        Formula(r"H_{11} \to a^{-2} H_{11}, \qquad H_{22} \to a^{2} H_{22}, \qquad H_{12} \to H_{12},"),
        paragraph(
            "so that the largest eigenvalue, the trace and every rise of the loss in a ball of fixed radius can be "
            "made as large as one likes without a change of the function [@dinh2017]. The same holds for single hidden "
            "neurons, and for a layer before a batch normalisation. Such a measure compares networks as they are "
            "written down. A measure of perturbations that are scaled by the weights themselves, $\\delta = |w| \\circ "
            "u$, goes along with the rescaling and stays as it is. A permutation of hidden units changes none of the "
            "measures here; a larger scale of the logits keeps the decisions, not the loss, and changes nearly all. "
            "None of these measures is known to tell reliably which network generalises better [@andriushchenko2023]."
        ),
    ),
)

WORST = Topic(
    "Worst-case sharpness",
    (
        paragraph(
            "The largest rise of the loss in a set of perturbations [@keskar2017] [@foret2021], and the first-order "
            "step that sharpness-aware minimisation takes in its place, with $g = \\nabla L(w)$:"
        ),
        Formula(
            r"\max_{\lVert \delta \rVert_2 \leq \rho} L(w + \delta) - L(w), \qquad \delta_{1} = \rho\, \frac{g}{\lVert "
            r"g \rVert}."
        ),
        paragraph(
            "The maximum over batches of $m$ examples, in the mean, is its form in training, $m$-sharpness. Scaled by "
            "$T = \\mathrm{diag}\\,|w|$, or by the norms of the filters, it is adaptive [@kwon2021] "
            "[@andriushchenko2023]:"
        ),
        Formula(
            r"\max_{\lVert T^{-1} \delta \rVert_p \leq \rho} L(w + \delta) - L(w), \qquad \delta_{1} = \rho\, "
            r"\frac{T^{2} g}{\lVert T g \rVert} \quad (p = 2)."
        ),
        paragraph(
            "A maximum that is searched for is a lower bound. Here an ascent starts where the gradient points and at "
            "random, keeps to the set, and takes no step that does not raise the loss."
        ),
    ),
    needed=_has(
        *("sam", "sam_ascent", "m_sharpness", "asam", "asam_filter", "adaptive_worst", "adaptive_worst_inf"),
        *("keskar", "keskar_subspace"),
    ),
)

AVERAGE = Topic(
    "Average-case sharpness",
    (
        paragraph(
            "The mean rise under Gaussian perturbations, absolute ($c = 1$) or adaptive ($c = |w|$) "
            "[@andriushchenko2023]:"
        ),
        Formula(
            r"\mathbb{E}_{u \sim \mathcal{N}(0, I)} L(w + \rho\, c \circ u) - L(w) \approx \frac{\rho^{2}}{2}\, "
            r"\mathrm{tr}(H \circ c c^{\top})."
        ),
        paragraph("Pairs $\\pm u$ cancel what is linear; they are drawn until their error is small beside the value."),
    ),
    needed=_has("average", "adaptive_average"),
)

PAC_BAYES = Topic(
    "PAC-Bayes sigma",
    (
        paragraph(
            "The largest noise under which the mean error rises by at most $\\rho$ [@jiang2020], absolute ($c = 1$) "
            "or relative to the weights ($c = |w|$); PAC-Bayes bounds grow with $1 / \\sigma^{2}$:"
        ),
        Formula(
            r"\sigma^{*} = \max \left\{ \sigma: \mathbb{E}_u\, \mathrm{err}(w + \sigma\, c \circ u) - \mathrm{err}(w) "
            r"\leq \rho \right\}."
        ),
        paragraph("It is found by bisection with the same noise at every size; the interval is the answer."),
    ),
    needed=_has("pac_bayes", "pac_bayes_adaptive"),
)

HESSIAN = Topic(
    "Sharpness by the Hessian",
    (
        paragraph(
            "With the eigenvalues $\\lambda_i$ of the Hessian $H$: the largest one, the trace, the mean curvature "
            "along a random direction [@boettcher2022], the Frobenius norm, and the ratio of the extreme ones "
            "[@gabdullin2024],"
        ),
        Formula(
            r"\lambda_{\max}, \qquad \mathrm{tr}\, H = \sum_i \lambda_i, \qquad \frac{\mathrm{tr}\, H}{n}, \qquad "
            r"\lVert H \rVert_F = \Big( \sum_i \lambda_i^{2} \Big)^{1/2}, \qquad \left| \frac{\lambda_{\min}}"
            r"{\lambda_{\max}} \right|."
        ),
        paragraph("They share one Krylov space, which is searched once."),
    ),
    needed=_has("lambda_max", "trace", "mean_curvature", "frobenius", "eigenvalue_ratio"),
)

SIGNS = replace(CRITERIA, needed=_has("gabdullin_k", "gabdullin_k1"))

DIMENSION = Topic(
    "Effective dimension",
    (
        paragraph(
            "How many directions the data determine, where the prior curvature is $\\rho$ [@maddox2020], over the "
            "eigenvalues above 0:"
        ),
        Formula(r"\sum_{\lambda_i > 0} \frac{\lambda_i}{\lambda_i + \rho}."),
    ),
    needed=_has("effective_dimension"),
)

FLATNESS = Topic(
    "Relative flatness and the Fisher-Rao norm",
    (
        paragraph(
            "Relative flatness weighs the blocks of a layer's Hessian by the products of its weight vectors $w_s$ "
            "[@petzka2021]; the Fisher-Rao norm is the length of the weights in the metric of the Fisher information "
            "$F$ [@liang2019]:"
        ),
        Formula(r"\sum_{s, s'} \langle w_s, w_{s'} \rangle\, \mathrm{tr}\, H_{s, s'}, \qquad \langle w, F w \rangle."),
    ),
    needed=_has("relative_flatness", "relative_flatness_sum", "fisher_rao"),
)

TRAINING = Topic(
    "Sharpness along the training",
    (
        paragraph(
            "Critical sharpness is read from the smallest step along an update direction $d$ that raises the loss "
            "[@kalra2026]; batch sharpness is the curvature of a batch's loss along its own gradient [@andreyev2024]:"
        ),
        Formula(
            r"\lambda_c = \frac{2}{\eta_c}, \quad \eta_c = \min \{ \eta > 0: L(w + \eta d) > L(w) \}, \qquad "
            r"\mathbb{E}_B\, \frac{g_B^{\top} H_B\, g_B}{\lVert g_B \rVert^{2}}."
        ),
        paragraph("On a quadratic with $d = -g$ the first is $g^{\\top} H g / g^{\\top} g \\leq \\lambda_{\\max}$."),
    ),
    needed=_has("critical", "critical_update", "batch_sharpness"),
)

LEARNING = Topic(
    "Local learning coefficient",
    (
        paragraph(
            "How fast the volume of weights grows with the rise of the loss that is allowed around $w$ [@lau2023]: "
            "half the number of parameters where the Hessian has full rank, less where it has not. It is estimated "
            "from draws of a posterior at the temperature $\\log n$ that a pull of strength $\\gamma$ keeps near $w$:"
        ),
        Formula(
            r"\hat\lambda = \frac{n}{\log n} \left( \mathbb{E}_{w'} L(w') - L(w) \right), \qquad p(w') \propto "
            r"\exp \Big( - \frac{n}{\log n} L(w') - \frac{\gamma}{2} \lVert w' - w \rVert^{2} \Big)."
        ),
        paragraph(
            "The draws are Langevin steps with a Metropolis test, so that the size of the step biases nothing. Chains "
            "that disagree ($\\hat R > 1.05$ [@vehtari2021]) and negative values are invalid. The value falls as "
            "$\\gamma$ grows: compare it at equal $\\gamma$ and equal $n$."
        ),
    ),
    needed=_has("llc", "llc_rmsprop"),
)

GEODESIC = Topic(
    "Geodesic sharpness of attention heads",
    (
        paragraph(
            "In an attention head the matrices $G = W_Q$ and $H = W_K$ compute the same function as $A G$ and "
            "$A^{-\\top} H$, which no scale of single weights follows. The ball is therefore one of a metric that no "
            "such change of basis moves [@dasilva2025], and its points are reached along geodesics:"
        ),
        Formula(
            r"\max_{\lVert v \rVert_w \leq \rho} L(\mathrm{Exp}_w(v)) - L(w), \qquad \lVert v \rVert_w^{2} = \sum_G "
            r"\mathrm{tr}\, v_G^{\top} (G G^{\top})^{-1} v_G + \sum_i v_i^{2} / w_i^{2}."
        ),
    ),
    needed=_has("geodesic_worst"),
)


def theory() -> tuple[Topic, ...]:
    """What the report explains where it holds measures of sharpness."""
    return (RESCALING, WORST, AVERAGE, PAC_BAYES, HESSIAN, DIMENSION, SIGNS, FLATNESS, TRAINING, LEARNING, GEODESIC)
