"""Models that compute their own loss from labels: L is the mean over all tokens that count, however they come."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from oracles import plain
from oracles.language import LENGTH, TASKS, VOCABULARY, Causal, Encoder, Task, texts
from torch import Tensor, nn
from torch.utils.data import DataLoader

import lossatlas as la
from lossatlas.errors import DataError, InputError, ReductionWarning
from lossatlas.model.data.tokenised import padded

SIZES = 1, 3, 5
every_task = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)


def objective(task: Task, size: int = 3, **options: Any) -> la.Objective:
    return la.Objective.from_hf(task.made(), task.rows(), batch_size=size, **options)


@every_task
@pytest.mark.parametrize("size", SIZES)
def test_value_gradient_and_products_are_those_of_all_tokens_one_text_at_a_time(task, size):
    assert_true(task, size, 1e-9)


def assert_true(task: Task, size: int, tolerance: float) -> None:
    o = objective(task, size)
    theta, v = o.point.requires_grad_(), plain.normal(o.n_parameters)
    loss = task.loss(theta)
    (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
    (product,) = torch.autograd.grad(gradient @ v, theta)
    assert o.value() == pytest.approx(loss.item(), rel=tolerance)
    torch.testing.assert_close(o.gradient(), gradient.detach(), rtol=tolerance, atol=1e-3 * tolerance)
    torch.testing.assert_close(o.hvp(v), product, rtol=tolerance, atol=1e-3 * tolerance)
    curved = task.gauss_newton(theta.detach())
    torch.testing.assert_close(la.gauss_newton(o) @ v, curved @ v, rtol=tolerance, atol=1e-3 * tolerance)


@every_task
def test_the_error_is_that_of_texts_whose_mean_it_is_and_accuracy_counts_what_the_loss_counts(task):
    o = objective(task)
    f, labels = task.logits(o.point)
    right = (f.argmax(1) == labels).double().mean()
    assert o.evaluate().metrics["accuracy"][0] == pytest.approx(float(right))
    assert o.samples()["loss"].over == "examples"
    assert len(o.samples()["loss"].values) == 5


def test_drawn_tokens_make_the_gauss_newton_matrix_in_the_mean():
    task = TASKS["causal"]
    o = objective(task, 5)
    v = plain.normal(o.n_parameters)
    forms = torch.stack([v @ (la.fisher(o, draws=16, seed=seed) @ v) for seed in range(6)])
    assert abs(float(forms.mean() - v @ task.gauss_newton(o.point) @ v)) < 4 * float(forms.std()) / 6**0.5


FORMS = {
    "rows": lambda rows: rows,
    "columns": lambda rows: {name: [row[name] for row in rows] for name in rows[0]},
    "tensors by name": padded,
    "batches": lambda rows: [padded(rows[:2]), padded(rows[2:])],
    "a loader": lambda rows: DataLoader(rows, batch_size=2, collate_fn=padded),
}


@pytest.mark.parametrize("form", FORMS)
def test_texts_come_in_every_form_with_the_same_loss(form):
    task = TASKS["causal"]
    o = la.Objective.from_hf(task.made(), FORMS[form](task.rows()), batch_size=2)
    assert o.value() == pytest.approx(float(task.loss(o.point)), rel=1e-12)
    assert o.n_examples == 5


def test_without_labels_every_token_with_attention_is_one():
    task = TASKS["causal"]
    rows = [{"input_ids": row["input_ids"], "title": "none"} for row in task.rows()]
    o = la.Objective.from_hf(task.made(), rows, batch_size=3)
    labelled = [row | {"labels": row["input_ids"]} for row in rows]
    assert o.value() == pytest.approx(la.Objective.from_hf(task.made(), labelled, batch_size=1).value(), rel=1e-12)
    assert "the cross-entropy of the next position; title left out" in o.explain()


def test_a_head_of_zeros_does_not_hide_which_position_a_label_is_of():
    for model, shift in ((Causal(), True), (Encoder(), False)):
        nn.init.zeros_((model.lm_head if shift else model.head).weight)
        o = la.Objective.from_hf(model, texts())
        assert ("next position" in o.explain()) == shift


class Regression(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(VOCABULARY, 1)

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> Any:
        logits = self.table(input_ids)
        loss = None if labels is None else F.mse_loss(logits.squeeze(), labels.squeeze())
        return {"loss": loss, "logits": logits}


def test_regression_is_the_mean_squared_error():
    ids, labels = torch.arange(12).reshape(6, 2) % VOCABULARY, torch.linspace(-1, 1, 6)
    model = Regression()
    o = la.Objective.from_hf(model, {"input_ids": ids, "label": labels}, batch_size=4)
    expected = (model.table.weight.detach()[ids].mean(1)[:, 0] - labels).square().mean()
    assert o.value() == pytest.approx(float(expected), rel=1e-6)


def test_labels_at_padding_are_told():
    batch = padded(texts())
    with pytest.warns(ReductionWarning, match="4 labels of the first batch are at padding"):
        la.Objective.from_hf(Causal(), [batch | {"labels": batch["input_ids"]}])


class Changed(nn.Module):
    """A causal model whose forward is another."""

    def __init__(self, change: Any) -> None:
        super().__init__()
        self.inner, self.change = Causal(), change

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None) -> Any:
        return self.change(self.inner(input_ids, attention_mask, labels))


REFUSED = {
    "another loss": (Changed(lambda r: SimpleNamespace(loss=2 * r.loss, logits=r.logits)), texts(), "own loss is"),
    "no logits": (Changed(lambda r: SimpleNamespace(loss=r.loss)), texts(), "without logits"),
    "a tensor": (Changed(lambda r: r.logits), texts(), "returns a Tensor without loss"),
    "no labels taken": (nn.Linear(2, 2), texts(), "takes no labels"),
    "none given": (Encoder(), [{"input_ids": [1, 2], "attention_mask": [1, 1]}], "There are no labels"),
    "no ids": (Causal(), [{"attention_mask": [1, 1]}], "give input_ids and labels"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_another_function_of_the_logits_is_refused_with_the_way_out(case):
    model, rows, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        la.Objective.from_hf(model, rows)


def test_data_of_other_forms_are_refused():
    for data, message in (([], "empty"), ([(1, 2)], "hold a tuple"), (iter(texts()), "only once")):
        with pytest.raises(DataError, match=message):
            la.Objective.from_hf(Causal(), data)
    loader = DataLoader(texts(), batch_size=2, shuffle=True, collate_fn=padded)
    with pytest.raises(DataError, match="shuffles"):
        la.Objective.from_hf(Causal(), loader)
    with pytest.raises(DataError, match="batch_size is 0"):
        la.Objective.from_hf(Causal(), texts(), batch_size=0)


@pytest.fixture(scope="module")
def transformers() -> Any:
    return pytest.importorskip("transformers", reason="needs transformers (pip install 'lossatlas[transformers]')")


def _of_the_library(transformers: Any, name: str) -> tuple[nn.Module, bool]:
    small = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    torch.manual_seed(0)
    if name == "gpt2":
        config = transformers.GPT2Config(n_layer=1, n_head=2, n_embd=4, n_positions=LENGTH, **small)
        return transformers.GPT2LMHeadModel(config), True
    size = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    if name == "llama":
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(**size, **small)), True
    config = transformers.BertConfig(**size, max_position_embeddings=LENGTH, num_labels=3, **small)
    made = transformers.BertForMaskedLM if name == "bert" else transformers.BertForSequenceClassification
    return made(config), False


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert", "classifier"])
def test_models_of_transformers_have_value_and_products_of_one_text_at_a_time(transformers, name):
    model, causal = _of_the_library(transformers, name)
    task = Task(lambda: copy.deepcopy(model), "class" if name == "classifier" else "next", int(causal))
    for size in SIZES:
        assert_true(task, size, 1e-5 if name == "llama" else 1e-9)  # whose norm computes in float32
