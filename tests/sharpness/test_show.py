"""Sharpness in a report: what the figure, the tables and the claims say of measures that two small networks have."""

from __future__ import annotations

import itertools
import math

import measured
import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from lossatlas import plot
from lossatlas.drawing.style import paper
from lossatlas.report import contents
from lossatlas.report.html import render as as_html
from lossatlas.report.latex import render as as_latex
from lossatlas.report.references import BIBLIOGRAPHY
from lossatlas.results.blocks import Answer
from lossatlas.results.catalogue import Catalogue
from lossatlas.results.claim import Claim, verdict
from lossatlas.results.provenance import identity
from lossatlas.sharpness.measures import MEASURES
from lossatlas.sharpness.show import SHARPNESS
from lossatlas.sharpness.show.forest import sharpness
from lossatlas.sharpness.show.reading import Ratio, agreement, ratio

INVARIANT = ("asam", "adaptive_worst", "adaptive_average")


def one(network: str, **found: tuple[float, float, float]) -> xr.Dataset:
    """The measures of a network, some of them with another value and interval."""
    dataset = measured.results()[f"sharpness {network}"].copy(deep=True)
    for name, numbers in found.items():
        for variable, number in zip(("value", "low", "high"), numbers, strict=True):
            dataset[variable].loc[{"measure": name}] = number
    return dataset


def near(value: float, share: float = 0.1) -> tuple[float, float, float]:
    return value, value * (1 - share), value * (1 + share)


def pair(*values: float, **more: tuple[float, float, float]) -> list[xr.Dataset]:
    """A with 1 for each measure that rescaling leaves unchanged, within 10 %, and B with these values."""
    a = one("A", **{name: near(1.0) for name in INVARIANT})
    return [a, one("B", **{name: near(value) for name, value in zip(INVARIANT, values, strict=True)}, **more)]


def claim(part: str, *datasets: xr.Dataset) -> Claim:
    (found,) = [each for each in Catalogue(datasets).claims() if part in each.hypothesis]
    return found


def answer(*datasets: xr.Dataset) -> Answer:
    catalogue = Catalogue(datasets)
    (found,) = SHARPNESS.answers(catalogue.of(SHARPNESS), catalogue)
    return found


def test_measures_agree_where_all_intervals_lie_on_one_side_and_disagree_where_two_lie_on_either():
    sides = {"above": Ratio(2.0, (1.5, 3.0)), "below": Ratio(0.5, (0.3, 0.8)), "open": Ratio(1.1, (0.0, math.inf))}
    for names in itertools.product(sides, repeat=3):
        decided = set(names) - {"open"}
        value, interval = agreement([sides[name] for name in names])
        assert interval[0] <= value <= interval[1]
        expected = "contradicted" if len(decided) == 2 else "undecided" if "open" in names else "supported"
        assert verdict(interval, 1.0) == expected, names


def test_the_interval_of_a_ratio_excludes_1_where_the_two_intervals_do_not_overlap():
    for low, high in ((0.5, 0.9), (0.5, 1.1), (1.3, 2.0), (-1.0, 0.5), (0.5, math.inf)):
        found = ratio(1.0, (0.95, 1.25), 0.7, (low, high)).interval
        assert (found[0] > 1 or found[1] < 1) == (high < 0.95 or low > 1.25)
    assert math.isnan(ratio(math.nan, (math.nan, math.nan), 1.0, (0.5, 2.0)).interval[0])


@pytest.mark.parametrize(
    ("values", "verdict", "factor"),
    [((2.0, 3.0, 4.0), "supported", 2.0), ((0.5, 0.4, 0.8), "supported", 1.25), ((2.0, 0.5, 2.0), "contradicted", 0.5)],
)
def test_two_networks_are_ordered_alike_by_the_measures_that_rescaling_leaves_unchanged(values, verdict, factor):
    other_way = {"lambda_max": near(1e-3), "average": near(1e3)}  # which rescaling changes
    found = claim("ordered alike by all 3", *pair(*values, **other_way))
    assert found.verdict == verdict
    assert found.value == pytest.approx(factor)


def test_where_an_interval_overlaps_or_a_measure_is_missing_the_order_is_not_asserted():
    assert claim("ordered alike", *pair(2.0, 3.0, 1.1)).verdict == "undecided"
    missing = (math.nan,) * 3
    two = pair(2.0, 3.0, 4.0)
    two[0] = one("A", asam=near(1.0), adaptive_worst=near(1.0), adaptive_average=missing)
    assert claim("ordered alike by all 2", *two).verdict == "supported"
    two[1] = one("B", asam=missing, adaptive_worst=near(1.0))
    assert not [each for each in Catalogue(two).claims() if "ordered alike" in each.hypothesis]


def test_of_a_measure_of_what_a_network_bears_the_smaller_value_is_the_sharper():
    a, b = pair(2.0, 3.0, 0.25)
    for dataset in (a, b):
        dataset["sharper"] = dataset["sharper"].astype(object)
        dataset["sharper"].loc[{"measure": "adaptive_average"}] = "smaller"
    assert claim("ordered alike", a, b).value == pytest.approx(2.0)
    assert drawn(sharpness(a, b))["adaptive average case, ρ = 0.1"] == pytest.approx(4.0)


def test_networks_measured_with_other_sizes_are_not_compared():
    a, b = pair(2.0, 3.0, 4.0)
    b["rho"].loc[{"measure": "asam"}] = 0.7
    assert not [each for each in Catalogue([a, b]).claims() if "ordered alike" in each.hypothesis]
    assert len(list(SHARPNESS.figures([a, b], Catalogue([a, b])))) == 2


def test_the_same_measurement_has_the_same_id_however_long_it_took():
    slower = one("A")
    slower["seconds"] = 2 * slower["seconds"]
    assert identity(slower) == identity(one("A")) != identity(one("A", sam=near(1.0)))


def noisy(network: str, rise: float) -> xr.Dataset:
    dataset = measured.results()[f"robustness {network}"].copy(deep=True)
    dataset["loss_change"][:] = np.array([0.0, rise, rise])
    return dataset.assign(loss_change_stderr=dataset["loss_change_stderr"] * 0 + 1e-4)


@pytest.mark.parametrize(
    ("sharper", "rise", "verdict"),
    [(2.0, 0.6, "supported"), (0.5, 0.6, "contradicted"), (0.5, 0.1, "supported"), (1.1, 0.6, "undecided")],
)
def test_the_flatter_network_by_a_measure_that_rescaling_leaves_unchanged_bears_more_noise(sharper, rise, verdict):
    found = claim("the flatter one", *pair(1.0, 1.0, sharper), noisy("A", 0.3), noisy("B", rise))
    assert found.verdict == verdict
    assert len(found.datasets) == 4


def test_one_step_far_below_an_ascent_is_said_to_be():
    far = one("A", asam=near(0.1), adaptive_worst=near(1.0), sam=near(0.9), sam_ascent=near(1.0))
    found = claim("(adaptive worst case", far)
    assert (found.verdict, found.value) == ("contradicted", pytest.approx(0.1))
    assert claim("(worst case", far).verdict == "supported"
    assert "One step is a bound that lies far below an ascent: it finds 0.10" in answer(far).limit
    assert "far below" not in answer(one("A", asam=near(0.9), adaptive_worst=near(1.0))).limit


def test_answers_say_what_the_claim_says():
    told = {
        (2.0, 3.0, 4.0): "Network B is sharper than network A by all 3",
        (0.5, 0.4, 0.8): "Network A is sharper than network B by all 3",
        (2.0, 0.5, 2.0): "disagree: 2 call network B sharper and 1 network A",
        (2.0, 3.0, 1.1): "2 call network B sharper and none network A",
    }
    for values, words in told.items():
        found = answer(*pair(*values))
        assert words in found.sentence
        assert words in found.short
        assert len(found.short.split()) <= 25
        assert ("undecided" in found.sentence) == (found.claim is not None and found.claim.verdict == "undecided")
    several = answer(*pair(2.0, 3.0, 4.0), pair(0.5, 3.0, 4.0)[1].assign_attrs(network="C"))
    assert "Of 3 pairs" in several.sentence


def table(*datasets: xr.Dataset) -> dict[str, tuple[str, ...]]:
    """The rows of the table of measures by the names of the measures."""
    (group,) = SHARPNESS.figures(datasets, Catalogue(datasets))
    return {row[0].replace("\u00a0", " "): row[1:] for row in group.tables[0].rows}


def test_the_table_ticks_what_leaves_a_measure_unchanged_and_marks_bounds_exact_values_and_gaps():
    infinite, gap = (93.7, 0.01, math.inf), (math.nan,) * 3
    a = one("A", average=infinite, lambda_max=(2.0, 2.0, 2.0), adaptive_average=near(1.0), sam=gap)
    a["note"] = a["note"].astype(object)
    a["note"].loc[{"measure": "sam"}] = "The gradient is 0."
    found = table(a)
    assert found["adaptive average case, ρ = 0.1"][-4:] == ("✓", "✓", "✓", "")
    assert found["largest eigenvalue"] == ("2", *found["largest eigenvalue"][1:3], "", "", "✓", "")
    assert found["average case, ρ = 0.01"][0] == "93.7 [0.01, ∞]"
    assert found["adaptive worst case, ρ = 0.5"][0].startswith("≥ 0.0")
    assert found["worst case, one step, ρ = 0.05"][:3] == ("–", "–", "–")
    (group,) = SHARPNESS.figures([a], Catalogue([a]))
    assert [row[2] for row in group.tables[1].rows] == ["The gradient is 0."]


def test_a_measure_that_was_found_to_move_where_theory_says_that_it_stays_is_told():
    invariance = measured.results()["invariance"].copy(deep=True)
    invariance["moved"].loc[{"reparametrisation": "neuron rescaling"}] = True
    (group,) = SHARPNESS.figures([one("A")], Catalogue([one("A"), invariance]))
    told = {row[0].replace("\u00a0", " "): row[2] for row in group.tables[1].rows}
    assert told["adaptive worst case, one step, ρ = 0.5"].startswith("Moved here by neuron rescaling, of which theory")
    assert not any(name.startswith("average case") for name in told)


def test_the_ticks_are_set_in_both_renderings_and_every_measure_that_rescaling_changes_is_marked():
    catalogue = Catalogue([one("A"), one("B")])
    document = contents.document(catalogue, catalogue.claims(), "Sharpness", {})
    assert "<td>✓</td>" in as_html(document)
    assert r"& \ensuremath{\checkmark} &" in as_latex(document)
    numbers = {number.name for number in SHARPNESS.numbers(one("A"))}
    assert "largest eigenvalue (changed by rescaling)" in numbers
    assert sum("changed by rescaling" in name for name in numbers) == 2 < len(numbers)


def drawn(figure: Figure) -> dict[str, float]:
    """Measure -> where its marker lies."""
    (axes,) = figure.axes
    names = {
        round(float(tick), 6): text.get_text()
        for tick, text in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
    }
    lines = [line for line in axes.lines if line.get_marker() in ("o", "s") and len(line.get_xdata()) == 1]
    found = {round(float(line.get_ydata()[0]), 6): float(line.get_xdata()[0]) for line in lines}
    return {names[at].replace("\n", " ").replace("\u00a0", " "): x for at, x in found.items()}


def test_the_figure_has_a_row_for_each_measure_with_its_value_or_why_there_is_none():
    a = one("A", sam=(math.nan,) * 3, average=(-0.1, -0.2, 0.1))
    figure = plot.figure(a)
    rows = drawn(figure)
    assert rows["adaptive worst case, ρ = 0.5"] == pytest.approx(float(a["value"].sel(measure="adaptive_worst")))
    words = [text.get_text() for text in figure.axes[0].texts]
    assert [word for word in words if "not" in word] == ["not measured", "not above 0: −0.1"]
    assert len(rows) + 2 == a.sizes["measure"] == len(figure.axes[0].get_yticks())
    assert sum(text.arrow_patch is not None for text in figure.axes[0].texts if hasattr(text, "arrow_patch")) == 2
    marks = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [line.get_markerfacecolor() == "white" for line in marks] == [False] * 3 + [True] * 2


def test_two_networks_are_drawn_as_ratios_and_every_name_fits_in_a_column():
    a, b = pair(2.0, 3.0, 0.5)
    with paper("column"):
        figure = sharpness(a, b)
    figure.draw_without_rendering()
    rows = drawn(figure)
    assert rows["adaptive worst case, ρ = 0.5 (≥)"] == pytest.approx(3.0)
    assert rows["adaptive average case, ρ = 0.1"] == pytest.approx(0.5)
    (axes,) = figure.axes
    for text in (*axes.get_yticklabels(), axes.xaxis.label):
        box = text.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1
    heights = [text.get_window_extent() for text in axes.get_yticklabels()]
    assert all(above.y0 >= below.y1 for above, below in itertools.pairwise(heights))


def test_theory_tells_of_the_measures_that_are_there_and_every_source_is_in_the_bibliography():
    catalogue = Catalogue([one("A").sel(measure=["asam", "lambda_max"])])
    titles = [topic.title for topic in SHARPNESS.theory() if any(map(topic.needed, catalogue))]
    assert titles == ["Sharpness and reparametrisation", "Worst-case sharpness", "Sharpness by the Hessian"]
    known = {**SHARPNESS.references, **BIBLIOGRAPHY}
    document = contents.document(Catalogue([one("A")]), [], "Sharpness", {})
    assert {measure.source for measure in MEASURES.values()} | set(document.cited) <= known.keys()
