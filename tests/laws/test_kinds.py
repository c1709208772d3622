"""What must be true of every kind of result, on Datasets that its own verb made."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
from io import BytesIO
from pathlib import Path

import measured
import pytest
import xarray as xr

import lossatlas as la
from lossatlas.report import contents
from lossatlas.report.html import render as as_html
from lossatlas.report.latex import escape
from lossatlas.report.latex import render as as_latex
from lossatlas.results.catalogue import Catalogue
from lossatlas.results.discovery import kind_of, kinds, verbs
from lossatlas.results.provenance import COMMON, identity

SOURCE = Path(la.__file__).parent
NAMES = sorted(measured.results())
KINDS = sorted(kinds())


def result(name: str) -> xr.Dataset:
    return measured.results()[name]


def alone(dataset: xr.Dataset) -> Catalogue:
    return Catalogue([dataset])


def picture(dataset: xr.Dataset) -> bytes:
    target = BytesIO()
    la.plot.save(la.plot.figure(dataset), target, "png")
    return target.getvalue()


def test_every_kind_is_measured():
    assert {dataset.attrs["kind"] for dataset in measured.results().values()} == set(KINDS)


@pytest.mark.parametrize("name", NAMES)
def test_a_result_meets_its_schema_and_holds_nothing_that_it_does_not_declare(name):
    dataset, schema = result(name), kind_of(result(name)).schema
    assert schema.problems(dataset) == []
    assert [str(v) for v in dataset.variables if not schema.declares(str(v))] == []
    assert sorted(set(dataset.attrs) - {*schema.attrs, *schema.optional_attrs, *COMMON}) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_result_without_a_required_part_is_refused_by_name(name):
    dataset, schema = result(name), kind_of(result(name)).schema
    variable = next(iter(schema.variables))
    with pytest.raises(la.LossAtlasError, match=variable):
        la.plot.figure(dataset.drop_vars(variable))


@pytest.mark.parametrize("name", NAMES)
def test_a_result_has_a_main_figure_and_a_part_in_both_renderings(name):
    dataset = result(name)
    document = contents.document(alone(dataset), alone(dataset).claims(), "One result", {})
    page, source = as_html(document), as_latex(document)
    assert document.pictures
    assert document.pictures[0].figure.axes
    assert document.chapters
    parts = [part.title for chapter in document.chapters if chapter.details for part in chapter.details.blocks]
    for title in (*(chapter.question for chapter in document.chapters), *parts):
        assert title in page
        assert escape(title) in source
    for each in document.pictures:
        assert f"figure-{each.name}" in page
        assert f"figures/{each.name}.pdf" in source


@pytest.mark.parametrize("name", NAMES)
def test_numbers_and_claims_are_the_same_after_a_round_trip_through_a_file(name, tmp_path):
    dataset = result(name)
    la.save(dataset, tmp_path / "one.nc")
    loaded = la.load(tmp_path / "one.nc")
    xr.testing.assert_equal(loaded, dataset)
    assert loaded.attrs["id"] == dataset.attrs["id"]
    assert identity(loaded) == identity(dataset)
    assert list(kind_of(loaded).numbers(loaded)) == list(kind_of(dataset).numbers(dataset))
    assert alone(loaded).claims() == alone(dataset).claims()


@pytest.mark.parametrize("name", KINDS)
def test_the_figure_is_the_same_after_a_round_trip_through_a_file(name, tmp_path):
    dataset = next(d for d in measured.results().values() if d.attrs["kind"] == name)
    la.save(dataset, tmp_path / "one.nc")
    assert picture(la.load(tmp_path / "one.nc")) == picture(dataset)


def test_each_claim_of_all_results_names_datasets_that_are_there_and_is_made_once():
    every = Catalogue(measured.results().values())
    ids = {dataset.attrs["id"] for dataset in every}
    found = every.claims()
    assert len(set(found)) == len(found)
    assert all(claim.datasets and set(claim.datasets) <= ids for claim in found)


@pytest.mark.parametrize("name", KINDS)
def test_an_answer_is_decided_by_a_claim_that_the_report_prints(name):
    every = Catalogue(measured.results().values())
    answers = list(kinds()[name].answers(every.of(kinds()[name]), every))
    claims = every.claims()
    assert all(answer.claim in claims for answer in answers if answer.claim)
    assert all(len(answer.short.split()) <= 25 for answer in answers if not answer.opening)
    assert all(answer.short != answer.sentence and answer.limit for answer in answers)


def test_two_networks_are_compared_and_a_plane_finds_its_trajectory():
    found = [claim.hypothesis for claim in Catalogue(measured.results().values()).claims()]
    for part in ("differ in sharpness", "the sharper one", "sharper network generalises worse"):
        assert any(part in hypothesis for hypothesis in found), part
    every = Catalogue(measured.results().values())
    trajectory = kinds()["trajectory"]
    (plane,) = trajectory.shows_instead(every.of(trajectory), every)
    assert plane.attrs["id"] == result("trajectory_plane").attrs["id"]


@pytest.mark.parametrize("name", KINDS)
def test_where_numbers_are_not_known_no_claim_is_decided(name):
    dataset = next(d for d in measured.results().values() if d.attrs["kind"] == name)
    unknown = dataset.copy(deep=True)
    for variable in unknown.data_vars:
        if unknown[variable].dtype.kind == "f":
            unknown[variable] = unknown[variable] * float("nan")
    assert {claim.verdict for claim in alone(unknown).claims()} <= {la.Verdict.UNDECIDED}


@pytest.mark.parametrize("verb", sorted(verbs()))
def test_the_defaults_of_the_options_are_those_of_the_verb(verb):
    kind = verbs()[verb]
    module, _, function = kind.verb.address.partition(":")
    parameters = inspect.signature(getattr(importlib.import_module(module), function)).parameters
    for name, field in kind.options.model_fields.items():
        assert name in parameters, name
        default = parameters[name].default
        if field.is_required():
            assert default is inspect.Parameter.empty, name
        else:
            assert default == field.default, name
        assert field.description, f"{name} has no help"
    for given in kind.inputs:
        assert given.name in parameters, given.name
    assert "progress" in parameters
    assert kind.help


@pytest.mark.parametrize("name", KINDS)
def test_every_address_of_a_kind_leads_to_a_function(name):
    for function in vars(kinds()[name]).values():
        if address := getattr(function, "address", ""):
            module, _, attribute = address.partition(":")
            assert callable(getattr(importlib.import_module(module), attribute)), address


# What is not of one subject: these may name no kind and import nothing of a subject's show.
COMMON_ROOMS = ("results", "drawing", "report", "study", "model", "evaluation", "geometry", "zoo")
COMMON_FILES = ("cli.py", "commands.py", "plot.py", "objective.py", "errors.py")
OTHER_SENSE = {("sharpness", "trajectory")}  # there it is the largest eigenvalue along a training, no kind


@functools.cache
def source() -> list[tuple[Path, str, set[object], set[str]]]:
    """Of each file of the library: its place, its text, the constants in it and the modules that it imports from."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        constants = {node.value for node in nodes if isinstance(node, ast.Constant)}
        modules = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
        found.append((path.relative_to(SOURCE), path.read_text(), constants, modules))
    return found


def home(kind: str) -> str:
    """The folder of the subject that defines a kind."""
    return next(
        place.parts[0]
        for place, text, _, _ in source()
        if place.parts[1:2] in {("show",), ("show.py",)} and f'name="{kind}"' in text
    )


def files_that_know(kind: str) -> list[str]:
    """The files outside the subject's folder that name a kind, or that belong to no subject and import its show."""
    own, found = home(kind), []
    for place, _, constants, modules in source():
        if place.parts[0] in (own, "__init__.py") or (kind, place.parts[0]) in OTHER_SENSE:
            continue
        common = place.parts[0] in COMMON_ROOMS or str(place) in COMMON_FILES
        shows = any(module.startswith(f"lossatlas.{own}.show") for module in modules)
        if kind in constants or (common and shows):
            found.append(str(place))
    return found


@pytest.mark.parametrize("name", KINDS)
def test_no_file_outside_its_subject_knows_a_kind(name):
    assert files_that_know(name) == []


def test_every_attribute_that_is_read_to_be_shown_is_declared():
    declared = {attr for kind in kinds().values() for attr in (*kind.schema.attrs, *kind.schema.optional_attrs)}
    read = {}
    for path in [*SOURCE.rglob("show/*.py"), *(SOURCE / "drawing").glob("*.py"), *(SOURCE / "results").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            key = _attribute_read(node)
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                read[key.value] = str(path.relative_to(SOURCE))
    assert {key: place for key, place in read.items() if key not in {*declared, *COMMON}} == {}


def _attribute_read(node: ast.AST) -> ast.AST | None:
    """The key of ``dataset.attrs[key]`` or ``dataset.attrs.get(key)``."""
    if isinstance(node, ast.Subscript) and getattr(node.value, "attr", "") == "attrs":
        return node.slice
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
        return node.args[0] if getattr(node.func.value, "attr", "") == "attrs" else None
    return None
