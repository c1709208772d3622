"""The theory that a report needs: the objective always, and the topics of the kinds that it holds."""

from __future__ import annotations

from lossatlas.report.document import Section
from lossatlas.results.blocks import Formula, Topic, paragraph
from lossatlas.results.catalogue import Catalogue

OBJECTIVE = Topic(
    "Objective, gradient and Hessian",
    (
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
            "Read as an estimate of the loss over the population that the examples were drawn from, $L$ has the "
            "standard error $s / \\sqrt{N}$, where $s$ is the standard deviation of the examples' losses. It takes the "
            "examples as independent draws."
        ),
    ),
)


def theory(catalogue: Catalogue) -> Section:
    """Each topic once that a Dataset of its kind needs; the objective and its derivatives always."""
    found = [OBJECTIVE]
    for kind in catalogue.present():
        needed = [t for t in kind.theory() if any(t.needed(dataset) for dataset in catalogue.of(kind))]
        found += [topic for topic in needed if topic.title not in {each.title for each in found}]
    sections = tuple(Section(topic.title, f"theory-{k}", topic.blocks) for k, topic in enumerate(found, 1))
    return Section("Theory", "theory", sections)
