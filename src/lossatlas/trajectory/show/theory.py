"""What the plane of a trajectory shows, and what it would show of a random walk."""

from __future__ import annotations

from lossatlas.results.blocks import Formula, Topic, paragraph

COMPONENTS = Topic(
    "Principal components of the trajectory",
    (
        paragraph(
            "Snapshots $\\theta_{1}, \\dots, \\theta_{T}$ of the parameters while training form the rows of $M \\in "
            "\\mathbb{R}^{T \\times n}$. Their principal components come from the $T \\times T$ Gram matrix of the "
            "centered snapshots, so that no $n \\times n$ matrix is needed:"
        ),
        Formula(
            r"G = C M M^{\top} C = \sum_{k} \lambda_{k} u_{k} u_{k}^{\top}, \qquad "
            r"p_{k} = \frac{M^{\top} C u_{k}}{\sqrt{\lambda_{k}}}, \qquad C = I - \frac{1}{T} e e^{\top},"
        ),
        paragraph(
            "where $e$ is the vector of ones. Two components explain much of any smooth trajectory, even of one "
            "without structure. For a random walk of $T$ steps in many dimensions, centered, the share of the "
            "variance of component $k$ is [@antognini2018]"
        ),
        Formula(r"\rho_{k} \propto \frac{1}{4 \sin^{2}\left(\pi k / (2 T)\right)},"),
        paragraph(
            "that is 60.8, 15.2 and 6.8 % for long walks. A finer null model keeps the observed steps and draws their "
            "signs at random. The trajectory does not lie in its principal plane: the distance of each snapshot from "
            "the plane, and its true loss compared with the loss of its projection, say how far the picture can be "
            "trusted."
        ),
    ),
)


def theory() -> tuple[Topic, ...]:
    """What the report explains where it holds a trajectory."""
    return (COMPONENTS,)
