"""What a report says of alignments, curves, barriers and instability."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from html import unescape
from pathlib import Path

import made_datasets as made
import numpy as np
import pytest
import xarray as xr

from lossatlas.report import connectivity_captions as captions
from lossatlas.report import observations, report
from lossatlas.report.blocks import Results
from lossatlas.report.document import Bullets, Picture, Table
from lossatlas.report.references import BIBLIOGRAPHY
from lossatlas.report.results import sections
from lossatlas.report.sections import document


@pytest.fixture
def without_latex(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)


def blocks(*datasets: xr.Dataset) -> list[object]:
    return [block for section in sections(Results(datasets, [])) for block in section.blocks]


def pictures(*datasets: xr.Dataset) -> dict[str, Picture]:
    return {block.name: block for block in blocks(*datasets) if isinstance(block, Picture)}


def table(begins: str, *datasets: xr.Dataset) -> list[tuple[str, ...]]:
    return list(next(b for b in blocks(*datasets) if isinstance(b, Table) and b.caption.startswith(begins)).rows)


def theory_of(*datasets: xr.Dataset) -> set[str]:
    contents = document(datasets, [], "", {})
    return {part.title for section in contents.sections if section.anchor == "theory" for part in section.subsections}


def test_profiles_between_the_same_networks_are_one_figure_of_ways():
    assert list(pictures(*made.ways())) == ["ways"]
    assert list(pictures(made.way("line", "train"), made.way("line", "test"))) == ["barrier"]


def test_the_barriers_of_an_older_version_are_reported_as_before():
    old = (made.barrier("train"), made.barrier("test"))
    assert list(pictures(*old)) == ["barrier"]
    assert table("Barriers ± one standard error.", *old) == [
        ("line", "fashion-mnist train", "1.5000 ± 0.0083", "0.5", "0.4500 ± 0.0020"),
        ("line", "fashion-mnist test", "1.500 ± 0.021", "0.5", "0.4500 ± 0.0050"),
    ]
    assert not [block for block in blocks(*old) if isinstance(block, Table) and "each definition" in block.caption]
    assert len(list(observations.barrier(old[0]))) == 1


def test_two_pairs_of_networks_are_two_figures():
    other = [dataset.assign(loss=dataset["loss"] * 2) for dataset in made.ways("test")]
    assert list(pictures(*made.ways("test"), *other)) == ["ways", "ways-2"]
    fingerprinted = [dataset.assign_attrs(model_fingerprint="another") for dataset in made.ways("test")]
    assert list(pictures(*made.ways("test"), *fingerprinted)) == ["ways", "ways-2"]


def test_the_tables_give_every_height_with_its_interval_the_line_first():
    rows = table("Barriers with their 95 % bootstrap interval", *made.ways()[::-1])
    assert [row[0] for row in rows] == [name for name in made.WAYS for _ in range(2)]
    assert rows[0][2] == "1.520 [1.478, 1.562]"
    heights = table("The same barriers by each definition", made.way("line after alignment"))
    # 0.281 at the worse end is 0.0045 above the mean of the ends and 0.00405 above the line at t = 0.55
    entezari, frankle, draxler = (float(cell.split(" ")[0]) for cell in heights[0][1:4])
    assert entezari == pytest.approx(0.071, abs=1e-3)
    assert frankle - draxler == pytest.approx(0.0045, abs=1e-3)
    assert frankle - entezari == pytest.approx(0.272 + 0.009 * 0.55 - 0.2765, abs=1e-3)
    assert heights[0][4] == "1"
    assert table("The same barriers", made.way("Bezier curve"))[0][4] == "1.24"


def test_a_barrier_without_a_bootstrap_is_printed_with_its_standard_error():
    dataset = made.way().copy()
    for name in ("barrier_low", "barrier_high", "height_low", "height_high", "t_max_low", "t_max_high"):
        dataset[name] = dataset[name] * np.nan
    said = next(observations.barrier(dataset))
    assert "the barrier of the loss is 1.520 ± 0.022 at t = 0.47;" in said
    assert table("The same barriers", dataset)[0][1] == "1.52"


def test_the_observation_of_a_barrier_names_its_way_height_place_and_verdict():
    said = list(observations.barrier(made.way("Bezier curve")))
    assert said[0].startswith(
        "On fashion-mnist test, Bezier curve: the barrier of the loss is 0.012 [0.006, 0.019] at t"
    )
    assert "its length is 1.24 times that of the straight line" in said[0]
    assert said[1].startswith("Verdict: connected by a curve (error barrier of Frankle et al. 0.0030")
    unrefined = made.way().assign_attrs(refined="no: 12 further points do not suffice")
    assert "Refinement about its maximum: no: 12 further points do not suffice." in list(
        observations.barrier(unrefined)
    )
    assert "times that of the straight line" not in " ".join(observations.barrier(made.way()))


def test_the_share_of_units_moved_counts_units_and_not_groups():
    dataset = made.alignment().assign(moved=("group", [1.0, 0.0, 0.0, 0.0]))
    said = " ".join(observations.alignment(dataset))
    assert "The permutation moves 11.1 % of the 288 units, in 4 groups that move together." in said  # 32 of 288
    assert "from 0.061 to 0.402" in said
    assert "3.1×10⁻⁷ at most" in said
    assert "kept: activations." in said
    assert "the assignment solver had 42.9 %" in said
    assert "Not permuted" not in said


def test_what_was_not_permuted_is_said():
    pinned = made.alignment().assign_attrs(pinned="fc2 output: read by an unknown operation")
    assert "Not permuted: fc2 output: read by an unknown operation." in list(observations.alignment(pinned))


def test_the_groups_of_a_small_network_are_a_table_and_those_of_a_deep_one_a_figure_only():
    assert table("The alignment by groups", made.alignment())[0][:3] == ("conv1", "32", "88.9 %")
    assert not [block for block in blocks(made.alignment(40)) if isinstance(block, Table)]


def test_the_observation_of_a_connection_gives_the_mean_of_the_first_and_the_last_epoch():
    dataset = made.connection(2, 4)
    dataset["loss"][:] = [1.0, 2.0, 3.0, 6.0, 1.0, 1.0, 1.0, 2.0]
    dataset["epoch_loss"][:] = [3.0, 1.25]
    (said,) = observations.connection(dataset)
    assert "is 3.0 ± 1.1 over the first epoch and 1.25 ± 0.25 over the last of 2." in said  # sqrt(14/3)/2, 0.5/2


def test_the_observation_of_instability_says_from_where_on_all_pairs_are_stable():
    dataset = made.instability()
    said = list(observations.instability(dataset))
    assert said[0].startswith("Runs that share their first 0 of 2,345 steps: barrier of the error 0.432 (2 pairs, ")
    # 1.1 (0.002 + 0.4 x 1.15 x exp(-500/130)) + 0.004 = 0.017 is below 2 %, at 100 steps it is 0.24
    assert said[-1] == "From k = 500 on all pairs lie below 2.0 % of error with their whole interval."
    assert "no k measured" in list(observations.instability(dataset.isel(k=[0, 1])))[-1]
    rising = dataset.isel(k=[3, 0]).assign_coords(k=[0, 20])  # stable first, not afterwards
    assert "no k measured" in list(observations.instability(rising))[-1]


def test_instability_of_the_loss_alone_judges_no_stability():
    said = list(observations.instability(made.instability(1, error=False)))
    assert all("barrier of the loss" in sentence for sentence in said)


def test_the_table_of_instability_holds_the_mean_and_the_widest_interval_over_the_pairs():
    rows = table("Barriers between runs", made.instability())
    assert [row[0] for row in rows] == ["0", "20", "100", "500", "1,000"]
    # error: pairs 0.402 and 0.462; low 0.9 x 0.402 - 0.002, high 1.1 x 0.462 + 0.004
    assert rows[0][2] == "0.43 [0.36, 0.51]"
    assert rows[0][3] == "0.112"


def test_the_plane_of_the_ways_is_a_part_of_its_own_with_its_turning_view():
    found = pictures(made.plane_of_ways(), made.plane())
    assert {"planes", "ways-plane", "ways-plane-3d"} <= set(found)
    assert found["ways-plane-3d"].interactive is not None
    said = [item for block in blocks(made.plane_of_ways()) if isinstance(block, Bullets) for item in block.items]
    assert "Greatest distance of the ways from the plane: line 0; Bezier curve 0; line after alignment 12." in said
    assert not any("alpha = " in sentence for sentence in said if sentence.startswith("Network"))


@pytest.mark.parametrize(
    ("caption", "said"),
    [
        (captions.barrier([made.barrier()]), ("straight line between the end losses", "95 %, ± 1.96 standard errors")),
        (captions.barrier([made.way()]), ("paired bootstrap", "Draws: 1,000.", "known to 0.004, its place to 0.005")),
        (captions.ways(made.ways()), ("Colour: the way", "paired bootstrap", "10,000 examples")),
        (
            captions.connection(made.connection()),
            ("Bends: 1.", "0.03, decreasing", "Batch size: 128.", "Curve: Bezier."),
        ),
        (captions.alignment(made.alignment()), ("Ainsworth et al. 2023", "problems solved: 28.", "Sweeps")),
        (captions.plane(made.plane_of_ways()), ("orthogonal: distances", "through three points", "dashed")),
        (captions.instability(made.instability()), ("mean of the ends (Frankle", "Line: the mean over the pairs")),
    ],
)
def test_captions_say_how_it_was_computed(caption: str, said: tuple[str, ...]):
    for part in said:
        assert part in caption


def test_a_caption_says_nothing_of_a_bootstrap_that_was_not_made():
    assert "bootstrap" not in captions.barrier([made.barrier()])
    assert "Height of the maximum" not in captions.barrier([made.barrier()])
    assert "orthogonal" not in captions.plane(made.plane_of_ways().assign_attrs(direction_norms=[2.0, 1.0]))


@pytest.mark.parametrize(
    ("datasets", "extra"),
    [
        ([made.way()], {"Linear mode connectivity and barriers"}),
        ([made.way("Bezier curve")], {"Linear mode connectivity and barriers", "Curves between two networks"}),
        ([made.connection()], {"Curves between two networks"}),
        ([made.alignment()], {"Permutation symmetry and alignment"}),
        ([made.instability()], {"Linear mode connectivity and barriers", "Instability analysis"}),
        ([made.plane_of_ways()], set()),
    ],
)
def test_theory_is_printed_where_it_is_needed(datasets: list[xr.Dataset], extra: set[str]):
    assert theory_of(*datasets) == {"Objective, gradient and Hessian", *extra}


def test_a_report_of_everything_has_all_sections_figures_and_references(tmp_path: Path, without_latex: None):
    written = report(made.connectivity(), tmp_path)
    page = unescape(written.html.read_text(encoding="utf-8"))
    for title in (
        "Alignment of the two networks",
        "A curve between the two networks",
        "The way between two networks",
        "The plane of the ways",
        "Instability to the order of the data",
    ):
        assert f">{title}</h3>" in page
    for key in ("garipov2018", "draxler2018", "frankle2020", "entezari2022", "ainsworth2023", "jordan2023"):
        assert BIBLIOGRAPHY[key].title in page
    drawn = {file.stem for file in (tmp_path / "figures").glob("*.pdf")}
    assert drawn == {"alignment", "connection", "ways", "ways-plane", "ways-plane-3d", "instability"}
    assert not re.search(r"\bnan\b", page[page.index("<main>") :].split("<script")[0])


KINDS: dict[str, Callable[[], xr.Dataset]] = {
    "barrier": made.way,
    "old barrier": made.barrier,
    "connection": made.connection,
    "alignment": made.alignment,
    "instability": made.instability,
    "surface": made.plane_of_ways,
}


@pytest.mark.parametrize("name", KINDS)
def test_a_dataset_with_no_attribute_but_its_kind_is_reported_and_observed(
    name: str, tmp_path: Path, without_latex: None
):
    bare = KINDS[name]()
    bare.attrs = {"kind": bare.attrs["kind"]}
    assert report([bare], tmp_path).html.stat().st_size > 5000
    assert list(getattr(observations, bare.attrs["kind"])(bare))
