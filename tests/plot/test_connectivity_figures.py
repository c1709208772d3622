from __future__ import annotations

import io
from collections.abc import Callable
from itertools import pairwise

import made_datasets as made
import numpy as np
import pytest
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from lossatlas import plot
from lossatlas.plot import interactive
from lossatlas.plot.crossings import off_plane, paths
from lossatlas.plot.ways import reference, way_colours
from lossatlas.results.uncertainty import with_interval


def beyond_numbers(dataset: xr.Dataset) -> xr.Dataset:
    broken = dataset.copy(deep=True)
    broken["loss"][5], broken["loss_stderr"][5] = np.inf, np.nan
    return broken.assign(barrier=np.inf, barrier_low=np.nan, barrier_high=np.inf)


DRAWN: dict[str, Callable[[], Figure]] = {
    "ways on two data sets": lambda: plot.ways(*made.ways()),
    "ways without accuracy": lambda: plot.ways(
        *(made.without(d, "accuracy", "error", "barrier_error", "t_max_error") for d in made.ways("test"))
    ),
    "ways of old profiles": lambda: plot.ways(made.barrier("train"), made.barrier("test")),
    "one way": lambda: plot.ways(made.way()),
    "ways over an infinite loss": lambda: plot.ways(beyond_numbers(made.way()), made.way("Bezier curve")),
    "barrier with intervals": lambda: plot.barrier(made.way("line", "train"), made.way("line", "test")),
    "barriers of three ways": lambda: plot.barrier(*made.ways("test")),
    "barrier of an infinite loss": lambda: plot.barrier(beyond_numbers(made.way())),
    "connection": lambda: plot.connection(made.connection()),
    "connection of one epoch": lambda: plot.connection(made.connection(1, 20)),
    "connection without t": lambda: plot.connection(made.connection().drop_vars("t_drawn")),
    "alignment": lambda: plot.alignment(made.alignment()),
    "alignment of one group": lambda: plot.alignment(made.alignment(1)),
    "alignment of forty groups": lambda: plot.alignment(made.alignment(40)),
    "instability": lambda: plot.instability(made.instability()),
    "instability without errors": lambda: plot.instability(made.instability(1, error=False)),
    "instability without intervals": lambda: plot.instability(
        made.instability().drop_vars(
            [f"{name}_{end}" for name in ("barrier", "barrier_error") for end in ("low", "high")]
        )
    ),
    "instability from scratch only": lambda: plot.instability(made.instability().isel(k=[0])),
    "plane of ways": lambda: plot.surface(made.plane_of_ways()),
    "plane of ways in 3D": lambda: plot.surface_3d(made.plane_of_ways()),
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


@pytest.mark.parametrize("make", [made.way, made.connection, made.alignment, made.instability, made.plane_of_ways])
def test_a_figure_is_chosen_by_the_kind_and_needs_no_other_attribute(make: Callable[[], xr.Dataset]):
    bare = make()
    bare.attrs = {"kind": bare.attrs["kind"]}
    assert isinstance(plot.figure(bare), Figure)


def curves(axes, n: int) -> list:  # type: ignore[type-arg]
    """The lines through so many points."""
    return [line for line in axes.lines if len(line.get_xdata()) == n]


def test_each_way_is_drawn_at_its_own_t_however_it_is_spaced():
    datasets = made.ways("test")
    for axes, name in zip(plot.ways(*datasets).axes, ("loss", "error"), strict=True):
        drawn = [line for line in axes.lines if len(line.get_xdata()) > 1]
        assert len(drawn) == 3
        for line, dataset in zip(drawn, datasets, strict=True):
            np.testing.assert_array_equal(line.get_xdata(), dataset["t"])
            np.testing.assert_allclose(line.get_ydata(), dataset[name])


def test_the_legends_give_each_way_and_its_barrier_with_the_interval_in_one_order():
    loss, error = plot.ways(*made.ways()).axes
    said = [text.get_text() for text in loss.get_legend().get_texts()]
    errors = [text.get_text() for text in error.get_legend().get_texts()]
    assert said[0] == "line, train: 1.520 [1.504, 1.536]"  # 1.96 x 1.2 x 1.71 / sqrt(60,000) = 0.016
    assert [text.split(",")[0] for text in said] == [name for name in made.WAYS for _ in range(2)]
    assert [text.split(" ")[0][:4] for text in errors] == ["0.46", "0.46", "0.02", "0.02", "0.00", "0.00"]
    assert "95 %" in loss.get_legend().get_title().get_text()


def test_the_order_of_the_ways_does_not_change_their_colours_and_lines():
    def looks(datasets: list[xr.Dataset]) -> set[tuple[str, str, str]]:
        loss = plot.ways(*datasets).axes[0]
        named = [line for line in loss.lines if not line.get_label().startswith("_")]
        return {(line.get_label().split(":")[0], to_hex(line.get_color()), line.get_linestyle()) for line in named}

    assert looks(made.ways()) == looks(made.ways()[::-1])
    assert len({colour for _, colour, _ in looks(made.ways())}) == 3
    assert {line for name, _, line in looks(made.ways()) if "train" in name} == {"--"}


def test_every_way_has_a_colour_of_its_own():
    names = ["line", "line after alignment", "Bezier curve", "polygonal chain", "elastic band"]
    assert len(set(way_colours(names).values())) == len(names)
    assert way_colours(names)["line"] == way_colours(["line"])["line"]


def test_a_loss_that_spans_much_is_drawn_on_a_logarithmic_axis():
    assert plot.ways(*made.ways("train")).axes[0].get_yscale() == "log"  # 0.19 to 1.71
    assert plot.ways(made.way("Bezier curve")).axes[0].get_yscale() == "linear"


@pytest.mark.parametrize("definition", made.DEFINITIONS)
def test_the_arrow_stands_on_what_its_definition_measures_from(definition: str):
    dataset = made.way("line after alignment").assign_attrs(definition=definition)
    at = made.DEFINITIONS.index(definition)
    dataset["barrier"] = dataset["height"][at].drop_vars("definition")
    axes = plot.barrier(dataset).axes[0]
    (arrow,) = axes.texts
    foot = {"entezari": 0.272 + 0.009 * 0.55, "frankle": 0.2765, "draxler": 0.281}[definition]
    np.testing.assert_allclose(arrow.xyann, (0.55, foot), rtol=1e-9)  # type: ignore[attr-defined]
    np.testing.assert_allclose(arrow.xy, (0.55, float(dataset["loss"].max())), rtol=1e-6)  # type: ignore[attr-defined]
    t, y = np.array([0.0, 0.3, 1.0]), np.array([1.0, 9.0, 2.0])
    expected = {"entezari": [1.0, 1.3, 2.0], "frankle": [1.5] * 3, "draxler": [2.0] * 3}
    np.testing.assert_allclose(reference(dataset, t, y), expected[definition])


def test_the_intervals_of_the_height_and_of_its_place_go_through_the_tip_of_the_arrow():
    dataset = made.way("line after alignment")
    axes = plot.barrier(dataset).axes[0]
    across, up = curves(axes, 2)
    foot = 0.272 + 0.009 * 0.55
    np.testing.assert_allclose(across.get_xdata(), [0.538, 0.562])
    np.testing.assert_allclose(
        up.get_ydata(),
        foot
        + dataset["height"].sel(definition="entezari").item()
        + np.array([-1, 1]) * (dataset["barrier_high"].item() - dataset["barrier"].item()),
    )
    assert not curves(plot.barrier(made.barrier()).axes[0], 2)  # an old Dataset has none


def test_the_bands_are_95_percent():
    dataset = made.way()
    (filled,) = plot.barrier(dataset).axes[0].collections
    vertices = filled.get_paths()[0].vertices
    middle = float(dataset["loss"].max())
    top = float(vertices[:, 1].max())
    assert top - middle == pytest.approx(1.96 * float(dataset["loss_stderr"].max()), rel=1e-3)


def test_the_means_of_the_epochs_stand_at_their_middles():
    dataset = made.connection()
    (means,) = curves(plot.connection(dataset).axes[0], 8)
    np.testing.assert_allclose(means.get_xdata(), np.arange(8) + 0.5)
    np.testing.assert_allclose(means.get_ydata(), dataset["epoch_loss"])


def test_the_losses_over_t_are_those_of_the_first_and_the_last_epoch():
    dataset = made.connection(4, 30)
    first, last = plot.connection(dataset).axes[1].lines
    np.testing.assert_allclose(first.get_xdata(), dataset["t_drawn"][:30])
    np.testing.assert_allclose(last.get_ydata(), dataset["loss"][-30:])


@pytest.mark.parametrize("groups", [1, 4, 40])
def test_each_group_has_its_row_with_its_name_and_size(groups: int):
    dataset = made.alignment(groups)
    figure = plot.alignment(dataset)
    left, right = figure.axes
    named = [
        f"{name} ({int(size)})" for name, size in zip(dataset["group"].values, dataset["size"].values, strict=True)
    ]
    assert [label.get_text() for label in left.get_yticklabels()] == named
    np.testing.assert_allclose([bar.get_width() for bar in left.patches], 100 * dataset["moved"])
    before, after = (line for line in right.lines if line.get_label().startswith(("before", "after")))
    np.testing.assert_allclose(before.get_xdata(), dataset["cosine_before"])
    np.testing.assert_allclose(after.get_xdata(), dataset["cosine_after"])
    assert left.yaxis_inverted()  # the first group on top
    assert figure.get_figheight() < 8


def test_the_names_of_forty_groups_do_not_overlap():
    figure = plot.alignment(made.alignment(40))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = [label.get_window_extent(canvas.get_renderer()) for label in figure.axes[0].get_yticklabels()]
    assert all(not one.overlaps(other) for one, other in pairwise(boxes))


def test_no_shared_step_has_a_place_and_the_threshold_is_on_the_error_only():
    loss, error = plot.instability(made.instability()).axes
    for axes in (loss, error):
        assert axes.get_xscale() == "symlog"
        assert axes.get_xlim()[0] < 0
        assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "20", "100", "500", "1,000"]
    limits = [line for line in error.lines if "stable" in line.get_label()]
    assert [set(line.get_ydata()) for line in limits] == [{0.02}]
    assert not [line for line in loss.lines if "stable" in line.get_label()]


def test_ticks_of_neighbouring_steps_do_not_run_together():
    dataset = made.instability().assign_coords(k=[0, 20, 21, 22, 1000])
    ticks = [label.get_text() for label in plot.instability(dataset).axes[0].get_xticklabels()]
    assert ticks == ["0", "20", "1,000"]


def test_the_steps_are_drawn_in_order_with_the_mean_over_the_pairs():
    shuffled = made.instability().isel(k=[3, 0, 4, 1, 2])
    axes = plot.instability(shuffled).axes[0]
    (mean,) = (line for line in axes.lines if line.get_label() == "mean of 2 pairs")
    np.testing.assert_array_equal(mean.get_xdata(), [0, 20, 100, 500, 1000])
    np.testing.assert_allclose(mean.get_ydata(), made.instability()["barrier"].mean("pair"))


def padded(dataset: xr.Dataset) -> xr.Dataset:
    """The straight line has 11 points only, the others 51."""
    for name in ("way_alpha", "way_beta", "way_off_plane"):
        dataset[name][0, 11:] = np.nan
    return dataset


def test_the_ways_and_the_marks_lie_on_the_plane_where_the_dataset_says():
    dataset = padded(made.plane_of_ways())
    axes = plot.surface(dataset).axes[0]
    for k, name in enumerate(dataset["way"].values):
        n = 11 if k == 0 else 51
        expected = np.stack([dataset["way_alpha"][k, :n], dataset["way_beta"][k, :n]], axis=1)
        drawn = [line.get_xydata() for line in curves(axes, n)]
        assert any(np.allclose(expected, points) for points in drawn), name
    marks = sorted(tuple(line.get_xydata()[0]) for line in curves(axes, 1))
    assert marks == sorted(
        zip(dataset["mark_alpha"].values.tolist(), dataset["mark_beta"].values.tolist(), strict=True)
    )


def test_a_way_off_the_plane_is_dashed_and_the_legend_says_how_far_it_is():
    dataset = made.plane_of_ways()
    figure = plot.surface(dataset)
    (legend,) = figure.legends
    said = [text.get_text() for text in legend.get_texts()]
    assert "line after alignment, up to 12 off the plane" in said  # 12.5, to two digits
    assert {"line", "Bezier curve", "first network", "second network", "bend"} <= set(said)
    lines = {text: handle.is_dashed() for text, handle in zip(said, legend.legend_handles, strict=True) if text.strip()}  # type: ignore[union-attr]
    assert lines["line after alignment, up to 12 off the plane"]
    assert not lines["line"]


def test_rounding_is_no_distance_from_the_plane():
    dataset = made.plane_of_ways()
    dataset["way_off_plane"][0] = 1e-5
    assert off_plane(dataset, paths(dataset)[0]) == ""


def test_a_plane_of_ways_has_no_cross_of_a_trained_point():
    markers = {line.get_marker() for line in plot.surface(made.plane_of_ways()).axes[0].lines}
    assert "+" not in markers
    assert "+" in {line.get_marker() for line in plot.surface(made.plane()).axes[0].lines}


def test_the_turning_surface_carries_the_ways_at_its_own_height():
    dataset = made.plane_of_ways()
    alpha, beta = np.meshgrid(dataset["alpha"], dataset["beta"], indexing="ij")
    dataset["loss"] = (("alpha", "beta"), 10 ** (0.1 * alpha - 0.2 * beta))  # log10 of it is linear
    traces = {trace.name: trace for trace in interactive.surface_3d(dataset).data}
    for name in dataset["way"].values:
        trace = next(trace for key, trace in traces.items() if key.split(",")[0] == name)
        np.testing.assert_allclose(trace.z, 0.1 * trace.x - 0.2 * trace.y, atol=1e-5)
    assert traces["bend"].z[0] == pytest.approx(0.1 * 15 - 0.2 * 22, abs=1e-5)
    assert not [trace for trace in interactive.surface_3d(made.plane()).data if trace.type == "scatter3d"]


@pytest.mark.parametrize(
    ("value", "bounds", "printed"),
    [
        (1.52, (1.4778, 1.5622), "1.520 [1.478, 1.562]"),
        (0.012, (-0.0049, 0.0191), "0.012 [−0.005, 0.019]"),
        (12.3, (4.0, 29.0), "12 [4, 29]"),
        (3e-8, (1e-8, 5e-8), "3.000×10⁻⁸ [1.000×10⁻⁸, 5.000×10⁻⁸]"),
        (0.0, (0.0, 0.0), "0 [0, 0]"),
        (np.inf, (1.0, np.inf), "∞"),
        (0.25, (np.nan, np.nan), "0.25"),
    ],
)
def test_a_value_is_printed_to_the_place_of_its_interval(value: float, bounds: tuple[float, float], printed: str):
    assert with_interval(value, bounds) == printed
