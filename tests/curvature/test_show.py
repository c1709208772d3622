"""How results on curvature are shown: figures, captions, numbers and tables of real measurements."""

from __future__ import annotations

import re
from collections.abc import Iterator

import measured
import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex

import lossatlas as la
from lossatlas.curvature.operators import Operator
from lossatlas.curvature.power import power_baseline
from lossatlas.curvature.show import captions, numbers
from lossatlas.curvature.show.densities import spectral_density
from lossatlas.curvature.show.layers import gauss_newton_split, layers
from lossatlas.curvature.show.spectra import spectrum
from lossatlas.curvature.show.trends import gabdullin, over_subsets, trend
from lossatlas.drawing.style import VERMILLION
from lossatlas.results.blocks import Number, Picture, Table
from lossatlas.results.catalogue import Catalogue
from lossatlas.results.discovery import kind_of
from lossatlas.results.values import value

NORMAL = 1.959963984540054


@pytest.fixture(scope="module")
def whole() -> dict[str, xr.Dataset]:
    """The spectrum of each network, with its layers."""
    settings = {"density_tol": 0.1, "layers": True, "progress": False}
    return {label: la.spectrum(measured.trained(label).train, 3, **settings) for label in "AB"}


@pytest.fixture(scope="module")
def density() -> xr.Dataset:
    return la.spectral_density(la.hessian(measured.trained("A").train), steps=12, probes=3, progress=False)


@pytest.fixture(scope="module")
def split() -> xr.Dataset:
    return la.gauss_newton_split(measured.trained("A").train, 3, probes=3, progress=False)


def pictures(*datasets: xr.Dataset) -> list[Picture]:
    return la.plot.pictures(*datasets)


def tables(*datasets: xr.Dataset) -> Iterator[Table]:
    catalogue = Catalogue(datasets)
    for group in kind_of(datasets[0]).figures(list(catalogue), catalogue):
        yield from group.tables


def line_of(axes: Axes, colour: str) -> np.ndarray:
    (found,) = (line for line in axes.lines if to_hex(line.get_color()) == colour.lower() and len(line.get_xdata()) > 2)
    return np.asarray(found.get_xydata())


# The density


def test_each_known_eigenvalue_is_one_marker_of_height_1_over_n(whole):
    marks = line_of(spectral_density(whole["A"]).axes[1], VERMILLION)
    np.testing.assert_allclose(marks[:, 0], np.sort(whole["A"]["eigenvalue"].to_numpy().ravel()), rtol=1e-12)
    np.testing.assert_allclose(marks[:, 1], 1 / whole["A"].attrs["n_parameters"], rtol=1e-12)


def test_an_eigenvalue_that_both_ends_have_is_marked_once(whole):
    dataset = whole["A"].copy(deep=True)
    dataset["eigenvalue"][1, -1] = dataset["eigenvalue"][0, -1]
    assert len(line_of(spectral_density(dataset).axes[0], VERMILLION)) == 5


def test_the_bars_are_the_shares_of_their_bins(density):
    bars = spectral_density(density).axes[1].patches
    drawn = np.array([(bar.get_x(), bar.get_x() + bar.get_width(), bar.get_height()) for bar in bars])  # type: ignore[attr-defined]
    expected = np.stack([density[name].to_numpy() for name in ("bin_left", "bin_right", "histogram")], axis=1)
    np.testing.assert_allclose(drawn, expected, rtol=1e-9, atol=1e-12)


def test_the_band_of_the_density_is_a_95_percent_interval(density):
    (band,) = (c for c in spectral_density(density).axes[0].collections if isinstance(c, PolyCollection))
    corners = band.get_paths()[0].vertices
    values, stderr = density["density"].to_numpy(), density["density_stderr"].to_numpy()
    top = int(values.argmax())
    at_top = corners[np.isclose(corners[:, 0], density["lambda"].to_numpy()[top], atol=1e-12), 1]
    assert at_top.max() == pytest.approx(values[top] + NORMAL * stderr[top])
    assert at_top.min() == pytest.approx(max(values[top] - NORMAL * stderr[top], 1e-300))


def test_densities_of_several_networks_share_scales_that_hold_one_eigenvalue(whole):
    axes = spectral_density(*whole.values()).axes
    for first, second in ((axes[0], axes[2]), (axes[1], axes[3])):
        assert first.get_xlim() == second.get_xlim()
        assert first.get_ylim() == second.get_ylim()
    for dataset in whole.values():
        one = 1 / dataset.attrs["n_parameters"]
        assert axes[0].get_ylim()[0] < one / (dataset.attrs["smoothing"] * np.sqrt(2 * np.pi)) < axes[0].get_ylim()[1]
        assert axes[1].get_ylim()[0] < one < axes[1].get_ylim()[1]


def test_a_density_is_named_after_its_matrix():
    objective = measured.trained("A").train
    found = [
        la.spectral_density(operator, steps=8, probes=2, progress=False)
        for operator in (la.hessian(objective), la.gauss_newton(objective), la.fisher(objective))
    ]
    shown = pictures(*found)
    assert len(shown) == 3  # one figure a matrix
    for name in ("Hessian", "Gauss-Newton matrix", "Fisher matrix"):
        (picture,) = (p for p in shown if f"eigenvalues of the {name}" in p.caption)
        assert picture.figure.axes[0].get_xlabel().endswith(f"of the {name}")
        assert any("digits train" in sentence for sentence in picture.method)


def test_a_density_of_a_matrix_without_an_objective_is_shown_too():
    values = torch.linspace(-1, 3, 40, dtype=torch.float64)
    operator = Operator(40, lambda rows: rows * values, torch.float64, torch.device("cpu"))
    dataset = la.spectral_density(operator, steps=10, progress=False)
    assert pictures(dataset)[0].figure.axes[0].get_xlabel().endswith("of the matrix")
    assert {number.of for number in numbers.spectral_density(dataset)} == {"The network"}


# Subsets, layers, criteria, the Gauss-Newton part


def test_the_mean_over_subsets_leaves_out_what_was_not_drawn(whole):
    dataset = whole["A"].copy(deep=True)
    dataset["trend_eigenvalue"][:] = np.nan
    dataset["trend_eigenvalue"][0, :4] = [1.0, 2.0, 3.0, 6.0]
    dataset["trend_eigenvalue"][1, :1] = 5.0
    mean, stderr = over_subsets(dataset)
    np.testing.assert_allclose(mean[:2], [3.0, 5.0])
    np.testing.assert_allclose(stderr[0], np.sqrt((4 + 1 + 0 + 9) / 3 / 4))  # squared deviations 14, over 3, over 4
    assert np.isnan(stderr[1])


def test_the_trend_has_every_subset_at_its_number_of_examples_and_all_the_data_dashed(whole):
    (axes,) = trend(whole["A"]).axes
    (mean,) = (line for line in axes.lines if line.get_label().startswith("random subsets"))
    (all_data,) = (line for line in axes.lines if line.get_label().startswith("all 200 examples"))
    assert set(all_data.get_ydata()) == {float(whole["A"]["eigenvalue"].sel(end="top")[0])}
    np.testing.assert_array_equal(mean.get_xdata(), [12, 25, 50, 100])
    assert [text.get_text() for text in axes.get_xticklabels()] == ["12", "25", "50", "100"]
    drawn = np.concatenate([line.get_ydata() for line in axes.lines if line.get_alpha() is not None])
    values = whole["A"]["trend_eigenvalue"].to_numpy()
    np.testing.assert_allclose(np.sort(drawn[np.isfinite(drawn)]), np.sort(values[np.isfinite(values)]))


def test_each_layer_has_its_row_with_its_name_and_size(whole):
    dataset = whole["A"]
    bottom, top, trace = layers(dataset).axes
    sizes = zip(dataset["layer"].to_numpy(), dataset["layer_size"].to_numpy(), strict=True)
    assert [label.get_text() for label in bottom.get_yticklabels()] == [f"{name} ({size:,})" for name, size in sizes]
    for axes, expected in (
        (bottom, dataset["layer_eigenvalue"].sel(end="bottom")[:, 0]),
        (top, dataset["layer_eigenvalue"].sel(end="top")[:, 0]),
        (trace, dataset["layer_trace"]),
    ):
        points = np.concatenate([c[0].get_xydata() for c in axes.containers])
        np.testing.assert_allclose(points[:, 0], expected.to_numpy())
        np.testing.assert_allclose(points[:, 1], range(dataset.sizes["layer"]))
        assert axes.yaxis_inverted()  # the first layer on top


def test_smallest_eigenvalues_that_are_rounding_errors_look_like_0(whole):
    dataset = whole["A"].copy(deep=True)
    dataset["layer_eigenvalue"].loc[{"end": "bottom"}] = 1e-7
    bottom, top, _ = layers(dataset).axes
    assert bottom.get_xlim()[0] < -0.01 * top.get_xlim()[1]
    assert bottom.get_xlim()[1] > 0.01 * top.get_xlim()[1]


def test_a_network_of_fifty_layers_fits_a_page(whole):
    dataset = whole["A"].isel(layer=np.arange(50) % 2).assign_coords(layer=[f"blocks.{k}.conv" for k in range(50)])
    assert layers(dataset).get_figheight() < 8


def test_each_criterion_is_drawn_over_the_steps(density):
    dataset = la.gabdullin(density)
    for axes, name in zip(gabdullin(dataset).axes, ("k_h1", "k_h05", "r_e"), strict=True):
        (line,) = axes.lines
        np.testing.assert_allclose(line.get_xdata(), dataset["step"])
        np.testing.assert_allclose(line.get_ydata(), dataset[name])


def test_the_criteria_belong_to_the_network_of_their_density(density):
    attrs = la.gabdullin(density).attrs
    assert (attrs["network"], attrs["data"], attrs["steps"]) == ("A", "digits train, 200 examples", 12)


def test_the_ratio_of_the_curvatures_is_gauss_newton_over_hessian(split):
    (line,) = (line for line in gauss_newton_split(split).axes[1].lines if len(line.get_xdata()) == 3)
    expected = (split["curvature_gauss_newton"] / split["curvature_hessian"]).to_numpy()
    np.testing.assert_allclose(line.get_ydata(), expected, rtol=1e-12)


def test_power_iteration_is_drawn_with_the_spectra_of_its_networks_only(whole):
    objective = measured.trained("A").train
    block = la.spectrum(objective, 1, density_tol=0.2, parameters="*.bias", trend=False, progress=False)
    found = power_baseline(objective, batch=50, steps=3, progress=False)
    catalogue = Catalogue([found, block, *whole.values()])
    ((picture,),) = (group.pictures for group in kind_of(found).figures([found], catalogue))
    dashed = [line for line in picture.figure.axes[0].lines if line.get_linestyle() == "--"]
    assert [line.get_ydata()[0] for line in dashed] == [float(whole["A"]["eigenvalue"].sel(end="top")[0])]
    assert picture.figure.axes[0].lines[0].get_label() == "network A, changing batches of 50"


# Which figures, captions, numbers, tables


def test_a_spectrum_has_a_figure_of_each_thing_that_it_measured(whole):
    assert [picture.name for picture in pictures(whole["A"])] == ["spectrum", "density", "trend", "layers"]
    ends = whole["A"].drop_dims(["lambda", "bin", "probe", "n_examples", "layer"])
    assert [picture.name for picture in pictures(ends)] == ["spectrum"]


def test_the_spectrum_of_some_parameters_has_a_figure_of_its_own_and_says_which(whole):
    objective = measured.trained("A").train
    block = la.spectrum(objective, 2, density_tol=0.2, parameters="*.bias", trend=False, progress=False)
    whole_spectrum = la.spectrum(objective.restricted("*.bias"), 2, density_tol=0.2, trend=False, progress=False)
    np.testing.assert_array_equal(block["eigenvalue"], whole_spectrum["eigenvalue"])
    shown = [picture.caption for picture in pictures(block, whole["A"]) if picture.name == "spectrum"]
    assert ["'*.bias'" in caption for caption in shown] == [False, True]
    assert spectrum(block).axes[0].get_ylabel().endswith("of the block")


def told(found: Iterator[Number]) -> dict[str, str]:
    """Name -> text."""
    return {number.name: number.text for number in found}


def test_the_numbers_of_the_spectrum_have_their_errors_and_costs_the_ends_first(whole):
    a = whole["A"].assign(frobenius_norm=21.4, frobenius_norm_stderr=0.3)
    found = told(numbers.spectrum(a))
    assert list(found)[:4] == ["largest eigenvalue", "smallest eigenvalue", "trace", "effective rank"]
    assert found["largest eigenvalue"] == value(a.sel(end="top"), "eigenvalue", rank=0)
    assert found["Frobenius norm"] == "21.40 ± 0.30"
    assert found["products"] == f"{a.attrs['products']:,}"
    assert re.fullmatch(r"\d+\.\d % \[\d+\.\d, \d+\.\d\]", found["eigenvalues below 0"])
    assert "effective rank" not in told(numbers.spectrum(a.drop_vars(["effective_rank", "effective_rank_stderr"])))


def test_the_eigenvalues_are_in_a_table_by_rank(whole):
    (table,) = (t for t in tables(whole["A"]) if t.caption.startswith("Eigenvalues of the Hessian of network A"))
    at = whole["A"].isel(rank=1)
    assert len(table.rows) == 3
    assert table.rows[1][0] == "2"
    assert float(table.rows[1][1].split(" ±")[0]) == pytest.approx(float(at["eigenvalue"].sel(end="top")), rel=0.1)


def test_the_share_below_0_is_printed_with_its_interval_in_per_cent(density):
    dataset = density.assign(negative_mass=0.141, negative_mass_low=0.12, negative_mass_high=0.1649)
    assert numbers.share_below_0(dataset) == "14.1 % [12.0, 16.5]"


def test_the_share_about_0_is_that_of_the_bin_that_holds_0(density):
    dataset = density.copy(deep=True)
    middle = int(np.flatnonzero((dataset["bin_left"] < 0) & (dataset["bin_right"] > 0))[0])
    dataset["histogram"][middle], dataset["bin_right"][middle] = 0.654, 0.0012
    assert told(numbers.spectral_density(dataset))["eigenvalues about 0"] == "65.4 % within 0.0012"


def test_the_largest_gap_carries_the_residuals_of_its_two_sides(whole):
    dataset = whole["A"].assign(largest_gap=1.0, largest_gap_rank=2).copy(deep=True)
    dataset["residual"][0] = [7.0, 0.01, 0.03]
    assert numbers.largest_gap(dataset) == "1.000 ± 0.040 after rank 2"


def test_the_numbers_of_the_trend_compare_the_smallest_and_the_largest_subsets_with_all_the_data(whole):
    dataset = whole["A"].copy(deep=True)
    dataset["eigenvalue"][0, 0] = 10.0
    dataset["trend_eigenvalue"][0] = [19.0, 21.0, np.nan, np.nan]
    dataset["trend_eigenvalue"][3] = [11.0, 11.0, np.nan, np.nan]
    found = told(numbers.spectrum(dataset))
    assert found["largest eigenvalue, subsets of 12"] == "20.0 ± 1.0 (2 times that of all)"
    assert found["largest eigenvalue, subsets of 100"] == "11 (1.1 times that of all)"


def test_a_trace_that_is_estimated_says_why(whole):
    exact, estimated = whole["A"], whole["A"].assign_attrs(trace_reason="The model has a curved layer.")
    assert not [sentence for sentence in captions.spectrum([exact])["method"] if "estimate" in sentence]
    assert "The trace is an estimate: The model has a curved layer." in captions.spectrum([estimated])["method"]


def test_the_numbers_of_the_criteria_give_their_growth_over_the_second_half_of_the_steps(density):
    dataset = la.gabdullin(density)
    dataset["k_h05"][:] = dataset["step"] ** 0.45
    assert told(numbers.gabdullin(dataset))["K_H0.5, times that after 6"] == "1.37"  # 2 ** 0.45


def test_a_flat_hessian_has_numbers_without_a_ratio(split):
    flat = split.assign(curvature_hessian=("rank", np.zeros(3)))
    assert not [name for name in told(numbers.gauss_newton_split(flat)) if name.startswith("share of G")]


def test_the_numbers_of_the_split_are_traces_norms_and_cosine(split):
    dataset = split.assign(trace_residual=0.02, trace_residual_stderr=0.4, cosine=0.974, cosine_stderr=0.004)
    found = told(numbers.gauss_newton_split(dataset))
    assert found["trace of the rest H − G"] == "0.02 ± 0.40"
    assert found["cosine of H and G"] == "0.9740 ± 0.0040"
    assert "Frobenius norm of its Gauss-Newton part G" in found


def test_captions_say_how_it_was_computed(whole, density):
    a = whole["A"]
    expected: list[tuple[captions.Told, tuple[str, ...]]] = [
        (captions.density([a]), ("Lanczos steps: ", "Probes: 1.", "Seed: 0.", "200 examples", "mass of 1/n")),
        (captions.trend([a]), ("biased upwards", f"for the subsets: {a.attrs['products_trend']}.")),
        (captions.gabdullin([la.gabdullin(density)]), ("equal steps only", "Lanczos steps: 12.", "of the Hessian")),
        (captions.spectrum([a]), (f"eigenpairs: {a.attrs['products_eigenpairs']}.", "over batches", "Trace, exact:")),
    ]
    for said, parts in expected:
        everything = " ".join([said["caption"], said["how"], said["pitfall"], *said["method"]])
        assert [part for part in parts if part not in everything] == []
    assert "known one by one" not in captions.density([density])["caption"]


@pytest.mark.parametrize("name", ["spectrum", "density", "trend", "layers"])
def test_the_alternative_text_states_the_finding_in_numbers(whole, name):
    (picture,) = (picture for picture in pictures(*whole.values()) if picture.name == name)
    a = whole["A"]
    finding = {
        "density": value(a, "effective_rank"),
        "layers": str(a["layer"].to_numpy()[a["layer_eigenvalue"].sel(end="top")[:, 0].to_numpy().argmax()]),
    }.get(name, value(a.sel(end="top"), "eigenvalue", rank=0))
    assert f"{finding} for network A and " in picture.alt


def test_each_kind_explains_the_theory_that_its_datasets_need(whole, density):
    def titles(dataset: xr.Dataset) -> list[str]:
        return [topic.title for topic in kind_of(dataset).theory() if topic.needed(dataset)]

    assert "The largest eigenvalue of a subset" in titles(whole["A"])
    assert "The largest eigenvalue of a subset" not in titles(whole["A"].drop_dims("n_examples"))
    assert titles(density) == ["Density of the spectrum", "The trace, estimated or exact"]
    assert titles(la.gabdullin(density)) == ["Criteria on the sign of the spectrum"]
