"""What a slice of the loss is, and what a surface to a tolerance guarantees."""

from __future__ import annotations

from lossatlas.curvature.show.theory import QUADRATIC
from lossatlas.results.blocks import Formula, Topic, paragraph

SLICES = Topic(
    "Random slices and filter normalisation",
    (
        paragraph("A slice shows the loss on a line or a plane through the trained point $\\theta^{*}$:"),
        Formula(r"F(\alpha, \beta) = L\left(\theta^{*} + \alpha d_{1} + \beta d_{2}\right)."),
        paragraph(
            "A random direction is drawn from a standard normal distribution and filter-normalised [@li2018]: each "
            "filter $f$ (output unit) of the direction gets the norm of the same filter of the network,"
        ),
        Formula(r"d_{f} \leftarrow d_{f} \, \frac{\lVert \theta^{*}_{f} \rVert}{\lVert d_{f} \rVert}."),
        paragraph(
            "One-dimensional parameters (biases, normalisation scales) have no filters; in the authors' default their "
            "part of the direction is zero. The second direction is made orthogonal to the first: two random "
            "directions are nearly orthogonal before normalisation but need not be after it, and on a plane with "
            "oblique axes distances and the shape of the contours mislead. The method of each figure says whether its "
            "directions are orthogonal."
        ),
    ),
)

TOLERANCE = Topic(
    "Surfaces to a tolerance",
    (
        paragraph(
            "A surface asked for to a tolerance $\\epsilon$ is evaluated at some of its pixels, the nodes, and "
            "interpolated between them by a polyharmonic spline: of $\\log F$ where the loss is positive. The error of "
            "an interpolated pixel is $\\left| \\hat{F} / F - 1 \\right|$. Then $n$ pixels are drawn at random from "
            "the $M$ that are no nodes, predicted, and evaluated. If $B$ of all pixels were off by more than "
            "$\\epsilon$, none of them would be among the $n$ with probability"
        ),
        Formula(r"\prod_{i=0}^{n-1} \frac{M - B - i}{M - i}."),
        paragraph(
            "A test is passed when all $n$ are within $\\epsilon$ and this is at most $\\delta$ for every $B$ above "
            "the share that may be off; in the limit of many pixels, 59 of 59 bound 95 % of them at 95 % confidence. A "
            "test that fails leads to more nodes and another test; the $\\delta$ of all tests add up to the risk that "
            "was asked for, and the spline never depends on a held-out pixel, so the bound assumes nothing about the "
            "surface. It is a bound on a share of the pixels, not on the worst of them. The error map is estimated by "
            "leaving out each node in turn and scaled so that 95 % of the held-out pixels lie below it; the error of "
            "the worst pixel is an estimate too. The data have an error of their own, the standard error of the loss; "
            "a picture finer than that shows the sample rather than the population."
        ),
    ),
    needed=lambda dataset: "tolerance" in dataset.attrs,
)


def theory() -> tuple[Topic, ...]:
    """What the report explains where it holds a surface."""
    return QUADRATIC, SLICES, TOLERANCE
