"""The smallest weights set to zero."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lossatlas.model.parameters import Entry
from lossatlas.robustness.quantisation import matrices


class Pruning:
    """theta with the round(share m) smallest of m weights, by |w| and over all of their tensors together, set to 0.

    Tensors of fewer than two dimensions (biases, norms) are neither pruned nor counted in m. Of equal magnitudes the
    first in theta go first. Nothing is trained afterwards.

    Source: Han et al. 2015, "Learning both weights and connections for efficient neural networks", section 3, with one
    threshold for all layers.
    """

    def __init__(self, point: Tensor) -> None:
        self._point = point

    def __call__(self, size: float, draw: int, entries: Sequence[Entry]) -> Tensor:
        """The point with this share of the weights of these tensors at 0; nothing is drawn."""
        theta = self._point.clone()
        weights = matrices(entries)
        if weights:
            places = torch.cat([torch.arange(entry.start, entry.stop, device=theta.device) for entry in weights])
            order = theta[places].abs().argsort(stable=True)
            theta[places[order[: round(size * len(places))]]] = 0
        return theta
