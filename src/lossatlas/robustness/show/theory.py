"""What perturbations measure."""

from __future__ import annotations

from lossatlas.results.blocks import Formula, Topic, paragraph

NOISE = Topic(
    "Weight noise",
    (
        paragraph(
            "Robustness is measured by adding noise to all parameters, in several independent draws. To second order"
        ),
        Formula(
            r"\mathbb{E}_{\varepsilon} L(\theta + \sigma \varepsilon) \approx L(\theta) + \frac{\sigma^{2}}{2} "
            r"\mathrm{tr}(H), \qquad \mathbb{E}\, \varepsilon = 0,\; \mathbb{E}\, \varepsilon \varepsilon^{\top} = I."
        ),
        paragraph(
            "Relative to the filters, the noise of each filter is scaled by the norm of that filter; relative to each "
            "weight, or multiplicative, by that weight. Absolute noise depends on the scale of the weights, which a "
            "rescaling can change without changing the function."
        ),
    ),
    needed=lambda dataset: dataset.attrs.get("noise") != "input",
)
INPUT = Topic(
    "Input noise",
    (
        paragraph(
            "Noise on the inputs, $x + \\sigma \\varepsilon$ with $\\varepsilon \\sim \\mathcal{N}(0, I)$, leaves the "
            "weights as they are."
        ),
    ),
    needed=lambda dataset: dataset.attrs.get("noise") == "input",
)
QUANTISATION = Topic(
    "Quantisation",
    (
        paragraph(
            "Each weight is rounded to the nearest of the levels of a symmetric uniform quantiser with $b$ bits,"
        ),
        Formula(r"w \mapsto s \, \mathrm{round}(w / s), \qquad s = \frac{\max |w|}{2^{\,b - 1} - 1},"),
        paragraph(
            "where the maximum is over a tensor, or over each of its channels; biases and norms are not rounded."
        ),
    ),
)
PRUNING = Topic(
    "Pruning by magnitude",
    (
        paragraph(
            "Of the weights of all layers together, biases and norms apart, the given share with the smallest absolute "
            "values is set to 0, and nothing is trained afterwards."
        ),
    ),
)
FLIPS = Topic(
    "Flips of bits",
    (
        paragraph(
            "Each bit of the numbers that represent the weights is flipped with the given probability. In float32 a "
            "flip in the exponent can make a weight huge or not a number; in int8, the levels of an 8-bit quantiser, "
            "no weight leaves the range of its tensor."
        ),
    ),
)
BASIN = Topic(
    "The basin of a score",
    (
        paragraph(
            "The basin of a score $S$ ends at the size of noise at which it has fallen by a stated amount [@chen2025],"
        ),
        Formula(r"S(\theta) - \mathbb{E}_{\varepsilon} S(\theta + \sigma \varepsilon) = \mathrm{fall}."),
        paragraph(
            "The worst direction $u$, with $|u| = \\sqrt{n}$ as random noise has, is looked for by steps "
            "$u \\leftarrow \\sqrt{n}\\, g / |g|$ with $g$ the gradient of the loss at $\\theta + \\sigma u$. What is "
            "found bounds the size in the worst direction from above."
        ),
    ),
)


def of_noise() -> tuple[Topic, ...]:
    """Of noise on weights and inputs."""
    return NOISE, INPUT


def of_quantisation() -> tuple[Topic, ...]:
    """Of rounding."""
    return (QUANTISATION,)


def of_pruning() -> tuple[Topic, ...]:
    """Of weights set to 0."""
    return (PRUNING,)


def of_flips() -> tuple[Topic, ...]:
    """Of errors of memory."""
    return (FLIPS,)


def of_basin() -> tuple[Topic, ...]:
    """Of the size at which a score falls."""
    return (BASIN,)
