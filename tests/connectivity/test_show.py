"""How connectivity is shown: which barriers belong into one figure, captions, tables, numbers, the theory."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from measured import connectivity as measured

from lossatlas.connectivity.show import ALIGNMENT, BARRIER, CONNECTION, CONNECTIVITY_PLANE, INSTABILITY, REPAIR
from lossatlas.results.blocks import FigureGroup, Table
from lossatlas.results.catalogue import Catalogue
from lossatlas.results.discovery import kind_of


def of(name: str) -> xr.Dataset:
    return measured.results()[name].copy(deep=True)


def groups(*datasets: xr.Dataset) -> list[FigureGroup]:
    catalogue = Catalogue(datasets)
    return list(kind_of(datasets[0]).figures(list(catalogue), catalogue))


def names(*datasets: xr.Dataset) -> list[str]:
    return [picture.name for group in groups(*datasets) for picture in group.pictures]


def caption(*datasets: xr.Dataset) -> str:
    """Everything that is said of the first picture."""
    picture = groups(*datasets)[0].pictures[0]
    return " ".join((picture.caption, picture.how, picture.pitfall, *picture.method))


def tables(*datasets: xr.Dataset) -> tuple[Table, ...]:
    return groups(*datasets)[0].tables


def numbers(dataset: xr.Dataset) -> dict[str, str]:
    """Name -> text, of one subject."""
    found = list(kind_of(dataset).numbers(dataset))
    assert len({number.of for number in found}) == 1
    assert len({number.name for number in found}) == len(found)
    return {number.name: number.text for number in found}


def unbounded(dataset: xr.Dataset) -> xr.Dataset:
    """Without a bootstrap."""
    bounds = [name for name in dataset if str(name).endswith(("_low", "_high"))]
    return dataset.assign({name: dataset[name] * np.nan for name in bounds}).assign_attrs(bootstrap="none")


def test_profiles_between_the_same_networks_are_one_figure_of_paths():
    assert names(*measured.barriers()) == ["paths"]
    assert names(*measured.barriers("train")) == ["paths"]
    assert names(measured.barrier("line", "train"), measured.barrier("line", "test")) == ["barrier"]


def test_two_pairs_of_networks_or_two_definitions_are_two_figures():
    line, curve = measured.barrier(), measured.barrier("Bezier curve")
    assert names(line, curve, *(dataset.assign(loss=2 * dataset["loss"]) for dataset in (line, curve))) == ["paths"] * 2
    for key in ("model_fingerprint", "network", "definition"):
        others = [dataset.assign_attrs({key: "frankle"}) for dataset in (line, curve)]
        assert names(line, curve, *others) == ["paths"] * 2
    assert names(line, line.copy()) == ["barrier"] * 2  # the same measurement twice is not drawn over itself


def test_a_pair_with_labels_is_named():
    labelled = measured.barrier().assign_attrs(network="A and B")
    assert "between networks A and B." in caption(labelled)
    assert "between the two networks." in caption(measured.barrier())
    assert "between the two networks." in caption(measured.barrier().assign_attrs(network="A"))  # the objective's only
    assert next(iter(kind_of(labelled).numbers(labelled))).of == "A–B line, test"


def test_the_numbers_and_the_table_give_every_height_with_its_interval():
    dataset = measured.barrier("Bezier curve").assign(barrier=1.52, barrier_low=1.478, barrier_high=1.562)
    assert numbers(dataset.assign(length_ratio=1.24)) | {"at t": ""} == numbers(dataset) | {
        "barrier of the loss": "1.520 [1.478, 1.562]", "at t": "", "length / line's": "1.24",
    }  # fmt: skip
    (definitions,) = tables(dataset)
    found = [float(cell.split(" ")[0]) for cell in definitions.rows[1][1:4]]
    np.testing.assert_allclose(
        found, dataset["height_error"].sel(definition=["entezari", "frankle", "draxler"]), atol=6e-3
    )


def test_a_barrier_without_a_bootstrap_is_printed_with_its_standard_error():
    dataset = unbounded(measured.barrier()).assign(barrier=1.52, barrier_stderr=0.022, t_max=0.47)
    assert numbers(dataset)["barrier of the loss"] == "1.520 ± 0.022"
    assert numbers(dataset)["at t"] == "0.47"
    assert "Highest loss: Line, test" in caption(dataset)
    (definitions,) = tables(dataset)
    assert "[" not in "".join(cell for row in definitions.rows for cell in row)
    assert "bootstrap" not in caption(dataset)


def test_why_a_maximum_was_not_refined_is_said():
    unrefined = measured.barrier().assign_attrs(refined=0, refinement_note="40 further points do not suffice")
    assert "No refinement about the maximum (Line, test): 40 further points do not suffice." in caption(unrefined)
    assert "No refinement" not in caption(measured.barrier())


def test_the_resolution_of_several_maxima_is_that_of_the_one_known_least():
    one = measured.barrier().assign_attrs(height_resolution=0.004, t_resolution=0.005)
    other = measured.barrier("Bezier curve").assign_attrs(height_resolution=0.001, t_resolution=0.03)
    assert "Height of the maximum known to 0.004, its place to 0.005, estimated from the points about it." in caption(
        one
    )
    assert "known to 0.004 or better, their places to 0.03," in caption(one, other)
    assert "known to" not in caption(one.assign_attrs(height_resolution=np.inf))


def test_the_share_of_units_moved_counts_units_and_not_groups():
    dataset = of("alignment").assign(moved=("group", [1.0, 0.0]), deviation=3.1e-7)
    dataset = dataset.assign(similarity_before=0.061, similarity_after=0.402)
    dataset = dataset.assign_attrs(seconds=2.0, seconds_assignment=0.5, start="activations", pinned="fc: unknown")
    found = numbers(dataset)
    assert found["hidden units that change place"] == "57.1 % of 28"  # 16 of 28
    assert found["cosine of the weights"] == "0.061 before alignment, 0.402 after"
    assert found["largest change of an output"] == "3.1×10⁻⁷, relative"
    assert found["not permuted"] == "fc: unknown"
    assert "kept: activations." in caption(dataset)
    assert "the assignment solver had 25.0 %" in caption(dataset)
    assert "not permuted" not in numbers(of("alignment"))


def test_the_groups_of_a_small_network_are_a_table_and_those_of_a_deep_one_a_figure_only():
    alignment = of("alignment")
    assert [row[:2] for row in tables(alignment)[0].rows] == [("fc1", "16"), ("fc2", "12")]
    assert tables(alignment.isel(group=[0] * 40)) == ()


def test_the_numbers_of_a_connection_give_the_mean_of_the_first_and_the_last_epoch():
    dataset = of("connection").isel(step=slice(0, 8), epoch=[0, 1])
    dataset["loss"][:] = [1.0, 2.0, 3.0, 6.0, 1.0, 1.0, 1.0, 2.0]
    dataset["epoch_loss"][:] = [3.0, 1.25]
    assert list(numbers(dataset).values()) == ["3.0 ± 1.1", "1.25 ± 0.25", "2"]  # sqrt(14/3)/2, 0.5/2


def test_the_numbers_of_instability_read_off_the_first_and_the_last_k():
    dataset = measured.instability()
    found = numbers(dataset.isel(k=[2, 0, 1]))
    assert found == numbers(dataset)
    mean = float(dataset["barrier_error"][0].mean())
    assert float(found["barrier of the error after 0 shared steps"].split(" ")[0]) == pytest.approx(mean, abs=5e-3)
    assert found["barrier of the error after 18 shared steps"] == "0 [0, 0]"
    assert found["pairs of runs"] == "2"
    of_loss = dataset.drop_vars([name for name in dataset if "error" in str(name)])
    assert next(iter(numbers(of_loss))) == "barrier of the loss after 0 shared steps"


def test_the_table_of_instability_holds_the_mean_and_the_widest_interval_over_the_pairs():
    dataset = measured.instability().copy(deep=True)
    dataset["barrier_error"][0] = [0.402, 0.462]
    dataset["barrier_error_low"][0], dataset["barrier_error_high"][0] = [0.36, 0.41], [0.44, 0.51]
    rows = tables(dataset)[0].rows
    assert [row[0] for row in rows] == ["0", "6", "18"]
    assert rows[0][2] == "0.43 [0.36, 0.51]"


def test_the_planes_of_the_paths_are_one_picture_and_a_view_and_their_numbers_are_no_center():
    planes = [of("connectivity_plane_aligned"), of("connectivity_plane")]
    (group,) = groups(*planes)
    assert [picture.name for picture in group.pictures] == ["paths-plane", "paths-plane-3d", "paths-plane-3d"]
    assert group.pictures[0].lead
    assert "through the curve's bend and through the second network aligned" in group.pictures[0].caption
    far = of("connectivity_plane")
    far["path_off_plane"][:] = [[0.0] * 61, [12.5] * 61]
    assert numbers(far)["Bezier curve, greatest distance from the plane"] == "12"
    assert "line, greatest distance from the plane" not in numbers(far)
    assert float(numbers(far)["highest loss on the grid"]) == pytest.approx(float(far["loss"].max()), rel=1e-3)


def test_repair_says_what_it_changed_and_what_it_left():
    dataset = measured.repair().assign(sd_ratio_before=("layer", [0.61, 0.83]), sd_ratio_after=("layer", [1.0, np.nan]))
    dataset = dataset.assign_attrs(skipped="fc3 keeps its units in order")
    assert list(numbers(dataset).values()) == ["0.61 to 0.83", "1", "2, with 28 units", "fc3 keeps its units in order"]
    assert next(iter(kind_of(dataset).numbers(dataset))).of == "Mean with weights 0.25, 0.75"
    assert tables(dataset)[0].rows == (("fc1", "16", "0.61", "1"), ("fc2", "12", "0.83", "–"))


@pytest.mark.parametrize(
    ("made", "parts"),
    [
        (
            measured.barrier,
            ("straight line between the end losses", "± 1.96 standard errors", "paired bootstrap", "more about"),
        ),
        (lambda: measured.barrier("Bezier curve"), ("Loss and error on the path between",)),
        (lambda: of("connection"), ("Bends: 1.", "0.03, decreasing", "Batch size: 50.", "Curve: Bezier.")),
        (lambda: of("alignment"), ("Ainsworth et al. 2023", "problems solved: ", "Sweeps", "local optima")),
        (lambda: of("connectivity_plane"), ("orthogonal: distances", "through three points", "dashed")),
        (measured.instability, ("mean of the ends (Frankle", "line: their mean", "Draws of the bootstrap: 200.")),
        (measured.repair, ("Jordan et al. 2023", "Weights of the networks: 0.25, 0.75.")),
    ],
)
def test_captions_say_how_it_was_computed(made, parts: tuple[str, ...]):
    text = caption(made())
    for part in parts:
        assert part in text


def test_a_plane_with_other_axes_says_nothing_of_distances():
    assert "orthogonal" not in caption(of("connectivity_plane").assign_attrs(direction_norms=[2.0, 1.0]))


@pytest.mark.parametrize(
    ("kind", "made", "titles"),
    [
        (BARRIER, measured.barrier, {"Linear mode connectivity and barriers"}),
        (
            BARRIER,
            lambda: measured.barrier("Bezier curve"),
            {"Linear mode connectivity and barriers", "Curves between two networks"},
        ),
        (CONNECTION, lambda: of("connection"), {"Curves between two networks"}),
        (
            ALIGNMENT,
            lambda: of("alignment"),
            {"Permutation symmetry and alignment", "Variance collapse and REPAIR"},
        ),
        (INSTABILITY, measured.instability, {"Linear mode connectivity and barriers", "Instability analysis"}),
        (CONNECTIVITY_PLANE, lambda: of("connectivity_plane"), set()),
        (REPAIR, measured.repair, {"Variance collapse and REPAIR"}),
    ],
)
def test_theory_is_printed_where_it_is_needed(kind, made, titles: set[str]):
    dataset = made()
    assert kind_of(dataset) is kind
    assert {topic.title for topic in kind.theory() if topic.needed(dataset)} == titles
