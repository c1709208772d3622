"""``nn.EmbeddingBag`` by operations with derivatives of every order, of which its own kernel has the first."""

from __future__ import annotations

import types

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def make_differentiable(bag: nn.EmbeddingBag) -> None:
    """Sums and means with gradients on by a look-up and an addition; the maximum, and values alone, by the kernel."""
    if type(bag).forward is nn.EmbeddingBag.forward and bag.mode != "max":
        bag.forward = types.MethodType(_forward, bag)  # type: ignore[method-assign]


def _forward(
    self: nn.EmbeddingBag,
    input: Tensor,  # noqa: A002, as it may be given by name
    offsets: Tensor | None = None,
    per_sample_weights: Tensor | None = None,
) -> Tensor:
    if not torch.is_grad_enabled():
        return nn.EmbeddingBag.forward(self, input, offsets, per_sample_weights)
    bags, count = _bags(input, offsets, self.include_last_offset)
    vectors = F.embedding(input, self.weight, None, self.max_norm, self.norm_type).reshape(-1, self.embedding_dim)
    weights = torch.ones_like(vectors[:, :1]) if per_sample_weights is None else per_sample_weights.reshape(-1, 1)
    if self.padding_idx is not None:
        weights = weights * (input.reshape(-1, 1) != self.padding_idx % self.num_embeddings)
    total = vectors.new_zeros(count, self.embedding_dim).index_add(0, bags, vectors * weights)
    if self.mode == "sum":
        return total
    return total / weights.new_zeros(count, 1).index_add(0, bags, weights).clamp(min=1)


def _bags(indices: Tensor, offsets: Tensor | None, include_last: bool) -> tuple[Tensor, int]:
    """The bag of each index, and how many bags there are: the rows, or what the offsets cut one row into."""
    places = torch.arange(indices.numel(), device=indices.device)
    if offsets is None:
        return places // indices.shape[1], len(indices)
    starts = offsets[:-1] if include_last else offsets
    return torch.bucketize(places, starts, right=True) - 1, len(starts)
