"""What an exception inside the user's model or loss means: the one-line error with the cause and the remedy."""

from __future__ import annotations

from typing import Any

from lossatlas.errors import InputError, LossAtlasError
from lossatlas.model.batches import describe


def explain_failure(error: Exception, batch: Any) -> LossAtlasError:
    """The one-line error for an exception inside the user's model or loss, with the likely remedy."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    hint = "check that model, loss and batch fit together"
    if isinstance(error, IndexError) and "out of bounds" in text:
        hint = "a label lies outside the range of the model's outputs"
    elif "more than 1 value per channel" in text:
        hint = "BatchNorm cannot take its statistics from one example: use larger batches or batch_norm='frozen'"
    elif "must be Tensor, not" in text:
        hint = (
            "if the model returns an output object, use Objective.from_step(model, lambda model, batch: ..., batches)"
        )
    return InputError(f"The model or the loss failed on a batch of {describe(batch)}: {text} ({hint}).")
