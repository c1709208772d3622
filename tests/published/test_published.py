"""Published numbers beside ours: what lies inside our interval, the table with its reasons, the answer."""

from __future__ import annotations

import io

import measured
import numpy as np
import pytest
import xarray as xr

from lossatlas import plot
from lossatlas.published.show import COMPARISON
from lossatlas.published.show.figures import HEADER
from lossatlas.report.chapters import chapters
from lossatlas.results.blocks import Answer
from lossatlas.results.catalogue import Catalogue


def comparison(*ratios: float, error: float = 0.01) -> xr.Dataset:
    """Of the first quantities, ours at these multiples of the published ones with a relative standard error."""
    dataset = measured.results()["comparison"].isel(quantity=slice(0, len(ratios))).copy(deep=True)
    ours = np.array(ratios) * dataset["published"].to_numpy()
    return dataset.assign(
        ours=("quantity", ours), ours_stderr=("quantity", error * np.abs(dataset["published"].values))
    )


def answers(dataset: xr.Dataset) -> list[Answer]:
    return list(COMPARISON.answers([dataset], Catalogue([dataset])))


def test_a_published_number_agrees_where_it_lies_inside_our_95_percent_interval():
    dataset = comparison(1.0195, 0.9805, 1.0197, 0.97, np.nan)
    (answer,) = answers(dataset)
    assert answer.short == "2 of 4 published numbers of the Fashion-MNIST study lie inside our 95 % intervals."
    assert (
        "Of the 5 numbers that the Fashion-MNIST study published, 4 were measured here: 2 of 4 lie" in answer.sentence
    )
    assert f"The largest difference is in the {dataset['quantity'].values[3]}: 15.6 published" in answer.sentence
    found = {number.name: number.text for number in COMPARISON.numbers(dataset)}
    assert found == {"published numbers measured here": "4 of 5", "inside our 95 % interval": "2 of 4"}


def test_without_a_standard_error_nothing_is_said_to_agree():
    (answer,) = answers(comparison(1.0, 1.0, error=np.nan))
    assert "2 were measured here, without an interval." in answer.sentence
    (answer,) = answers(xr.concat([comparison(1.0), comparison(1.0, error=np.nan)], "quantity"))
    assert "2 were measured here: 1 of 1 lie inside our 95 % interval; 1 without an interval." in answer.sentence


def test_nothing_measured_is_no_answer():
    assert answers(comparison(np.nan, np.nan)) == []


def test_the_table_stands_in_the_chapter_with_the_reason_of_every_difference():
    dataset = comparison(1.0, 0.5, 8.3, np.nan)
    (chapter,) = chapters(Catalogue([dataset]))
    assert chapter.numbers is not None
    assert chapter.numbers.header == HEADER
    assert [row[3] for row in chapter.numbers.rows] == ["+0 %, inside", "−50 %", "× 8.3", "–"]
    reasons = [str(reason) for reason in dataset["reason"].values]
    assert [row[4] for row in chapter.numbers.rows] == [*reasons[:3], "Not measured here."]
    assert chapter.details is not None
    assert not any(block is chapter.numbers for section in chapter.details.blocks for block in section.blocks)  # type: ignore[union-attr]


def test_the_figure_has_a_filled_dot_where_the_published_number_is_inside():
    figure = plot.figure(comparison(1.0, 1.5, np.nan))
    (axes,) = figure.axes
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [line.get_markerfacecolor() for line in dots][:2] == ["#0072B2", "white"]
    assert [float(line.get_xdata()[0]) for line in dots][:2] == pytest.approx([1.0, 1.5])
    plot.save(figure, io.BytesIO(), "pdf")
