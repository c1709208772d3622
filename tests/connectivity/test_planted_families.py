"""Orders planted by hand are found back in recurrent, language and graph networks, and what stays is told."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lossatlas as la
from lossatlas.connectivity.symmetry.states import network_outputs, network_state

State = dict[str, Tensor]


def order(size: int, seed: int) -> Tensor:
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))


def blocks(units: Tensor, count: int) -> Tensor:
    """The same order in each of so many blocks."""
    return torch.cat([units + block * len(units) for block in range(count)])


def turned(state: State, units: Tensor, **axes: list[str]) -> None:
    """Entries of tensors put into another order, along rows and columns."""
    for name in axes.get("rows", []):
        state[name] = state[name].index_select(0, units)
    for name in axes.get("columns", []):
        state[name] = state[name].index_select(1, units)


class Classifier(nn.Module):
    """Tokens, 0 where there are none, through a packed LSTM of two layers in both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 12, padding_idx=0)
        self.cells = nn.LSTM(12, 16, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(32, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        lengths = (tokens != 0).sum(1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(self.table(tokens), lengths, batch_first=True, enforce_sorted=False)
        _, (hidden, _) = self.cells(packed)
        return self.head(torch.cat([hidden[-2], hidden[-1]], 1))


def cell(state: State, name: str, gates: int, units: Tensor) -> None:
    rows = [f"cells.{kind}_{name}" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    turned(state, blocks(units, gates), rows=rows)
    turned(state, units, columns=[f"cells.weight_hh_{name}"])


def classifier(state: State) -> None:
    features = order(12, 0)
    turned(state, features, columns=["table.weight", "cells.weight_ih_l0", "cells.weight_ih_l0_reverse"])
    for layer, after in ((0, ["cells.weight_ih_l1", "cells.weight_ih_l1_reverse"]), (1, ["head.weight"])):
        ways = [order(16, 1 + layer), order(16, 3 + layer)]
        for name, units in zip((f"l{layer}", f"l{layer}_reverse"), ways, strict=True):
            cell(state, name, 4, units)
        turned(state, torch.cat([ways[0], 16 + ways[1]]), columns=after)


class Regression(nn.Module):
    """A GRU of two layers over steps, its last output through a hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.cells, self.fc, self.head = nn.GRU(6, 16, num_layers=2), nn.Linear(16, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.fc(self.cells(x.transpose(0, 1))[0][-1])))


def regression(state: State) -> None:
    for layer, after in ((0, "cells.weight_ih_l1"), (1, "fc.weight")):
        units = order(16, layer)
        cell(state, f"l{layer}", 3, units)
        turned(state, units, columns=[after])
    turned(state, order(8, 2), rows=["fc.weight", "fc.bias"], columns=["head.weight"])


class Conv1D(nn.Module):
    """GPT-2's own linear layer: weights (in, out)."""

    def __init__(self, inward: int, out: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(0.2 * torch.randn(inward, out)), nn.Parameter(0.1 * torch.randn(out))

    def forward(self, x: Tensor) -> Tensor:
        flat = torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight)
        return flat.view(*x.shape[:-1], self.weight.shape[1])


class Block(nn.Module):
    def __init__(self, width: int, heads: int, length: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.c_attn, self.c_proj = Conv1D(width, 3 * width), Conv1D(width, width)
        self.c_fc, self.c_out = Conv1D(width, 4 * width), Conv1D(4 * width, width)
        self.register_buffer("mask", torch.ones(1, 1, length, length, dtype=torch.bool).tril(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        query, key, value = (part.view(n, length, self.heads, -1).permute(0, 2, 1, 3)
                             for part in self.c_attn(self.ln_1(x)).split(width, dim=2))  # fmt: skip
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.size(-1))
        lowest = torch.finfo(scores.dtype).min
        scores = torch.where(self.mask[:, :, :length, :length], scores, torch.full([], lowest, dtype=scores.dtype))
        mixed = (scores.softmax(-1) @ value).permute(0, 2, 1, 3).contiguous().view(n, length, width)
        x = x + self.c_proj(mixed)
        return x + self.c_out(F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))


class Language(nn.Module):
    """A language model of GPT-2's shape: two blocks, learned positions, the table of tokens is the head."""

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(30, 16), nn.Embedding(8, 16)
        self.blocks, self.ln_f = nn.ModuleList([Block(16, 4, 8) for _ in range(2)]), nn.LayerNorm(16)
        self.head = nn.Linear(16, 30, bias=False)
        self.head.weight = self.wte.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.size(1), device=tokens.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.ln_f(x)).transpose(1, 2)


def heads(count: int, size: int, seed: int) -> Tensor:
    """Heads in one order for all kinds, their dimensions in another in each head."""
    inside = torch.stack([size * head + order(size, seed + head) for head in range(count)])
    return inside[order(count, 0)].flatten()


def language(state: State) -> None:
    stream, norms = order(16, 0), ["ln_f.weight", "ln_f.bias"]
    turned(state, stream, columns=["wte.weight", "wpe.weight"])
    for i in range(2):
        own = f"blocks.{i}"
        same, dims = (heads(4, 4, 10 * i + 1 + kind) for kind in (0, 5))
        turned(state, torch.cat([same, 16 + same, 32 + dims]), rows=[f"{own}.c_attn.bias"],
               columns=[f"{own}.c_attn.weight"])  # fmt: skip
        turned(state, dims, rows=[f"{own}.c_proj.weight"])
        hidden = order(64, 5 + i)
        turned(state, hidden, rows=[f"{own}.c_fc.bias", f"{own}.c_out.weight"], columns=[f"{own}.c_fc.weight"])
        entering = [f"{own}.{name}" for name in ("c_attn.weight", "c_fc.weight", "c_proj.bias", "c_out.bias")]
        turned(state, stream, rows=entering, columns=[f"{own}.c_proj.weight", f"{own}.c_out.weight"])
        norms += [f"{own}.{norm}.{kind}" for norm in ("ln_1", "ln_2") for kind in ("weight", "bias")]
    turned(state, stream, rows=norms)


class Messages(nn.Module):
    """Two rounds of messages along edges: the mean of what arrives, and a sum weighed by a softmax over the edges."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.edge, self.node = nn.Linear(4, 12), nn.Linear(24, 16), nn.Linear(16, 12)
        self.score, self.value, self.head = nn.Linear(24, 1), nn.Linear(12, 10), nn.Linear(22, 3)

    def forward(self, x: Tensor, edges: Tensor, graph: Tensor) -> Tensor:
        h, (source, target) = torch.relu(self.embed(x)), edges
        sent = torch.relu(self.edge(torch.cat([h[source], h[target]], 1)))
        arrived = torch.zeros(len(x), 16, dtype=x.dtype).index_add_(0, target, sent)
        count = torch.zeros(len(x), dtype=x.dtype).index_add_(0, target, torch.ones(len(target), dtype=x.dtype))
        h = h + torch.tanh(self.node(arrived / count.clamp(min=1)[:, None]))
        score = self.score(torch.cat([h.index_select(0, source), h.index_select(0, target)], 1)).exp()
        total = torch.zeros(len(x), 1, dtype=x.dtype).scatter_add(0, target[:, None], score)
        sent = score / total[target] * self.value(h)[source]
        arrived = torch.zeros(len(x), 10, dtype=x.dtype).scatter_add_(0, target[:, None].expand(-1, 10), sent)
        h = torch.cat([h, arrived], 1)
        return self.head(torch.zeros(int(graph.max()) + 1, 22, dtype=x.dtype).index_add(0, graph, h))


def messages(state: State) -> None:
    units, sent, values = order(12, 0), order(16, 1), order(10, 2)
    turned(state, units, rows=["embed.weight", "embed.bias", "node.weight", "node.bias"], columns=["value.weight"])
    turned(state, torch.cat([units, 12 + units]), columns=["edge.weight", "score.weight"])
    turned(state, sent, rows=["edge.weight", "edge.bias"], columns=["node.weight"])
    turned(state, values, rows=["value.weight", "value.bias"])
    turned(state, torch.cat([units, 12 + values]), columns=["head.weight"])


class Dense(nn.Module):
    """Two graph convolutions by a dense adjacency, D^-1/2 A D^-1/2 h W, a residual connection, a class for a graph."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Parameter(torch.randn(4, 12)), nn.Parameter(0.3 * torch.randn(12, 12))
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        a = adjacency + torch.eye(adjacency.shape[-1])
        scale = a.sum(-1).rsqrt()
        a = scale[..., :, None] * a * scale[..., None, :]
        h = torch.relu(a @ x @ self.one)
        return self.head(h + torch.tanh(torch.einsum("bij,bjd->bid", a, h @ self.two))).mean(1)


def dense(state: State) -> None:
    units = order(12, 0)
    turned(state, units, rows=["two"], columns=["one", "two", "head.weight"])


class StopGradient(nn.Module):
    """What a slower copy of the encoder gives is taken off without a gradient, by a mean that is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.target = nn.Linear(6, 16), nn.Linear(6, 8)
        self.predictor, self.head = nn.Linear(16, 8), nn.Linear(24, 5)
        self.target.requires_grad_(False)
        self.register_buffer("size", torch.tensor(0.7))

    @torch.no_grad()
    def normaliser(self, h: Tensor) -> Tensor:
        self.size.mul_(0.9).add_(0.1 * h.abs().mean())
        return self.size

    def forward(self, x: Tensor) -> Tensor:
        torch._assert(x.ndim == 2, "rows of features")
        torch._assert(torch.isfinite(x).all(), "finite features")
        h = torch.tanh(self.encoder(x))
        with torch.no_grad():
            target = torch.tanh(self.target(x))
            level = self.predictor(h).mean(0)
        predicted = torch.tanh(self.predictor(h / self.normaliser(h)) - level) - target.detach()
        return self.head(torch.cat([h, predicted], 1))


def stop_gradient(state: State) -> None:
    units = order(16, 0)
    turned(state, units, rows=["encoder.weight", "encoder.bias"], columns=["predictor.weight"])
    turned(state, torch.cat([units, 16 + torch.arange(8)]), columns=["head.weight"])


class Codes(nn.Module):
    """Numbers are cut into bins, and units into the code that is largest: both are looked up in tables."""

    def __init__(self) -> None:
        super().__init__()
        self.bins, self.places = nn.Embedding(8, 12), nn.Embedding(6, 12)
        self.mix, self.choose = nn.Linear(12, 16), nn.Linear(16, 7)
        self.codes, self.head = nn.Embedding(7, 10), nn.Linear(26, 5)

    def forward(self, x: Tensor) -> Tensor:
        numbers = (4 + 2 * x).long().clamp(0, 7)
        places = torch.arange(int(x.shape[1]))
        count = int((numbers > 0).sum(1).max()) if bool((numbers > 0).any()) else 1
        h = (self.bins(numbers) + self.places(places))[:, :count].mean(1)
        h = torch.relu(self.mix(h))
        code = self.choose(h).argmax(-1)
        return self.head(torch.cat([h, self.codes(code)], 1))


def codes(state: State) -> None:
    features, units, own = order(12, 0), order(16, 1), order(10, 2)
    turned(state, features, columns=["bins.weight", "places.weight", "mix.weight"])
    turned(state, units, rows=["mix.weight", "mix.bias"], columns=["choose.weight"])
    turned(state, own, columns=["codes.weight"])
    turned(state, torch.cat([units, 16 + own]), columns=["head.weight"])


def rows(n: int = 60) -> list[Any]:
    return [(torch.randn(n, 6), torch.randint(5, (n,))) for _ in range(2)]


def sequences() -> list[Any]:
    return [(torch.randn(60, 7, 6), torch.randint(5, (60,))) for _ in range(2)]


def padded() -> list[Any]:
    batches = []
    for longest in (9, 7):
        lengths = torch.randint(1, longest + 1, (40, 1))
        tokens = torch.randint(1, 20, (40, 9)) * (torch.arange(9) < lengths)
        batches.append((tokens, torch.randint(5, (40,))))
    return batches


def texts() -> list[Any]:
    return [(tokens[:, :-1], tokens[:, 1:]) for tokens in torch.randint(30, (2, 16, 9))]


def graphs() -> list[Any]:
    """Batches of graphs of several sizes, as nodes, edges and the graph of each node."""
    batches = []
    for _ in range(2):
        sizes = torch.tensor([3, 5, 4, 6])
        ends = sizes.cumsum(0)
        edges = [torch.randint(int(n), (2, 3 * int(n))) + int(end - n) for n, end in zip(sizes, ends, strict=True)]
        graph = torch.repeat_interleave(torch.arange(4), sizes)
        batches.append(((torch.randn(18, 4), torch.cat(edges, 1), graph), torch.randint(3, (4,))))
    return batches


def adjacencies() -> list[Any]:
    made = []
    for _ in range(2):
        a = (torch.rand(20, 6, 6) < 0.4).float().triu(1)
        made.append(((torch.randn(20, 6, 4), a + a.mT), torch.randint(3, (20,))))
    return made


class Family(NamedTuple):
    model: Callable[[], nn.Module]
    plant: Callable[[State], None]
    data: Callable[[], list[Any]]
    pinned: tuple[str, ...] = ()


FAMILIES = {
    "LSTM": Family(Classifier, classifier, padded),
    "GRU": Family(Regression, regression, sequences),
    "GPT-2": Family(Language, language, texts),
    "messages along edges": Family(Messages, messages, graphs),
    "dense adjacency": Family(Dense, dense, adjacencies),
    "no_grad": Family(
        StopGradient,
        stop_gradient,
        rows,
        (
            "target (8 units): not among the parameters that vary",
            "predictor (8 units): their order matters to sub outside of its modules",
        ),
    ),
    "integers": Family(Codes, codes, rows, ("choose (7 units): their order matters to argmax outside of its modules",)),
}


@pytest.mark.filterwarnings("ignore::lossatlas.errors.BufferWarning")
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("method", ["weights", "activations"])
def test_a_permutation_written_by_hand_is_found_back_and_leaves_no_barrier(name: str, method: Any) -> None:
    make, plant, data, pinned = FAMILIES[name]
    torch.manual_seed(0)
    model = make()
    with torch.no_grad():
        for parameter in model.parameters():  # scales and shifts as after training, unlike from unit to unit
            parameter.add_(0.1 * torch.randn_like(parameter))
    objective = la.Objective(model, F.cross_entropy, data(), metrics=None)
    b = network_state(objective)
    plant(b)
    saved = objective.function.saved(b)
    assert not torch.equal(objective.point_of(saved), objective.point)
    before = torch.cat(list(network_outputs(objective, network_state(objective))))
    torch.testing.assert_close(torch.cat(list(network_outputs(objective, b))), before, rtol=0, atol=1e-5)

    aligned = la.align(objective, model, saved, method=method)
    assert aligned.symmetries.pinned == pinned
    assert all(torch.equal(aligned.state_dict[key], tensor) for key, tensor in model.state_dict().items())
    assert float(aligned.summary["deviation"]) < 1e-5
    with pytest.warns(UserWarning, match="same point"):
        line = la.barrier(objective, la.Segment(objective.point, aligned.point), steps=5, progress=False)
    assert float(line["barrier"]) < 1e-6


@pytest.mark.parametrize("name", ["LSTM", "GPT-2", "messages along edges"])
def test_a_permutation_of_every_group_leaves_the_function_as_it_is(name: str) -> None:
    make, _, data, _ = FAMILIES[name]
    torch.manual_seed(0)
    objective = la.Objective(make().double(), F.cross_entropy, data(), dtype=torch.float64, metrics=None)
    found, state = la.symmetries(objective), network_state(objective)
    before = torch.cat(list(network_outputs(objective, state)))
    for seed in range(3):
        after = torch.cat(list(network_outputs(objective, found.permuted(state, found.random(seed)))))
        torch.testing.assert_close(after, before, rtol=0, atol=1e-11)
