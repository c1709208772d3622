"""What results on curvature answer: the sentences of real measurements whose numbers are set to each case."""

from __future__ import annotations

import math

import measured
import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

import lossatlas as la
from lossatlas.results.blocks import Answer
from lossatlas.results.catalogue import Catalogue
from lossatlas.results.discovery import kind_of
from lossatlas.results.uncertainty import with_interval
from lossatlas.results.values import value

CURVATURE = ("spectrum", "spectral_density", "gauss_newton_split", "batch_eigenvalues", "gabdullin", "power_iteration")


def answers(*datasets: xr.Dataset, among: tuple[xr.Dataset, ...] = ()) -> list[Answer]:
    """Of the kind of these Datasets."""
    return list(kind_of(datasets[0]).answers(datasets, Catalogue([*datasets, *among])))


def spectrum(label: str, top: float | None = None, bottom: float | None = None) -> xr.Dataset:
    """A measured spectrum, with another outermost eigenvalue at an end if one is given."""
    changed = measured.results()[f"spectrum {label}"].copy(deep=True)
    for end, number in (("top", top), ("bottom", bottom)):
        if number is not None:
            changed["eigenvalue"].loc[{"end": end, "rank": 1}] = number
            changed["eigenvalue_stderr"].loc[{"end": end, "rank": 1}] = 0.1
    return changed


@pytest.mark.parametrize("name", [name for name, d in measured.results().items() if d.attrs["kind"] in CURVATURE])
def test_an_answer_fits_an_abstract_and_speaks_of_one_network_where_there_is_one(name):
    for answer in answers(measured.results()[name]):
        assert len(answer.short.split()) <= 25
        assert answer.short != answer.sentence
        assert len(answer.finding.split()) <= 8
        assert "network B" not in f"{answer.sentence} {answer.short}" or name.endswith("B")
        assert "–" not in answer.sentence


@pytest.mark.parametrize(
    ("b", "words", "short"),
    [
        (9.0, "so B is the sharper one", "B is sharper than A"),
        (5.1, "cannot be told apart", "cannot be told apart"),
        (1.0, "so A is the sharper one", "A is sharper than B"),
    ],
)
def test_two_networks_are_compared_as_the_claim_decides(b, words, short):
    first, second = spectrum("A", 5.0), spectrum("B", b)
    (answer,) = answers(first, second)
    assert answer.claim is not None
    assert answer.claim.value == pytest.approx(abs(b - 5))
    assert words in answer.sentence
    assert short in answer.short
    assert with_interval(answer.claim.value, answer.claim.interval) in answer.sentence
    for dataset in (first, second):
        assert value(dataset.sel(end="top"), "eigenvalue", rank=0) in answer.sentence
        assert value(dataset, "effective_rank") in answer.sentence


def test_without_a_data_error_two_networks_are_not_told_apart():
    unknown = spectrum("A", 9.0)
    unknown["eigenvalue_stderr"][:] = math.nan
    (answer,) = answers(unknown, spectrum("B", 5.0))
    assert "cannot be told apart" in answer.sentence


@pytest.mark.parametrize(
    ("bottom", "words"),
    [(-0.5, "no local minimum"), (0.5, "all curvature found is positive"), (1e-9, "is undecided")],
)
def test_the_sign_of_the_smallest_eigenvalue_says_whether_the_point_is_a_minimum(bottom, words):
    (answer,) = answers(spectrum("A", bottom=bottom))
    assert words in answer.sentence
    assert answer.claim is not None
    assert {"no local minimum": "contradicted", "is undecided": "undecided"}.get(
        words, "supported"
    ) == answer.claim.verdict


def test_of_two_networks_of_which_one_has_negative_curvature_that_one_is_named():
    (answer,) = answers(spectrum("A", bottom=-0.5), spectrum("B", bottom=0.5))
    assert "surely negative for A only" in answer.sentence


def test_several_networks_have_a_range_and_the_pairs_that_differ():
    some = [spectrum("A", top).assign_attrs(network=label) for label, top in zip("PQR", (1.0, 1.05, 9.0), strict=True)]
    (answer,) = answers(*some)
    assert "of 3 networks" in answer.sentence
    assert "2 of 3 pairs differ beyond their errors" in answer.sentence
    assert len(answer.short.split()) <= 25
    assert answer.claim is not None
    assert answer.claim.value == pytest.approx(8.0)


def test_networks_without_labels_are_told_apart_by_the_names_of_their_datasets():
    some = [spectrum(label).assign_attrs(name=f"run_{k}") for k, label in enumerate("AB")]
    for dataset in some:
        del dataset.attrs["network"]
    (answer,) = answers(*some)
    assert "run 0" in answer.sentence
    assert "run 1" in answer.sentence
    (alone,) = answers(some[0])
    assert "of the network is" in alone.sentence


def test_curvature_is_called_concentrated_where_the_effective_rank_is_below_a_hundredth():
    few = spectrum("A").assign(effective_rank=1.2, effective_rank_stderr=0.1)
    assert "Curvature is concentrated, with an effective rank of 1.20 ± 0.10 of 460" in answers(few)[0].sentence
    assert "concentrated" not in answers(spectrum("A"))[0].sentence


def test_a_spectrum_of_some_parameters_answers_only_where_there_is_no_whole_one():
    block = spectrum("A").assign_attrs(parameters="*.bias")
    assert "restricted to the parameters '*.bias'" in answers(block)[0].sentence
    assert [answer for answer in answers(block, spectrum("B")) if "restricted" in answer.sentence] == []


@pytest.mark.parametrize("name", ["spectral density", "criteria", "power iteration"])
def test_lower_kinds_answer_where_no_spectrum_of_the_network_does(name):
    dataset = measured.results()[name]
    assert len(answers(dataset)) == 1
    assert answers(dataset, among=(spectrum("A"),)) == []
    assert len(answers(dataset, among=(spectrum("B"),))) == 1


@pytest.mark.parametrize(
    ("rest", "words"), [(1.0, "is mostly its"), (8.0, "is not mostly its"), (4.99, "may or may not be mostly its")]
)
def test_the_gauss_newton_part_is_said_to_dominate_as_the_claim_decides(rest, words):
    numbers = {"frobenius_residual": rest, "frobenius_residual_stderr": 0.1}
    split = measured.results()["split"].assign(frobenius_hessian=10.0, frobenius_hessian_stderr=0.1, **numbers)
    (answer,) = answers(split)
    assert words in answer.sentence
    assert words in answer.short


def test_the_panel_marks_each_known_eigenvalue_of_both_networks():
    both = [spectrum("A"), spectrum("B")]
    (panel,) = kind_of(both[0]).panels(both, Catalogue(both))
    axes = Figure().subplots()
    panel.draw(axes)
    marked = [line.get_xdata() for line in axes.lines if line.get_linestyle() == "None" or line.get_marker() != "None"]
    for found, dataset in zip(marked, both, strict=True):
        np.testing.assert_allclose(found, np.unique(dataset["eigenvalue"]))
    bare = [dataset.drop_dims("lambda") for dataset in both]
    assert list(kind_of(bare[0]).panels(bare, Catalogue([]))) == []


def test_the_limit_of_a_batch_answer_is_jensens_inequality():
    (answer,) = answers(measured.results()["batches"])
    assert answer.claim is not None
    assert ("does not decide" in answer.sentence) == (answer.claim.verdict is la.Verdict.UNDECIDED)
    assert "in expectation" in answer.limit


@pytest.mark.parametrize("name", [name for name, d in measured.results().items() if d.attrs["kind"] in CURVATURE])
def test_where_numbers_are_not_known_nothing_is_answered(name):
    unknown = measured.results()[name].copy(deep=True)
    for variable in unknown.data_vars:
        unknown[variable] = unknown[variable] * math.nan if unknown[variable].dtype.kind == "f" else unknown[variable]
    assert answers(unknown) == []
