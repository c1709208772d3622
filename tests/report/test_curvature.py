from __future__ import annotations

import re
import shutil
from pathlib import Path

import made_datasets as made
import numpy as np
import pytest
import xarray as xr

from lossatlas.report import curvature_captions, observations, report
from lossatlas.report.blocks import Results
from lossatlas.report.document import Picture, Table
from lossatlas.report.results import sections


def blocks(*datasets: xr.Dataset) -> list[object]:
    return [block for section in sections(Results(datasets, [])) for block in section.blocks]


def pictures(*datasets: xr.Dataset) -> dict[str, Picture]:
    return {block.name: block for block in blocks(*datasets) if isinstance(block, Picture)}


def table(name: str, *datasets: xr.Dataset) -> dict[str, tuple[str, ...]]:
    """The rows of the first table whose caption begins so."""
    found = next(block for block in blocks(*datasets) if isinstance(block, Table) and block.caption.startswith(name))
    return {row[0]: row[1:] for row in found.rows}


def test_a_whole_spectrum_has_a_figure_of_each_thing_that_it_measured():
    assert list(pictures(made.whole_spectrum())) == ["spectrum", "density", "trend"]
    assert list(pictures(made.whole_spectrum(layers=True))) == ["spectrum", "density", "trend", "layers"]


def test_a_spectrum_of_the_ends_only_has_the_figure_and_the_table_of_the_ends():
    assert list(pictures(made.spectrum())) == ["spectrum"]
    captions = [block.caption for block in blocks(made.spectrum()) if isinstance(block, Table)]
    assert len(captions) == 1
    assert captions[0].startswith("Eigenvalues of the Hessian")


def test_the_numbers_of_the_spectrum_are_in_one_table_with_their_errors_and_costs():
    rows = table("Numbers of the whole spectrum", made.whole_spectrum("A"), made.whole_spectrum("B"))
    assert rows["trace"] == ("131.5", "131.5")
    assert rows["Frobenius norm"] == ("21.40 ± 0.30",) * 2
    assert rows["effective rank"] == ("38.2 ± 1.3",) * 2
    assert rows["Hessian-vector products in all"] == ("507", "507")
    assert rows["products for the density"] == ("320", "320")
    assert re.fullmatch(r"\d+\.\d % \[\d+\.\d %, \d+\.\d %\]", rows["share of the eigenvalues below 0"][0])
    assert rows["largest gap between leading eigenvalues"][0].endswith("after rank 1")


def test_what_a_dataset_does_not_have_is_a_dash_beside_one_that_has_it_and_no_row_where_none_has():
    without = made.whole_spectrum("B").drop_vars(["effective_rank", "effective_rank_stderr"])
    assert table("Numbers", made.whole_spectrum("A"), without)["effective rank"] == ("38.2 ± 1.3", "–")
    assert "effective rank" not in table("Numbers", without)


def test_the_share_below_0_is_printed_with_its_interval_in_per_cent():
    dataset = made.density().assign(negative_mass=0.141, negative_mass_low=0.12, negative_mass_high=0.1649)
    assert observations.share_below_0(dataset) == "14.1 % [12.0 %, 16.5 %]"


def test_the_share_about_0_is_that_of_the_bin_that_holds_0():
    dataset = made.density()
    dataset["histogram"][:] = 0
    middle = int(np.flatnonzero((dataset["bin_left"] < 0) & (dataset["bin_right"] > 0))[0])
    dataset["histogram"][middle] = 0.654
    dataset["bin_right"][middle] = 0.0012
    assert "65.4 % of the eigenvalues are within 0.0012 of 0." in list(observations.spectral_density(dataset))


def test_the_largest_gap_carries_the_residuals_of_its_two_sides():
    dataset = made.whole_spectrum().assign(largest_gap=1.0, largest_gap_rank=3)
    dataset["residual"][0] = [0, 0, 0.01, 0.03, 0, 0, 0, 0, 0, 0]
    assert observations.largest_gap(dataset) == "1.000 ± 0.040 after rank 3"


def test_the_observation_of_the_trend_compares_the_smallest_and_the_largest_subsets_with_all_the_data():
    dataset = made.whole_spectrum()
    dataset["eigenvalue"][0, 0] = 10.0
    dataset["trend_eigenvalue"][0] = [19.0, 21.0, *[np.nan] * 6]
    dataset["trend_eigenvalue"][3] = [11.0, 11.0, *[np.nan] * 6]
    said = next(sentence for sentence in observations.spectrum(dataset) if "subsets" in sentence)
    assert "20.0 ± 1.0 on subsets of 64 examples (2 times that of all the data)" in said
    assert "11 on subsets of 4,096 examples (1.1 times that of all the data)" in said


def test_an_observation_on_the_criteria_gives_their_growth_over_the_second_half_of_the_steps():
    (said,) = observations.gabdullin(made.gabdullin())
    assert "K_H0.5 1.37" in said.split("as multiples")[1]  # 2 ** 0.45


def test_a_flat_hessian_is_observed_without_a_ratio():
    flat = made.gauss_newton_split().assign(curvature_hessian=("rank", np.zeros(10)))
    assert len(list(observations.gauss_newton_split(flat))) == 1


@pytest.mark.parametrize(
    ("caption", "said"),
    [
        (
            curvature_captions.density([made.whole_spectrum()]),
            ("Lanczos steps: 40.", "Probes: 4.", "Seed: 0.", "deviation 0.02", "10,000 examples", "mass 1/n"),
        ),
        (curvature_captions.scalars([made.whole_spectrum()]), ("Trace, exact:",)),
        (curvature_captions.scalars([made.density()]), ("Trace, estimate: Hutch++",)),
        (curvature_captions.trend([made.whole_spectrum()]), ("biased upward", "Products: 120.")),
        (curvature_captions.gabdullin([made.gabdullin()]), ("equal steps only", "Lanczos steps: 40.")),
        (curvature_captions.spectrum([made.whole_spectrum()]), ("products: 57.",)),
    ],
)
def test_captions_say_how_it_was_computed(caption: str, said: tuple[str, ...]):
    for part in said:
        assert part in caption


def test_a_density_without_eigenpairs_says_nothing_of_markers():
    assert "Markers" not in curvature_captions.density([made.density()])


def test_the_split_is_a_table_of_traces_norms_and_cosine():
    rows = table("The Hessian H, its Gauss-Newton part G", made.gauss_newton_split())
    assert rows["trace of R"] == ("0.02 ± 0.40",)
    assert rows["Frobenius norm of G"] == ("20.90 ± 0.30",)
    assert rows["cosine of H and G"] == ("0.9740 ± 0.0040",)


@pytest.mark.parametrize("make", [made.density, made.gabdullin, made.gauss_newton_split, made.whole_spectrum])
def test_each_kind_is_reported_by_itself_with_its_theory(make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    page = report([make()], tmp_path).html.read_text(encoding="utf-8")
    theory = {
        made.density: "Density of the spectrum",
        made.gabdullin: "Criteria on the sign of the spectrum",
        made.gauss_newton_split: "The Gauss-Newton part",
        made.whole_spectrum: "The largest eigenvalue of a subset",
    }
    assert f">{theory[make]}</h3>" in page
    assert ("The largest eigenvalue of a subset</h3>" in page) == (make is made.whole_spectrum)
