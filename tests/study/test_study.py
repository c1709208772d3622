"""A study is done once, goes on where it was, and refuses what it cannot do before it writes anything."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml
from filelock import FileLock

from lossatlas import cli, zoo
from lossatlas.cli import app
from lossatlas.errors import ConfigError, OutputError
from lossatlas.model.checkpoints import read_state
from lossatlas.study.config import PRESETS, resolve
from lossatlas.study.connections import ways_on_a_plane
from lossatlas.study.material import Material
from lossatlas.study.run import run
from lossatlas.study.steps import STEPS, steps

SMALL = [
    "train.network=mlp",
    "train.options={widths: [4]}",
    "train.epochs=2",
    "train.snapshot_every=5",
    "slices.line_steps=3",
    "slices.plane_steps=3",
    "slices.examples=100",
    "road.steps=3",
    "road.examples=100",
    "curvature.k=1",
    "curvature.examples=100",
    "curvature.tol=0.1",
    "curvature.power_steps=2",
    "curvature.power_batch=50",
    "bridge.steps=3",
    "connectivity.epochs=2",
    "connectivity.plane_steps=3",
    "connectivity.instability=[40, 0]",
    "noise.draws=2",
    "noise.sigmas=[0, 0.1]",
    "noise.relative_sigmas=[0, 0.1]",
]
EVERY = set(steps(resolve("digits", settings=SMALL)))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study") / "small"
    run(resolve("digits", settings=SMALL), out, progress=False)
    return out


def results(folder: Path) -> dict[str, xr.Dataset]:
    return {file.stem: xr.load_dataset(file) for file in sorted((folder / "results").glob("*.nc"))}


def test_a_study_leaves_every_result_one_file_of_all_and_the_report(finished: Path) -> None:
    assert set(results(finished)) == EVERY
    with xr.open_datatree(finished / "study.nc", engine="netcdf4") as tree:
        assert set(tree.children) == EVERY
    assert (finished / "report.html").is_file()
    assert (finished / "report.tex").is_file()


def test_a_finished_study_is_not_done_again(finished: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in (finished / "results").iterdir()}
    said: list[str] = []
    run(resolve("digits", settings=SMALL), finished, progress=False, say=said.append)
    assert {file: file.stat().st_mtime_ns for file in (finished / "results").iterdir()} == before
    assert len(said) == len(EVERY)
    assert all(line.endswith("done before") for line in said)


def test_a_killed_study_goes_on_and_ends_with_the_same_numbers(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "lossatlas", "study", "--quiet", "--out", str(out)]
    command += [part for setting in SMALL for part in ("--set", setting)]
    for until in ("networks/a/checkpoint", "results/line_a.nc"):  # in the middle of training, then of the measurements
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 120
        while not (out / until).exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert len(results(out)) < len(EVERY)
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    whole, resumed = results(finished), results(out)
    assert resumed.keys() == whole.keys()
    for name, dataset in whole.items():
        xr.testing.assert_allclose(resumed[name], dataset, rtol=1e-5, atol=1e-7)


def test_the_ends_of_the_barrier_are_the_two_trained_networks(finished: Path) -> None:
    found = results(finished)
    for end, network in ((0, "a"), (-1, "b")):
        expected = float(found[f"history_{network}"]["test_loss"][-1])
        assert float(found["barrier_test"]["loss"][end]) == pytest.approx(expected, rel=1e-5)


def test_the_noise_free_row_is_the_trained_network(finished: Path) -> None:
    found = results(finished)
    expected = found["history_a"]["test_accuracy"][-1]
    assert float(found["robustness_a"]["accuracy"][0]) == pytest.approx(float(expected), abs=1e-7)


def test_the_last_snapshot_lies_on_the_principal_plane_at_its_own_loss(finished: Path) -> None:
    road = results(finished)["trajectory_a"]
    assert float(road["off_plane_distance"][-1]) == pytest.approx(0, abs=1e-6)
    assert float(road["plane_loss"][-1]) == pytest.approx(float(road["loss"][-1]), rel=1e-5)
    assert np.all(road["step"].diff("snapshot") > 0)


def flat(file: Path) -> np.ndarray:
    return np.concatenate([tensor.double().numpy().ravel() for tensor in read_state(file).values()])


def test_the_aligned_network_has_the_weights_of_the_second_and_computes_what_it_does(finished: Path) -> None:
    found = results(finished)
    before, after = (flat(finished / "networks" / "b" / f"{name}.safetensors") for name in ("weights", "aligned"))
    assert sorted(before) == sorted(after)
    assert float(found["alignment"]["similarity_after"]) >= float(found["alignment"]["similarity_before"])
    for split in ("train", "test"):
        one, other = found[f"barrier_{split}"], found[f"barrier_aligned_{split}"]
        np.testing.assert_allclose(other["loss"][[0, -1]], one["loss"][[0, -1]], rtol=1e-5)
        assert other.attrs["way"] == "line after alignment"
        assert other.attrs["split"] == split


def test_the_curve_leads_from_the_first_network_to_the_second_with_a_lower_loss_than_the_line(finished: Path) -> None:
    found = results(finished)
    assert found["connection"].sizes["epoch"] == 2
    for split in ("train", "test"):
        line, curve = found[f"barrier_{split}"], found[f"barrier_curve_{split}"]
        np.testing.assert_allclose(curve["loss"][[0, -1]], line["loss"][[0, -1]], rtol=1e-5)
        assert curve.attrs["way"] == "Bezier curve"
        assert float(curve["length_ratio"]) > 1
    assert float(found["barrier_curve_train"]["highest_loss"]) < float(found["barrier_train"]["highest_loss"])


def test_the_plane_holds_both_networks_the_bend_and_the_curve(finished: Path) -> None:
    plane = results(finished)["connectivity_plane"]
    assert plane["mark"].values.tolist() == ["first network", "second network", "bend"]
    assert plane["way"].values.tolist() == ["line", "Bezier curve"]
    a, b = (flat(finished / "networks" / which / "weights.safetensors") for which in "ab")
    np.testing.assert_allclose(plane["mark_alpha"][:2], [0, np.linalg.norm(b - a)], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(plane["mark_beta"][:2], 0, atol=1e-5)
    np.testing.assert_allclose(plane["way_off_plane"], 0, atol=1e-4)


def test_without_a_curve_the_plane_goes_through_the_aligned_network(finished: Path) -> None:
    config = resolve("digits", settings=[*SMALL, "connectivity.curve=null"])
    plane = ways_on_a_plane(Material(config, zoo.load("digits"), finished, progress=False))
    assert plane["mark"].values.tolist() == ["first network", "second network", "second network, aligned"]
    assert plane["way"].values.tolist() == ["line", "line after alignment"]
    np.testing.assert_allclose(plane["mark_off_plane"], 0, atol=1e-4)


def test_runs_that_part_at_the_last_step_have_no_barrier_and_those_from_the_start_have_one(finished: Path) -> None:
    found = results(finished)
    total = found["history_a"].sizes["step"]
    unstable = found["instability"]
    assert unstable["k"].values.tolist() == [0, total] == [0, 40]
    assert unstable.attrs["total_steps"] == total
    assert unstable["barrier"][1].values.tolist() == [0.0]
    # Each ends where network A does: a fork at the last step is none.
    assert float(unstable["end_error"][1, 0]) == pytest.approx(1 - float(found["barrier_test"]["accuracy"][0]))
    assert float(unstable["end_error"][0, 0]) != float(unstable["end_error"][1, 0])


def test_an_alignment_that_leaves_the_network_as_it_is_has_a_plane_too(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "networks", tmp_path / "networks")
    shutil.copy(tmp_path / "networks/b/weights.safetensors", tmp_path / "networks/b/aligned.safetensors")
    config = resolve("digits", settings=[*SMALL, "connectivity.curve=null"])
    plane = ways_on_a_plane(Material(config, zoo.load("digits"), tmp_path, progress=False))
    np.testing.assert_allclose(plane["mark_alpha"][2], plane["mark_alpha"][1], rtol=1e-6)
    assert np.isfinite(plane["loss"]).all()


@pytest.mark.parametrize(
    ("settings", "extra"),
    [
        (["align=null", "curve=null"], set()),
        (["curve=null"], {"alignment", "barrier_aligned_train", "barrier_aligned_test", "connectivity_plane"}),
        (["align=null"], {"connection", "barrier_curve_train", "barrier_curve_test", "connectivity_plane"}),
        (["align=null", "curve=null", "instability=[0]"], {"instability"}),
    ],
)
def test_what_is_not_asked_for_is_not_done(settings: list[str], extra: set[str]) -> None:
    config = resolve("digits", settings=[f"connectivity.{setting}" for setting in settings])
    assert set(steps(config)) == set(STEPS) | extra


@pytest.mark.parametrize("ks", ["[0, 41]", "[3, 3]"])
def test_shared_steps_that_a_training_does_not_have_are_refused_before_anything_is_written(
    ks: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="a training has 40 steps"):
        run(resolve("digits", settings=[*SMALL, f"connectivity.instability={ks}"]), tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_another_study_is_refused_by_the_first_key_that_differs(finished: Path) -> None:
    with pytest.raises(OutputError, match=r"train\.epochs is 2 there, 3 now"):
        run(resolve("digits", settings=[*SMALL, "train.epochs=3"]), finished, progress=False)


def test_a_folder_of_something_else_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("\\documentclass")
    with pytest.raises(OutputError, match="holds files"):
        run(resolve("digits", settings=SMALL), tmp_path, progress=False)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_two_writers_on_one_folder_are_refused(finished: Path) -> None:
    with FileLock(finished / ".lock"), pytest.raises(OutputError, match="in use"):
        run(resolve("digits", settings=SMALL), finished, progress=False)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_valid_and_survives_its_own_file(preset: str, tmp_path: Path) -> None:
    config = resolve(preset)
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert resolve(file=tmp_path / "study.yaml") == config


def test_the_fashion_preset_is_the_second_seeds_protocol() -> None:
    config = resolve("fashion")
    train = config.train
    assert (config.dataset, train.network, train.epochs, train.seeds) == ("fashion-mnist", "simple_cnn", 6, (1, 2))
    assert (train.optimizer, train.learning_rate, train.momentum, train.batch_size) == ("sgd", 0.01, 0.9, 128)
    assert config.noise.sigmas == (0.0, 0.01, 0.02, 0.05, 0.1)


@pytest.mark.parametrize(
    ("setting", "remedy"),
    [
        ("train.epoch=3", "did you mean"),
        ("epochs=3", r"train\.epochs"),
        ("train.epochs=many", "valid integer"),
        ("train.epochs=0", "greater than or equal to 1"),
        ("train.learning_rate=.nan", "finite"),
        ("train.epochs", "key=value"),
        ("train.seeds=[1]", "seeds"),
        ("slices.norm=filters", "'filter', 'layer' or 'model'"),
        ("connectivity.curve=spline", "'bezier' or 'chain'"),
        ("connectivity.align=units", "'weights' or 'activations'"),
        ("connectivity.instability=[-1]", "greater than or equal to 0"),
    ],
)
def test_a_wrong_setting_is_refused_with_the_remedy(setting: str, remedy: str) -> None:
    with pytest.raises(ConfigError, match=remedy):
        resolve("digits", settings=[setting])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--preset", "cifar"],
        ["--set", "dataset=imagenet"],
        ["--set", "train.network=vgg"],
        ["--set", "train.unknown=1"],
        ["--set", "train.epochs=1.5"],
        ["--config", "nowhere.yaml"],
    ],
)
def test_a_study_that_cannot_be_done_exits_with_2_and_one_line_and_writes_nothing(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["study", "--out", str(out), *arguments]
    assert cli.guarded(lambda: app(command, exit_on_error=False, print_error=False, help_on_error=False)) == 2
    error = capsys.readouterr().err
    assert error.startswith("lossatlas: error: ")
    assert error.count("\n") == 1
    assert not out.exists()
