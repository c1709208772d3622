"""Files of weights: read, written whole, and refused in one line."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from oracles.members import BY_NAME, Tied
from oracles.refusals import refused
from safetensors.torch import save_file
from torch import nn

from lossatlas.errors import CheckpointError, OutputError
from lossatlas.model.checkpoints import read_state, write_state
from lossatlas.objective import Objective
from lossatlas.results.files import replacing

STATE = nn.Linear(3, 2).state_dict()


def same(state):
    return state.keys() == STATE.keys() and all(torch.equal(state[name], STATE[name]) for name in STATE)


def test_both_formats_are_read(tmp_path):
    torch.save(STATE, tmp_path / "a.pt")
    save_file(STATE, tmp_path / "a.safetensors")
    assert same(read_state(tmp_path / "a.pt"))
    assert same(read_state(str(tmp_path / "a.safetensors")))


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_a_training_checkpoint_is_unwrapped(key, tmp_path):
    torch.save({"epoch": 3, key: STATE}, tmp_path / "a.pt")
    assert same(read_state(tmp_path / "a.pt"))


def test_what_is_written_is_read_bit_for_bit(tmp_path):
    write_state(Tied().state_dict(), tmp_path / "a.safetensors")  # two names of one tensor
    tied = read_state(tmp_path / "a.safetensors")
    assert torch.equal(tied["encoder.weight"], tied["decoder.weight"])
    write_state(STATE, tmp_path / "a.safetensors")
    assert same(read_state(tmp_path / "a.safetensors"))
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_write_that_breaks_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def breaks():
        with replacing(path) as temporary:
            temporary.write_text("ne")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        breaks()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_does_not_exist_cannot_be_written(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        write_state(STATE, tmp_path / "nowhere" / "a.safetensors")


def refusal(path: Path) -> str:
    with refused(CheckpointError) as caught:
        read_state(path)
    assert path.name in str(caught.value)
    return str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert "no checkpoint" in refusal(tmp_path / "none.pt")
    assert "no checkpoint" in refusal(tmp_path)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_git_lfs_pointer_is_recognised(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n")
    assert "git lfs pull" in refusal(path)


@pytest.mark.parametrize("form", ["safetensors", "zip", "legacy"])
def test_a_file_cut_short_anywhere_is_refused(form, tmp_path):
    path = tmp_path / ("a.safetensors" if form == "safetensors" else "a.pt")
    if form == "safetensors":
        save_file(STATE, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=form == "zip")
    whole = path.read_bytes()
    for length in range(0, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(whole[:length])
        refusal(path)


def test_files_that_hold_something_else_are_refused_with_what_to_save(tmp_path):
    path = tmp_path / "a.pt"
    for thing in ([1, 2], {"loss": 0.3}, {}, "text"):
        torch.save(thing, path)
        assert "state_dict()" in refusal(path)
    torch.save(nn.Linear(3, 2), path)  # the module itself
    assert "state_dict()" in refusal(path)
    path.write_bytes(pickle.dumps(print))
    refusal(path)
    path.write_text("hello")
    refusal(path)


def test_weights_with_nan_are_refused_as_a_point(tmp_path):
    member = BY_NAME["mlp-tanh"]
    model = member.make()
    o = Objective(model, member.loss, member.data())
    with torch.no_grad():
        model[0].bias[0] = torch.nan
    torch.save(model.state_dict(), tmp_path / "a.pt")
    with pytest.raises(ValueError, match="NaN"):
        o.point_of(tmp_path / "a.pt")


def test_a_point_comes_from_a_file(tmp_path):
    member = BY_NAME["batch-norm"]
    o = Objective(member.make(), member.loss, member.data())
    other = member.make(seed=1)
    torch.save(other.state_dict(), tmp_path / "a.pt")
    save_file(other.state_dict(), tmp_path / "a.safetensors")
    assert torch.equal(o.point_of(tmp_path / "a.pt"), o.point_of(other))
    assert torch.equal(o.point_of(tmp_path / "a.safetensors"), o.point_of(other))
