"""Problems whose model is wrapped, parametrised, scripted, compiled, complex or sparse: what people hand over."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrizations, prune
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from oracles.architectures import Written
from oracles.truth import N, Problem
from oracles.truth_data import CLASSES, LABELS, drawn, mlp, pairs, whole
from oracles.truth_models import Written2

WORDS = whole(7, N, 5)
LENGTHS = torch.tensor([5, 3, 4, 5, 2, 5, 1, 4, 3, 5, 2, 4])


def layered(first: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(first(), nn.Tanh(), nn.Linear(5, CLASSES))


def classifier(name: str, model: Callable[[], nn.Module], **options: Any) -> Problem:
    return Problem(name, model, F.cross_entropy, options.pop("data", pairs(LABELS)), **options)


def written(name: str, forward: Any, parts: Callable[[], dict[str, Any]], **options: Any) -> Problem:
    return classifier(name, lambda: Written(forward, **parts()), **options)


def _pruned() -> nn.Module:
    model = mlp()()
    prune.random_unstructured(model[0], "weight", amount=0.5)
    return model


def _old_spectral() -> nn.Module:
    return nn.Sequential(nn.utils.spectral_norm(nn.Linear(4, 5)).eval(), nn.Tanh(), nn.Linear(5, CLASSES)).eval()


class NotCopied(nn.Module):
    """With parts that cannot be deep-copied or pickled."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp()()
        self.places = (i for i in range(3))
        self.kept = {"lock": threading.Lock(), "scale": [torch.ones(4)]}

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class RefusesCopies(nn.Module):
    """With a part of its own that refuses them too."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(NotCopied())

    def __deepcopy__(self, memo: Any) -> Any:
        raise RuntimeError("this model holds a connection")

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def quietly(make: Callable[..., Any], *args: Any) -> Any:
    """What torch.jit makes, which calls itself deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return make(*args)


class ForScripts(nn.Module):
    """With statistics, dropout, a counter that is no statistic, and one tensor under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.inward, self.middle, self.head = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, CLASSES)
        self.again = nn.Linear(5, 5)
        self.again.weight = self.middle.weight
        self.norm, self.drop = nn.BatchNorm1d(5), nn.Dropout(0.5)
        self.norm.running_mean, self.norm.running_var = torch.randn(5), 1 + torch.rand(5)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls = self.calls + 1
        h = torch.tanh(self.middle(self.drop(self.norm(self.inward(x)))))
        return self.head(torch.tanh(self.again(h)))


def _loaded() -> nn.Module:
    file = io.BytesIO()
    quietly(torch.jit.save, quietly(torch.jit.script, ForScripts()), file)
    file.seek(0)
    return quietly(torch.jit.load, file)


def _half_scripted() -> nn.Module:
    """A script inside, one of whose tensors is another part's too."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), quietly(torch.jit.script, nn.Linear(4, 4)), nn.Linear(4, CLASSES))
    model[0].weight = model[2].weight
    return model


def unscripted(python: Callable[[], nn.Module]) -> Callable[[Any, Any], Tensor]:
    """L by the Python module that a script was made from."""
    return lambda f, b: F.cross_entropy(functional_call(python().double().eval(), all_of(f), b[0]), b[1])


def all_of(f: Any) -> dict[str, Tensor]:
    return dict(f.model.named_buffers()) | f.tensors


def _compiled_in_place() -> nn.Module:
    model = mlp()()
    model.compile(backend="eager")
    return model


def _half_compiled() -> nn.Module:
    model = mlp()()
    model[0] = torch.compile(model[0], backend="eager")
    return model


def _averaged(**options: Any) -> nn.Module:
    averaged = AveragedModel(mlp()(), **options)
    averaged.update_parameters(mlp()())
    return averaged


class Complex(nn.Module):
    """Complex weights between real inputs and real outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.inward = nn.Parameter(torch.randn(4, 5, dtype=torch.complex64))
        self.head = nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((x.to(self.inward.dtype) @ self.inward).abs().square())


class OddlyPlaced(nn.Module):
    """Complex weights and offsets that no even number of others comes before."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.phase = nn.Parameter(torch.randn(5, dtype=torch.complex64))
        self.spectrum = nn.Parameter(torch.randn(3, 5, dtype=torch.complex64))
        self.register_buffer("carrier", torch.randn(5, dtype=torch.complex64))
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        waves = self.scale * torch.fft.rfft(x) @ self.spectrum + self.phase.conj() * self.carrier
        return self.head(torch.fft.irfft(waves))


class Stored(nn.Module):
    """Complex weights that are stored as pairs of real numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.inward = nn.Parameter(torch.randn(3, 5, 2))
        self.head = nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        waves = torch.fft.rfft(x) @ torch.view_as_complex(self.inward)
        return self.head(torch.view_as_real(waves).square().sum(-1))


class Adapted(nn.Module):
    """y = W x + B A x, where W stands still and B begins at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(4, 5).requires_grad_(False)
        self.a, self.b = nn.Parameter(torch.randn(2, 4)), nn.Parameter(torch.zeros(5, 2))
        self.head = nn.Linear(5, CLASSES).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.base(x) + x @ self.a.T @ self.b.T))


def _by_hand(f: Any, b: Any) -> Tensor:
    """Two layers with one weight, and a last one."""
    w = f.tensors
    hidden = F.linear(F.linear(b[0], w["0.weight"], w["0.bias"]).tanh(), w["0.weight"], w["2.bias"])
    return F.cross_entropy(F.linear(hidden, w["3.weight"], w["3.bias"]), b[1])


def _without(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def _looked_up(f: Any, batch: Any, table: str) -> Tensor:
    """The mean of rows, by a table whose gradient is dense."""
    hidden = f.tensors[table][batch[0]].mean(1).tanh()
    return F.cross_entropy(F.linear(hidden, f.tensors["head.weight"], f.tensors["head.bias"]), batch[1])


def _weighted_bags(m: Any, x: Tensor) -> Tensor:
    """Two bags an example, of two and of three words, where word 6 is padding."""
    starts = 5 * torch.arange(len(x))
    bags = m.bag(x.flatten(), torch.stack([starts, starts + 2], 1).flatten(), m.importance[x].flatten())
    return m.head(bags.view(len(x), 8).tanh())


def _bags_by_hand(f: Any, batch: Any) -> Tensor:
    words, w = batch[0], f.tensors
    each = w["bag.weight"][words] * (w["importance"][words] * (words != 6))[..., None]
    hidden = torch.cat([each[:, :2].sum(1), each[:, 2:].sum(1)], 1).tanh()
    return F.cross_entropy(F.linear(hidden, w["head.weight"], w["head.bias"]), batch[1])


def _packed(m: Any, words: Tensor, lengths: Tensor) -> Tensor:
    packed = pack_padded_sequence(m.table(words), lengths.cpu(), batch_first=True, enforce_sorted=False)
    states, _ = pad_packed_sequence(m.cells(packed)[0], batch_first=True)
    return m.head(states.sum(1) / lengths[:, None])


def _of_lengths(kind: type[nn.Module]) -> Callable[[], nn.Module]:
    return lambda: Written2(
        _packed, table=nn.Embedding(7, 3), cells=kind(3, 4, batch_first=True), head=nn.Linear(4, CLASSES)
    )


class Steps(nn.Module):
    """A recurrence whose number of steps is data of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(3, 4), nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros(len(x), 4, dtype=x.dtype)
        for step in range(int(3 + (x.mean() > -9).item())):
            state = self.cell(x[:, step], state)
        return self.head(state)


class Quantised(nn.Module):
    """Weights as whole numbers of 8 bits and a scale, between layers that move."""

    def __init__(self) -> None:
        super().__init__()
        self.inward, self.head = nn.Linear(4, 5), nn.Linear(5, CLASSES)
        self.register_buffer("whole", torch.randint(-128, 128, (5, 5), dtype=torch.int8))
        self.register_buffer("scale", 0.01 + 0.01 * torch.rand(5, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(F.linear(torch.tanh(self.inward(x)), self.whole * self.scale)))


def _in_place(m: Any, x: Tensor) -> Tensor:
    h = m.inward(x).sigmoid_()
    h[:, :2] = h[:, :2].mul(2).cos_()
    return m.head(h.add_(h.clone().square_()))


class OfTraining(nn.Module):
    """A model that returns its loss in training mode, and predictions otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, CLASSES))

    def forward(self, x: Tensor, y: Tensor) -> Any:
        out = self.body(x)
        return {"loss": F.cross_entropy(out, y)} if self.training else out.argmax(1)


class Observed(nn.Module):
    """Weights on a grid of 1/8, rounded with a derivative that is said to be 1."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp()()

    def forward(self, x: Tensor) -> Tensor:
        w = self.body[0].weight
        rounded = w + ((8 * w).round() / 8 - w).detach()
        return self.body[2](torch.tanh(F.linear(x, rounded, self.body[0].bias)))


WRAPPED = [
    classifier("pruned", _pruned),
    classifier("old spectral norm", _old_spectral),
    classifier("old weight norm", layered(lambda: nn.utils.weight_norm(nn.Linear(4, 5))), expected="either"),
    classifier("orthogonal", layered(lambda: parametrizations.orthogonal(nn.Linear(4, 5)))),
    classifier("not copied", NotCopied),
    classifier("refuses copies", RefusesCopies),
    classifier("scripted", lambda: quietly(torch.jit.script, mlp()()), truth=unscripted(mlp())),
    classifier("traced by jit", lambda: quietly(torch.jit.trace, mlp()(), drawn(2, 4)), truth=unscripted(mlp())),
    classifier("a script that was loaded", _loaded, truth=unscripted(ForScripts)),
    classifier("a scripted part", _half_scripted, truth=_by_hand),
    classifier("compiled in place", _compiled_in_place, truth=unscripted(mlp())),
    classifier("compiled", lambda: torch.compile(mlp()(), backend="eager")),
    classifier("a compiled part", _half_compiled),
    classifier(
        "data parallel",
        lambda: nn.DataParallel(mlp()()),
        truth=lambda f, b: F.cross_entropy(functional_call(f.model.module, _without(f.tensors, "module."), b[0]), b[1]),
    ),
    classifier("an average of weights", _averaged),
    classifier("an exponential average", lambda: _averaged(multi_avg_fn=get_ema_multi_avg_fn(0.9))),
    classifier("complex weights", Complex),
    classifier("complex weights stored as pairs", Stored),
    classifier("complex weights at odd places", OddlyPlaced),
    classifier("weights of 8 bits", Quantised),
    written("operations in place", _in_place, lambda: {"inward": nn.Linear(4, 5), "head": nn.Linear(5, CLASSES)}),
    classifier("adapters", Adapted),
    written(
        "sparse gradients",
        lambda m, x: m.head(m.bag(x).tanh()),
        lambda: {"bag": nn.EmbeddingBag(7, 4, sparse=True), "head": nn.Linear(4, 3)},
        data=lambda: (WORDS, LABELS),
        truth=lambda f, b: _looked_up(f, b, "bag.weight"),
    ),
    written(
        "weighted bags of unequal lengths",
        _weighted_bags,
        lambda: {
            "bag": nn.EmbeddingBag(7, 4, mode="sum", padding_idx=-1),
            "head": nn.Linear(8, 3),
            "importance": nn.Parameter(torch.randn(7)),
        },
        data=lambda: (WORDS, LABELS),
        truth=_bags_by_hand,
    ),
    written(
        "sparse embedding",
        lambda m, x: m.head(m.table(x).mean(1).tanh()),
        lambda: {"table": nn.Embedding(7, 4, sparse=True), "head": nn.Linear(4, 3)},
        data=lambda: (WORDS, LABELS),
        truth=lambda f, b: _looked_up(f, b, "table.weight"),
    ),
    *(
        classifier(f"packed {kind.__name__}", _of_lengths(kind), data=lambda: ((WORDS, LENGTHS), LABELS))
        for kind in (nn.LSTM, nn.GRU)
    ),
    classifier("steps told by the batch", Steps, data=pairs(LABELS, N, 5, 3)),
    classifier("rounded weights", Observed, expected="refused"),
    Problem(
        "a loss in training mode",
        OfTraining,
        lambda model, batch: model(batch["x"], batch["y"])["loss"],
        lambda: {"x": drawn(N, 4), "y": LABELS},
        step=True,
        options={"mode": "train"},
        truth=lambda f, b: F.cross_entropy(functional_call(f.model.body, _without(f.tensors, "body."), b["x"]), b["y"]),
    ),
]
