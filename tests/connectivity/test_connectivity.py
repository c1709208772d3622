"""The whole question about two networks: the same numbers as part by part, resumption, what is left out or refused."""

from __future__ import annotations

import pytest
import torch
import yaml
from oracles.members import BATCH, BY_NAME
from oracles.refusals import refused

import lossatlas as la
from lossatlas.connectivity.connect import connect
from lossatlas.connectivity.connectivity import connectivity
from lossatlas.errors import CheckpointError, ConfigError, InputError
from lossatlas.geometry.curves import PolygonalChain, Segment
from lossatlas.model.checkpoints import read_state, write_state
from lossatlas.objective import Objective

NAMES = [
    "barrier", "barrier_test", "alignment", "barrier_aligned", "barrier_aligned_test",
    "connection", "barrier_curve", "barrier_curve_test", "connectivity_plane",
    "connectivity_plane_aligned",
]  # fmt: skip
CURVE = {"curve": "chain", "bends": 2, "epochs": 3, "batch_size": BATCH, "learning_rate": 0.01}


def networks(name: str = "mlp-tanh"):
    """Objectives on two data sets, and two state dicts."""
    member = BY_NAME[name]
    inputs, targets = member.data(n=40)
    a, b = member.make(seed=0), member.make(seed=1)
    o, test = (
        Objective(a, member.loss, (inputs[part], targets[part]), name=label)
        for label, part in (("first", slice(0, 23)), ("second", slice(23, 40)))
    )
    return o, test, a.state_dict(), b.state_dict()


def asked(o, a, b, **options):
    return connectivity(o, a, b, **{"steps": 5, "progress": False} | options)


def without_times(dataset):
    return {name: value for name, value in dataset.attrs.items() if "seconds" not in name}


def differences(first, second) -> list[str]:
    """The results that do not have the same numbers and attributes, times apart."""
    return [
        name
        for name in first.keys() | second.keys()
        if not first[name].equals(second[name]) or without_times(first[name]) != without_times(second[name])
    ]


@pytest.mark.parametrize("name", ["mlp-tanh", "batch-norm"])
def test_the_numbers_are_those_of_each_part_by_itself(name, tmp_path):
    o, test, a, b = networks(name)
    found = asked(o, a, b, test=test, plane_steps=4, folder=tmp_path, seed=3, **CURVE)
    assert list(found) == NAMES
    line = Segment(o.point_of(a), o.point_of(b))
    aligned = la.align(o, a, b, seed=3)
    curve = connect(
        o, a, b, curve=PolygonalChain(2), epochs=3, batch_size=BATCH, learning_rate=0.01, seed=3, profile_steps=0,
        progress=False,
    )  # fmt: skip
    paths = {"line": line, "line after alignment": Segment(line.a, aligned.point), "polygonal chain": curve.curve}
    for result, (called, path) in zip(("barrier", "barrier_aligned", "barrier_curve"), paths.items(), strict=True):
        for suffix, data, split in (("", o, "train"), ("_test", test, "test")):
            own = la.barrier(data, path, steps=5, seed=3, path=called, progress=False)
            assert found[result + suffix].equals(own)
            assert without_times(found[result + suffix]) == without_times(own) | {"split": split}
    assert found["alignment"].drop_vars("seconds", errors="ignore").equals(aligned.summary)
    assert found["connection"].equals(curve.training)
    bends, ends = curve.curve.points[1:-1], {"first network": line.a, "second network": line.b}
    for result, other, third, marks in (
        ("connectivity_plane", "polygonal chain", bends[1], {"bend 1": bends[0], "bend 2": bends[1]}),
        (
            "connectivity_plane_aligned",
            "line after alignment",
            aligned.point,
            {"second network, aligned": aligned.point},
        ),
    ):
        shown = {"line": line, other: paths[other]}
        plane = la.connectivity_plane(o, shown, ends | marks, third, steps=4, progress=False)
        assert found[result].equals(plane)
    assert torch.equal(o.point_of(tmp_path / "aligned.safetensors"), aligned.point)
    assert torch.equal(read_state(tmp_path / "curve.safetensors")["points"], curve.curve.points)


def test_the_curve_and_the_plane_may_be_on_data_of_their_own():
    o, other, a, b = networks()
    found = asked(o, a, b, fit=other, picture=other, align="none", plane_steps=4, **CURVE)
    assert list(found) == ["barrier", "connection", "barrier_curve", "connectivity_plane"]
    data = {name: dataset.attrs["data"] for name, dataset in found.items()}
    assert data == {name: "first" if "barrier" in name else "second" for name in found}


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ["barrier", "alignment", "barrier_aligned"]),
        ({"align": "none"}, ["barrier"]),
        ({"align": "none", "plane_steps": 4}, ["barrier"]),
        ({"align": "activations", "plane_steps": 4}, ["barrier", "alignment", "barrier_aligned", "connectivity_plane"]),
    ],
    ids=str,
)
def test_what_is_not_asked_for_is_left_out(options, names):
    o, _, a, b = networks()
    assert list(asked(o, a, b, **options)) == names


def test_without_a_curve_the_plane_goes_through_the_aligned_network_or_along_a_random_direction():
    o, _, a, b = networks()
    found = asked(o, a, b, plane_steps=4)["connectivity_plane"]
    assert found["path"].values.tolist() == ["line", "line after alignment"]
    assert found["mark"].values.tolist() == ["first network", "second network", "second network, aligned"]
    assert float(found["mark_off_plane"].max()) < 1e-5
    own = asked(o, a, la.align(o, a, b).state_dict, plane_steps=4)  # nothing is left to permute
    assert float(own["alignment"]["moved"].max()) == 0
    assert own["connectivity_plane"]["loss"].notnull().all()


@pytest.fixture(scope="module")
def whole():
    """A call that was not interrupted."""
    o, test, a, b = networks()
    return asked(o, a, b, test=test, plane_steps=3, **CURVE)


@pytest.mark.parametrize("stop", range(len(NAMES)))
def test_a_call_that_is_interrupted_at_any_result_goes_on_from_there(stop, whole, tmp_path):
    o, test, a, b = networks()
    options = {"test": test, "plane_steps": 3, "folder": tmp_path, **CURVE}
    kept, computed = {}, []

    def keep(name, compute):
        if name not in kept:
            if len(kept) == stop:
                raise KeyboardInterrupt
            kept[name] = compute()
        return kept[name]

    def keep_and_tell(name, compute):
        if name not in kept:
            computed.append(name)
        return kept[name] if name in kept else compute()

    with pytest.raises(KeyboardInterrupt):
        asked(o, a, b, keep=keep, **options)
    found = asked(o, a, b, keep=keep_and_tell, **options)
    assert computed == NAMES[stop:]
    assert list(found) == NAMES
    assert differences(found, whole) == []


def test_results_that_are_kept_need_the_weights_that_belong_to_them(tmp_path):
    o, _, a, b = networks()
    results = asked(o, a, b)

    def keep(name, compute):
        return results[name]

    with pytest.raises(InputError, match="give folder="):
        asked(o, a, b, keep=keep)
    with pytest.raises(CheckpointError, match=r"aligned\.safetensors"):
        asked(o, a, b, keep=keep, folder=tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"align": "both"}, "align='both': choose one of weights, activations, none"),
        ({"curve": "spline"}, "curve='spline': choose one of bezier, chain, none"),
        ({"definition": "highest"}, "entezari"),
        ({"steps": 2}, "steps=2"),
        ({"seed": -1}, "seed=-1"),
        ({"curve": "bezier", "batch_size": 0}, "batch_size=0"),
        ({"curve": "bezier", "learning_rate": 0.0}, "learning_rate"),
    ],
    ids=str,
)
def test_impossible_questions_are_refused_before_anything_is_computed(options, words):
    def keep(name, compute):
        raise AssertionError(f"{name} was begun")

    o, _, a, b = networks()
    with refused(InputError, match=words):
        asked(o, a, b, keep=keep, **options)


def test_two_times_the_same_network_is_refused_by_its_files(tmp_path):
    o, _, a, _ = networks()
    file = tmp_path / "a.safetensors"
    write_state(a, file)
    with pytest.raises(InputError, match=r"a\.safetensors and b are the same point: give the weights of two different"):
        asked(o, file, a)


def test_symmetries_may_stand_in_a_file(tmp_path):
    o, _, a, b = networks()
    file, spec = tmp_path / "symmetries.yaml", la.symmetries(o).spec
    file.write_text(yaml.safe_dump({name: list(axes) for name, axes in spec.items()}, sort_keys=False))
    by_hand = asked(o, a, b, symmetries=file)
    assert differences(by_hand, asked(o, a, b, symmetries=spec)) == []
    file.write_text("a: [b")
    with pytest.raises(ConfigError, match=r"symmetries\.yaml cannot be read as YAML"):
        asked(o, a, b, symmetries=str(file))
    with pytest.raises(ConfigError, match=r"none\.yaml cannot be read"):
        asked(o, a, b, symmetries=tmp_path / "none.yaml")
