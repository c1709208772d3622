"""A study is done once, goes on where it was, and writes nothing into a folder that is not its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from filelock import FileLock

from lossatlas.errors import ConfigError, OutputError
from lossatlas.model.checkpoints import read_state
from lossatlas.study.config import StudyConfig, resolve
from lossatlas.study.run import run

TINY = [
    "train.network=mlp",
    "train.options={widths: [4]}",
    "train.epochs=2",
    "train.snapshot_every=5",
    "measure.line.options.steps=3",
    "measure.line.data.examples=100",
    "measure.surface={networks: [B], data: {examples: 100}, options: {steps: 3}}",
    "measure.trajectory={data: {examples: 100}, options: {steps: 3}}",
    "measure.spectrum={networks: [A], data: {examples: 100}, options: {k: 1, tol: 0.1, steps: 5, trend: false}}",
    "measure.power_fixed={data: {examples: 100}, options: {steps: 2}}",
    "measure.power_changing=null",
    "measure.sharpness={networks: [A], data: {examples: 100}, options: {measures: [asam]}}",
    "measure.connect.data={objective: {examples: 200}, test: {examples: 200}}",
    "measure.connect.options={epochs: 2, steps: 3, plane_steps: 3}",
    "measure.robustness={networks: [A], options: {draws: 2, sigmas: [0, 0.1]}}",
    "measure.robustness_filter={networks: [B], options: {draws: 2, sigmas: [0, 0.1]}}",
    "measure.quantisation={networks: [A], options: {noise: quantise, bits: [4]}}",
    "measure.invariance=null",
    "measure.pruning=null",
    "measure.basin=null",
    "measure.instability={networks: [A], options: {ks: [40, 0], steps: 3, draws: 100}}",
]
BARRIERS = [f"barrier{path}{data}_ab" for path in ("", "_aligned", "_curve") for data in ("", "_test")]
EVERY = {
    *("training_a", "training_b", "line_a", "line_b", "surface_b", "trajectory_a", "trajectory_plane_a"),
    *("spectrum_a", "sharpness_a", "power_fixed_a", "robustness_a", "robustness_filter_b"),
    *("quantisation_a", "instability_a"),
    *(*BARRIERS, "alignment_ab", "connection_ab", "connectivity_plane_ab", "connectivity_plane_aligned_ab"),
}
# Runs the command once for each place, each time in a process that is killed there: when a file is there, or just
# before a result is written.
KILLED = """
import os, pathlib, signal, sys, threading, time
import torch._dynamo  # which the optimisers import, here once for all processes
from lossatlas import cli, zoo
from lossatlas.study import folder
zoo.load("digits", progress=False)
save = folder.save

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

def wait_for(file):
    while not file.exists():
        time.sleep(0.002)
    kill()

def run_until(place):
    if "/" in place:
        threading.Thread(target=wait_for, args=[pathlib.Path(place)], daemon=True).start()
    folder.save = lambda dataset, path: kill() if path.stem == place else save(dataset, path)
    cli.app(sys.argv[2:])

for place in sys.argv[1].split(","):
    child = os.fork()
    if child == 0:
        run_until(place)
        os._exit(0)
    print(place, os.WTERMSIG(os.waitpid(child, 0)[1]))
"""


def config(*settings: str) -> StudyConfig:
    return resolve("digits", settings=[*TINY, *settings])


def few(*kept: str) -> list[str]:
    """The settings that leave out all measurements but these."""
    return [f"measure.{name}=null" for name in config().measure if name not in kept]


def measure(config: StudyConfig, out: Path, say: Callable[[str], None] = lambda line: None) -> None:
    """A study without its report, which takes longer than all the rest of a tiny one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lossatlas.study.run.report", lambda *datasets, **options: None)
        run(config, out, progress=False, say=say)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study") / "tiny"
    measure(config(), out)
    return out


def results(folder: Path) -> dict[str, xr.Dataset]:
    return {file.stem: xr.load_dataset(file) for file in sorted((folder / "results").glob("*.nc"))}


@pytest.fixture(scope="module")
def found(finished: Path) -> dict[str, xr.Dataset]:
    return results(finished)


def test_a_study_leaves_every_result_and_one_file_of_all(finished: Path, found: dict[str, xr.Dataset]) -> None:
    assert set(found) == EVERY
    with xr.open_datatree(finished / "study.nc", engine="netcdf4") as tree:
        assert set(tree.children) == EVERY


@pytest.mark.usefixtures("_unrendered")
def test_a_study_ends_in_the_report_of_what_it_measured_with_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")  # without LaTeX, which takes seconds
    only = [*few("line"), "train.seeds=[1]"]
    written = run(config(*only), tmp_path / "out", progress=False)
    page = written.html.read_text()
    assert "The loss landscape of mlp on digits" in page
    assert "every 5 steps" in page
    assert "Training" in page
    assert (tmp_path / "out" / "report.tex").is_file()


def test_a_finished_study_is_not_done_again(finished: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in (finished / "results").iterdir()}
    printed: list[str] = []
    measure(config(), finished, printed.append)
    assert {file: file.stat().st_mtime_ns for file in (finished / "results").iterdir()} == before
    assert len(printed) == len(EVERY) - 9 - 1  # ten results are of connect, two of trajectory
    assert all(line.endswith("done before") for line in printed)


def test_a_study_that_was_killed_three_times_ends_with_the_same_numbers(
    found: dict[str, xr.Dataset], tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    command = ["study", "--quiet", "--out", str(out), *(part for each in TINY for part in ("--set", each))]
    # After the first epoch of training; in the measurements; in the middle of one with several results, where the curve
    # is trained and its result is not yet written.
    places = f"{out}/networks/a/checkpoint/training.safetensors", "line_b", "connection_ab"
    driver = [sys.executable, "-c", KILLED, ",".join(places), *command]
    done = subprocess.run(driver, capture_output=True, text=True, check=True)
    assert [line.split()[-1] for line in done.stdout.splitlines() if line.startswith(places)] == ["9"] * 3, done.stderr
    left = results(out)
    assert "barrier_aligned_ab" in left
    assert "connection_ab" not in left
    assert done.stdout.count("training_a ") == 2  # the first process did not end it
    measure(config(), out)
    resumed = results(out)
    assert resumed.keys() == found.keys()
    for name, dataset in found.items():
        timeless = [each.drop_vars("seconds", errors="ignore") for each in (resumed[name], dataset)]
        xr.testing.assert_allclose(*timeless, rtol=1e-5, atol=1e-7)


def test_a_results_name_says_its_network_and_the_result_too(found: dict[str, xr.Dataset]) -> None:
    networks = {name: dataset.attrs["network"] for name, dataset in found.items()}
    assert networks["line_a"] == networks["trajectory_plane_a"] == "A"
    assert networks["robustness_filter_b"] == "B"
    assert networks["barrier_ab"] == "A and B"


def test_the_noise_free_row_is_the_trained_network(found: dict[str, xr.Dataset]) -> None:
    expected = found["training_a"]["test_accuracy"][-1]
    assert float(found["robustness_a"]["accuracy"][0]) == pytest.approx(float(expected), abs=1e-7)


def test_the_last_snapshot_is_on_the_principal_plane_at_its_own_loss(found: dict[str, xr.Dataset]) -> None:
    trajectory = found["trajectory_a"]
    assert float(trajectory["off_plane_distance"][-1]) == pytest.approx(0, abs=1e-6)
    assert float(trajectory["plane_loss"][-1]) == pytest.approx(float(trajectory["loss"][-1]), rel=1e-5)
    assert np.all(trajectory["step"].diff("snapshot") > 0)


def flat(file: Path) -> np.ndarray:
    return np.concatenate([tensor.double().numpy().ravel() for tensor in read_state(file).values()])


def test_connect_is_given_the_weights_of_both_networks_and_keeps_its_own(
    finished: Path, found: dict[str, xr.Dataset]
) -> None:
    a, b = (flat(finished / "networks" / label / "weights.safetensors") for label in "ab")
    assert sorted(flat(finished / "networks" / "connect_ab" / "aligned.safetensors")) == sorted(b)
    np.testing.assert_allclose(found["connectivity_plane_ab"]["mark_alpha"][1], np.linalg.norm(b - a), rtol=1e-5)
    for data in ("", "_test"):
        line = found[f"barrier{data}_ab"]
        for path in ("aligned", "curve"):
            np.testing.assert_allclose(found[f"barrier_{path}{data}_ab"]["loss"][[0, -1]], line["loss"][[0, -1]], 1e-5)
    assert found["connection_ab"].sizes["epoch"] == 2


def test_runs_that_part_at_the_last_step_have_no_barrier_and_end_where_the_network_does(
    found: dict[str, xr.Dataset],
) -> None:
    unstable, total = found["instability_a"], found["training_a"].sizes["step"]
    assert unstable["k"].values.tolist() == [0, total] == [0, 40]
    assert unstable.attrs["total_steps"] == total
    assert unstable["barrier"][1].values.tolist() == [0.0]
    accuracy = float(found["training_a"]["test_accuracy"][-1])
    assert float(unstable["end_error"][1, 0]) == pytest.approx(1 - accuracy)
    assert float(unstable["end_error"][0, 0]) != float(unstable["end_error"][1, 0])


def test_shared_steps_that_a_training_does_not_have_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a training has 40 steps"):
        run(config("measure.instability.options.ks=[0, 41]"), tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_a_verb_under_two_names_has_results_of_two_names_and_none_takes_the_name_of_another(tmp_path: Path) -> None:
    given = "data: {examples: 50}, options: {steps: 3}"
    only = [*few("trajectory"), "train.seeds=[1]"]
    measure(config(*only, f"measure.again={{verb: trajectory, {given}}}"), tmp_path / "both")
    names = ("trajectory_a", "trajectory_plane_a", "again_trajectory_a", "again_trajectory_plane_a")
    assert set(results(tmp_path / "both")) == {"training_a", *names}
    with pytest.raises(ConfigError, match="trajectory_plane gives a second result 'trajectory_plane_a'"):
        measure(config(*only, f"measure.trajectory_plane={{verb: surface, {given}}}"), tmp_path / "same")


def test_a_folder_of_another_study_is_refused_by_the_first_key_that_differs(finished: Path) -> None:
    with pytest.raises(OutputError, match=r"measure\.line\.options\.steps is 3 there, 5 now"):
        run(config("measure.line.options.steps=5"), finished, progress=False)


def test_a_folder_of_something_else_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("\\documentclass")
    with pytest.raises(OutputError, match="holds files"):
        run(config(), tmp_path, progress=False)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_two_writers_on_one_folder_are_refused(finished: Path) -> None:
    with FileLock(finished / ".lock"), pytest.raises(OutputError, match="in use"):
        run(config(), finished, progress=False)
