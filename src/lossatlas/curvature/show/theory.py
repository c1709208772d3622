"""The theory of curvature: the quadratic model, eigenvalues, the density, the trace, the Gauss-Newton part."""

from __future__ import annotations

from lossatlas.results.blocks import Formula, Topic, paragraph

QUADRATIC = Topic(
    "Quadratic approximation, curvature and sharpness",
    (
        paragraph("Near a point the loss is approximated to second order by"),
        Formula(
            r"L(\theta + \delta) \approx L(\theta) + g(\theta)^{\top} \delta + \frac{1}{2} \delta^{\top} H(\theta) "
            r"\delta."
        ),
        paragraph(
            "With eigenvalues $\\lambda_i$ and orthonormal eigenvectors $q_i$ of $H$, the curvature along a direction "
            "$v$ is a weighted mean of the eigenvalues:"
        ),
        Formula(
            r"\frac{v^{\top} H v}{v^{\top} v} = \sum_{i=1}^{n} \lambda_i \frac{(q_i^{\top} v)^{2}}{\lVert v "
            r"\rVert^{2}}."
        ),
        paragraph(
            "Sharpness here is the largest eigenvalue, $\\lambda_{\\max} = \\max_{\\lVert v \\rVert = 1} v^{\\top} H "
            "v$, the steepest curvature of any direction. Keskar et al. [@keskar2017] relate sharpness to "
            "generalisation; later studies find no reliable relation [@andriushchenko2023], and $\\lambda_{\\max}$ "
            "changes when the parameters are rescaled without a change of the function. Negative "
            "eigenvalues say that the point is no local minimum; their size relative to the positive ones is another "
            "indicator that has been proposed [@gabdullin2024]. Along a random direction the expected curvature is "
            "$\\mathrm{tr}(H) / n$, so a random slice can look convex where $H$ has negative eigenvalues."
        ),
    ),
)

SOLVERS = Topic(
    "Hessian-vector products, power iteration and Lanczos",
    (
        paragraph(
            "The Hessian is never formed. A product with a vector costs about as much as a few gradients, by "
            "differentiating twice [@pearlmutter1994]:"
        ),
        Formula(r"H v = \nabla_{\theta} \left( g(\theta)^{\top} v \right)."),
        paragraph(
            "Power iteration repeats $v \\leftarrow H v / \\lVert H v \\rVert$ and reads the Rayleigh quotient "
            "$v^{\\top} H v$. It converges to the eigenvalue of largest magnitude, slowly where the next one is close, "
            "and not at all where each product uses another batch, since each batch has another Hessian. The Lanczos "
            "method [@lanczos1950] takes the best approximation from all the products together, at both ends of the "
            "spectrum; with full reorthogonalisation it is safe from spurious copies of eigenvalues. For a unit vector "
            "$v$ and a symmetric $H$ the residual bounds the error: there is an eigenvalue $\\lambda$ of $H$ with"
        ),
        Formula(r"\left| \lambda - \hat{\lambda} \right| \leq \lVert H v - \hat{\lambda} v \rVert."),
        paragraph(
            "The residual concerns the solver. The data have an error of their own, since another sample of examples "
            "has another Hessian; it is given as the standard error of $v^{\\top} H v$ over parts of the data."
        ),
    ),
)

DENSITY = Topic(
    "Density of the spectrum",
    (
        paragraph(
            "The distribution of all $n$ eigenvalues is estimated by stochastic Lanczos quadrature [@golub2010] "
            "[@ghorbani2019]. After $m$ steps from a unit vector $v$ the Lanczos method has a tridiagonal matrix; its "
            "eigenvalues $\\theta_k$ and the squared first components $\\tau_k$ of its eigenvectors are the nodes and "
            "the weights of a Gauss quadrature,"
        ),
        Formula(r"\sum_{i=1}^{n} (q_i^{\top} v)^{2} f(\lambda_i) \approx \sum_{k=1}^{m} \tau_k f(\theta_k),"),
        paragraph(
            "which is exact for polynomials $f$ of degree up to $2m - 1$. For a $v$ of random direction the left side "
            "has the expectation $\\mathrm{tr} \\, f(H) / n$, so a mean over a few such probes estimates the "
            "distribution. The mass of $v$ on $r$ of the eigenvalues has the beta distribution with the parameters "
            "$r / 2$ and $(n - r) / 2$, which gives the probes' error; the Gauss-Radau rules bound that of the "
            "quadrature. For the picture of the density each mass is "
            "smoothed by a Gaussian kernel. Eigenpairs that are known one by one are projected out of the probes and "
            "enter as masses of $1/n$. With $m$ nodes the quadrature cannot say how eigenvalues are spread within a "
            "dense cluster, such as the one about 0, only what mass the cluster has. The share of negative eigenvalues "
            "is bracketed for each probe by the rule that has a node at 0 (Gauss-Radau): it lies between the mass of "
            "the negative nodes and that mass with the node at 0 added; the interval given holds this and the error "
            "of the probes. The effective rank is"
        ),
        Formula(
            r"r = \frac{\left( \sum_{i} \left| \lambda_i \right| \right)^{2}}{\sum_{i} \lambda_i^{2}} \leq n, \qquad "
            r"\left\lVert H \right\rVert_{F}^{2} = \sum_{i} \lambda_i^{2}."
        ),
    ),
    needed=lambda dataset: "density" in dataset,
)

TRACE = Topic(
    "The trace, estimated or exact",
    (
        paragraph(
            "For a random $z$ whose entries have mean 0 and variance 1 and are uncorrelated, $\\mathrm{tr}(H) = "
            "\\mathbb{E} \\, z^{\\top} H z$. The variance of this estimate comes from the large eigenvalues. So "
            "Hutch++ [@meyer2021] and XTrace [@epperly2024] take the trace exactly on a subspace that holds them and "
            "estimate the rest only; here the subspace is a Krylov space. Where the outputs of a network are piecewise "
            "linear in each single weight (linear layers, convolutions, ReLU, max-pooling, frozen batch normalisation, "
            "no weight used twice), their second derivatives with respect to one weight vanish. Then $H$ and its "
            "Gauss-Newton part $G$ have the same diagonal, and for the cross-entropy with output probabilities $p_c$ "
            "no estimate is needed:"
        ),
        Formula(
            r"\mathrm{tr}(H) = \mathrm{tr}(G) = \frac{1}{N} \sum_{i=1}^{N} \left[ \sum_{c} p_c \left\lVert \nabla "
            r"f_c(x_i) \right\rVert^{2} - \left\lVert \sum_{c} p_c \nabla f_c(x_i) \right\rVert^{2} \right]."
        ),
    ),
    needed=lambda dataset: "trace" in dataset,
)

SUBSETS = Topic(
    "The largest eigenvalue of a subset",
    (
        paragraph(
            "Let $H_S$ be the Hessian of the mean loss over a random subset $S$ of the examples, so that $\\mathbb{E} "
            "H_S = H$. The largest eigenvalue is a maximum of linear functions of the matrix and therefore convex, so "
            "that by Jensen's inequality"
        ),
        Formula(
            r"\mathbb{E} \, \lambda_{\max}(H_S) = \mathbb{E} \max_{\lVert v \rVert = 1} v^{\top} H_S v \geq "
            r"\max_{\lVert v \rVert = 1} v^{\top} H v = \lambda_{\max}(H)."
        ),
        paragraph(
            "The expectation never grows with the size of the subset, and the data given stand to the population as a "
            "subset to the data. The standard error of $v^{\\top} H v$ does not contain this bias; the trend over the "
            "number of examples shows its size."
        ),
    ),
    needed=lambda dataset: "trend_eigenvalue" in dataset,
)

SPLIT = Topic(
    "The Gauss-Newton part",
    (
        paragraph(
            "With the Jacobian $J_i$ of the outputs at example $i$, the chain rule splits the Hessian into the "
            "generalised Gauss-Newton matrix [@schraudolph2002] and a rest,"
        ),
        Formula(
            r"H = \underbrace{\frac{1}{N} \sum_{i} J_i^{\top} (\nabla_{f}^{2} \ell_i) J_i}_{G} + \frac{1}{N} \sum_{i} "
            r"\sum_{c} \frac{\partial \ell_i}{\partial f_c} \nabla_{\theta}^{2} f_c(x_i)."
        ),
        paragraph(
            "$G$ is positive semidefinite where the loss is convex in the outputs; for the cross-entropy it is the "
            "Fisher information matrix of the model [@martens2020]. With such a loss negative eigenvalues come from "
            "the rest, which vanishes where the outputs fit or where the network is linear in its parameters. How much "
            "of $H$ is $G$ is given in the Frobenius norm and by the cosine"
        ),
        Formula(
            r"\frac{\langle H, G \rangle_{F}}{\left\lVert H \right\rVert_{F} \left\lVert G \right\rVert_{F}}, \qquad "
            r"\langle H, G \rangle_{F} = \mathrm{tr}(H G)."
        ),
    ),
)

CRITERIA = Topic(
    "Criteria on the sign of the spectrum",
    (
        paragraph(
            "Gabdullin [@gabdullin2024] compares the negative with the positive part of the spectrum by nodes "
            "$\\theta_k$ and weights $\\tau_k$ of stochastic Lanczos quadrature:"
        ),
        Formula(
            r"r_e = \left| \frac{\lambda_{\min}}{\lambda_{\max}} \right|, \qquad K_{Hn} = \frac{\sum_{\theta_k < 0} "
            r"\left| \theta_k \tau_k \right|^{n}}{\sum_{\theta_k > 0} (\theta_k \tau_k)^{n}}, \qquad n = 0.5."
        ),
        paragraph(
            "For $n = 1$ the ratio converges to that of the sums of the negative and the positive eigenvalues. For $n "
            "< 1$ it does not: two nodes of half the weight count $2^{1-n}$ times as much as one, so that the value "
            "depends on how many nodes there are and is comparable at equal numbers of steps only."
        ),
    ),
)


def of_spectra() -> tuple[Topic, ...]:
    """What the report explains where it holds a spectrum."""
    return (QUADRATIC, SOLVERS, DENSITY, TRACE, SUBSETS)


def of_densities() -> tuple[Topic, ...]:
    """What the report explains where it holds a density."""
    return (DENSITY, TRACE)


def of_splits() -> tuple[Topic, ...]:
    """What the report explains where it holds the Gauss-Newton part."""
    return (SPLIT,)


def of_criteria() -> tuple[Topic, ...]:
    """What the report explains where it holds the criteria."""
    return (CRITERIA,)


def of_power() -> tuple[Topic, ...]:
    """What the report explains where it holds power iteration."""
    return (QUADRATIC, SOLVERS)
