"""The figures of connectivity: what is drawn where, on Datasets that the verbs made and on edge cases of them."""

from __future__ import annotations

import io
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from measured import connectivity as measured

from lossatlas import plot
from lossatlas.connectivity.show.paths import paths, reference
from lossatlas.drawing import overlays
from lossatlas.drawing.style import path_colours
from lossatlas.surfaces.show.interactive import surface_3d as interactive_3d
from lossatlas.surfaces.show.surfaces import surface_3d


def of(name: str) -> xr.Dataset:
    return measured.results()[name].copy(deep=True)


def infinite(dataset: xr.Dataset) -> xr.Dataset:
    """A barrier whose loss is infinite at one point, as ``barrier`` reports it."""
    dataset["loss"][5], dataset["loss_stderr"][5] = np.inf, np.nan
    return dataset.assign(barrier=np.inf, barrier_low=np.nan, barrier_high=np.inf)


def without_error(dataset: xr.Dataset) -> xr.Dataset:
    return dataset.drop_vars([name for name in dataset if "error" in str(name) or "accuracy" in str(name)])


def of_many_groups(n: int) -> xr.Dataset:
    alignment = of("alignment")
    return alignment.isel(group=np.arange(n) % 2).assign_coords(group=[f"layer{k}.conv" for k in range(n)])


DRAWN: dict[str, Callable[[], Figure]] = {
    "paths without accuracy": lambda: paths(*map(without_error, measured.barriers("test"))),
    "paths over an infinite loss": lambda: paths(infinite(measured.barrier()), measured.barrier("Bezier curve")),
    "barrier without accuracy": lambda: plot.figure(without_error(measured.barrier())),
    "barrier of an infinite loss": lambda: plot.figure(infinite(measured.barrier())),
    "connection of one epoch": lambda: plot.figure(of("connection").isel(epoch=[0], step=slice(0, 6))),
    "alignment of one group": lambda: plot.figure(of("alignment").isel(group=[0])),
    "alignment of forty groups": lambda: plot.figure(of_many_groups(40)),
    "instability without errors": lambda: plot.figure(without_error(measured.instability())),
    "instability from scratch only": lambda: plot.figure(measured.instability().isel(k=[0])),
    "plane in space": lambda: surface_3d(of("connectivity_plane")),
    "repair": lambda: plot.figure(measured.repair()),
}


@pytest.mark.parametrize("name", DRAWN)
def test_every_panel_has_its_labels_and_the_figure_draws_without_a_warning(name: str):
    figure = DRAWN[name]()
    for axes in (axes for axes in figure.axes if not hasattr(axes, "_colorbar")):
        assert axes.get_xlabel()
        assert axes.get_ylabel() or not axes.yaxis.get_tick_params().get("labelleft", True)
    buffer = io.BytesIO()
    plot.save(figure, buffer, "pdf")
    assert buffer.getvalue().startswith(b"%PDF")


def curves(axes, n: int) -> list:  # type: ignore[type-arg]
    """The lines through so many points."""
    return [line for line in axes.lines if len(line.get_xdata()) == n]


def test_each_path_is_drawn_at_its_own_t_however_it_is_spaced():
    datasets = measured.barriers("test")
    for axes, name in zip(paths(*datasets).axes, ("loss", "error"), strict=True):
        drawn = [line for line in axes.lines if len(line.get_xdata()) > 1]
        for line, dataset in zip(drawn, datasets, strict=True):
            np.testing.assert_array_equal(line.get_xdata(), dataset["t"])
            np.testing.assert_allclose(line.get_ydata(), dataset[name])


def test_the_legends_give_each_path_and_its_barrier_with_the_interval_in_one_order():
    line = measured.barrier("line", "train").assign(barrier=1.52, barrier_low=1.504, barrier_high=1.536)
    datasets = [line, *measured.barriers("train", "test")[1:]]
    loss, error = paths(*datasets[::-1]).axes
    entries = [text.get_text() for text in loss.get_legend().get_texts()]
    errors = [text.get_text().split(" ")[0] for text in error.get_legend().get_texts()]
    assert "line, train: 1.520 [1.504, 1.536]" in entries
    assert [text.split(",")[0] for text in entries] == [name for name in measured.PATHS for _ in range(2)]
    drawn = [next(d for d in datasets if (d.attrs["path"], d.attrs["split"]) == _named(text)) for text in entries]
    np.testing.assert_allclose([float(each) for each in errors], [d["barrier_error"] for d in drawn], atol=6e-3)
    assert "95 %" in loss.get_legend().get_title().get_text()


def _named(text: str) -> tuple[str, str]:
    path, split = text.split(":")[0].split(", ")
    return path, split


def test_the_order_of_the_paths_does_not_change_their_colours_and_lines():
    def looks(datasets: list[xr.Dataset]) -> set[tuple[str, str, str]]:
        named = [line for line in paths(*datasets).axes[0].lines if not line.get_label().startswith("_")]
        return {(line.get_label().split(":")[0], to_hex(line.get_color()), line.get_linestyle()) for line in named}

    found = looks(measured.barriers())
    assert found == looks(measured.barriers()[::-1])
    assert len({colour for _, colour, _ in found}) == 3
    assert {line for name, _, line in found if "train" in name} == {"--"}


def test_every_path_has_a_colour_of_its_own():
    names = ["line", "line after alignment", "Bezier curve", "polygonal chain", "elastic band"]
    assert len(set(path_colours(names).values())) == len(names)
    assert path_colours(names)["line"] == path_colours(["line"])["line"]


def test_a_loss_that_spans_much_is_drawn_on_a_logarithmic_axis():
    assert paths(*measured.barriers("train")).axes[0].get_yscale() == "log"
    flat = measured.barrier("line after alignment")
    assert paths(flat.assign(loss=1 + 0.1 * flat["loss"])).axes[0].get_yscale() == "linear"


@pytest.mark.parametrize("definition", ["entezari", "frankle", "draxler"])
def test_the_arrow_stands_on_what_its_definition_measures_from(definition: str):
    dataset = measured.barrier().assign_attrs(definition=definition)
    dataset["barrier"] = dataset["height"].sel(definition=definition, drop=True)
    (arrow,) = plot.figure(dataset).axes[0].texts
    t, first, last = float(dataset["t_max"]), *dataset["loss"].values[[0, -1]]
    feet = {"entezari": (1 - t) * first + t * last, "frankle": (first + last) / 2, "draxler": max(first, last)}
    np.testing.assert_allclose(arrow.xyann, (t, feet[definition]))  # type: ignore[attr-defined]
    np.testing.assert_allclose(arrow.xy, (t, float(dataset["loss"].max())))  # type: ignore[attr-defined]
    t, y = np.array([0.0, 0.3, 1.0]), np.array([1.0, 9.0, 2.0])
    expected = {"entezari": [1.0, 1.3, 2.0], "frankle": [1.5] * 3, "draxler": [2.0] * 3}
    np.testing.assert_allclose(reference(dataset, t, y), expected[definition])


def test_the_intervals_of_the_height_and_of_its_place_go_through_the_tip_of_the_arrow():
    dataset = measured.barrier()
    across, up = curves(plot.figure(dataset).axes[0], 2)
    foot = float(dataset["loss"].max() - dataset["barrier"])
    np.testing.assert_allclose(across.get_xdata(), [dataset["t_max_low"], dataset["t_max_high"]])
    np.testing.assert_allclose(up.get_ydata(), [foot + dataset["barrier_low"], foot + dataset["barrier_high"]])
    unknown = dataset.assign({f"{name}_{end}": np.nan for name in ("barrier", "t_max") for end in ("low", "high")})
    assert not curves(plot.figure(unknown).axes[0], 2)


def test_the_bands_are_95_percent():
    dataset = measured.barrier()
    (filled,) = plot.figure(dataset).axes[0].collections
    top = float(filled.get_paths()[0].vertices[:, 1].max())
    assert top == pytest.approx(float((dataset["loss"] + 1.96 * dataset["loss_stderr"]).max()), rel=1e-3)


def test_the_means_of_the_epochs_stand_at_their_middles_and_the_losses_over_t_are_of_the_first_and_the_last():
    dataset = of("connection")
    epochs, each = dataset.sizes["epoch"], dataset.sizes["step"] // dataset.sizes["epoch"]
    left, right = plot.figure(dataset).axes
    (means,) = curves(left, epochs)
    np.testing.assert_allclose(means.get_xdata(), np.arange(epochs) + 0.5)
    np.testing.assert_allclose(means.get_ydata(), dataset["epoch_loss"])
    first, last = right.lines
    np.testing.assert_allclose(first.get_xdata(), dataset["t_drawn"][:each])
    np.testing.assert_allclose(last.get_ydata(), dataset["loss"][-each:])


@pytest.mark.parametrize("groups", [1, 4, 40])
def test_each_group_has_its_row_with_its_name_and_size(groups: int):
    dataset = of_many_groups(groups)
    figure = plot.figure(dataset)
    left, right = figure.axes
    sizes = zip(dataset["group"].values, dataset["size"].values, strict=True)
    assert [label.get_text() for label in left.get_yticklabels()] == [f"{name} ({int(n)})" for name, n in sizes]
    np.testing.assert_allclose([bar.get_width() for bar in left.patches], 100 * dataset["moved"])
    before, after = (line for line in right.lines if line.get_label().startswith(("before", "after")))
    np.testing.assert_allclose(before.get_xdata(), dataset["cosine_before"])
    np.testing.assert_allclose(after.get_xdata(), dataset["cosine_after"])
    assert left.yaxis_inverted()  # the first group on top
    assert figure.get_figheight() < 8


def test_the_names_of_forty_groups_do_not_overlap():
    figure = plot.figure(of_many_groups(40))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = [label.get_window_extent(canvas.get_renderer()) for label in figure.axes[0].get_yticklabels()]
    assert all(not one.overlaps(other) for one, other in pairwise(boxes))


def test_repair_shows_each_layer_before_and_after_next_to_what_it_aims_at():
    dataset = measured.repair()
    (axes,) = plot.figure(dataset).axes
    before, after, target = axes.lines
    np.testing.assert_allclose(before.get_xdata(), dataset["sd_ratio_before"])
    np.testing.assert_allclose(after.get_xdata(), dataset["sd_ratio_after"])
    assert set(target.get_xdata()) == {1}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["fc1 (16)", "fc2 (12)"]


def test_no_shared_step_has_a_place_and_the_threshold_is_on_the_error_only():
    loss, error = plot.figure(measured.instability()).axes
    for axes in (loss, error):
        assert axes.get_xscale() == "symlog"
        assert axes.get_xlim()[0] < 0
        assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "6", "18"]
    limits = [line for line in error.lines if "stable" in line.get_label()]
    assert [set(line.get_ydata()) for line in limits] == [{0.02}]
    assert not [line for line in loss.lines if "stable" in line.get_label()]


def test_ticks_of_neighbouring_steps_do_not_run_together():
    dataset = measured.instability().isel(k=[0, 1, 1, 1, 2]).assign_coords(k=[0, 20, 21, 22, 1000])
    ticks = [label.get_text() for label in plot.figure(dataset).axes[0].get_xticklabels()]
    assert ticks == ["0", "20", "1,000"]


def test_the_steps_are_drawn_in_order_with_the_mean_over_the_pairs():
    dataset = measured.instability()
    axes = plot.figure(dataset.isel(k=[1, 2, 0])).axes[0]
    (mean,) = (line for line in axes.lines if line.get_label() == "mean of 2 pairs")
    np.testing.assert_array_equal(mean.get_xdata(), [0, 6, 18])
    np.testing.assert_allclose(mean.get_ydata(), dataset["barrier"].mean("pair"))


def far_from_plane() -> xr.Dataset:
    """The straight line with 11 points only, the curve far from the plane."""
    dataset = of("connectivity_plane")
    for name in ("path_alpha", "path_beta", "path_off_plane"):
        dataset[name][0, 11:] = np.nan
    dataset["path_off_plane"][1, 30] = 12.5
    return dataset


def test_the_paths_and_the_marks_lie_on_the_plane_where_the_dataset_says():
    dataset = far_from_plane()
    axes = plot.figure(dataset).axes[0]
    for k, n in enumerate((11, dataset.sizes["t_path"])):
        expected = np.stack([dataset["path_alpha"][k, :n], dataset["path_beta"][k, :n]], axis=1)
        assert any(np.allclose(expected, line.get_xydata()) for line in curves(axes, n))
    marks = sorted(tuple(line.get_xydata()[0]) for line in curves(axes, 1))
    places = zip(dataset["mark_alpha"].values.tolist(), dataset["mark_beta"].values.tolist(), strict=True)
    assert marks == sorted(places)
    assert "+" not in {line.get_marker() for line in axes.lines}  # the cross of a trained point


def test_a_path_off_the_plane_is_dashed_and_the_legend_says_how_far_it_is():
    figure = plot.figure(far_from_plane())
    (legend,) = figure.legends
    entries = [text.get_text() for text in legend.get_texts()]
    assert entries == ["line", "Bezier curve, up to 12 off the plane"]
    assert {text.get_text() for text in figure.axes[0].texts} >= {"first", "second", "bend"}
    dashed = {text: line.is_dashed() for text, line in zip(entries, legend.legend_handles, strict=True) if text.strip()}  # type: ignore[union-attr]
    assert dashed["Bezier curve, up to 12 off the plane"]
    assert not dashed["line"]  # rounding is no distance
    measured_only = of("connectivity_plane")
    assert float(measured_only["path_off_plane"].max()) > 0
    assert {overlays.off_plane(measured_only, path) for path in overlays.paths(measured_only)} == {""}


def test_the_interactive_surface_carries_the_paths_at_its_own_height():
    dataset = of("connectivity_plane")
    alpha, beta = np.meshgrid(dataset["alpha"], dataset["beta"], indexing="ij")
    dataset["loss"] = (("alpha", "beta"), 10 ** (0.1 * alpha - 0.2 * beta))  # log10 of it is linear
    traces = {trace.name: trace for trace in interactive_3d(dataset).data}
    for name in dataset["path"].values:
        trace = traces[name]
        np.testing.assert_allclose(trace.z, 0.1 * trace.x - 0.2 * trace.y, atol=1e-5)
    bend = {name: float(dataset[f"mark_{name}"].sel(mark="bend")) for name in ("alpha", "beta")}
    assert traces["bend"].z[0] == pytest.approx(0.1 * bend["alpha"] - 0.2 * bend["beta"], abs=1e-5)
