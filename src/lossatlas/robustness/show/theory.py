"""What weight noise measures."""

from __future__ import annotations

from lossatlas.results.blocks import Formula, Topic, paragraph

NOISE = Topic(
    "Weight noise",
    (
        paragraph(
            "Robustness is measured by adding Gaussian noise to all parameters, in several independent draws. To "
            "second order"
        ),
        Formula(
            r"\mathbb{E}_{\varepsilon} L(\theta + \sigma \varepsilon) \approx L(\theta) + \frac{\sigma^{2}}{2} "
            r"\mathrm{tr}(H), \qquad \varepsilon \sim \mathcal{N}(0, I)."
        ),
        paragraph(
            "Relative to the filters, the noise of each filter is scaled by the norm of that filter. Absolute noise "
            "depends on the scale of the weights, which a rescaling can change without changing the function."
        ),
    ),
)


def theory() -> tuple[Topic, ...]:
    """What the report explains where it holds a measurement of robustness."""
    return (NOISE,)
