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
    return groups(*datasets)[0].pictures[0].caption


def tables(*datasets: xr.Dataset) -> tuple[Table, ...]:
    return groups(*datasets)[0].tables


def numbers(dataset: xr.Dataset) -> list[str]:
    return list(kind_of(dataset).numbers(dataset))


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


def test_the_tables_give_every_height_with_its_interval_the_line_first():
    heights, definitions = tables(*measured.barriers()[::-1])
    assert [row[0] for row in heights.rows] == [name for name in measured.PATHS for _ in range(2)]
    assert "with their 95 % bootstrap interval" in heights.caption
    dataset = measured.barrier("Bezier curve").assign(barrier=1.52, barrier_low=1.478, barrier_high=1.562)
    heights, definitions = tables(dataset)
    assert heights.rows[0][2] == "1.520 [1.478, 1.562]"
    found = [float(cell.split(" ")[0]) for cell in definitions.rows[1][1:4]]
    np.testing.assert_allclose(
        found, dataset["height_error"].sel(definition=["entezari", "frankle", "draxler"]), atol=6e-3
    )
    assert float(definitions.rows[0][4]) == pytest.approx(float(dataset["length_ratio"]), rel=1e-2)


def test_a_barrier_without_a_bootstrap_is_printed_with_its_standard_error():
    dataset = unbounded(measured.barrier()).assign(barrier=1.52, barrier_stderr=0.022, t_max=0.47)
    assert "the barrier of the loss is 1.520 ± 0.022 at t = 0.47;" in numbers(dataset)[0]
    heights, definitions = tables(dataset)
    assert "± one standard error" in heights.caption
    assert "[" not in "".join(cell for row in definitions.rows for cell in row)
    assert "bootstrap" not in caption(dataset)


def test_the_numbers_of_a_barrier_name_its_path_height_and_place_and_judge_nothing():
    curve = measured.barrier("Bezier curve").assign(barrier=0.012, barrier_low=0.006, barrier_high=0.019)
    (sentence,) = numbers(curve.assign(length_ratio=1.24))
    assert sentence.startswith("On digits test, Bezier curve: the barrier of the loss is 0.012 [0.006, 0.019] at t")
    assert "its length is 1.24 times that of the straight line" in sentence
    assert not any(word in sentence.lower() for word in ("verdict", "connected", "below"))
    (sentence,) = numbers(measured.barrier())
    assert "times that of the straight line" not in sentence


def test_why_a_maximum_was_not_refined_is_said():
    unrefined = measured.barrier().assign_attrs(refined=0, refinement_note="40 further points do not suffice")
    assert numbers(unrefined)[1] == "Refinement about the maximum: 40 further points do not suffice."


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
    sentences = numbers(
        dataset.assign_attrs(seconds=2.0, seconds_assignment=0.5, start="activations", pinned="fc: unknown")
    )
    text = " ".join(sentences)
    assert "The permutation moves 57.1 % of the 28 units, in 2 groups that move together." in text  # 16 of 28
    assert "from 0.061 to 0.402" in text
    assert "3.1×10⁻⁷ at most" in text
    assert "kept: activations." in text
    assert "the assignment solver had 25.0 %" in text
    assert sentences[-1] == "Not permuted: fc: unknown."
    assert "Not permuted" not in " ".join(numbers(of("alignment")))


def test_the_groups_of_a_small_network_are_a_table_and_those_of_a_deep_one_a_figure_only():
    alignment = of("alignment")
    assert [row[:2] for row in tables(alignment)[0].rows] == [("fc1", "16"), ("fc2", "12")]
    assert tables(alignment.isel(group=[0] * 40)) == ()


def test_the_numbers_of_a_connection_give_the_mean_of_the_first_and_the_last_epoch():
    dataset = of("connection").isel(step=slice(0, 8), epoch=[0, 1])
    dataset["loss"][:] = [1.0, 2.0, 3.0, 6.0, 1.0, 1.0, 1.0, 2.0]
    dataset["epoch_loss"][:] = [3.0, 1.25]
    (sentence,) = numbers(dataset)
    assert "is 3.0 ± 1.1 over the first epoch and 1.25 ± 0.25 over the last of 2." in sentence  # sqrt(14/3)/2, 0.5/2


def test_the_numbers_of_instability_read_off_the_first_and_the_last_k_and_judge_nothing():
    dataset = measured.instability()
    sentences = numbers(dataset.isel(k=[2, 0, 1]))
    assert sentences == numbers(dataset)
    mean = float(dataset["barrier_error"][0].mean())
    assert sentences[0].startswith(
        f"Runs that share their first 0 of 18 steps: barrier of the error {mean:.4g} (2 pairs, "
    )
    assert sentences[1].startswith("Runs that share their first 18 of 18 steps: barrier of the error 0 (2 pairs, ")
    assert len(sentences) == 2
    of_loss = dataset.drop_vars([name for name in dataset if "error" in str(name)])
    assert all("barrier of the loss" in sentence for sentence in numbers(of_loss))


def test_the_table_of_instability_holds_the_mean_and_the_widest_interval_over_the_pairs():
    dataset = measured.instability().copy(deep=True)
    dataset["barrier_error"][0] = [0.402, 0.462]
    dataset["barrier_error_low"][0], dataset["barrier_error_high"][0] = [0.36, 0.41], [0.44, 0.51]
    rows = tables(dataset)[0].rows
    assert [row[0] for row in rows] == ["0", "6", "18"]
    assert rows[0][2] == "0.43 [0.36, 0.51]"


def test_the_plane_of_the_paths_is_two_pictures_and_its_numbers_are_no_center():
    (group,) = groups(of("connectivity_plane"))
    assert [picture.name for picture in group.pictures] == ["paths-plane", "paths-plane-3d"]
    assert group.pictures[1].interactive is not None
    far = of("connectivity_plane")
    far["path_off_plane"][:] = [[0.0] * 61, [12.5] * 61]
    sentences = numbers(far)
    assert "Greatest distance of the paths from the plane: line 0; Bezier curve 12." in sentences
    assert not any("alpha = " in sentence for sentence in sentences)


def test_repair_says_what_it_changed_and_what_it_left():
    dataset = measured.repair().assign(sd_ratio_before=("layer", [0.61, 0.83]), sd_ratio_after=("layer", [1.0, np.nan]))
    sentences = numbers(dataset.assign_attrs(skipped="fc3 keeps its units in order"))
    assert "2 layers with 28 units in the mean of the networks with weights 0.25, 0.75" in sentences[0]
    assert "is 0.61 to 0.83 before REPAIR and 1 after it." in sentences[0]
    assert sentences[1] == "Not corrected: fc3 keeps its units in order."
    assert tables(dataset)[0].rows == (("fc1", "16", "0.61", "1"), ("fc2", "12", "0.83", "–"))


@pytest.mark.parametrize(
    ("made", "parts"),
    [
        (measured.barrier, ("straight line between the end losses", "± 1.96 standard errors", "paired bootstrap")),
        (lambda: measured.barrier("Bezier curve"), ("Loss and error on the path between",)),
        (lambda: of("connection"), ("Bends: 1.", "0.03, decreasing", "Batch size: 50.", "Curve: Bezier.")),
        (lambda: of("alignment"), ("Ainsworth et al. 2023", "problems solved: ", "Sweeps")),
        (lambda: of("connectivity_plane"), ("orthogonal: distances", "through three points", "dashed")),
        (measured.instability, ("mean of the ends (Frankle", "Line: the mean over the pairs", "Draws: 200.")),
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
