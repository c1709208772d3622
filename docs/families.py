"""Families of models, each with its usual loss and data: what `docs/models.py` analyses.

Small networks with random weights and made-up data of the family's own form: what matters is which operations a model
is made of, how its batches look, and of what its loss is a mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import lossatlas as la

N = 24  # examples


@dataclass(frozen=True)
class Family:
    """A family by its name: ``make(model) -> Objective`` for a model that ``build`` makes."""

    name: str
    build: Callable[[], nn.Module]
    make: Callable[[nn.Module], la.Objective]

    def model(self, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return self.build()


def families() -> Iterator[Family]:
    """All of them."""
    yield Family("MLP", lambda: la.zoo.mlp(64, widths=(16,)), classified(normal(N, 1, 8, 8), classes(10)))
    yield Family("CNN", lambda: la.zoo.lenet5(1, 28), classified(normal(N, 1, 28, 28), classes(10)))
    yield Family("ResNet with BatchNorm", small_resnet, classified(normal(N, 3, 8, 8), classes(10)))
    yield Family("U-Net, ignored pixels", UNet, segmented)
    yield Family("vision transformer", small_vit, classified(normal(N, 3, 8, 8), classes(10)))
    yield Family("language model, GPT-2's form", lambda: Gpt(words=50, width=16, blocks=2, heads=2), next_words)
    yield Family("encoder with a padding mask", Encoder, encoded)
    yield Family("LSTM over packed sequences", Packed, packed)
    yield Family("speech, CTC", Speech, spoken)
    yield Family("variational autoencoder", Vae, reconstructed)
    yield Family("GAN, discriminator", discriminator, discriminated)
    yield Family("contrastive", lambda: perceptron(8, 4), contrasted)
    yield Family("triplet", lambda: perceptron(8, 4), compared)
    yield Family("graph network", Graph, of_graphs)
    yield Family("PINN", lambda: perceptron(1, 1), physical)
    yield Family("force field", lambda: perceptron(6, 1), forced)
    yield Family("neural ODE", Flow, classified(normal(N, 6), classes(3)))
    yield Family("normalising flow", Coupling, likely)
    yield Family("diffusion step", lambda: perceptron(5, 4), denoised)
    yield Family("mixture of experts", Experts, classified(normal(N, 6), classes(3)))
    yield Family("LoRA adapters", Adapted, classified(normal(N, 6), classes(3)))
    yield Family("quantisation-aware", Quantised, classified(normal(N, 6), classes(3)))


# Data


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def classes(count: int, *shape: int, seed: int = 1) -> Tensor:
    return torch.randint(count, shape or (N,), generator=torch.Generator().manual_seed(seed))


LENGTHS = torch.tensor([6, 3, 5, 2, 4, 6, 1, 5] * (N // 8))


def classified(inputs: Tensor, labels: Tensor) -> Callable[[nn.Module], la.Objective]:
    return lambda model: la.Objective(model, F.cross_entropy, (inputs, labels), batch_size=8)


def perceptron(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, outputs))


# Images


class Residual(nn.Module):
    def __init__(self, inward: int, outward: int, stride: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(inward, outward, 3, stride, 1, bias=False)
        self.norm_one, self.norm_two = nn.BatchNorm2d(outward), nn.BatchNorm2d(outward)
        self.two = nn.Conv2d(outward, outward, 3, 1, 1, bias=False)
        self.short = nn.Conv2d(inward, outward, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm_two(self.two(F.relu(self.norm_one(self.one(x))))) + self.short(x))


def small_resnet() -> nn.Module:
    stem = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
    return nn.Sequential(stem, Residual(8, 8, 1), Residual(8, 16, 2), head)


def small_vit() -> nn.Module:
    return la.zoo.vit(3, 8, patch=4, width=16, depth=2, heads=2)


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.bottom = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 12, 3, padding=1)
        self.up, self.out = nn.ConvTranspose2d(12, 6, 2, stride=2), nn.Conv2d(12, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        left = F.relu(self.down(x))
        bottom = F.relu(self.bottom(F.max_pool2d(left, 2)))
        return self.out(torch.cat([left, F.relu(self.up(bottom))], 1))


def segmented(model: nn.Module) -> la.Objective:
    labels = classes(3, N, 8, 8)
    labels[:, :2] = 255
    labels[5:9] = 255
    return la.Objective(model, nn.CrossEntropyLoss(ignore_index=255), (normal(N, 1, 8, 8), labels), batch_size=8)


# Words


class Reversed(nn.Module):
    """A linear layer whose weight is (in, out), as GPT-2 keeps it."""

    def __init__(self, inward: int, outward: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inward, outward) / math.sqrt(inward))
        self.bias = nn.Parameter(torch.zeros(outward))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.flatten(0, -2), self.weight).unflatten(0, x.shape[:-1])


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.c_attn, self.c_proj = Reversed(width, 3 * width), Reversed(width, width)
        self.c_fc, self.c_out = Reversed(width, 4 * width), Reversed(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.c_attn(self.ln_1(x)).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.c_proj(attended.transpose(1, 2).flatten(2))
        return x + self.c_out(F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))


class Gpt(nn.Module):
    def __init__(self, words: int, width: int, blocks: int, heads: int, length: int = 6) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(words, width), nn.Embedding(length, width)
        self.h = nn.ModuleList(Block(width, heads) for _ in range(blocks))
        self.ln_f, self.head = nn.LayerNorm(width), nn.Linear(width, words, bias=False)
        self.head.weight = self.wte.weight

    def forward(self, words: Tensor) -> Tensor:
        x = self.wte(words) + self.wpe.weight[: words.shape[1]]
        for block in self.h:
            x = block(x)
        return self.head(self.ln_f(x))


def next_words(model: nn.Module) -> la.Objective:
    """Padded behind each sequence; the label of padding is -100."""
    words = classes(50, N, 6)
    labels = torch.cat([words[:, 1:], torch.full((N, 1), -100)], 1)
    labels = labels.masked_fill(torch.arange(6) + 1 >= LENGTHS[:, None], -100)
    loss = lambda logits, y: F.cross_entropy(logits.transpose(1, 2), y)  # noqa: E731
    return la.Objective(model, loss, (words, labels), batch_size=8)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.table, self.layers, self.head = nn.Embedding(20, 16), nn.TransformerEncoder(layer, 2), nn.Linear(16, 3)

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        hidden = self.layers(self.table(words), src_key_padding_mask=~mask)
        return self.head((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))


def encoded(model: nn.Module) -> la.Objective:
    words, mask, labels = classes(20, N, 6), torch.arange(6) < LENGTHS[:, None], classes(3)
    batches = [((words[i : i + 8], mask[i : i + 8]), labels[i : i + 8]) for i in range(0, N, 8)]
    return la.Objective(model, F.cross_entropy, batches)


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.cells, self.head = nn.Embedding(20, 8), nn.LSTM(8, 12, batch_first=True), nn.Linear(12, 3)

    def forward(self, words: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(self.table(words), lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.cells(packed)[0], batch_first=True, total_length=words.shape[1])
        return self.head(states.sum(1) / lengths[:, None])


def packed(model: nn.Module) -> la.Objective:
    words, labels = classes(20, N, 6), classes(3)
    batches = [((words[i : i + 8], LENGTHS[i : i + 8]), labels[i : i + 8]) for i in range(0, N, 8)]
    return la.Objective(model, F.cross_entropy, batches)


class Speech(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inward, self.head = nn.Conv1d(5, 8, 3, padding=1), nn.Linear(8, 6)
        self.cells = nn.GRU(8, 8, batch_first=True)

    def forward(self, sound: Tensor) -> Tensor:
        return self.head(self.cells(F.gelu(self.inward(sound)).transpose(1, 2))[0]).log_softmax(-1)


def spoken(model: nn.Module) -> la.Objective:
    def loss(frames: Tensor, batch: Any) -> Tensor:
        lengths = torch.full((len(frames),), frames.shape[1])
        each = F.ctc_loss(frames.transpose(0, 1), batch["text"], lengths, batch["length"], reduction="none")
        return each / batch["length"]

    data = {"sound": normal(N, 5, 12), "text": classes(5, N, 4) + 1, "length": classes(4, seed=3) + 1}
    return in_halves(model, lambda model, batch: model(batch["sound"]), loss, data)


# Generative models, metrics, physics


class Vae(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = perceptron(8, 4), perceptron(2, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, spread = self.encoder(x).chunk(2, -1)
        return self.decoder(mean + spread.exp() * torch.randn_like(mean)), mean, spread


def reconstructed(model: nn.Module) -> la.Objective:
    def step(model: Any, batch: Tensor) -> Tensor:
        back, mean, spread = model(batch)
        divergence = 0.5 * (mean.square() + (2 * spread).exp() - 1 - 2 * spread).sum(1)
        return (back - batch).square().sum(1) + divergence

    return la.Objective.from_step(model, step, list(normal(N, 8).split(8)))


def discriminator() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))


def discriminated(model: nn.Module) -> la.Objective:
    data = normal(N, 8), (torch.arange(N)[:, None] % 2).float()
    return la.Objective(model, F.binary_cross_entropy_with_logits, data, batch_size=8)


def contrasted(model: nn.Module) -> la.Objective:
    def loss(pairs: Tensor, batch: Any) -> Tensor:
        one, two = F.normalize(pairs, dim=-1).unbind(1)
        return F.cross_entropy(one @ two.T / 0.2, torch.arange(len(one), device=one.device))

    one = normal(N, 8)
    views = torch.stack([one, one + 0.1 * normal(N, 8, seed=5)], 1)
    return in_halves(model, lambda model, batch: model(batch["views"]), loss, {"views": views})


def compared(model: nn.Module) -> la.Objective:
    def loss(triples: Tensor, batch: Any) -> Tensor:
        return F.triplet_margin_loss(*triples.unbind(1), margin=1.0, reduction="none")

    return in_halves(model, lambda model, batch: model(batch["triples"]), loss, {"triples": normal(N, 3, 8)})


class Graph(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inward, self.message, self.head = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, batch: Any) -> Tensor:
        h, (source, target) = self.inward(batch["nodes"]), batch["edges"]
        h = torch.tanh(h + h.new_zeros(h.shape).index_add(0, target, self.message(h[source])))
        return self.head(h.new_zeros(len(batch["y"]), 8).index_add(0, batch["graph"], h))


def of_graphs(model: nn.Module) -> la.Objective:
    """Rings of three nodes or more; a batch is one graph of several parts."""

    def batch(first: int) -> dict[str, Tensor]:
        sizes = [3 + (first + i) % 4 for i in range(8)]
        starts = [sum(sizes[:i]) for i in range(8)]
        rings = [torch.stack([torch.arange(n), (torch.arange(n) + 1) % n]) for n in sizes]
        edges = [ring + start for ring, start in zip(rings, starts, strict=True)]
        graph = torch.repeat_interleave(torch.arange(8), torch.tensor(sizes))
        nodes = normal(sum(sizes), 4, seed=first)
        return {"nodes": nodes, "edges": torch.cat(edges, 1), "graph": graph, "y": classes(3, 8, seed=first)}

    loss = lambda outputs, batch: F.cross_entropy(outputs, batch["y"], reduction="none")  # noqa: E731
    return in_halves(model, lambda model, batch: model(batch), loss, [batch(first) for first in range(0, N, 8)])


def physical(model: nn.Module) -> la.Objective:
    """u'' + u = 0, one residual a point."""

    def step(model: Any, batch: Any) -> Tensor:
        x = batch["x"].detach().requires_grad_()
        (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        (bend,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
        return (bend + model(x)).square().flatten() + (model(0 * x) - 1).square().flatten()

    return la.Objective.from_step(model, step, cut({"x": torch.linspace(0, 3, N)[:, None]}))


def forced(model: nn.Module) -> la.Objective:
    def step(model: Any, batch: Any) -> Tensor:
        places = batch["places"].detach().requires_grad_()
        energy = model(places)
        (force,) = torch.autograd.grad(-energy.sum(), places, create_graph=True)
        return (energy - batch["energy"]).square().flatten() + (force - batch["force"]).square().mean(1)

    data = {"places": normal(N, 6), "energy": normal(N, 1, seed=5), "force": normal(N, 6, seed=6)}
    return la.Objective.from_step(model, step, cut(data))


class Flow(nn.Module):
    """x' = f(x) by eight steps of the classical method of Runge and Kutta."""

    def __init__(self) -> None:
        super().__init__()
        self.f, self.head = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 6)), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = 1 / 8
        for _ in range(8):
            k1 = self.f(x)
            k2 = self.f(x + h / 2 * k1)
            k3 = self.f(x + h / 2 * k2)
            x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + self.f(x + h * k3))
        return self.head(x)


class Coupling(nn.Module):
    """Affine couplings of two halves; returns z and log |det dz/dx|."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(perceptron(2, 4) for _ in range(3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        one, two = x.chunk(2, -1)
        total = x.new_zeros(len(x))
        for part in self.parts:
            scale, shift = part(one).tanh().chunk(2, -1)
            one, two, total = two * scale.exp() + shift, one, total + scale.sum(-1)
        return torch.cat([one, two], -1), total


def likely(model: nn.Module) -> la.Objective:
    def step(model: Any, batch: Tensor) -> Tensor:
        z, volume = model(batch)
        return 0.5 * z.square().sum(1) - volume

    return la.Objective.from_step(model, step, list(normal(N, 4).split(8)))


def denoised(model: nn.Module) -> la.Objective:
    """The noise that was added is predicted; a time and a noise for each example, drawn once."""

    def noise(model: Any, batch: Any) -> Tensor:
        kept = torch.cos(batch["time"] * math.pi / 2)
        noisy = kept * batch["x"] + (1 - kept.square()).sqrt() * batch["noise"]
        return model(torch.cat([noisy, batch["time"]], 1))

    loss = lambda noise, batch: (noise - batch["noise"]).square().mean(1)  # noqa: E731
    time = torch.rand(N, 1, generator=torch.Generator().manual_seed(7))
    return in_halves(model, noise, loss, {"x": normal(N, 4), "noise": normal(N, 4, seed=5), "time": time})


class Experts(nn.Module):
    """Each example goes to the best of four experts, weighed by its gate."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.experts = nn.Linear(6, 4), nn.ModuleList(perceptron(6, 3) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        weight, best = self.gate(x).softmax(-1).max(-1)
        outputs = torch.stack([expert(x) for expert in self.experts], 1)
        return weight[:, None] * outputs[torch.arange(len(x)), best]


class Adapted(nn.Module):
    """W x + B A x, where W stands still and B begins at zero (Hu et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.base, self.head = nn.Linear(6, 12).requires_grad_(False), nn.Linear(12, 3).requires_grad_(False)
        for frozen in (*self.base.parameters(), *self.head.parameters()):  # the same in every network of the family
            frozen.data.copy_(0.5 * normal(*frozen.shape, seed=frozen.numel()))
        self.lora_a, self.lora_b = nn.Parameter(torch.randn(2, 6)), nn.Parameter(torch.zeros(12, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.base(x) + x @ self.lora_a.T @ self.lora_b.T))


class Quantised(nn.Module):
    """Weights on a grid of 1/8 whose rounding is given the derivative 1."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        w = self.one.weight
        return self.two(torch.tanh(F.linear(x, w + ((8 * w).round() / 8 - w).detach(), self.one.bias)))


def in_halves(model: nn.Module, outputs: Any, loss: Any, data: Any) -> la.Objective:
    """Of a step that is taken apart into the model's outputs and the loss of these."""
    return la.Objective.from_step(
        model, batches=data if isinstance(data, list) else cut(data), outputs=outputs, loss=loss
    )


def cut(data: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Batches of eight examples."""
    return [{name: each[i : i + 8] for name, each in data.items()} for i in range(0, N, 8)]
