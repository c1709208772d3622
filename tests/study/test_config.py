"""A study's configuration: presets, changes by a file and by settings, and mistakes refused in one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from lossatlas import cli
from lossatlas.cli import app
from lossatlas.errors import ConfigError
from lossatlas.study.config import presets, resolve
from lossatlas.study.steps import steps

README = (Path(__file__).parents[2] / "README.md").read_text()


def labels(*settings: str) -> list[str]:
    return [step.label for step in steps(resolve("digits", settings=settings))]


@pytest.mark.parametrize("preset", presets())
def test_every_preset_survives_its_own_file(preset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    app(["study", "--preset", preset, "--set", "measure.line=null", "--show-config"])
    (tmp_path / "study.yaml").write_text(capsys.readouterr().out)
    assert resolve(file=tmp_path / "study.yaml") == resolve(preset, settings=["measure.line=null"])


def test_the_fashion_preset_is_the_protocol_of_the_fashion_mnist_study() -> None:
    config = resolve("fashion")
    train, robustness = config.train, config.measure["robustness"]
    assert (config.dataset, train.network, train.epochs, train.seeds) == ("fashion-mnist", "simple_cnn", 6, (1, 2))
    assert (train.optimizer, train.learning_rate, train.momentum, train.batch_size) == ("sgd", 0.01, 0.9, 128)
    assert robustness is not None
    assert robustness.chosen.sigmas == (0.0, 0.01, 0.02, 0.05, 0.1)


def test_settings_change_a_file_which_changes_its_preset(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("preset: mnist\ntrain: {epochs: 7, momentum: 0.5}\n")
    train = resolve(file=tmp_path / "mine.yaml", settings=["train.epochs=8"]).train
    assert (train.epochs, train.momentum, train.network) == (8, 0.5, "simple_cnn_wide")
    assert resolve(settings=["preset=mnist"]) == resolve("mnist")


def test_a_part_of_a_measurements_data_is_changed_and_the_rest_kept() -> None:
    def data(*settings: str) -> dict[str, tuple[str, int | None]]:
        found = resolve("digits", settings=settings).measure
        return {name: (one.split, one.examples) for name, one in found["connect"].data.items() if one is not None}

    assert data("measure.connect.data.examples=9") == {"objective": ("train", 9), "test": ("test", None)}
    assert data("measure.connect.data.test.examples=9") == {"objective": ("train", None), "test": ("test", 9)}
    assert data("measure.connect.data.test=null") == {"objective": ("train", None)}
    assert data("measure.connect.data=test") == {"objective": ("test", None), "test": ("test", None)}


def test_without_data_a_measurement_is_on_the_test_set() -> None:
    (data,) = resolve("digits", settings=["measure.gauss_newton_split={}"]).measure["gauss_newton_split"].data.values()
    assert data.split == "test"


def test_a_study_is_networks_times_measurements() -> None:
    only = [f"measure.{name}=null" for name in ("line", "surface", "trajectory", "power_fixed", "power_changing")]
    only += [f"measure.{name}=null" for name in ("invariance", "quantisation", "pruning", "basin")]
    three = labels(*only, "train.seeds=[1, 2, 3]", "measure.robustness_filter=null", "measure.robustness.networks=[C]")
    assert three == [
        *("training_a", "training_b", "training_c"),
        *("spectrum_a", "spectrum_b", "spectrum_c"),
        *("sharpness_a", "sharpness_b", "sharpness_c"),
        *("connect_ab", "connect_ac", "connect_bc"),
        "robustness_c",
    ]
    one = labels("train.seeds=[1]")
    assert "spectrum_a" in one
    assert not any(label.startswith("connect") for label in one)  # there is no pair
    assert "chain_bc" in labels("train.seeds=[1, 2, 3]", "measure.chain={verb: connect, networks: [B, C]}")


@pytest.mark.parametrize(
    ("setting", "remedy"),
    [
        ("train.epoch=3", r"did you mean 'train\.epochs'"),
        ("epochs=3", r"did you mean 'train\.epochs'"),
        ("train.epochs=many", r"train\.epochs = 'many' is wrong: .* valid integer"),
        ("train.epochs=1.5", "valid integer"),
        ("train.epochs=0", "greater than or equal to 1"),
        ("train.learning_rate=.nan", "finite"),
        ("train.epochs", "key=value"),
        ("measure..options=3", "key=value"),
        ("train.epochs=[", "no valid YAML"),
        ("train.seeds=[]", "at least 1"),
        ("train.seeds=[1, 1]", "twice"),
        ("preset=digit", "did you mean 'digits'"),
        ("measure=3", "give keys and values"),
        ("measure.spectrm={}", "did you mean 'spectrum'"),
        ("measure.line.verb=surfaces", "did you mean 'surface'"),
        ("measure.line.optionz={}", r"did you mean 'measure\.line\.options'"),
        ("measure.line.options.stepz=3", r"did you mean 'measure\.line\.options\.steps'"),
        ("measure.spectrum.options.k=many", r"measure\.spectrum\.options\.k = 'many' is wrong: .* valid integer"),
        ("measure.surface.options.norm=filters", "'filter', 'layer' or 'model'"),
        ("measure.connect.options.curve=spline", "'bezier', 'chain' or 'none'"),
        ("measure.robustness.options.draws=1", "greater than or equal to 2"),
        ("measure.instability={}", r"measure\.instability\.options\.ks is missing"),
        ("measure.instability.options.ks=[-1]", "greater than or equal to 0"),
        ("measure.instability.options.ks=[3, 3]", "none twice"),
        ("measure.instability.options={ks: [0], draws: 50}", "at least 100"),
        ("measure.line.data=validation", "'train' or 'test'"),
        ("measure.line.data.exampels=3", "did you mean 'examples'"),
        ("measure.robustness.data.test=train", "its data are: objective"),
        ("measure.line.data.objective=null", "needs its data 'objective'"),
        ("measure.line.networks=[C]", "there are A, B"),
        ("measure.line.networks=A", "give a list"),
        ("measure.line.networks=[]", "at least 1"),
        ("measure.line.networks=[A, A]", "twice"),
        ("measure.connect.networks=[A]", "is on 2 networks"),
        ("measure.training={verb: surface}", "choose another"),
        ("measure.a/b={verb: surface}", "pattern"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line_with_the_remedy(setting: str, remedy: str) -> None:
    with pytest.raises(ConfigError, match=remedy) as refused:
        resolve("digits", settings=[setting])
    assert re.fullmatch(r"[^\n]*[^.\n]\.", str(refused.value))


@pytest.mark.parametrize(
    ("text", "remedy"), [("[1, 2]", "holds a list"), ("a: [", "no valid YAML"), (None, "cannot be read")]
)
def test_a_file_that_is_no_configuration_is_refused(text: str | None, remedy: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=remedy):
        resolve(file=tmp_path / "mine.yaml")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--preset", "cifar"],
        ["--set", "dataset=imagenet"],
        ["--set", "train.network=vgg"],
        ["--set", "train.options={widths: 4}"],
        ["--set", "train.options={seed: 4}"],
        ["--set", "train.unknown=1"],
        ["--set", "measure.instability.options.ks=[0, 401]"],  # a training has 400 steps
        ["--config", "nowhere.yaml"],
    ],
)
def test_a_study_that_cannot_be_done_exits_with_2_and_one_line_and_writes_nothing(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["study", "--out", str(out), "--set", "train.network=mlp", *arguments]
    assert cli.guarded(lambda: app(command, exit_on_error=False, print_error=False, help_on_error=False)) == 2
    error = capsys.readouterr().err
    assert error.startswith("lossatlas: error: ")
    assert error.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize("setting", sorted(set(re.findall(r"--set ([\w.]+=[^\s`]+)", README))))
def test_every_setting_that_the_readme_shows_is_valid(setting: str) -> None:
    assert yaml.safe_dump(resolve("digits", settings=[setting]).model_dump(mode="json"))
