"""One argument or several: what a model is called with."""

from __future__ import annotations

from collections import UserDict, namedtuple

import pytest
import torch
from oracles.refusals import refused
from torch import Tensor, nn

from lossatlas.errors import InputError
from lossatlas.model.inputs import applied, arguments, require_one_way

X, M = torch.ones(2, 3), torch.zeros(2)
Named = namedtuple("Named", "x mask")


class Entry:
    pass


def module(forward):
    return type("Model", (nn.Module,), {"forward": forward})()


ONE = module(lambda self, x: x)
TWO = module(lambda self, x, mask: (x, mask))
MAYBE = module(lambda self, x, mask=None: (x, mask))
ANY = module(lambda self, *args, **named: (args, named))


def _images(self, images: list[Tensor], targets: Tensor | None = None):
    return images


def _optional(self, batch: dict[str, Tensor] | None = None, mask: Tensor | None = None):
    return batch


def _tensor(self, x: Tensor, mask: Tensor):
    return x


LINEAR = nn.Linear(3, 2)
IMAGES, OPTIONAL, TENSORS = module(_images), module(_optional), module(_tensor)
PACKED = nn.utils.rnn.pack_sequence([X, X[:1]])
SEVERAL = {
    "a tuple for two arguments": (TWO, (X, M), ((X, M), {})),
    "a list for two arguments": (TWO, [X, M], ((X, M), {})),
    "a list for one argument and another": (MAYBE, [X, M], ((X, M), {})),
    "one entry for one argument": (ONE, [X], ((X,), {})),
    "one entry for a first argument": (MAYBE, (X,), ((X,), {})),
    "a dict by its names": (TWO, {"x": X, "mask": M}, ((), {"x": X, "mask": M})),
    "a user's dict by its names": (MAYBE, UserDict(x=X), ((), {"x": X})),
    "whatever a model takes": (ANY, [X, M], ((X, M), {})),
    "a named tuple for two arguments": (TWO, Named(X, M), ((X, M), {})),
    "annotated tensors": (TENSORS, [X, M], ((X, M), {})),
}
ONE_ARGUMENT = {
    "a tensor": (TWO, X),
    "an object": (ONE, Entry()),
    "a packed sequence": (MAYBE, PACKED),
    "texts": (MAYBE, ["a", "b"]),
    "one text": (ONE, ["a"]),
    "images of different sizes": (ONE, [X, X[:1], X[:, :1]]),
    "a dict of other names": (ONE, {"a": X, "b": M}),
    "a dict for a model with an optional argument": (MAYBE, {"a": X}),
    "a named tuple": (ONE, Named(X, M)),
    "annotated images": (IMAGES, [X, M]),
    "one annotated image": (IMAGES, [X]),
    "an annotated dict with the argument's own name": (OPTIONAL, {"batch": X}),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_inputs_that_fit_are_handed_over_one_by_one(name):
    model, inputs, expected = SEVERAL[name]
    assert repr(arguments(model, inputs)) == repr(expected)


@pytest.mark.parametrize("name", ONE_ARGUMENT)
def test_inputs_for_one_argument_are_handed_over_whole(name):
    model, inputs = ONE_ARGUMENT[name]
    args, named = arguments(model, inputs)
    assert len(args) == 1
    assert args[0] is inputs
    assert not named


NOT_TAKEN = {
    "too few": (TWO, [X], "1 arguments"),
    "too many": (TWO, [X, M, M], "3 arguments"),
    "other names": (TWO, {"x": X, "y": M}, "['x', 'y']"),
    "a dict for a tensor": (LINEAR, {"x": X}, "['x']"),
}


@pytest.mark.parametrize("name", NOT_TAKEN)
def test_inputs_that_fit_in_no_way_are_refused_with_from_step(name):
    model, inputs, given = NOT_TAKEN[name]
    with refused(InputError) as caught:
        applied(model, inputs)
    assert given in str(caught.value)
    assert "Objective.from_step" in str(caught.value)


@pytest.mark.parametrize(
    ("model", "batches"),
    [(ONE, [([X, M], M), ([X], M)]), (MAYBE, [([X.T, X.T], M)])],
    ids=["one in the last batch", "as many images as the model has arguments"],
)
def test_lists_that_may_be_one_argument_or_several_are_refused(model, batches):
    with refused(InputError) as caught:
        require_one_way(model, batches)
    assert "Objective.from_step" in str(caught.value)


ONE_WAY = {
    "always one": (ONE, [([X], M), ([X], M)]),
    "always several": (ONE, [([X, M], M), ([X, M, M], M)]),
    "annotated": (IMAGES, [([X, M], M), ([X], M)]),
    "tensors": (ONE, [(X, M)]),
    "an input and its mask": (MAYBE, [([X, M], M)]),
}


@pytest.mark.parametrize("name", ONE_WAY)
def test_lists_that_are_handed_over_in_one_way_are_taken(name):
    require_one_way(*ONE_WAY[name])


def test_a_method_without_a_signature_takes_its_inputs_one_by_one():
    model = module(lambda self, x: x)
    model.__dict__["forward"] = dict.get  # written in C, as a ScriptModule's
    assert arguments(model, (X, M)) == ((X, M), {})
