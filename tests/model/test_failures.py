"""What users are told when their model or loss fails: each message holds the cause and the remedy."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lossatlas.errors import InputError
from lossatlas.objective import Objective

LINEAR = nn.Linear(4, 3)
X, Y = torch.linspace(-1, 1, 32).view(8, 4), torch.arange(8) % 3


def classes_in_float64():
    weight = torch.ones(3)
    return Objective(LINEAR, lambda o, t: F.cross_entropy(o, t, weight=weight), (X, Y), dtype=torch.float64)


def label_out_of_range():
    return Objective(LINEAR, F.cross_entropy, (X, Y + 1))


def index_out_of_table():
    return Objective(nn.EmbeddingBag(4, 3), F.cross_entropy, (torch.full((8, 2), 7), Y))


def norm_of_one_value():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    return Objective(model, F.cross_entropy, (X[:1], Y[:1]), batch_norm="batch").value()


class Returns(nn.Module):
    """Output objects as libraries of pretrained models return them."""

    class SequenceClassifierOutput(OrderedDict):
        pass

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 3)

    def forward(self, x):
        return self.SequenceClassifierOutput(logits=self.inner(x))


def output_object():
    return Objective(Returns(), F.cross_entropy, (X, Y))


def attribute_of_output_object():
    return Objective(Returns(), lambda o, t: F.cross_entropy(o.float(), t), (X, Y))


def graph_in_a_hook():
    model = nn.Sequential(nn.Linear(4, 3))
    model[0].register_forward_hook(Keeping(model[0].weight * 2))
    return Objective(model, F.cross_entropy, (X, Y))


class Keeping:
    def __init__(self, tensor):
        self.tensor = tensor

    def __call__(self, module, args, output):
        return None


class OfTraining(nn.Module):
    """A loss in training mode, and classes otherwise."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 3)

    def forward(self, x, y):
        return {"loss": F.cross_entropy(self.inner(x), y)} if self.training else self.inner(x).argmax(1)


def loss_in_training_mode_only():
    return Objective.from_step(OfTraining(), lambda model, batch: model(*batch)["loss"], [(X, Y)])


def switched_to_training_mode():
    return Objective.from_step(OfTraining(), lambda model, batch: model.train()(*batch)["loss"], [(X, Y)])


def switched_to_evaluation_mode():
    def step(model, batch):
        loss = model(*batch)["loss"]
        model.eval()
        return loss

    return Objective.from_step(OfTraining(), step, [(X, Y)], mode="train")


class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))
        self.weight = nn.Parameter(torch.ones(4, 2))

    def forward(self, x):
        return (torch.fft.fft(x) * torch.view_as_complex(self.weight)).real + self.bias


def complex_view_at_an_odd_place():
    return Objective(Complex(), F.mse_loss, (X, X)).value()


def graph_cut_by_a_subset():
    class Graph(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 3)
            self.register_buffer("adjacency", torch.eye(8))

        def forward(self, x):
            return self.adjacency @ self.inner(x)

    return Objective(Graph(), F.cross_entropy, (X, Y)).examples(torch.arange(4))


def without_a_graph():
    def step(model, batch):
        with torch.no_grad():
            out = model(batch[0])
        return torch.autograd.grad(out.sum(), batch[0])[0].mean()

    return Objective.from_step(LINEAR, step, [(X,)])


def first_derivative_without_create_graph():
    def step(model, batch):
        x = batch[0].clone().requires_grad_()
        return torch.autograd.grad(model(x).pow(2).sum(), x)[0].pow(2).mean()

    return Objective.from_step(LINEAR, step, [(X,)]).gradient()


def graph_used_up():
    def step(model, batch):
        x = batch[0].clone().requires_grad_()
        energy = model(x).pow(2).sum()
        return torch.autograd.grad(energy, x)[0].pow(2).mean() + energy / len(x)

    return Objective.from_step(LINEAR, step, [(X,)]).gradient()


def sizes_that_do_not_fit():
    return Objective(nn.Linear(5, 3), F.cross_entropy, (X, Y))


def inputs_by_name():
    return Objective(LINEAR, F.cross_entropy, [({"values": X}, Y)])


class Halved(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x / 2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return gradient / 2


def differentiated_once():
    return (
        Objective(LINEAR, lambda o, t: F.cross_entropy(Halved.apply(o), t), (X, Y))
        .with_route("exact")
        .hvp(torch.ones(15))
    )


MESSAGES = [
    (classes_in_float64, "another dtype", "weight.double()"),
    (label_out_of_range, "a label lies outside the range", "from 0 to the number of outputs - 1"),
    (index_out_of_table, "an index lies outside an embedding's table", "num_embeddings"),
    (norm_of_one_value, "BatchNorm cannot take its statistics from one example", "use larger batches"),
    (output_object, "output object", "Objective.from_step("),
    (attribute_of_output_object, "output object", "Objective.from_step("),
    (graph_in_a_hook, "because of a hook of 0 (Linear)", "remove a hook"),
    (loss_in_training_mode_only, "works in training mode (IndexError", "give mode='train'"),
    (switched_to_training_mode, "switches the model to train mode", "mode='train' is training mode"),
    (switched_to_evaluation_mode, "switches the model to train mode or back", "leave model.train() and model.eval()"),
    (complex_view_at_an_odd_place, "one real vector", "torch.view_as_complex(weight.clone())"),
    (graph_cut_by_a_subset, "cannot be cut anew, since", "with one row an example"),
    (without_a_graph, "no graph leads to", "torch.enable_grad()"),
    (first_derivative_without_create_graph, "does not depend on the parameters", "create_graph=True"),
    (graph_used_up, "differentiated once more", "create_graph=True"),
    (sizes_that_do_not_fit, "sizes do not fit", "compare the inputs with what the model takes"),
    (inputs_by_name, "passed by name", "Objective.from_step("),
    (differentiated_once, "only once", "replace it by PyTorch's own"),
]


@pytest.mark.parametrize(("fails", "cause", "remedy"), MESSAGES, ids=[case[0].__name__ for case in MESSAGES])
def test_a_failure_is_one_line_with_cause_and_remedy(fails, cause, remedy):
    with pytest.raises(InputError) as found:
        fails()
    text = str(found.value)
    assert cause in text, text
    assert remedy in text, text
    assert "\n" not in text
    assert text.endswith(".")
