"""The length of theta as a kind of result: its options, its figure, its claim."""

from pydantic import Field

from lossatlas.results.blocks import FigureGroup, Number, Picture, Topic, paragraph
from lossatlas.results.claim import Claim
from lossatlas.results.kind import Kind, Options, function_at
from lossatlas.results.provenance import OBJECTIVE, Provenance
from lossatlas.results.schema import Schema
from lossatlas.results.uncertainty import number


class LengthOptions(Options):
    """The keywords of ``length``."""

    power: int = Field(2, ge=1, description="the norm")


def figures(datasets, catalogue):
    """One picture of all."""
    from lossatlas.drawing.style import labels, panels

    def draw():
        figure, (axes,) = panels(1)
        axes.bar(labels(datasets), [float(dataset["length"]) for dataset in datasets])
        axes.set_ylabel("length of the weights")
        return figure

    yield FigureGroup(tuple(datasets), (Picture("lengths", draw, "The length of each network's weights."),))


def numbers(dataset):
    """The length."""
    yield Number("length", number(float(dataset["length"])), of=Provenance.of(dataset).subject)


def claims(datasets, catalogue):
    """Whether theta is not 0."""
    for dataset in datasets:
        value, ids = float(dataset["length"]), (dataset.attrs["id"],)
        hypothesis = f"The weights of {Provenance.of(dataset).who} are not 0"
        yield Claim(hypothesis, "length, threshold 0", value, (value, value), datasets=ids)


TOY = Kind(
    name="toy",
    title="Lengths",
    chapter="How long is theta?",
    verb=function_at("lossatlas_toy.verb:length"),
    help="The length of the weights.",
    options=LengthOptions,
    schema=Schema(variables={"length": ()}, attrs=(*OBJECTIVE, "power")),
    figures=figures,
    numbers=numbers,
    claims=claims,
    theory=lambda: (Topic("Lengths", (paragraph("The length of $\\theta$ is $|\\theta|$."),)),),
)
KINDS = (TOY,)
