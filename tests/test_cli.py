"""The command line as a user meets it: what it writes, and how it refuses."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import typing
from pathlib import Path

import pytest
import torch
import xarray as xr
from safetensors.torch import load_file, save_file

import lossatlas as la
from lossatlas import cli
from lossatlas.cli import app
from lossatlas.commands import possible
from lossatlas.results.discovery import verbs

TARGETS = """
import torch, torch.nn.functional as F
from sklearn.datasets import load_digits
import lossatlas as la

images, labels = load_digits(return_X_y=True)
inputs, targets = torch.tensor(images[:200] / 16, dtype=torch.float32), torch.tensor(labels[:200])
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(64, 4), torch.nn.ReLU(), torch.nn.Linear(4, 10))

def objective(): return la.Objective(model, F.cross_entropy, (inputs, targets))
def not_an_objective(): return model

class Stubborn(torch.nn.Sequential):
    def forward(self, x):  # what it does depends on the weights' values, so that no graph holds it
        out = super().forward(x)
        return out if float(out.sum()) > 0 else 2 * out

def stubborn(): return la.Objective(Stubborn(*model), F.cross_entropy, (inputs, targets))
def fails(): raise KeyError("weights")
def nan():
    with torch.no_grad():
        model[0].weight[0, 0] = float("nan")
    return objective()
def empty(): return la.Objective(model, F.cross_entropy, (inputs[:0], targets[:0]))
def shuffling():
    dataset = torch.utils.data.TensorDataset(inputs, targets)
    return la.Objective(model, F.cross_entropy, torch.utils.data.DataLoader(dataset, 50, shuffle=True))
def wrong_direction():
    o = objective()
    la.surface(o, la.line(o.point, torch.ones(3)))
"""


@pytest.fixture(autouse=True)
def _no_latex(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # it takes seconds


@pytest.fixture
def target(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(TARGETS)
    return str(tmp_path / "mine.py")


def run(*arguments: str) -> int:
    return cli.guarded(lambda: app(list(arguments), exit_on_error=False, print_error=False, help_on_error=False))


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of a refusal with exit code 2."""
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("lossatlas: error: ")
    assert error.count("\n") == 1, error
    assert "Traceback" not in error
    return error


SURFACES = {
    "to a tolerance": (["--tol", "0.05", "--steps", "31"], {"alpha": 31, "beta": 31}),
    "a volume": (["--dims", "3", "--steps", "3"], {"alpha": 3, "beta": 3, "gamma": 3}),
    "Hessian axes": (["--axes", "hessian", "--steps", "3"], {"alpha": 3, "beta": 3}),
    "several planes": (["--planes", "2", "--steps", "3", "--by-class"], {"plane": 2, "alpha": 3, "beta": 3}),
    "a log line of a subset": (["--dims", "1", "--spacing", "log", "--steps", "5", "--subset", "60"], {"alpha": 5}),
}


@pytest.mark.usefixtures("_unrendered")
@pytest.mark.parametrize("name", SURFACES)
def test_surfaces_of_every_kind_are_written(name: str, target: str, tmp_path: Path) -> None:
    options, sizes = SURFACES[name]
    assert run("surface", f"{target}:objective", "--out", str(tmp_path / "o"), "--quiet", *options) == 0
    found = xr.load_dataset(tmp_path / "o" / "surface.nc")
    assert dict(found["loss"].sizes) == sizes
    assert (tmp_path / "o" / "surface.png").is_file()


@pytest.mark.usefixtures("_unrendered")
def test_a_stored_surface_goes_on_and_refuses_another(
    target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["surface", f"{target}:objective", "--quiet", "--steps", "3", "--store", str(tmp_path / "kept")]
    for out in ("first", "second"):
        assert run(*command, "--out", str(tmp_path / out)) == 0
    first, second = (xr.load_dataset(tmp_path / out / "surface.nc") for out in ("first", "second"))
    assert first["loss"].equals(second["loss"])
    capsys.readouterr()
    assert "region" in refused(capsys, *command, "--seed", "1", "--out", str(tmp_path / "third"))


def test_axes_that_do_not_go_together_are_refused(
    target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options in (["--axes", "hessian", "--dims", "3"], ["--axes", "hessian", "--planes", "2"], ["--planes", "0"]):
        error = refused(capsys, "surface", f"{target}:objective", "--out", str(tmp_path / "o"), *options)
        assert "planes" in error
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("command", "size"),
    [
        (["surface", "--steps", "3"], {"alpha": 3, "beta": 3}),
        (["surface", "--dims", "1", "--steps", "5", "--norm", "layer"], {"alpha": 5}),
        (["spectrum", "-k", "2", "--tol", "0.1", "--density-tol", "0.1"], {"end": 2, "rank": 2, "probe": 1}),
        (["robustness", "--sigmas", "0,1", "--draws", "2", "--relative", "filter"], {"sigma": 2, "draw": 2}),
        (["robustness", "--noise", "quantise", "--bits", "8,4,3,2", "--layers"], {"bits": 4, "draw": 1, "layer": 2}),
        (["basin", "--steps", "1"], {"direction": 2}),
        (["power", "--steps", "3", "--batch", "50"], {"iteration": 3}),
        (["gauss_newton_split", "-k", "2", "--probes", "2", "--tol", "0.1"], {"rank": 2}),
        (["batch_eigenvalues", "--batch-size", "50", "--batches", "2", "--tol", "0.1"], {"batch": 2, "rank": 1}),
    ],
)
def test_each_verb_writes_a_dataset_and_a_figure(
    command: list[str], size: dict[str, int], target: str, tmp_path: Path
) -> None:
    verb, *options = command
    assert run(verb, f"{target}:objective", "--out", str(tmp_path / "out"), *options) == 0
    assert dict(xr.load_dataset(tmp_path / "out" / f"{verb}.nc").sizes).items() >= size.items()
    assert figures_are_written(tmp_path / "out" / verb)


def figures_are_written(name: Path) -> bool:
    png, pdf = (name.with_name(f"{name.name}.{suffix}").read_bytes() for suffix in ("png", "pdf"))
    return png.startswith(b"\x89PNG") and pdf.startswith(b"%PDF")


@pytest.fixture
def snapshots(tmp_path: Path) -> str:
    network = torch.nn.Sequential(torch.nn.Linear(64, 4), torch.nn.ReLU(), torch.nn.Linear(4, 10))
    record = la.Recorder(network, every=1, folder=tmp_path / "snapshots")
    for step in range(4):
        record(step)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += torch.randn_like(parameter)
    return str(tmp_path / "snapshots")


@pytest.mark.parametrize("flag", ["--objective", "--target"])
def test_trajectory_writes_the_plane_too_where_it_is_given_an_objective(
    flag: str, snapshots: str, target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run("trajectory", snapshots, "--out", str(out), "--steps", "3", flag, f"{target}:objective") == 0
    assert all(figures_are_written(out / name) for name in ("trajectory", "trajectory_plane"))
    assert xr.load_dataset(out / "trajectory_plane.nc")["loss"].shape == (3, 3)
    assert f"{out}/*.nc" in capsys.readouterr().out


def test_trajectory_needs_no_objective_and_says_where_there_are_no_snapshots(
    snapshots: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("trajectory", snapshots, "--out", str(tmp_path / "out")) == 0
    assert not (tmp_path / "out" / "trajectory_plane.nc").exists()
    assert "nowhere" in refused(capsys, "trajectory", str(tmp_path / "nowhere"), "--out", str(tmp_path / "no"))
    assert not (tmp_path / "no").exists()


def weights(path: Path, seed: int, hidden: int = 4) -> str:
    torch.manual_seed(seed)
    network = torch.nn.Sequential(torch.nn.Linear(64, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 10))
    save_file(network.state_dict(), path)
    return str(path)


@pytest.mark.usefixtures("_unrendered")
def test_connect_measures_the_barrier_between_two_files_and_report_gathers_the_folder(
    target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b, out = weights(tmp_path / "a.safetensors", 1), tmp_path / "b.ckpt", str(tmp_path / "out")
    own, average = (load_file(weights(tmp_path / f"{seed}.safetensors", seed)) for seed in (3, 2))
    torch.save({"model": own, "model_ema": {f"net.{name}": tensor for name, tensor in average.items()}}, b)
    assert "'FILE:model_ema.net'" in refused(capsys, "connect", f"{target}:objective", a, str(b), "--out", out)
    assert run("connect", f"{target}:objective", a, f"{b}:model_ema", "--out", out, "--steps", "5") == 0
    found = xr.load_dataset(tmp_path / "out" / "barrier.nc")
    taken = f"{b}:model_ema: taken from 'model_ema'; 'net.' left out of the names"
    assert found.attrs["weights"] == taken
    assert f"weights: {taken}\n" in capsys.readouterr().out
    assert found.sizes["t"] == 5
    assert float(found["barrier"]) >= 0
    assert run("report", out) == 0
    assert "barrier" in (tmp_path / "out" / "report.html").read_text()


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    return weights(tmp_path / "a.safetensors", 1), weights(tmp_path / "b.safetensors", 2)


@pytest.mark.usefixtures("_unrendered")
def test_connect_answers_the_whole_question(
    target: str, pair: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, problem = tmp_path / "out", f"{target}:objective"
    options = [
        "--curve",
        "chain",
        "--bends",
        "2",
        "--epochs",
        "2",
        "--steps",
        "5",
        "--plane-steps",
        "5",
        "--test",
        problem,
    ]
    assert run("connect", problem, *pair, "--out", str(out), "--quiet", *options) == 0
    kinds = {file.stem: xr.load_dataset(file).attrs["kind"] for file in out.glob("*.nc")}
    barriers = [f"barrier{path}{data}" for path in ("", "_aligned", "_curve") for data in ("", "_test")]
    others = {name: name for name in ("alignment", "connection", "connectivity_plane")}
    others["connectivity_plane_aligned"] = "connectivity_plane"
    assert kinds == dict.fromkeys(barriers, "barrier") | others
    model = torch.nn.Sequential(torch.nn.Linear(64, 4), torch.nn.ReLU(), torch.nn.Linear(4, 10))
    model.load_state_dict(load_file(out / "aligned.safetensors"))
    given = load_file(pair[1])
    assert torch.equal(model[0].weight.sort(0).values, given["0.weight"].sort(0).values)
    assert load_file(out / "curve.safetensors")["points"].shape == (4, 310)
    assert list(xr.load_dataset(out / "connectivity_plane.nc")["path"].values) == ["line", "polygonal chain"]
    claims = [line for line in capsys.readouterr().out.splitlines() if "linearly mode connected in the sense" in line]
    assert len(claims) == 2  # on the one data set, and on the other
    assert run("report", str(out)) == 0


def test_connect_of_one_network_with_itself_is_refused_and_leaves_nothing_behind(
    target: str, pair: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refused(capsys, "connect", f"{target}:objective", pair[0], pair[0], "--out", str(tmp_path / "out"))
    assert "two different models" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("_unrendered")
def test_connect_keeps_the_line_of_a_model_that_cannot_be_aligned(
    target: str, pair: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    error = refused(capsys, "connect", f"{target}:stubborn", *pair, "--out", str(out), "--steps", "5")
    assert "cannot be traced" in error
    assert "symmetries=" in error
    assert (out / "barrier.nc").is_file()
    assert run("connect", f"{target}:stubborn", *pair, "--out", str(out), "--steps", "5", "--align", "none") == 0
    groups = tmp_path / "groups.yaml"
    groups.write_text("{0.weight: [hidden, null], 0.bias: [hidden], 2.weight: [null, hidden]}")
    by_hand = ["--symmetries", str(groups), "--steps", "5"]
    assert run("connect", f"{target}:stubborn", *pair, "--out", str(out), *by_hand) == 0
    assert list(xr.load_dataset(out / "alignment.nc")["group"].values) == ["hidden"]
    groups.write_text("{0.weight: [hidden, null]}")
    assert "0.weight" in refused(capsys, "connect", f"{target}:stubborn", *pair, "--out", str(out), *by_hand)
    groups.unlink()
    assert "groups.yaml" in refused(capsys, "connect", f"{target}:stubborn", *pair, "--out", str(out), *by_hand)


@pytest.mark.parametrize(
    ("function", "remedy"),
    [
        ("missing", "its functions are"),
        ("not_an_objective", "return lossatlas.Objective"),
        ("fails", "KeyError"),
        ("nan", "check the checkpoint"),
        ("empty", "at least one example"),
        ("shuffling", "shuffle=False"),
        ("wrong_direction", "one number a parameter"),
    ],
)
def test_a_target_that_cannot_be_measured_is_one_line_that_says_what_to_do_and_leaves_nothing_behind(
    function: str, remedy: str, target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "out"
    assert remedy in refused(capsys, "surface", f"{target}:{function}", "--out", str(out), "--steps", "3")
    assert not out.parent.exists()


def test_a_file_that_does_not_exist_and_a_target_without_a_function_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no file" in refused(capsys, "spectrum", "nowhere.py:objective", "--out", str(tmp_path / "o"))
    assert "file.py:function" in refused(capsys, "spectrum", "nowhere.py", "--out", str(tmp_path / "o"))
    assert "no module" in refused(capsys, "spectrum", "nowhere.at_all:objective", "--out", str(tmp_path / "o"))


def test_a_checkpoint_of_another_network_is_refused_by_the_names_and_shapes_that_differ(
    target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, other = weights(tmp_path / "a.safetensors", 1), weights(tmp_path / "b.safetensors", 2, hidden=5)
    error = refused(capsys, "connect", f"{target}:objective", a, other, "--out", str(tmp_path / "out"))
    assert "(5, 64)" in error
    assert not (tmp_path / "out").exists()
    save_file({"conv.weight": torch.ones(2)}, other)
    assert "conv.weight" in refused(capsys, "connect", f"{target}:objective", a, other, "--out", str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("command", "remedy"),
    [
        (["surface", "--steps", "many"], "steps"),
        (["surface", "--stepz", "3"], "--stepz"),
        (["surfac", "--steps", "3"], "Did you mean"),
        (["surface", "--one-d", "nought"], "one-d"),
        (
            ["spectrum", "--max-products", "0"],
            "--max-products = 0 is wrong: input should be greater",
        ),
        (["robustness", "--draws", "1"], "--draws = 1 is wrong: input should be greater than or equal to 2"),
        (["robustness", "--sigmas", "a;b"], "with commas, like 0,0.01"),
        (["robustness", "--bits", "8,1"], "--bits = '1' is wrong: input should be greater than or equal to 2"),
        (["robustness", "--sigmas", "0,-1"], "--sigmas = '-1' is wrong: input should be greater than or equal to 0"),
        (["robustness", "--sigmas", ""], "with commas"),
    ],
)
def test_a_wrong_option_is_one_line_that_names_its_flag_before_the_target_is_called(
    command: list[str], remedy: str, target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verb, *options = command
    out = tmp_path / "out"
    assert remedy in refused(capsys, verb, f"{target}:fails", "--out", str(out), *options)
    assert not out.exists()


@pytest.mark.parametrize("name", [name for name in app if not name.startswith("-")])
def test_every_command_can_be_quiet_and_says_what_it_and_each_option_is(name: str) -> None:
    parameters = inspect.signature(app[name].default_command, eval_str=True).parameters.values()
    command = [name, *("x" for parameter in parameters if parameter.kind is parameter.POSITIONAL_ONLY)]
    if any(parameter.name == "out" and parameter.default is parameter.empty for parameter in parameters):
        command += ["--out", "x"]
    app.parse_args([*command, "--quiet"], exit_on_error=False, print_error=False)
    assert app[name].help
    assert all(typing.get_args(parameter.annotation)[1].help for parameter in parameters)


def test_every_verb_has_a_command_where_a_command_line_can_give_what_it_needs() -> None:
    assert {name for name, kind in verbs().items() if possible(kind)} < set(app)
    assert not {"instability", "comparison"} & set(app)  # they need trainings, and results


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_computed(
    target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    inside_a_file = str(tmp_path / "file" / "out")  # nobody may write there, root included
    assert "cannot be written" in refused(capsys, "surface", f"{target}:objective", "--out", inside_a_file)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(
    target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    assert "Permission denied" in refused(capsys, "surface", f"{target}:objective", "--out", str(tmp_path / "locked"))


def test_a_report_of_an_empty_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "holds no results" in refused(capsys, "report", str(tmp_path))


@pytest.mark.usefixtures("_unrendered")
def test_a_report_that_must_be_a_pdf_exits_with_3_where_there_is_no_latex_and_leaves_the_page(
    target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    assert run("robustness", f"{target}:objective", "--out", out, "--draws", "2", "--sigmas", "0,1") == 0
    assert run("report", out, "--pdf") == 3
    assert "latexmk" in capsys.readouterr().err
    assert (tmp_path / "out" / "report.html").is_file()


def test_doctor_names_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("doctor") == 0
    printed = capsys.readouterr().out
    for part in ("torch", "GPU", "LaTeX", "mnist", "fashion-mnist", "cifar10"):
        assert part in printed


def test_an_interrupt_ends_with_130_and_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> str:
        raise KeyboardInterrupt

    app.command(interrupted, name="interrupted")
    try:
        assert run("interrupted") == 130
    finally:
        del app["interrupted"]
    assert "same command" in capsys.readouterr().err


@pytest.mark.parametrize("own", [None, "ACTIVE"])
def test_threads_wait_passively_unless_told_otherwise(own: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", own or "")  # so that it is restored
    if own is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setattr(cli, "guarded", lambda command: 0)
    with pytest.raises(SystemExit):
        cli.main()
    assert os.environ["OMP_WAIT_POLICY"] == (own or "PASSIVE")


def test_the_policy_is_set_before_pytorch_is_loaded_and_help_does_without_it() -> None:
    code = (
        "import sys\nfrom lossatlas.cli import main\nassert 'torch' not in sys.modules\n"
        "sys.argv = ['lossatlas', '--help']\ntry:\n    main()\nexcept SystemExit:\n    pass\n"
        "import os\nassert 'torch' not in sys.modules and 'OMP_WAIT_POLICY' in os.environ"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)


def test_python_m_lossatlas_is_the_command_line() -> None:
    found = subprocess.run([sys.executable, "-m", "lossatlas", "--version"], capture_output=True, text=True, check=True)
    assert found.stdout.strip()[0].isdigit()
