"""Problems of every kind of model: architectures, steps, losses that differentiate, models that are no function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from oracles.architectures import ARCHITECTURES, Written, squares
from oracles.architectures import drawn as drawn_model
from oracles.truth import N, Problem, cast
from oracles.truth_data import CLASSES, LABELS, drawn, mlp, pairs, uniform, whole

WORDS = whole(7, N, 5)


def classifier(name: str, body: Callable[[], nn.Module], *shape: int, features: int = 6, **options: Any) -> Problem:
    """A body that ends with ``features`` numbers an example, and a linear head."""
    make = lambda: nn.Sequential(body(), nn.Linear(features, CLASSES))  # noqa: E731
    return Problem(name, make, F.cross_entropy, pairs(LABELS, N, *shape), **options)


def written(
    name: str, forward: Callable[[Any, Tensor], Any], *shape: int, parts: Callable[[], dict[str, Any]], **options: Any
) -> Problem:
    make = lambda: Written(forward, **parts())  # noqa: E731
    return Problem(
        name, make, options.pop("loss", F.cross_entropy), options.pop("data", pairs(LABELS, N, *shape)), **options
    )


def _with_statistics(norm: nn.Module) -> nn.Module:
    for name, buffer in norm.named_buffers():
        if name.endswith("mean"):
            buffer.normal_()
        if name.endswith("var"):
            buffer.uniform_(0.5, 2)
    return norm


def _mean_of_states(m: Any, x: Tensor) -> Tensor:
    return m.head(m.cells(x)[0].mean(1))


def recurrent(kind: type[nn.Module], **options: Any) -> Problem:
    return written(
        kind.__name__.lower(),
        _mean_of_states,
        5,
        3,
        parts=lambda: {"cells": kind(3, 4, batch_first=True, **options), "head": nn.Linear(4, CLASSES)},
    )


def _masked_encoder(m: Any, x: Tensor) -> Tensor:
    padded = torch.arange(x.shape[1]) >= 2 + torch.arange(len(x))[:, None] % 4
    padded = (x[..., 0] > 0.8) & (torch.arange(x.shape[1]) > 0) if len(x) else padded
    return m.head(m.layers(m.inward(x), src_key_padding_mask=padded).mean(1))


def _encoder_parts(layers: int = 1, **options: Any) -> dict[str, Any]:
    layer = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.2, batch_first=True, **options)
    encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=layers > 1 and not options)
    return {"inward": nn.Linear(3, 6), "layers": encoder, "head": nn.Linear(6, CLASSES)}


def _self_attention(m: Any, x: Tensor) -> Tensor:
    return m.head(m.attention(x, x, x)[0][:, 0])


def _tied(m: Any, x: Tensor) -> Tensor:
    return F.linear(torch.tanh(m.inner(m.table(x).mean(1))), m.table.weight)


def _mixture(m: Any, x: Tensor) -> Tensor:
    return (m.gate(x).softmax(1)[:, None] * torch.stack([m.one(x), m.two(x)], -1)).sum(-1)


def _hyper(m: Any, x: Tensor) -> Tensor:
    return torch.einsum("noi,ni->no", m.maker(x).view(-1, 3, 4), x)


def _implicit(m: Any, x: Tensor) -> Tensor:
    z = torch.zeros(len(x), 4).to(x)
    for _ in range(6):
        z = torch.tanh(0.5 * m.inner(z) + x)
    return m.head(z)


def _frozen(m: Any, x: Tensor) -> Tensor:
    return m.second(torch.tanh(m.first(x)))


def _frozen_parts() -> dict[str, Any]:
    return {"first": nn.Linear(4, 5).requires_grad_(False), "second": nn.Linear(5, 3)}


class Normalised(nn.Module):
    """Inputs by statistics that are buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp()()
        self.register_buffer("mean", torch.randn(4))
        self.register_buffer("scale", 1 + torch.rand(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.body((x - self.mean) / self.scale)


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.body, self.head, self.reentrant = mlp(5)(), nn.Linear(5, 3), reentrant

    def forward(self, x: Tensor) -> Tensor:
        return self.head(checkpoint(self.body, x, use_reentrant=self.reentrant))


def _spectral() -> nn.Module:
    return nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 3))


def _weight_norm() -> nn.Module:
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 3))


def _normed_by_hand(f: Any, batch: Any) -> Tensor:
    """The same network, written out: PyTorch's own second derivative of weight_norm is wrong on CPUs."""
    length, v = (f.tensors[f"0.parametrizations.weight.original{i}"] for i in (0, 1))
    hidden = torch.tanh(F.linear(batch[0], length * v / v.norm(dim=1, keepdim=True), f.tensors["0.bias"]))
    return F.cross_entropy(F.linear(hidden, f.tensors["2.weight"], f.tensors["2.bias"]), batch[1])


def _hooked() -> nn.Module:
    model = mlp()()
    model[0].register_forward_hook(lambda module, given, out: 2 * out)
    return model


IMAGE = (2, 6, 6)
NETWORKS = [
    classifier("relu", lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU()), 4),
    classifier("gelu", lambda: nn.Sequential(nn.Linear(4, 6), nn.GELU()), 4),
    classifier("elu", lambda: nn.Sequential(nn.Linear(4, 6), nn.ELU()), 4),
    classifier("silu and prelu", lambda: nn.Sequential(nn.Linear(4, 6), nn.SiLU(), nn.Linear(6, 6), nn.PReLU()), 4),
    classifier("softplus", lambda: nn.Sequential(nn.Linear(4, 6), nn.Softplus()), 4),
    classifier("dropout", lambda: nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.Tanh()), 4),
    classifier(
        "conv1d", lambda: nn.Sequential(nn.Conv1d(3, 6, 3), nn.Tanh(), nn.AdaptiveAvgPool1d(1), nn.Flatten()), 3, 7
    ),
    classifier(
        "conv2d",
        lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *IMAGE,
        features=12,
    ),
    classifier(
        "depthwise",
        lambda: nn.Sequential(
            nn.Conv2d(2, 6, 3, groups=2, bias=False), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        ),
        *IMAGE,
    ),
    classifier(
        "transposed",
        lambda: nn.Sequential(nn.ConvTranspose2d(2, 6, 2, stride=2), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        2,
        3,
        3,
    ),
    classifier("batch norm", lambda: nn.Sequential(nn.Linear(4, 6), _with_statistics(nn.BatchNorm1d(6)), nn.Tanh()), 4),
    classifier(
        "batch norm of the batch",
        lambda: nn.Sequential(nn.Linear(4, 6), _with_statistics(nn.BatchNorm1d(6)), nn.Tanh()),
        4,
        whole=False,
        options={"batch_norm": "batch"},
    ),
    classifier(
        "batch norm of images",
        lambda: nn.Sequential(
            nn.Conv2d(2, 6, 3), _with_statistics(nn.BatchNorm2d(6)), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        ),
        *IMAGE,
    ),
    classifier(
        "group norm",
        lambda: nn.Sequential(nn.Conv2d(2, 6, 3), nn.GroupNorm(2, 6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        *IMAGE,
    ),
    classifier(
        "instance norm",
        lambda: nn.Sequential(
            nn.Conv2d(2, 6, 3), nn.InstanceNorm2d(6, affine=True), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        ),
        *IMAGE,
    ),
    classifier("layer norm", lambda: nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.GELU()), 4),
    classifier(
        "upsampling",
        lambda: nn.Sequential(
            nn.Upsample(scale_factor=2, mode="bilinear"),
            nn.Conv2d(2, 6, 3),
            nn.Tanh(),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
        ),
        2,
        3,
        3,
    ),
    recurrent(nn.RNN),
    recurrent(nn.GRU),
    recurrent(nn.LSTM, bidirectional=False),
    written(
        "attention",
        _self_attention,
        4,
        4,
        parts=lambda: {"attention": nn.MultiheadAttention(4, 2, batch_first=True), "head": nn.Linear(4, CLASSES)},
    ),
    written("encoder", lambda m, x: m.head(m.layers(m.inward(x)).mean(1)), 5, 3, parts=_encoder_parts),
    written("encoder with a padding mask", _masked_encoder, 5, 3, parts=_encoder_parts),
    written("encoder, norm first, padding", _masked_encoder, 5, 3, parts=lambda: _encoder_parts(2, norm_first=True)),
    written(
        "tied weights",
        _tied,
        parts=lambda: {"table": nn.Embedding(7, 4), "inner": nn.Linear(4, 4)},
        data=lambda: (WORDS, whole(7, N)),
    ),
    written(
        "embedding with padding",
        lambda m, x: m.head(m.table(x).tanh().mean(1)),
        parts=lambda: {"table": nn.Embedding(7, 4, padding_idx=0), "head": nn.Linear(4, 3)},
        data=lambda: (WORDS, LABELS),
        expected="either",
    ),
    written(
        "embedding without padding",
        lambda m, x: m.head(m.table(x).tanh().mean(1)),
        parts=lambda: {"table": nn.Embedding(7, 4), "head": nn.Linear(4, 3)},
        data=lambda: (WORDS, LABELS),
    ),
    written(
        "embedding bag",
        lambda m, x: m.head(m.bag(x).tanh()),
        parts=lambda: {"bag": nn.EmbeddingBag(7, 4), "head": nn.Linear(4, 3)},
        data=lambda: (WORDS, LABELS),
        truth=lambda f, b: F.cross_entropy(
            F.linear(f.tensors["bag.weight"][b[0]].mean(1).tanh(), f.tensors["head.weight"], f.tensors["head.bias"]),
            b[1],
        ),
    ),
    written(
        "embedding of a largest norm",
        lambda m, x: m.head(m.table(x).mean(1)),
        parts=lambda: {"table": nn.Embedding(7, 4, max_norm=0.5), "head": nn.Linear(4, 3)},
        data=lambda: (WORDS, LABELS),
        expected="refused",
    ),
    written(
        "residual",
        lambda m, x: m.head(x + torch.relu(m.inner(x))),
        4,
        parts=lambda: {"inner": nn.Linear(4, 4), "head": nn.Linear(4, 3)},
    ),
    written(
        "one layer three times",
        lambda m, x: m.head(torch.tanh(m.inner(torch.tanh(m.inner(torch.tanh(m.inner(x))))))),
        4,
        parts=lambda: {"inner": nn.Linear(4, 4), "head": nn.Linear(4, 3)},
    ),
    written(
        "mixture of experts",
        _mixture,
        4,
        parts=lambda: {"gate": nn.Linear(4, 2), "one": nn.Linear(4, 3), "two": nn.Linear(4, 3)},
    ),
    written("weights made by a network", _hyper, 4, parts=lambda: {"maker": nn.Linear(4, 12)}),
    written("fixed point", _implicit, 4, parts=lambda: {"inner": nn.Linear(4, 4), "head": nn.Linear(4, 3)}),
    written("bilinear", lambda m, x: m.form(x[:, :2], x[:, 2:]), 4, parts=lambda: {"form": nn.Bilinear(2, 2, 3)}),
    written("a layer that is frozen", _frozen, 4, parts=_frozen_parts),
    written(
        "changes in place",
        lambda m, x: m.head(m.first(x).mul_(2.0).add_(1.0).relu_()),
        4,
        parts=lambda: {"first": nn.Linear(4, 5), "head": nn.Linear(5, 3)},
    ),
    written(
        "inputs changed in place",
        lambda m, x: m.head(x.mul_(2.0)),
        4,
        parts=lambda: {"head": nn.Linear(4, 3)},
        truth=lambda f, b: F.cross_entropy(f(b[0].clone()), b[1]),
        expected="either",
    ),
    written(
        "complex inside",
        lambda m, x: torch.fft.irfft(
            torch.fft.rfft(m.head(x))
            * torch.tensor([1, 0.5j]).to(torch.complex64 if x.dtype == torch.float32 else torch.complex128),
            n=3,
        ),
        4,
        parts=lambda: {"head": nn.Linear(4, 3)},
    ),
    written(
        "rows picked by the inputs",
        lambda m, x: m.table[(x[:, 0] > 0).long()] * x[:, 1:],
        4,
        parts=lambda: {"table": nn.Parameter(torch.randn(2, 3))},
    ),
    Problem("normalised inputs", Normalised, F.cross_entropy, pairs(LABELS)),
    Problem("spectral norm", _spectral, F.cross_entropy, pairs(LABELS)),
    Problem("weight norm", _weight_norm, F.cross_entropy, pairs(LABELS), truth=_normed_by_hand, expected="either"),
    Problem("a hook", _hooked, F.cross_entropy, pairs(LABELS)),
    *(
        Problem(
            f"checkpointed{how}",
            lambda reentrant=bool(how): Checkpointed(reentrant),
            F.cross_entropy,
            pairs(LABELS),
            truth=lambda f, b: _without_checkpoints(f.tensors, b),
        )
        for how in ("", ", reentrant")
    ),
    Problem(
        "autoencoder",
        lambda: Written(lambda m, x: torch.tanh(m.encoder(x)) @ m.encoder.weight, encoder=nn.Linear(4, 2)),
        F.mse_loss,
        lambda: (drawn(N, 4), drawn(N, 4)),
    ),
    Problem(
        "two inputs",
        lambda: Written2(lambda m, a, b: m.head(torch.cat([a, b], 1)), head=mlp(3, 6)()),
        F.cross_entropy,
        lambda: ((drawn(N, 4), drawn(N, 2, seed=3)), LABELS),
    ),
    Problem(
        "named inputs",
        lambda: Written2(lambda m, a, b: m.head(torch.cat([a, b], 1)), head=mlp(3, 6)()),
        F.cross_entropy,
        lambda: ({"a": drawn(N, 4), "b": drawn(N, 2, seed=3)}, LABELS),
    ),
]


class Written2(Written):
    """With several inputs."""

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return self._forward(self, *inputs, **named)


def _without_checkpoints(w: dict[str, Tensor], batch: Any) -> Tensor:
    hidden = F.linear(
        F.linear(batch[0], w["body.0.weight"], w["body.0.bias"]).tanh(), w["body.2.weight"], w["body.2.bias"]
    )
    return F.cross_entropy(F.linear(hidden, w["head.weight"], w["head.bias"]), batch[1])


# Losses that differentiate, and steps


def _vae(m: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    mean, spread = m.encoder(x[:, :4]).chunk(2, 1)
    return m.decoder(mean + spread.exp() * x[:, 4:]), mean, spread


def _elbo(o: Any, t: Tensor, over: str = "sum") -> Tensor:
    back, mean, spread = o
    divergence = 0.5 * (mean.square() + (2 * spread).exp() - 1 - 2 * spread).sum(1)
    each = (back - t).square().sum(1) + divergence
    return each.sum() if over == "sum" else each.mean()


def vae(name: str, loss: Any, **options: Any) -> Problem:
    parts = lambda: {"encoder": nn.Linear(4, 4), "decoder": nn.Linear(2, 4)}  # noqa: E731
    return written(name, _vae, parts=parts, loss=loss, data=lambda: (drawn(N, 6), drawn(N, 4, seed=9)), **options)


def _pinn(model: Any, batch: Any) -> Tensor:
    """u'' + u = 0 with u(0) = 1 on each batch."""
    x = batch["x"].detach().requires_grad_()
    (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
    return (bend + model(x)).square().mean() + (model(0 * x) - 1).square().mean()


def _forces(model: Any, batch: Any) -> Tensor:
    places = batch["places"].detach().requires_grad_()
    energy = model(places)
    (force,) = torch.autograd.grad(-energy.sum(), places, create_graph=True)
    return F.mse_loss(energy, batch["energy"]) + F.mse_loss(force, batch["force"])


def _simulated(model: Any, batch: Any) -> Tensor:
    """Ten steps of an oscillator under a force that is learnt."""
    x, v = batch["x"], batch["v"]
    for _ in range(10):
        v = v + 0.1 * (model(torch.cat([x, v], 1)) - x)
        x = x + 0.1 * v
    return (x - batch["end"]).square().mean()


def _adversarial(model: Any, batch: Any) -> Tensor:
    x = batch["x"].detach().requires_grad_()
    (slope,) = torch.autograd.grad(F.cross_entropy(model(x), batch["y"], reduction="sum"), x)
    return F.cross_entropy(model(x.detach() + 0.1 * slope.sign()), batch["y"])


def _penalised(model: Any, batch: Any) -> Tensor:
    x = batch["x"].detach().requires_grad_()
    (slope,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
    return F.cross_entropy(model(x), batch["y"]) + slope.square().sum(1).mean()


def _decayed(model: Any, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch["x"]), batch["y"]) + 0.01 * sum(p.square().sum() for p in model.parameters())


def _distilled(model: Any, batch: Any) -> Tensor:
    with torch.no_grad():
        teacher = torch.tanh(batch["x"][:, :3])
    return F.mse_loss(model(batch["x"]), teacher)


def _step(model: Any, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch["x"]), batch["y"])


def _ignoring(model: Any, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch["x"]), batch["y"], ignore_index=0)


def _each(model: Any, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch["x"]), batch["y"], reduction="none")


def _summed(model: Any, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch["x"]), batch["y"], reduction="sum")


def _records() -> Any:
    return {"x": drawn(N, 4), "y": LABELS}


def _record_of(f: Any, batch: Any) -> Tensor:
    return F.cross_entropy(f(batch["x"]), batch["y"])


# Graphs: nodes (n, 4), edges (2, m), the graph of each node, and a target a graph.
SIZES_OF_GRAPHS = [3, 5, 2, 7, 4, 3, 6, 2, 3, 5, 4, 2]


def graphs(first: int = 0, last: int = N) -> dict[str, Tensor]:
    sizes = SIZES_OF_GRAPHS[first:last]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    rings = [torch.stack([torch.arange(n), (torch.arange(n) + 1) % n]) + s for n, s in zip(sizes, starts, strict=True)]
    skipped = sum(SIZES_OF_GRAPHS[:first])
    return {
        "nodes": drawn(sum(SIZES_OF_GRAPHS), 4)[skipped : skipped + sum(sizes)],
        "edges": torch.cat(rings, 1),
        "graph": torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)),
        "y": LABELS[first:last],
    }


def cut_graphs(data: Any, size: int) -> list[Any]:
    return [cast(graphs(i, min(i + size, N)), data["nodes"].dtype) for i in range(0, N, size)]


def _graph_network(m: Any, batch: Any) -> Tensor:
    h, (source, target) = m.inward(batch["nodes"]), batch["edges"]
    h = torch.tanh(h.index_add(0, target, m.message(h[source])))
    return m.head(torch.zeros(len(batch["y"]), 5).to(h).index_add(0, batch["graph"], h))


def _graph_parts() -> dict[str, Any]:
    return {"inward": nn.Linear(4, 5), "message": nn.Linear(5, 5), "head": nn.Linear(5, 3)}


def graph_problem(name: str, reduction: str, **options: Any) -> Problem:
    step = lambda model, batch: F.cross_entropy(model(batch), batch["y"], reduction=reduction)  # noqa: E731
    truth = lambda f, batch: F.cross_entropy(f(batch), batch["y"])  # noqa: E731
    return Problem(
        name,
        lambda: Written(_graph_network, **_graph_parts()),
        step,
        graphs,
        truth=truth,
        step=True,
        split=cut_graphs,
        **options,
    )


STEPS = [
    vae("vae summed", _elbo, divisor=N),
    vae("vae of means", lambda o, t: _elbo(o, t, "mean")),
    vae(
        "vae, half summed",
        lambda o, t: F.mse_loss(o[0], t) + 0.1 * (o[1].square() + (2 * o[2]).exp()).sum(),
        expected="either",
    ),
    Problem("pinn", mlp(1, 1), _pinn, lambda: {"x": uniform(N, 1)}, step=True),
    Problem(
        "forces",
        mlp(1, 3),
        _forces,
        lambda: {"places": drawn(N, 3), "energy": drawn(N, 1, seed=5), "force": drawn(N, 3, seed=6)},
        step=True,
    ),
    Problem(
        "simulation",
        mlp(2, 4),
        _simulated,
        lambda: {"x": drawn(N, 2), "v": drawn(N, 2, seed=5), "end": drawn(N, 2, seed=6)},
        step=True,
    ),
    Problem("adversarial", mlp(), _adversarial, _records, step=True, expected="either"),
    Problem("gradient penalty", mlp(), _penalised, _records, step=True),
    Problem("weight decay", mlp(), _decayed, _records, step=True),
    Problem("distilled", mlp(), _distilled, _records, step=True),
    Problem("dict batches", mlp(), _step, _records, step=True),
    Problem("dict batches, ignored", mlp(), _ignoring, _records, step=True),
    Problem("dict batches, of each", mlp(), _each, _records, step=True, truth=_record_of),
    Problem("dict batches, summed", mlp(), _summed, _records, step=True, divisor=N),
    Problem(
        "dict batches with a weight",
        mlp(),
        _ignoring,
        _records,
        step=True,
        options={"weight": lambda b: int((b["y"] != 0).sum())},
    ),
    graph_problem("graphs, one loss each", "none"),
    graph_problem("graphs, their mean", "mean", expected="either"),
    graph_problem("graphs, their mean with a weight", "mean", options={"weight": lambda b: len(b["y"])}),
]


# What is no function of theta, or has another derivative than autograd's


class Swish(torch.autograd.Function):
    """x sigmoid(x): with ``saved`` its second derivative misses a part, since an intermediate is a constant there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        s = torch.sigmoid(x)
        ctx.save_for_backward(x, s)
        return x * s

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        x, s = ctx.saved_tensors
        return g * (s + x * s * (1 - s))


class RightSwish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        s = torch.sigmoid(ctx.saved_tensors[0])
        return g * (s + ctx.saved_tensors[0] * s * (1 - s))


class Straight(torch.autograd.Function):
    """Steps whose derivative is said to be 1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (4 * x).round() / 4

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g


class Adjoint(torch.autograd.Function):
    """A layer whose backward pass runs it again, with the parameters that it finds in the module."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, module: nn.Module, *weights: Tensor) -> Tensor:
        ctx.module, ctx.x = module, x
        with torch.no_grad():
            return torch.tanh(module(x))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        with torch.enable_grad():
            x = ctx.x.detach().requires_grad_()
            weights = [w for w in ctx.module.parameters() if w.requires_grad]
            found = torch.autograd.grad(torch.tanh(ctx.module(x)), [x, *weights], g)
        return (found[0], None, *(found[1:] or (None,) * 2))


def layered(function: Callable[[Tensor], Tensor]) -> Callable[[], nn.Module]:
    return lambda: Written(lambda m, x: m.head(function(m.first(x))), first=nn.Linear(4, 5), head=nn.Linear(5, 3))


class Counting(nn.Module):
    """Every call adds to a number that is no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.calls = mlp()(), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.body(x) * (1 + 0.1 * self.calls)


class Remembering(nn.Module):
    """What it sees first is kept, and used from then on."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.kept = mlp()(), None

    def forward(self, x: Tensor) -> Tensor:
        out = self.body(x)
        if self.kept is None:
            self.kept = out.detach().mean(0)
        return out - self.kept


class Noisy(nn.Module):
    """Noise from a generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.generator = mlp()(), None

    def forward(self, x: Tensor) -> Tensor:
        if self.generator is None:
            self.generator = torch.Generator().manual_seed(0)
        return self.body(x + 0.3 * torch.randn(x.shape, generator=self.generator).to(x))


class GradDependent(nn.Module):
    """Another function where gradients are on."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp()()

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) * (1.0 if torch.is_grad_enabled() else 1.2)


OUTSIDE, CLOSED = mlp()(), mlp()()


def _closure(o: Tensor, t: Tensor) -> Tensor:
    return F.cross_entropy(o, t) + 0.1 * sum(p.square().sum() for p in CLOSED.parameters())


def _decayed_pair(f: Any, batch: Any) -> Tensor:
    return F.cross_entropy(f(batch[0]), batch[1]) + 0.1 * sum(p.square().sum() for p in f.parameters())


class Penalty(nn.Module):
    """A loss with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.3))

    def forward(self, o: Tensor, t: Tensor) -> Tensor:
        return self.scale * F.cross_entropy(o, t)


def _same_as(f: Any, batch: Any) -> Tensor:
    return F.cross_entropy(f(batch[0]), batch[1])


def _detached(o: Tensor, t: Tensor) -> Tensor:
    return (o - 0.5 * o.detach().roll(1, 1)).square().mean()


FOREIGN = [
    Problem("a function of its own, right", layered(RightSwish.apply), F.cross_entropy, pairs(LABELS)),
    Problem(
        "a function of its own that saves an intermediate",
        layered(Swish.apply),
        F.cross_entropy,
        pairs(LABELS),
        expected="refused",
        truth=lambda f, b: _same_as(f, b),
    ),
    Problem("straight-through", layered(Straight.apply), F.cross_entropy, pairs(LABELS), expected="refused"),
    Problem(
        "part is detached",
        layered(lambda h: torch.tanh(h) + h.detach()),
        F.cross_entropy,
        pairs(LABELS),
        expected="refused",
    ),
    Problem("targets are detached outputs", mlp(), _detached, pairs(LABELS), expected="refused"),
    Problem(
        "adjoint",
        lambda: Written(
            lambda m, x: m.head(Adjoint.apply(x, m.first, *m.first.parameters())),
            first=nn.Linear(4, 5),
            head=nn.Linear(5, 3),
        ),
        F.cross_entropy,
        pairs(LABELS),
        expected="refused",
    ),
    Problem(
        "counts its calls",
        Counting,
        F.cross_entropy,
        pairs(LABELS),
        expected="refused",
        truth=lambda f, b: F.cross_entropy(f(b[0]), b[1]),
    ),
    Problem("remembers", Remembering, F.cross_entropy, pairs(LABELS), expected="refused"),
    Problem("draws from its own generator", Noisy, F.cross_entropy, pairs(LABELS), expected="refused"),
    Problem("knows whether gradients are on", GradDependent, F.cross_entropy, pairs(LABELS), expected="either"),
    Problem("a loss with a parameter of its own", mlp(), Penalty(), pairs(LABELS), expected="either"),
    Problem(
        "a loss that closes over its model",
        lambda: CLOSED,
        _closure,
        pairs(LABELS),
        expected="refused",
        truth=_decayed_pair,
    ),
    Problem(
        "a step that ignores its model",
        mlp(),
        lambda model, batch: F.cross_entropy(OUTSIDE.to(batch["x"])(batch["x"]), batch["y"]),
        _records,
        step=True,
        expected="refused",
    ),
]

LEFT_OUT = ("resnet20-A", "resnet20-B", "weight-norm")  # slow ones, and what has a problem of its own


def _architecture(a: Any) -> Problem:
    def data() -> Any:
        inputs = drawn(N, *a.shape) if a.numbers is None else whole(a.numbers, N, *a.shape)
        return inputs, drawn(N, seed=12)

    return Problem(
        f"network {a.name}",
        lambda: drawn_model(a.build()),
        squares,
        data,
        truth=lambda f, b: squares(f(b[0]), b[1]).mean(),
    )


KNOWN_NETWORKS = [_architecture(a) for a in ARCHITECTURES if a.name not in LEFT_OUT]

MODELS = [*NETWORKS, *STEPS, *FOREIGN]
