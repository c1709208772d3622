"""Language models in plain PyTorch that are called as those of ``transformers`` are, and their loss in closed form.

``Causal`` has GPT-2's shape: weights of the form (in, out), a tied head, learned positions, fused attention.
``Encoder`` sees all positions that are not padding; its head names masked tokens, or classes of a text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from oracles import plain

VOCABULARY, LENGTH = 7, 5
Batch = dict[str, Tensor]


class Conv1D(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs) / inputs**0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.flatten(0, -2), self.weight).unflatten(0, x.shape[:-1])


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.c_attn, self.c_proj = Conv1D(width, 3 * width), Conv1D(width, width)
        self.c_fc, self.c_out = Conv1D(width, 4 * width), Conv1D(4 * width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        parts = self.c_attn(self.ln_1(x)).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        x = x + self.c_proj(attended)
        return x + self.c_out(F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))


class Causal(nn.Module):
    def __init__(
        self, vocabulary: int = VOCABULARY, width: int = 4, layers: int = 1, heads: int = 2, length: int = LENGTH
    ) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.h = nn.ModuleList([Block(width, heads) for _ in range(layers)])
        self.ln_f = nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None) -> Any:
        length = input_ids.shape[1]
        mask = torch.ones(length, length, dtype=torch.bool, device=input_ids.device).tril()[None, None]
        if attention_mask is not None:
            mask = mask & attention_mask[:, None, None].bool()
        x = self.wte(input_ids) + self.wpe(torch.arange(length, device=input_ids.device))
        for block in self.h:
            x = block(x, mask)
        logits, loss = self.lm_head(self.ln_f(x)), None
        if labels is not None:  # as the library's own: in float32
            loss = F.cross_entropy(logits.float()[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return SimpleNamespace(loss=loss, logits=logits)


class Encoder(nn.Module):
    """``classes`` None: a head for each position."""

    def __init__(self, classes: int | None = None) -> None:
        super().__init__()
        self.classes = classes
        self.embedding = nn.Embedding(VOCABULARY, 4)
        self.block = Block(4, 2)
        self.head = nn.Linear(4, classes or VOCABULARY)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Any:
        x = self.block(self.embedding(input_ids), attention_mask[:, None, None].bool())
        logits, loss = self.head(x[:, 0] if self.classes else x), None
        if labels is not None:
            loss = F.cross_entropy(logits.flatten(0, -2), labels.flatten())
        return SimpleNamespace(loss=loss, logits=logits)


def texts(count: int = 5, *, labels: str = "next") -> list[dict[str, list[int] | int]]:
    """Rows of unequal lengths; labels are the ids with some left out, masked ids, or a class of each text."""
    rows = []
    for index in range(count):
        length = LENGTH - index % 3
        ids = torch.randint(1, VOCABULARY, (length,), generator=torch.Generator().manual_seed(index)).tolist()
        known = [-100 if (place + index) % 3 == 2 else token for place, token in enumerate(ids)]
        rows.append({"input_ids": ids, "labels": index % 3 if labels == "class" else known})
    return rows


@dataclass(frozen=True)
class Task:
    """A model, its texts, and by how many places a label lies behind the logits that name it."""

    model: Callable[[], nn.Module]
    labels: str
    shift: int

    def made(self) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return self.model().double().eval()

    def rows(self) -> list[dict[str, Any]]:
        return texts(labels=self.labels)

    def logits(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """``(M, C)`` and the labels ``(M,)`` of all places that count, of each text alone and without padding."""
        model = self.made()
        named = plain.trainable(model)
        parts = theta.split([p.numel() for _, p in named])
        tensors = {name: part.view_as(p) for (name, p), part in zip(named, parts, strict=True)}
        found, counted = [], []
        for row in self.rows():
            ids = torch.tensor([row["input_ids"]])
            with sdpa_kernel(SDPBackend.MATH):
                f = functional_call(
                    model, tensors, (), {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
                ).logits
            labels = row["labels"] if isinstance(row["labels"], list) else [row["labels"]]
            kept = [place for place, label in enumerate(labels) if place >= self.shift and label >= 0]
            found.append(f.reshape(-1, f.shape[-1])[[place - self.shift for place in kept]])
            counted += [labels[place] for place in kept]
        return torch.cat(found), torch.tensor(counted)

    def loss(self, theta: Tensor) -> Tensor:
        """The mean of -log softmax(f)[label] over all of them."""
        f, labels = self.logits(theta)
        return (f.logsumexp(1) - f[torch.arange(len(f)), labels]).mean()

    def gauss_newton(self, theta: Tensor) -> Tensor:
        """Dense: sum_m J_m' (diag p_m - p_m p_m') J_m / M."""
        J = torch.autograd.functional.jacobian(lambda at: self.logits(at)[0], theta)
        p = self.logits(theta)[0].softmax(1)
        H = torch.diag_embed(p) - p[:, :, None] * p[:, None]
        return torch.einsum("mcn,mcd,mdk->nk", J, H, J) / len(p)


TASKS = {
    "causal": Task(Causal, "next", 1),
    "masked": Task(Encoder, "masked", 0),
    "classes": Task(lambda: Encoder(3), "class", 0),
}
