"""Checkpoints of every form that trainers write give the model's own weights, or are refused with what to do."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from oracles.members import Tied
from oracles.refusals import refused
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from lossatlas.errors import CheckpointError
from lossatlas.model.naming import Names
from lossatlas.objective import Objective


def network(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3))
    model(torch.randn(9, 4))  # statistics and their counter
    return model


GIVEN, OTHER, THIRD = network(1), network(2), network(3)
STATE, SECOND = GIVEN.state_dict(), OTHER.state_dict()
COUNTER = "1.num_batches_tracked"


def objective(model=None):
    torch.manual_seed(0)
    data = torch.randn(12, 4), torch.randint(3, (12,))
    return Objective(network(0) if model is None else model, F.cross_entropy, data, check=False)


def put(prefix, state=STATE):
    return {prefix + name: tensor for name, tensor in state.items()}


def saved(form, **options):
    """A way to write an object that ``form(folder)`` makes, by ``torch.save``."""

    def write(folder, name="a.ckpt"):
        torch.save(form(), folder / name, **options)
        return folder / name

    return write


def lightning(state):
    model = network(4)
    adam = torch.optim.Adam(model.parameters())
    sum(parameter.sum() for parameter in model.parameters()).backward()
    adam.step()
    return {
        "epoch": 3,
        "global_step": 90,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": state,
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 3}}}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(0.1)}},
        "optimizer_states": [adam.state_dict()],
        "lr_schedulers": [],
        "hyper_parameters": {"root": Path("data"), "lr": 0.1},
    }


def timm(**more):
    args = argparse.Namespace(model="mlp", opt="adamw", lr=0.1, betas=[0.9, 0.999])
    head = {"epoch": 3, "arch": "mlp", "optimizer": {"state": {}, "param_groups": []}, "version": 2}
    return head | {"state_dict": STATE, "args": args, "amp_scaler": {"scale": 1.0}, "metric": 71.5} | more


def accelerate(folder):
    save_file(STATE, folder / "model.safetensors", metadata={"format": "pt"})
    torch.save({"state": {0: {"exp_avg": torch.ones(5, 4)}}, "param_groups": []}, folder / "optimizer.bin")
    torch.save({"last_epoch": 3}, folder / "scheduler.bin")
    (folder / "random_states_0.pkl").write_bytes(b"")
    return folder


def older_accelerate(folder):
    torch.save(STATE, folder / "pytorch_model.bin")
    torch.save({"state": {}}, folder / "optimizer.bin")
    return str(folder)


def shards(folder, suffix, write):
    """As ``save_pretrained`` does."""
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    files = [f"{stem}-0000{i}-of-00002.{suffix}" for i in (1, 2)]
    where = {name: files[i % 2] for i, name in enumerate(STATE)}
    for file in files:
        write({name: STATE[name] for name in STATE if where[name] == file}, folder / file)
    index = {"metadata": {"total_size": 1}, "weight_map": where}
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text("{}")
    return folder


def averaged():
    average = AveragedModel(OTHER, device="cpu")
    average.load_state_dict({"n_averaged": torch.tensor(7), **put("module.")})
    return average.state_dict()


def part_compiled():
    model = network(1)
    model[3] = torch.compile(model[3], backend="eager")
    return model.state_dict()


def exponential():
    """As a wrapper keeps it that holds the model and its average: one state with both, and counters."""
    return {**put("online_model.", SECOND), **put("ema_model."), "initted": torch.tensor(True), "step": torch.tensor(9)}


# A form, the key that it takes, and what explain() tells of it; None where there was no choice.
FORMS = {
    "a state dict": (saved(lambda: STATE), None, None),
    "in the form before PyTorch 1.6": (
        saved(
            lambda: {"net": STATE, "acc": 93.0, "args": argparse.Namespace(lr=1)}, _use_new_zipfile_serialization=False
        ),
        None,
        "taken from 'net'",
    ),
    "safetensors": (lambda d: save_file(STATE, d / "a.safetensors") or d / "a.safetensors", None, None),
    "Lightning": (
        saved(lambda: lightning(put("model."))),
        None,
        "taken from 'state_dict'; 'model.' left out of the names",
    ),
    "Lightning, compiled": (saved(lambda: lightning(put("net._orig_mod."))), None, "_orig_mod left out of the names"),
    "Lightning with a loss": (
        saved(lambda: lightning(put("model.") | {"criterion.weight": torch.ones(3)})),
        "state_dict.model",
        "'model.' left out",
    ),
    "Lightning's average of weights": (
        saved(lambda: lightning(put("model.")) | {"current_model_state": put("model.", SECOND)}),
        "state_dict",
        "taken from 'state_dict'",
    ),
    "Accelerate": (accelerate, None, None),
    "older Accelerate": (older_accelerate, None, None),
    "shards of safetensors": (lambda d: shards(d, "safetensors", save_file), None, None),
    "the index of shards by torch.save": (
        lambda d: shards(d, "bin", torch.save) / "pytorch_model.bin.index.json",
        None,
        None,
    ),
    "timm with a Namespace": (saved(timm), None, "taken from 'state_dict'"),
    "timm, the average": (
        saved(lambda: timm(state_dict=SECOND, state_dict_ema=STATE)),
        "state_dict_ema",
        "taken from 'state_dict_ema'",
    ),
    "an average beside the model": (
        saved(lambda: {"model": SECOND, "model_ema": STATE, "optimizer": {}}),
        "model_ema",
        "taken from 'model_ema'",
    ),
    "an average of another size of the model": (
        saved(lambda: {"ema_state_dict": STATE, "model": nn.Linear(4, 3).state_dict()}),
        None,
        "taken from 'ema_state_dict'",
    ),
    "AveragedModel": (saved(averaged), None, "n_averaged left out"),
    "a wrapper with model and average": (saved(exponential), "ema_model", "'ema_model.' left out"),
    "a state that holds an average": (saved(lambda: STATE | put("ema.", SECOND)), ".", None),
    "the other one of it": (saved(lambda: SECOND | put("ema.")), "ema", "'ema.' left out"),
    "DataParallel": (saved(lambda: nn.DataParallel(GIVEN).state_dict()), None, "module left out of the names"),
    "a compiled part": (saved(part_compiled), None, "_orig_mod left out of the names"),
    "FSDP and checkpointing at depth": (
        saved(
            lambda: {
                "_fsdp_wrapped_module." + name.replace(".", "._fsdp_wrapped_module._checkpoint_wrapped_module."): t
                for name, t in STATE.items()
            }
        ),
        None,
        "_checkpoint_wrapped_module and _fsdp_wrapped_module left out",
    ),
    "DeepSpeed": (saved(lambda: {"module": STATE, "dp_world_size": 2, "param_shapes": []}), None, "'module'"),
    "two networks of a distillation": (
        saved(lambda: {"state_dict": put("module.student.backbone.", SECOND) | put("module.teacher.backbone.")}),
        "state_dict.teacher",
        "'teacher.backbone.' left out",
    ),
    "an object": (lambda _: {"ema": {"shadow": STATE, "decay": 0.999}}, None, "taken from 'ema.shadow'"),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_checkpoint_gives_the_weights_bit_for_bit_and_tells_what_was_taken(name, tmp_path):
    write, key, told = FORMS[name]
    o, source = objective(), write(tmp_path)
    assert torch.equal(o.point_of(source, key=key), nn.utils.parameters_to_vector(GIVEN.parameters()))
    state = o.function.state_of(source, key)
    assert list(state) == list(STATE)
    assert all(torch.equal(state[name], STATE[name]) for name in STATE)
    notes = [line for line in o.explain().splitlines() if line.startswith("weights of ")]
    assert [told in note for note in notes] == ([True] if told else []), notes


def test_a_key_may_end_a_path(tmp_path):
    path = saved(lambda: {"model": SECOND, "model_ema": STATE})(tmp_path)
    o = objective()
    assert torch.equal(o.point_of(f"{path}:model_ema"), o.point_of(GIVEN))
    assert torch.equal(o.end_of(Path(f"{path}:model")), o.point_of(OTHER))
    with refused(CheckpointError, "names nothing.*model \\(9 tensors\\)"):
        o.point_of(f"{path}:modl")


def test_names_may_lack_what_stands_before_all_of_the_models_own():
    class Wrapped(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.net = nn.ModuleDict({"inner": inner})

        def forward(self, x):
            return self.net["inner"](x)

    o = objective(Wrapped(network(0)))
    for source in (STATE, {"state_dict": put("inner.")}, put("model.net.module.inner."), nn.DataParallel(GIVEN)):
        assert torch.equal(o.point_of(source), nn.utils.parameters_to_vector(GIVEN.parameters()))


def test_a_module_is_found_in_the_one_around_it_with_the_buffers_that_no_state_dict_holds():
    class Scaled(nn.Module):
        def __init__(self, scale, seed):
            super().__init__()
            torch.manual_seed(seed)
            self.fc = nn.Linear(4, 3)
            self.register_buffer("scale", torch.tensor(scale), persistent=False)

        def forward(self, x):
            return self.scale * self.fc(x)

    around = nn.ModuleDict({"model": nn.DataParallel(Scaled(2.0, 1)), "criterion": nn.CrossEntropyLoss(torch.ones(3))})
    o = objective(Scaled(1.0, 0))
    with refused(CheckpointError, "besides them criterion.weight: .*key='model'"):
        o.point_of(around)
    state = o.function.state_of(around, "model")
    assert float(state["scale"]) == 2.0
    assert torch.equal(state["fc.weight"], around["model"].module.fc.weight)


def test_tied_tensors_need_one_name_and_two_that_differ_are_refused():
    member = Tied()
    o = Objective(member, F.mse_loss, (torch.randn(6, 5), torch.randn(6, 5)), check=False)
    whole = {"model." + name: tensor + 1 for name, tensor in member.state_dict().items()}
    for left_out in ("model.decoder.weight", "model.encoder.weight"):
        state = {name: tensor for name, tensor in whole.items() if name != left_out}
        assert torch.equal(o.point_of(state), o.point + 1)
    with refused(CheckpointError, "encoder.weight and model.decoder.weight are one tensor in this model"):
        o.point_of(whole | {"model.decoder.weight": whole["model.decoder.weight"] + 1})


def test_the_part_of_a_model_whose_head_is_tied_to_it_gives_the_whole():
    class Head(nn.Module):
        def __init__(self, seed):
            super().__init__()
            torch.manual_seed(seed)
            self.body = nn.ModuleDict({"embedding": nn.Embedding(7, 4), "fc": nn.Linear(4, 4)})
            self.head = nn.Linear(4, 7, bias=False)
            self.head.weight = self.body["embedding"].weight

        def forward(self, x):
            return self.head(self.body["fc"](self.body["embedding"](x)))

    given = Head(1)
    o = Objective(Head(0), F.cross_entropy, (torch.randint(7, (9,)), torch.randint(7, (9,))), check=False)
    for source in (given.body.state_dict(), given.state_dict(), put("model.", given.state_dict())):
        assert torch.equal(o.point_of(source), nn.utils.parameters_to_vector(given.parameters()))


# Adapters


class Layer(nn.Module):
    """A linear layer with adapters, named as PEFT names them."""

    def __init__(self, inputs, outputs, adapters):
        super().__init__()
        self.base_layer = nn.Linear(inputs, outputs)
        self.lora_A = nn.ModuleDict({name: nn.Linear(inputs, 2, bias=False) for name in adapters})
        self.lora_B = nn.ModuleDict({name: nn.Linear(2, outputs, bias=False) for name in adapters})

    def forward(self, x):
        return self.base_layer(x) + sum(self.lora_B[name](low(x)) for name, low in self.lora_A.items())


class Adapted(nn.Module):
    def __init__(self, seed, *adapters):
        super().__init__()
        torch.manual_seed(seed)
        inner = nn.Sequential(Layer(4, 5, adapters), nn.Tanh(), Layer(5, 3, adapters))
        self.base_model = nn.ModuleDict({"model": inner})
        for name, parameter in self.named_parameters():
            parameter.requires_grad_("lora_" in name)

    def forward(self, x):
        return self.base_model["model"](x)


def adapter_file(folder, model, adapter="default", without="none"):
    """As ``PeftModel.save_pretrained`` does: no base, no name of the adapter."""
    state = {n.replace(f".{adapter}.", "."): t.detach() for n, t in model.named_parameters() if f".{adapter}." in n}
    save_file({n: t for n, t in state.items() if without not in n}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    return folder


def test_the_file_of_an_adapter_gives_the_adapters_and_keeps_the_base(tmp_path):
    own, given = Adapted(0, "default"), Adapted(1, "default")
    o, source = objective(own), adapter_file(tmp_path, given)
    assert torch.equal(
        o.point_of(source), nn.utils.parameters_to_vector(p for p in given.parameters() if p.requires_grad)
    )
    state = o.function.state_of(source)
    kept = own.state_dict()
    assert all(torch.equal(state[name], kept[name]) for name in kept if "base_layer" in name)
    assert "adapters 'default' alone" in o.explain()
    whole = given.state_dict()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in o.function.state_of(whole).items())


def test_an_adapter_goes_to_the_model_that_it_was_injected_into(tmp_path):
    own, given = Adapted(0, "mine"), Adapted(1, "mine")
    o, source = objective(own.base_model["model"]), adapter_file(tmp_path, given, "mine")
    assert torch.equal(
        o.point_of(source), nn.utils.parameters_to_vector(p for p in given.parameters() if p.requires_grad)
    )


# What PEFT 0.21 writes, and what it is called in the model; the base is not in the file.
PEFT = {
    "1.lora_A.weight": "1.lora_A.mine.weight",
    "1.lora_magnitude_vector": "1.lora_magnitude_vector.mine.weight",
    "0.lora_embedding_B": "0.lora_embedding_B.mine",
    "1.base_layer.bias": "1.base_layer.bias",
    "5.weight": "5.modules_to_save.mine.weight",
    "1.ia3_l": "1.ia3_l.mine",
    "1.hada_w1_a": "1.hada_w1_a.mine",
    "1.ln_tuning_layers.bias": "1.ln_tuning_layers.mine.bias",
}


def test_the_names_in_the_file_of_an_adapter_are_found_in_the_model():
    given = {f"base_model.model.{name}": torch.ones(1) for name in PEFT} | {"base_model.vera_A": torch.ones(1)}
    own = [*(f"base_model.model.{name}" for name in PEFT.values()), "base_model.vera_A.mine"]
    base = ["base_model.model.1.base_layer.weight", "base_model.model.5.original_module.weight"]
    first = {name: name for name in [*own, *base]}
    names = Names("PeftModel", first, dict.fromkeys(first, (1,)))
    assert [fit.complete for fit in names.fits("", given)] == [False]
    (fit,) = names.adapters("", given)
    assert fit.names == dict(zip(given, own, strict=True))
    assert (fit.complete, fit.unexpected) == (True, [])


def test_adapters_that_do_not_fit_are_refused(tmp_path):
    source = adapter_file(tmp_path, Adapted(1, "default"), without="2.lora_B")
    with refused(CheckpointError, r"1 missing \(base_model.model.2.lora_B.default.weight\)"):
        objective(Adapted(0, "default")).point_of(source)
    with refused(CheckpointError, "adapters alone: make the objective of the model that holds them"):
        objective().point_of(source)
    source = adapter_file(tmp_path, Adapted(1, "default"))
    with refused(CheckpointError, "fits several adapters"):
        objective(Adapted(0, "default", "other")).point_of(source)


# Refusals


def without(*names):
    return {name: tensor for name, tensor in STATE.items() if name not in names}


class Foreign(dict):
    """A mapping of a class that no one else has."""


class Runs:
    """An object that writes a file when it is unpickled the unsafe way."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return shutil.copyfile, (__file__, str(self.file))


REFUSED = {
    "two candidates": (
        saved(lambda: {"model": STATE, "model_ema": SECOND}),
        r"several times, under model, model_ema: pick one by .*key='model_ema'\), or by .*'FILE:model_ema'",
    ),
    "two below prefixes": (saved(exponential), "several times, under online_model, ema_model"),
    "entries beside the prefix": (
        saved(lambda: lightning(put("model.") | {"criterion.weight": torch.ones(3), "acc.correct": torch.tensor(3)})),
        r"besides them criterion.weight, acc.correct: .*key='state_dict.model'",
    ),
    "a head more": (
        saved(lambda: STATE | {"head.weight": torch.ones(2), "head.bias": torch.ones(2)}),
        r"2 unexpected \(head.weight, head.bias\).*strict=False",
    ),
    "a counter less": (saved(lambda: put("model.", without(COUNTER))), rf"1 missing \({COUNTER}\)"),
    "a prefix that does not fit all": (
        saved(
            lambda: {
                "state_dict": put("net.body.", without("3.weight", "3.bias")) | {"net.fc.weight": torch.ones(3, 5)}
            }
        ),
        r"2 missing \(3.weight, 3.bias\); 1 unexpected \(net.fc.weight\); nearest .*'state_dict.net.body', .* 7 names",
    ),
    "other shapes": (
        saved(lambda: {"model": put("module.", STATE | {"3.weight": torch.ones(4, 5)})}),
        r"1 of another shape \(3.weight is \(4, 5\), not \(3, 5\)\)",
    ),
    "nothing alike": (saved(lambda: {"a": {"w": torch.ones(2)}}), r"9 missing \(0.weight, .*1 unexpected \(w\)"),
    "a module": (saved(lambda: network(1)), r"holds a Sequential and no state dict.*state_dict\(\)"),
    "a module inside": (saved(lambda: {"model": network(1)}), r"holds a dict with model and no state dict"),
    "a mapping of an unknown class": (
        saved(lambda: {"model": Foreign(STATE)}),
        r"is not .*loaded|save model.state_dict",
    ),
    "several files": (
        lambda d: save_file(STATE, d / "a.safetensors") or save_file(STATE, d / "b.safetensors") or d,
        "holds several files of weights: give one, .*a.safetensors, .*b.safetensors",
    ),
    "one shard": (
        lambda d: shards(d, "safetensors", save_file) / "model-00001-of-00002.safetensors",
        "one shard of several: give its folder",
    ),
    "a shard that is not there": (
        lambda d: (shards(d, "bin", torch.save) / "pytorch_model-00002-of-00002.bin").unlink() or d,
        "names shards that are not beside it: fetch pytorch_model-00002-of-00002.bin",
    ),
    "a distributed checkpoint": (lambda d: (d / ".metadata").touch() or d, "dcp_to_torch_save"),
    "an index of something else": (
        lambda d: (d / "model.safetensors.index.json").write_text('{"a": 1}') and d,
        "is no index of shards",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_the_models_is_refused_with_what_to_do(name, tmp_path):
    write, match = REFUSED[name]
    o = objective()
    with refused(CheckpointError, match):
        o.point_of(write(tmp_path))


def test_shards_that_are_not_those_of_the_index_are_refused(tmp_path):
    folder = shards(tmp_path, "safetensors", save_file)
    file = folder / "model-00001-of-00002.safetensors"
    save_file({"0.weight": STATE["0.weight"], "new": torch.ones(1)}, file)
    with refused(CheckpointError, "its shards differ in"):
        objective().point_of(folder)


def test_a_scripted_archive_is_refused_with_the_way_to_its_weights(tmp_path):
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        torch.jit.script(nn.Linear(4, 3)).save(tmp_path / "a.pt")
    with refused(CheckpointError, r"state_dict\(\) of what torch.jit.load gives"):
        objective().point_of(tmp_path / "a.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_that_a_file_holds_is_run(zipped, tmp_path):
    mark = tmp_path / "mark"
    write = saved(lambda: {"state_dict": STATE, "callback": Runs(mark)}, _use_new_zipfile_serialization=zipped)
    o, source = objective(), write(tmp_path)
    if zipped:
        assert torch.equal(o.point_of(source), o.point_of(GIVEN))
    else:
        with refused(CheckpointError, r"names shutil.copyfile, which is not run"):
            o.point_of(source)
    assert not mark.exists()
    torch.load(source, weights_only=False)  # the same file, opened the unsafe way
    assert mark.exists()
