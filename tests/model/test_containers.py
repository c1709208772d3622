"""Batches of every class: copied, cast, told apart by their fingerprints, or refused."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict, UserDict, defaultdict, namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from oracles.refusals import refused
from torch import Tensor, nn

from lossatlas.errors import DataError
from lossatlas.model.data.batches import Batches, copied, describe, form, refill, tensors_in

X, Y = torch.arange(12.0).reshape(4, 3), torch.tensor([0, 1, 1, 0])
Named = namedtuple("Named", "x y")


class Encoding(UserDict):
    """Every name is looked up among the entries, also those that an ordinary object does not have."""

    def __getattr__(self, name):
        return self.__dict__["data"][name]


class Store(dict):
    """The attributes of a graph, which knows the graph that it belongs to."""

    parent = None


class Graph:
    """Tensors behind attributes, in a store that refers back, as in libraries for graphs."""

    def __init__(self, **attributes):
        self.__dict__["_store"] = Store(attributes)
        self._store.parent = self

    def __getattr__(self, name):
        try:
            return self.__dict__["_store"][name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name, value):
        self._store[name] = value


class Weak(Graph):
    """Its store refers back by a weak reference."""

    def __init__(self, **attributes):
        super().__init__(**attributes)
        self._store.parent = weakref.ref(self)

    def __reduce_ex__(self, protocol):
        return _weak, (), dict(self._store)

    def __setstate__(self, attributes):
        self._store.update(attributes)


def _weak():
    return Weak()


class Slotted:
    __slots__ = ("x", "y")

    def __init__(self, x, y):
        self.x, self.y = x, y


@dataclass(frozen=True, slots=True)
class Frozen:
    x: Tensor
    y: Tensor
    ids: tuple[str, ...] = ("a", "b")


class Plain:
    def __init__(self, x, y):
        self.x, self.y = x, y


def of(batch, name):
    return batch[name] if isinstance(batch, dict) else getattr(batch, name)


def _packed(x, y):
    return nn.utils.rnn.pack_padded_sequence(x.reshape(2, 2, 3), torch.tensor([2, 1]), batch_first=True)


OBJECTS = {
    "a dict": lambda x, y: {"x": x, "y": y},
    "an ordered dict": lambda x, y: OrderedDict(x=x, y=y),
    "a dict with a default": lambda x, y: defaultdict(list, x=x, y=y),
    "a user's dict that answers to every name": lambda x, y: Encoding(x=x, y=y),
    "a named tuple": Named,
    "a frozen dataclass with slots": Frozen,
    "an object": Plain,
    "an object with slots": Slotted,
    "a graph whose store refers to it": lambda x, y: Graph(x=x, y=y),
    "a graph with a weak reference": lambda x, y: Weak(x=x, y=y),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_keeps_its_class_and_nothing_of_it_is_shared(name):
    given = OBJECTS[name](X.clone(), Y)
    (found,) = Batches([given], dtype=torch.float64, weight=lambda batch: 4)
    assert type(found) is type(given)
    assert of(found, "x").dtype == torch.float64
    assert of(found, "y").dtype == torch.int64
    of(given, "x").zero_()
    assert torch.equal(of(found, "x"), X.double())


@pytest.mark.parametrize("name", OBJECTS)
def test_the_fingerprint_knows_the_tensors_of_an_object(name):
    def fingerprint(x, y):
        return Batches([OBJECTS[name](x, y)], weight=lambda batch: 4).fingerprint

    assert fingerprint(X, Y) == fingerprint(X.clone(), Y.clone())
    assert len({fingerprint(X, Y), fingerprint(X + 1, Y), fingerprint(X, 1 - Y), fingerprint(X.double(), Y)}) == 4


@pytest.mark.parametrize("name", OBJECTS)
def test_a_model_that_writes_into_an_object_changes_nothing_that_is_kept(name):
    batches = Batches([OBJECTS[name](X.clone(), Y)], weight=lambda batch: 4)
    for batch in batches:
        of(batch, "x").zero_()
    assert torch.equal(of(next(iter(batches)), "x"), X)


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_is_filled_in_the_order_in_which_its_tensors_are_found(name):
    given = OBJECTS[name](X, Y)
    marked = refill(given, iter([t + 1 for t in tensors_in(given)]))
    assert torch.equal(of(marked, "x"), X + 1)
    assert torch.equal(of(marked, "y"), Y + 1)


def test_a_copied_graph_refers_to_itself_and_not_to_the_first():
    found = copied(Graph(x=X))
    assert found._store.parent is found


def test_an_object_that_is_met_twice_stays_one():
    shared = Plain(X, Y)
    first, second = copied([shared, shared])
    assert first is second
    assert first is not shared


def test_lists_of_images_of_different_sizes_stay_lists():
    images = [torch.ones(3, 4, 4), torch.ones(3, 5, 5)]
    ((found, _),) = Batches([(images, Y[:2])], weight=lambda batch: len(batch[0]), dtype=torch.float64)
    assert isinstance(found, list)
    assert [(i.shape, i.dtype) for i in found] == [(i.shape, torch.float64) for i in images]


# Tensors that are not dense

DENSE = torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 3.0], [1.0, 0.0, 0.0]])


def _nested(values, layout):
    return torch.nested.nested_tensor([values[:1], values[1:]], layout=layout)


def _in_two_parts(values):
    parts = values[0, 1:2].repeat(2)
    return torch.sparse_coo_tensor([[0, 0], [1, 1]], parts, (3, 3), check_invariants=True)


UNUSUAL = {
    "COO": lambda d: d.to_sparse(),
    "COO with an entry in two parts": lambda d: torch.sparse_coo_tensor(
        [[0, 0], [1, 1]], d[0, 1:2].repeat(2), (3, 3), check_invariants=True
    ),
    "CSR": lambda d: d.to_sparse_csr(),
    "CSC": lambda d: d.to_sparse_csc(),
    "BSR": lambda d: d.to_sparse_bsr((1, 1)),
    "nested": lambda d: _nested(d, torch.strided),
    "jagged": lambda d: _nested(d, torch.jagged),
    "a packed sequence": lambda d: nn.utils.rnn.pack_sequence([d, d[:2]]),
    "complex and conjugate": lambda d: torch.complex(d, d).conj(),
}


def dense(batch):
    (first, *_) = tensors_in(batch)
    if first.is_nested:
        return torch.cat(list(first.unbind()))
    return first.to_dense() if first.layout is not torch.strided else first


@pytest.mark.filterwarnings("ignore:Sparse.*beta state", "ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("name", UNUSUAL)
def test_tensors_that_are_not_dense_are_copied_cast_and_told_apart(name):
    def batches(values):
        return Batches([{"a": UNUSUAL[name](values)}], dtype=torch.float64, weight=lambda batch: 3)

    given, other = batches(DENSE), batches(DENSE * 2)
    found = dense(next(iter(given)))
    assert found.dtype == (torch.complex128 if "complex" in name else torch.float64)
    assert torch.equal(found, dense({"a": UNUSUAL[name](DENSE)}).to(found.dtype))
    assert given.fingerprint == batches(DENSE.clone()).fingerprint != other.fingerprint
    assert given.recut(1) is None
    assert describe(next(iter(given)))


@pytest.mark.filterwarnings("ignore:Sparse.*beta state")
def test_a_sparse_matrix_and_its_transpose_have_other_fingerprints():
    assert len({Batches([m.to_sparse_csr()]).fingerprint for m in (DENSE, DENSE.T.contiguous())}) == 2


# What stands beside the tensors

BESIDE = {
    "texts": (["a", "b"], ["a", "c"]),
    "numbers": (1, 2),
    "a number and its text": (1, "1"),
    "arrays": (np.zeros(2), np.ones(2)),
    "long arrays": (np.zeros(5000), np.eye(1, 5000, 2500)[0]),
    "masked arrays": (np.ma.array([1, 2], mask=[0, 1]), np.ma.array([1, 2], mask=[0, 0])),
    "arrays of objects": (np.array(["a", 1], dtype=object), np.array(["a", 2], dtype=object)),
    "arrays of another type": (np.zeros(2), np.zeros(2, dtype=np.float32)),
    "the name of an entry": ({"a": 1}, {"b": 1}),
    "sets": ({"a", "b"}, {"a", "c"}),
    "classes": (int, float),
    "objects": (Plain(1, 2), Plain(1, 3)),
    "objects of other classes": (Plain(1, 2), Slotted(1, 2)),
}


@pytest.mark.parametrize("name", BESIDE)
def test_what_stands_beside_the_tensors_is_kept_and_part_of_the_fingerprint_and_of_the_form(name):
    first, second = BESIDE[name]
    one, again, other = Batches([(X, first)]), Batches([(X, first)]), Batches([(X, second)])
    assert one.fingerprint == again.fingerprint != other.fingerprint
    assert form((X, first)) == form((X + 1, first)) != form((X, second))
    assert type(next(iter(one))[1]) is type(first)


def test_lists_and_tuples_of_the_same_tensors_have_one_fingerprint():
    assert Batches([(X, Y)]).fingerprint == Batches([[X, Y]]).fingerprint == Batches((X, Y)).fingerprint


def test_batches_without_tensors_are_taken_with_a_weight_and_compared_by_value():
    def crystals(element, at):
        return Batches([{"atoms": [["C", element]], "at": np.array([at])}], weight=lambda batch: len(batch["atoms"]))

    assert crystals("O", 0.0).weights == [1.0]
    assert len({crystals("O", 0.0).fingerprint, crystals("N", 0.0).fingerprint, crystals("O", 1.0).fingerprint}) == 3


def _cyclic():
    batch = [X]
    batch.append(batch)
    return batch


NOT_COPIED = {
    "a lock": (lambda: (X, threading.Lock()), "lock"),
    "an object with a lock": (lambda: Plain(X, threading.Lock()), "lock"),
    "a generator": (lambda: (X, (i for i in range(2))), "generator"),
    "a lambda": (lambda: (X, lambda: 0), "lambda"),
    "a list that holds itself": (_cyclic, "holds itself"),
    "a quantized tensor": (lambda: torch.quantize_per_tensor(X, 0.1, 0, torch.qint8), "quantized"),
    "a tensor without contents": (lambda: (X, X.to("meta")), "meta"),
    "nothing at all": (dict, "weight="),
}


@pytest.mark.filterwarnings("ignore:.*quantiz")
@pytest.mark.parametrize("name", NOT_COPIED)
def test_what_cannot_be_copied_or_compared_is_refused_with_the_cause(name):
    make, cause = NOT_COPIED[name]
    with refused(DataError) as caught:
        Batches([make()], weight=lambda batch: 4)
    assert cause in str(caught.value)


def test_batches_made_in_inference_mode_can_be_differentiated_through():
    with torch.inference_mode():
        batches = Batches((X.clone(), Y))
        inside = next(iter(batches))
    for batch in (inside, next(iter(batches))):
        assert not any(tensor.is_inference() for tensor in batch)
