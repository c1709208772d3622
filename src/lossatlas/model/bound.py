"""A model and what is called with it, as one module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn


class Bound(nn.Module):
    """``call(model, batch)``, so that ``functional_call`` reaches whatever is done with the model."""

    def __init__(self, model: nn.Module, call: Callable[[nn.Module, Any], Any]) -> None:
        super().__init__()
        self.model = model
        self._call = call

    def forward(self, batch: Any) -> Any:
        return self._call(self.model, batch)
