"""What an exception inside the user's model or loss means: the one-line error with the cause and the remedy."""

from __future__ import annotations

import copy
import re
import textwrap
from typing import Any

from torch import Tensor, nn

from lossatlas.errors import InputError, LossAtlasError
from lossatlas.model.data.batches import describe

_LONGEST = 240  # characters of an exception's own text
_OUTPUT_OBJECT = (
    "if the model returns an output object, hand over the tensor that it holds: "
    "Objective.from_step(model, lambda model, batch: model(**batch).loss, batches)"
)
_NO_GRADIENT = (
    "the loss differentiates what the model gives, and no graph leads to what it differentiates by: compute that part "
    "under torch.enable_grad(), on inputs with requires_grad_()"
)
_ONE_EXAMPLE = "the data are single examples: batch them, as by DataLoader(data, batch_size=...)"
_UNKNOWN = "run loss(model(inputs), targets), or the step, on this batch by itself to see where it fails"
# The first pattern that is found in "Type: text" tells the cause.
_CAUSES = {
    r"does not require grad|does not have a grad_fn": _NO_GRADIENT,
    r"torch\.utils\.checkpoint|[Cc]heckpointing is not compatible|use_reentrant": (
        "activation checkpointing calls parts of the model again during the backward pass, with other parameters: "
        "switch it off, as in model.gradient_checkpointing_disable() or use_checkpoint=False; it is the same function"
    ),
    r"escaped from inside a function being vmap": (
        "the loss keeps a tensor between calls (a running mean, a queue): hand it over with the data, or as a constant"
    ),
    r"second time|already been freed": (
        "a derivative inside the model or the loss is differentiated once more: "
        "take it by torch.autograd.grad(..., create_graph=True)"
    ),
    r"appears to not have been used in the graph": (
        "the loss differentiates by a tensor that the result does not depend on: "
        "give torch.autograd.grad the tensor that the model was called with"
    ),
    r"[Ii]nference ?(tensor|mode)": (
        "model, data or objective were made inside torch.inference_mode(): make them outside of it, or under "
        "torch.no_grad()"
    ),
    r"'(target|y)' .*must be Tensor, not": "make the targets a tensor, as in torch.tensor(targets)",
    r"expected target dtype to be Long|expected scalar type Long|multi-target not supported|[01]D (or [01]D )?target": (
        "classes are whole numbers, one an example: targets.long(), of shape (N,), as by targets.squeeze(1)"
    ),
    r"(got|found|[Ii]nput type \().*(Byte|Char|Short|Int|Long|unsigned char|long|int)\w*\b.*([Ff]loat|[Dd]ouble)": (
        "the inputs are whole numbers, which are never converted: give floats, as by inputs.float()"
    ),
    r"more than 1 value per channel": (
        "BatchNorm cannot take its statistics from one example: use larger batches or batch_norm='frozen'"
    ),
    r"^IndexError.*out of bounds|Assertion.*(t >= 0|cur_target)": (
        "a label lies outside the range of the model's outputs: labels count from 0 to the number of outputs - 1"
    ),
    r"index out of range in self|not in the valid range": (
        "an index lies outside an embedding's table: compare the largest index of the batch with num_embeddings"
    ),
    r"same device": (
        "a tensor that the loss or the model holds outside its parameters and buffers, such as class weights, is on "
        "another device: move it there, or leave device= out"
    ),
    r"expected scalar type|same dtype|Found dtype|dtypes match|weight type .* should be the same|must have .*dtype": (
        "a tensor has another dtype than the rest: dtype= converts model and data, but not what a loss holds, such as "
        "class weights: convert it, as in nn.CrossEntropyLoss(weight=weight.double()), or leave dtype= out"
    ),
    r"view_as_complex|storage_offset divisible": (
        "parameters are views into one real vector: use torch.view_as_complex(weight.clone())"
    ),
    r"[Ss]parse": (
        "PyTorch has no such operation for sparse tensors: convert them with .to_dense(), in the batch or in the "
        "model, and give an embedding sparse=False"
    ),
    r"vmap|batching rule|functorch": (
        "an operation inside the model or the loss does not work under torch.vmap: "
        "write that part without vmap, as a loop or on the whole batch"
    ),
    r"double backward|differentiated twice|derivative for .* is not implemented|once_differentiable|forward AD": (
        "this operation has no such derivative: replace it by PyTorch's own elementary ones for curvature (for cuDNN "
        "layers torch.backends.cudnn.enabled = False); what needs the loss alone, such as surfaces, works as it is"
    ),
    r"must be Tensor, not|'\w*(Output|Dict|tuple|dict)\w*' object has no attribute": _OUTPUT_OBJECT,
    r"unexpected keyword|required positional|positional arguments? but|missing .* argument": (
        "inputs that are a dict are passed by name, a tuple or list one by one: "
        "where the model takes them otherwise, use Objective.from_step(model, step, batches)"
    ),
    r"shapes? cannot be multiplied|size mismatch|[Ss]izes? of|must match|batch_size|broadcast|shape|dimension": (
        "sizes do not fit: compare the inputs with what the model takes, and its outputs with the targets"
    ),
}


def explain_failure(error: Exception, batch: Any) -> LossAtlasError:
    """The one-line error for an exception inside the user's model or loss, with the likely cause and the remedy."""
    text = shortened(error)
    cause = _ONE_EXAMPLE if _is_one_example(batch) else likely_cause(text)
    return InputError(f"The model or the loss failed on a batch of {describe(batch)}: {text} ({cause or _UNKNOWN}).")


def _is_scalar(value: object) -> bool:
    return isinstance(value, Tensor) and not value.ndim


def _is_one_example(batch: Any) -> bool:
    pair = isinstance(batch, tuple | list) and len(batch) == 2 and not hasattr(batch, "_fields")
    return pair and isinstance(batch[0], Tensor) and (isinstance(batch[1], int) or _is_scalar(batch[1]))


def in_training_mode_only(error: Exception) -> LossAtlasError:
    """The same for what fails in evaluation mode and works in training mode."""
    return InputError(
        f"The model or the loss fails in evaluation mode and works in training mode ({shortened(error)}): give "
        "mode='train' (BatchNorm frozen, dropout off), or mode='dropout' (the same numbers dropped at every point)."
    )


def explain_derivative(error: Exception) -> LossAtlasError:
    """The same for an exception while model and loss are differentiated."""
    text = shortened(error)
    cause = likely_cause(text) or "replace the operation that it names by others, or leave out its parameters"
    return InputError(f"PyTorch cannot differentiate the model or the loss: {text} ({cause}).")


def explain_copy(model: nn.Module, error: Exception) -> LossAtlasError:
    """The same for a model that ``copy.deepcopy`` refuses, with the attribute that it is about."""
    where = next(_not_copied(model), "")
    return InputError(
        f"The model cannot be copied ({shortened(error)}){where}: remove a hook or attribute that holds a lock, a file "
        "or a logger, detach a tensor that is kept as an attribute, or build the model anew and load its state dict."
    )


def likely_cause(text: str) -> str | None:
    """The cause of an exception with this text, and the remedy; None where it is not known.

    >>> likely_cause("IndexError: Target 5 is out of bounds.")
    "a label lies outside the range of the model's outputs: labels count from 0 to the number of outputs - 1"
    """
    return next((cause for pattern, cause in _CAUSES.items() if re.search(pattern, text)), None)


def needs_gradients(error: Exception) -> bool:
    """Whether an exception says that something was differentiated while gradients were off."""
    return likely_cause(shortened(error)) == _NO_GRADIENT


def shortened(error: Exception) -> str:
    """Type and text on one line; an error of lossatlas's own as its text."""
    text = textwrap.shorten(str(error), _LONGEST, placeholder=" ...").rstrip(".")
    return text if isinstance(error, LossAtlasError) else f"{type(error).__name__}: {text}"


def _not_copied(model: nn.Module) -> Any:
    """Where in the model the attributes are that cannot be copied, in words."""
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            if attribute != "_modules" and not _copies(value):
                what = "a hook" if attribute.endswith("_hooks") else f"the attribute {attribute!r}"
                yield f", because of {what} of {name or 'the model itself'} ({type(module).__name__})"


def _copies(value: object) -> bool:
    try:
        copy.deepcopy(value)
    except Exception:  # whatever refuses
        return False
    return True
