"""The theory that a report needs: each part is printed where a Dataset of one of its kinds is present."""

from __future__ import annotations

from lossatlas.report.connectivity_theory import BARRIER, CURVES, INSTABILITY, SYMMETRY
from lossatlas.report.curvature_theory import CRITERIA, DENSITY, SPLIT, SUBSETS, TRACE, paragraph
from lossatlas.report.document import Block, Formula, Section

OBJECTIVE = (
    paragraph(
        "A network $f_{\\theta}$ with parameters $\\theta \\in \\mathbb{R}^{n}$ has, on data $(x_i, y_i)$, "
        "$i = 1, \\dots, N$, the loss"
    ),
    Formula(r"L(\theta) = \frac{1}{N} \sum_{i=1}^{N} \ell\left(f_{\theta}(x_i), y_i\right),"),
    paragraph("with the gradient and the Hessian"),
    Formula(
        r"g(\theta) = \nabla L(\theta) \in \mathbb{R}^{n}, \qquad "
        r"H(\theta) = \nabla^{2} L(\theta) \in \mathbb{R}^{n \times n}."
    ),
    paragraph(
        "Read as an estimate of the loss over the population that the examples were drawn from, $L$ has the standard "
        "error $s / \\sqrt{N}$, where $s$ is the standard deviation of the examples' losses. It takes the examples as "
        "independent draws."
    ),
)

CURVATURE = (
    paragraph("Near a point the loss is approximated to second order by"),
    Formula(
        r"L(\theta + \delta) \approx L(\theta) + g(\theta)^{\top} \delta + \frac{1}{2} \delta^{\top} H(\theta) \delta."
    ),
    paragraph(
        "With eigenvalues $\\lambda_i$ and orthonormal eigenvectors $q_i$ of $H$, the curvature along a direction $v$ "
        "is "
        "a weighted mean of the eigenvalues:"
    ),
    Formula(
        r"\frac{v^{\top} H v}{v^{\top} v} = \sum_{i=1}^{n} \lambda_i \frac{(q_i^{\top} v)^{2}}{\lVert v \rVert^{2}}."
    ),
    paragraph(
        "Sharpness here is the largest eigenvalue, $\\lambda_{\\max} = \\max_{\\lVert v \\rVert = 1} v^{\\top} H v$, "
        "the "
        "steepest curvature of any direction. Keskar et al. [@keskar2017] relate sharpness to generalisation; later "
        "studies find no reliable relation [@andriushchenko2023], and $\\lambda_{\\max}$ changes when the parameters "
        "are "
        "rescaled in a way that leaves the function as it was. Negative eigenvalues say that the point is no local "
        "minimum; their size beside the positive ones is another indicator that has been proposed [@gabdullin2024]. "
        "Along a random direction the expected curvature is $\\mathrm{tr}(H) / n$, so a random slice can look "
        "convex where $H$ has negative eigenvalues."
    ),
)

SLICES = (
    paragraph("A slice shows the loss on a line or a plane through the trained point $\\theta^{*}$:"),
    Formula(r"F(\alpha, \beta) = L\left(\theta^{*} + \alpha d_{1} + \beta d_{2}\right)."),
    paragraph(
        "A random direction is drawn from a standard normal distribution and filter-normalised [@li2018]: each filter "
        "$f$ (output unit) of the direction gets the norm of the same filter of the network,"
    ),
    Formula(r"d_{f} \leftarrow d_{f} \, \frac{\lVert \theta^{*}_{f} \rVert}{\lVert d_{f} \rVert}."),
    paragraph(
        "One-dimensional parameters (biases, normalisation scales) have no filters; in the authors' default their part "
        "of the direction is zero. The second direction is made orthogonal to the first: two random directions are "
        "nearly orthogonal before normalisation but need not be after it, and on a plane with oblique axes distances "
        "and the shape of the contours mislead. Each caption states the cosine of the two directions as they were used."
    ),
)

TOLERANCE = (
    paragraph(
        "A surface asked for to a tolerance $\\epsilon$ is evaluated at some of its pixels, the nodes, and "
        "interpolated between them by a polyharmonic spline: of $\\log F$ where the loss is positive. The error of "
        "an interpolated pixel is $\\left| \\hat{F} / F - 1 \\right|$. Then $n$ pixels are drawn at random from the "
        "$M$ that are no nodes, predicted, and evaluated. If $B$ of all pixels were off by more than $\\epsilon$, none "
        "of them would be among the $n$ with probability"
    ),
    Formula(r"\prod_{i=0}^{n-1} \frac{M - B - i}{M - i}."),
    paragraph(
        "A test is passed when all $n$ are within $\\epsilon$ and this is at most $\\delta$ for every $B$ above the "
        "share that may be off; in the limit of many pixels, 59 of 59 bound 95 % of them at 95 % confidence. A test "
        "that fails leads to more nodes and another test; the $\\delta$ of all tests add up to the risk that was asked "
        "for, and the spline never depends on a held-out pixel, so the bound assumes nothing about the surface. It is "
        "a bound on a share of the pixels, not on the worst of them. The error map is estimated by leaving out each "
        "node in turn and scaled so that 95 % of the held-out pixels lie below it; the error of the worst pixel is an "
        "estimate too. The data have an error of their own, the standard error of the loss; a picture finer than that "
        "shows the sample rather than the population."
    ),
)

SOLVERS = (
    paragraph(
        "The Hessian is never formed. A product with a vector costs about as much as a few gradients, by "
        "differentiating twice [@pearlmutter1994]:"
    ),
    Formula(r"H v = \nabla_{\theta} \left( g(\theta)^{\top} v \right)."),
    paragraph(
        "Power iteration repeats $v \\leftarrow H v / \\lVert H v \\rVert$ and reads the Rayleigh quotient "
        "$v^{\\top} H v$. It converges to the eigenvalue of largest magnitude, slowly where the next one is close, and "
        "not at all where each product uses another batch, since each batch has another Hessian. The Lanczos method "
        "[@lanczos1950] takes the best approximation from all the products together, at both ends of the spectrum; "
        "with "
        "full reorthogonalisation it is safe from spurious copies of eigenvalues. For a unit vector $v$ and a "
        "symmetric "
        "$H$ the residual bounds the error: there is an eigenvalue $\\lambda$ of $H$ with"
    ),
    Formula(r"\left| \lambda - \hat{\lambda} \right| \leq \lVert H v - \hat{\lambda} v \rVert."),
    paragraph(
        "The residual concerns the solver. The data have an error of their own, since another sample of examples has "
        "another Hessian; it is given as the standard error of $v^{\\top} H v$ over parts of the data."
    ),
)

ROAD = (
    paragraph(
        "Snapshots $\\theta_{1}, \\dots, \\theta_{T}$ of the parameters while training form the rows of $M \\in "
        "\\mathbb{R}^{T \\times n}$. Their principal components come from the $T \\times T$ Gram matrix of the centred "
        "snapshots, so that no $n \\times n$ matrix is needed:"
    ),
    Formula(
        r"G = C M M^{\top} C = \sum_{k} \lambda_{k} u_{k} u_{k}^{\top}, \qquad "
        r"p_{k} = \frac{M^{\top} C u_{k}}{\sqrt{\lambda_{k}}}, \qquad C = I - \frac{1}{T} e e^{\top},"
    ),
    paragraph(
        "where $e$ is the vector of ones. Two components explain much of any smooth road, even of one without "
        "structure. For a random walk of $T$ steps "
        "in many dimensions, centred, the share of the variance of component $k$ is [@antognini2018]"
    ),
    Formula(r"\rho_{k} \propto \frac{1}{4 \sin^{2}\left(\pi k / (2 T)\right)},"),
    paragraph(
        "that is 60.8, 15.2 and 6.8 % for long walks. A finer null model keeps the observed steps and "
        "draws their signs at random. The road does not lie in its principal plane: the distance of each snapshot "
        "from the "
        "plane, and its true loss beside the loss of its projection, say how far the picture can be trusted."
    ),
)

NOISE = (
    paragraph(
        "Robustness is measured by adding Gaussian noise to all parameters, in several independent draws. To second "
        "order"
    ),
    Formula(
        r"\mathbb{E}_{\varepsilon} L(\theta + \sigma \varepsilon) \approx L(\theta) + \frac{\sigma^{2}}{2} "
        r"\mathrm{tr}(H), \qquad \varepsilon \sim \mathcal{N}(0, I)."
    ),
    paragraph(
        "Relative to the filters, the noise of each filter is scaled by the norm of that filter. Absolute noise "
        "depends on "
        "the scale of the weights, which a rescaling can change without changing the function."
    ),
)

PARTS: tuple[tuple[str, frozenset[str], tuple[Block, ...]], ...] = (
    ("Objective, gradient and Hessian", frozenset(), OBJECTIVE),
    (
        "Quadratic approximation, curvature and sharpness",
        frozenset({"spectrum", "power_iteration", "surface"}),
        CURVATURE,
    ),
    ("Random slices and filter normalisation", frozenset({"surface"}), SLICES),
    ("Surfaces to a tolerance", frozenset({"tolerance"}), TOLERANCE),
    (
        "Hessian-vector products, power iteration and Lanczos",
        frozenset({"spectrum", "power_iteration"}),
        SOLVERS,
    ),
    ("Density of the spectrum", frozenset({"density"}), DENSITY),
    ("The trace, estimated or exact", frozenset({"trace"}), TRACE),
    ("The largest eigenvalue of a subset", frozenset({"trend_eigenvalue"}), SUBSETS),
    ("The Gauss-Newton part", frozenset({"gauss_newton_split"}), SPLIT),
    ("Criteria on the sign of the spectrum", frozenset({"gabdullin"}), CRITERIA),
    ("Principal components of the road", frozenset({"trajectory"}), ROAD),
    ("Linear mode connectivity and barriers", frozenset({"barrier", "instability"}), BARRIER),
    ("Curves between two networks", frozenset({"connection", "curve"}), CURVES),
    ("Permutation symmetry and alignment", frozenset({"alignment"}), SYMMETRY),
    ("Instability analysis", frozenset({"instability"}), INSTABILITY),
    ("Weight noise", frozenset({"robustness"}), NOISE),
)


def theory(topics: set[str]) -> Section:
    """The parts that these topics (kinds of Dataset, variables) need; the objective and its derivatives always."""
    wanted = [(title, blocks) for title, needed, blocks in PARTS if not needed or needed & topics]
    subsections = tuple(Section(title, f"theory-{k}", blocks) for k, (title, blocks) in enumerate(wanted, 1))
    return Section("Theory", "theory", subsections)
