from __future__ import annotations

import made_datasets as made
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex

from lossatlas import plot
from lossatlas.plot.style import VERMILLION
from lossatlas.plot.trends import over_subsets

STUDENT_3 = 3.182446305284263  # the 0.975 quantile of Student's t with 3 degrees of freedom: four probes


def line_of(axes: Axes, colour: str) -> np.ndarray:
    (found,) = (line for line in axes.lines if to_hex(line.get_color()) == colour.lower() and len(line.get_xdata()) > 2)
    return np.asarray(found.get_xydata())


def test_each_known_eigenvalue_is_one_marker_of_height_1_over_n():
    dataset = made.whole_spectrum()
    marks = line_of(plot.spectral_density(dataset).axes[1], VERMILLION)
    np.testing.assert_allclose(marks[:, 0], np.sort(dataset["eigenvalue"].to_numpy().ravel()), rtol=1e-12)
    np.testing.assert_allclose(marks[:, 1], 1 / dataset.attrs["n_parameters"], rtol=1e-12)


def test_an_eigenvalue_that_both_ends_have_is_marked_once():
    dataset = made.whole_spectrum()
    dataset["eigenvalue"][1, -1] = dataset["eigenvalue"][0, -1]
    assert len(line_of(plot.spectral_density(dataset).axes[0], VERMILLION)) == 19


def test_the_bars_are_the_shares_of_their_bins():
    dataset = made.whole_spectrum()
    bars = plot.spectral_density(dataset).axes[1].patches
    drawn = np.array([(bar.get_x(), bar.get_x() + bar.get_width(), bar.get_height()) for bar in bars])  # type: ignore[attr-defined]
    expected = np.stack([dataset[name].to_numpy() for name in ("bin_left", "bin_right", "histogram")], axis=1)
    np.testing.assert_allclose(drawn, expected, rtol=1e-9, atol=1e-12)


def test_the_band_of_the_density_is_the_95_percent_interval_of_students_t():
    dataset = made.density()
    (band,) = (c for c in plot.spectral_density(dataset).axes[0].collections if isinstance(c, PolyCollection))
    corners = band.get_paths()[0].vertices
    density, stderr = dataset["density"].to_numpy(), dataset["density_stderr"].to_numpy()
    top = int(density.argmax())
    at_top = corners[np.isclose(corners[:, 0], dataset["lambda"].to_numpy()[top], atol=1e-12), 1]
    expected = density[top] + STUDENT_3 * stderr[top] * np.array([-1, 1])
    np.testing.assert_allclose([at_top.min(), at_top.max()], expected, rtol=1e-9)


def test_densities_of_several_networks_share_their_scales():
    axes = plot.spectral_density(made.whole_spectrum("A"), made.whole_spectrum("B")).axes
    for first, second in ((axes[0], axes[2]), (axes[1], axes[3])):
        assert first.get_xlim() == second.get_xlim()
        assert first.get_ylim() == second.get_ylim()


def test_one_eigenvalue_is_within_the_axes_of_both_panels():
    dataset = made.whole_spectrum()
    one = 1 / dataset.attrs["n_parameters"]
    left, right = plot.spectral_density(dataset).axes
    assert left.get_ylim()[0] < one / (dataset.attrs["smoothing"] * np.sqrt(2 * np.pi)) < left.get_ylim()[1]
    assert right.get_ylim()[0] < one < right.get_ylim()[1]


def test_the_mean_over_subsets_leaves_out_what_was_not_drawn():
    dataset = made.whole_spectrum()
    dataset["trend_eigenvalue"][:] = np.nan
    dataset["trend_eigenvalue"][0, :4] = [1.0, 2.0, 3.0, 6.0]
    dataset["trend_eigenvalue"][1, :1] = 5.0
    mean, stderr = over_subsets(dataset)
    np.testing.assert_allclose(mean[:2], [3.0, 5.0])
    np.testing.assert_allclose(stderr[0], np.sqrt((4 + 1 + 0 + 9) / 3 / 4))  # squared deviations 14, over 3, over 4
    assert np.isnan(stderr[1])


def test_the_trend_stands_above_the_dashed_value_of_all_the_data_at_its_true_numbers_of_examples():
    dataset = made.whole_spectrum()
    (axes,) = plot.trend(dataset).axes
    (mean,) = (line for line in axes.lines if line.get_label().startswith("random subsets"))
    (whole,) = (line for line in axes.lines if line.get_label().startswith("all 10,000"))
    value = float(dataset["eigenvalue"].sel(end="top")[0])
    assert set(whole.get_ydata()) == {value}
    assert axes.get_xscale() == "log"
    np.testing.assert_array_equal(mean.get_xdata(), made.SUBSETS)
    assert min(mean.get_ydata()) > value
    assert [text.get_text() for text in axes.get_xticklabels()] == ["64", "256", "1,024", "4,096"]


def test_every_subset_is_a_point():
    dataset = made.whole_spectrum()
    (axes,) = plot.trend(dataset).axes
    drawn = np.concatenate([line.get_ydata() for line in axes.lines if line.get_alpha() is not None])
    drawn = np.sort(drawn[np.isfinite(drawn)])
    values = dataset["trend_eigenvalue"].to_numpy()
    np.testing.assert_allclose(drawn, np.sort(values[np.isfinite(values)]))


def test_each_layer_has_its_row_with_its_name_and_size():
    dataset = made.whole_spectrum(layers=True)
    bottom, top, trace = plot.layers(dataset).axes
    assert [label.get_text() for label in bottom.get_yticklabels()] == [
        f"{name} ({size:,})" for name, size in made.LAYERS.items()
    ]
    for axes, expected in (
        (bottom, dataset["layer_eigenvalue"].sel(end="bottom")[:, 0]),
        (top, dataset["layer_eigenvalue"].sel(end="top")[:, 0]),
        (trace, dataset["layer_trace"]),
    ):
        points = np.concatenate([c[0].get_xydata() for c in axes.containers])
        np.testing.assert_allclose(points[:, 0], expected.to_numpy())
        np.testing.assert_allclose(points[:, 1], range(len(made.LAYERS)))
        assert axes.yaxis_inverted()  # the first layer on top


def test_smallest_eigenvalues_that_are_rounding_errors_look_like_0():
    dataset = made.whole_spectrum(layers=True)
    dataset["layer_eigenvalue"].loc[{"end": "bottom"}] = 1e-7
    bottom, top, _ = plot.layers(dataset).axes
    assert bottom.get_xlim()[0] < -0.01 * top.get_xlim()[1]
    assert bottom.get_xlim()[1] > 0.01 * top.get_xlim()[1]


def test_a_network_of_fifty_layers_fits_a_page():
    dataset = made.whole_spectrum(layers=True).isel(layer=np.arange(50) % 5)
    dataset = dataset.assign_coords(layer=[f"blocks.{k}.conv" for k in range(50)])
    assert plot.layers(dataset).get_figheight() < 8


@pytest.mark.parametrize(("panel", "name"), [(0, "k_h1"), (1, "k_h05"), (2, "r_e")])
def test_each_criterion_is_drawn_over_the_steps(panel: int, name: str):
    dataset = made.gabdullin()
    (line,) = plot.gabdullin(dataset).axes[panel].lines
    np.testing.assert_allclose(line.get_xdata(), dataset["step"])
    np.testing.assert_allclose(line.get_ydata(), dataset[name])


def test_the_ratio_of_the_curvatures_is_gauss_newton_over_hessian():
    (line,) = (
        line for line in plot.gauss_newton_split(made.gauss_newton_split()).axes[1].lines if len(line.get_xdata()) == 10
    )
    np.testing.assert_allclose(line.get_ydata(), np.linspace(0.99, 0.9, 10), rtol=1e-12)
