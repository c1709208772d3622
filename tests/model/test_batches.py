"""Batches: data that are the same at every pass, and data that are refused."""

from __future__ import annotations

from collections import namedtuple

import numpy as np
import pytest
import torch
from oracles.refusals import refused
from torch.utils.data import DataLoader, Dataset, IterableDataset, SubsetRandomSampler, TensorDataset

from lossatlas.errors import DataError
from lossatlas.model.data.batches import Batches, describe

X = torch.arange(40.0).reshape(20, 2)
Y = torch.arange(20) % 3
PAIRS = TensorDataset(X, Y)


class Changing(Dataset):
    """An augmentation that draws from the generator that is named."""

    def __init__(self, draw):
        self.draw = draw

    def __len__(self):
        return 20

    def __getitem__(self, i):
        return X[i] + self.draw(), Y[i]


class Passes:
    """An iterable whose passes are given one by one."""

    def __init__(self, *passes):
        self.passes = list(passes)

    def __iter__(self):
        return iter(self.passes.pop(0) if len(self.passes) > 1 else self.passes[0])


def failing():
    yield X, Y
    raise OSError("the disk\nis gone")


class Failing:
    def __iter__(self):
        return failing()


A, B = (X[:10], Y[:10]), (X[10:], Y[10:])
REFUSED = {
    "shuffle": (lambda: DataLoader(PAIRS, batch_size=7, shuffle=True), "shuffle=False"),
    "a random sampler": (lambda: DataLoader(PAIRS, batch_size=7, sampler=SubsetRandomSampler(range(20))), "shuffle"),
    "numpy augmentation": (lambda: DataLoader(Changing(np.random.standard_normal), batch_size=7), "augment"),
    "torch augmentation": (lambda: DataLoader(Changing(lambda: torch.randn(())), batch_size=7), "augment"),
    "other batches at the second pass": (lambda: Passes([A, B], [B, A]), "2 of 2 batches differ"),
    "fewer batches at the second pass": (lambda: Passes([A, B], [A]), "1 batches the second time"),
    "an iterator": (lambda: iter([A, B]), "only once"),
    "a generator": (lambda: (pair for pair in [A, B]), "only once"),
    "a data set of examples": (lambda: Changing(lambda: 0.0), "DataLoader"),
    "no batches": (list, "empty"),
    "no examples": (lambda: (X[:0], Y[:0]), "empty"),
    "a sparse tensor without batches": (lambda: (X.to_sparse(), Y), "[(inputs, targets)]"),
    "unequal lengths": (lambda: (X, Y[:5]), "one length"),
    "a loader that fails": (lambda: Failing(), "the disk is gone"),
    "one tensor": (lambda: X, "tensors (inputs, targets)"),
    "arrays": (lambda: (X.numpy(), Y.numpy()), "torch tensors"),
    "a path": (lambda: "data.csv", "str"),
    "None": (lambda: None, "NoneType"),
    "batches without tensors": (lambda: [{"text": ["a", "b"]}], "torch tensors"),
    "an empty batch among others": (lambda: [A, (X[:0], Y[:0])], "Batch 2"),
    "a batch without a batch axis": (lambda: [(torch.tensor(1.0), torch.tensor(2))], "no tensor with a batch axis"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_data_that_are_no_fixed_sequence_are_refused_with_the_remedy(name):
    make, remedy = REFUSED[name]
    with refused(DataError) as caught:
        Batches(make())
    assert remedy in str(caught.value)


def test_a_batch_without_tensors_is_refused_even_with_a_weight():
    with pytest.raises(DataError, match="torch tensors"):
        Batches([object()], weight=lambda batch: 1.0)


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_weight_that_is_no_weight_is_refused(weight):
    with pytest.raises(DataError, match="Batch 1 has the weight"):
        Batches([A, B], weight=lambda batch: weight)


def test_a_batch_size_below_one_is_refused():
    with pytest.raises(DataError, match="batch_size"):
        Batches((X, Y), batch_size=0)


def rows(batches: Batches) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(batches)


def same(first: Batches, second: Batches) -> bool:
    pairs = list(zip(first, second, strict=True))
    return all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in pairs)


@pytest.mark.parametrize(
    "data",
    [
        DataLoader(PAIRS, batch_size=7),
        DataLoader(PAIRS, batch_size=7, num_workers=0, drop_last=False),
        PAIRS,
        list(zip(X.split(7), Y.split(7), strict=True)),
    ],
    ids=["loader", "loader in this process", "tensor dataset", "list"],
)
def test_every_kind_of_data_gives_the_same_batches(data):
    found, expected = Batches(data, batch_size=7), Batches((X, Y), batch_size=7)
    assert same(found, expected)
    assert same(found, expected), "at the second pass"
    assert found.weights == [7.0, 7.0, 6.0]
    assert found.total == 20
    assert found.fingerprint == expected.fingerprint


def test_a_loader_that_drops_its_last_batch_is_a_loader_of_less_data():
    assert Batches(DataLoader(PAIRS, batch_size=7, drop_last=True)).weights == [7.0, 7.0]


def test_a_loader_that_reuses_its_buffers_is_read_right():
    class Reusing:
        def __iter__(self):
            inputs, targets = torch.empty(10, 2), torch.empty(10, dtype=torch.long)
            for a, b in (A, B):
                yield inputs.copy_(a), targets.copy_(b)

    assert same(Batches(Reusing()), Batches([A, B]))


@pytest.mark.parametrize("limit", [0, 2**31], ids=["read anew", "kept"])
def test_batches_are_the_same_whether_they_are_kept_or_read_anew(limit, monkeypatch):
    monkeypatch.setattr("lossatlas.model.data.batches.KEEP_BYTES", limit)
    batches = Batches(DataLoader(PAIRS, batch_size=7))
    for _ in range(2):
        assert torch.equal(torch.cat([inputs for inputs, _ in batches]), X)


@pytest.mark.parametrize("limit", [0, 2**31], ids=["read anew", "kept"])
def test_what_is_handed_out_is_a_copy(limit, monkeypatch):
    monkeypatch.setattr("lossatlas.model.data.batches.KEEP_BYTES", limit)
    mine = X.clone()
    batches = Batches((mine, Y))
    for inputs, _ in batches:
        inputs.zero_()
    assert torch.equal(mine, X)
    assert torch.equal(next(iter(batches))[0], X)


def test_floating_point_tensors_are_cast_and_labels_are_not():
    inputs, targets = next(iter(Batches((X, Y), dtype=torch.float64)))
    assert inputs.dtype == torch.float64
    assert targets.dtype == torch.int64


def test_nested_batches_keep_their_form():
    Pair = namedtuple("Pair", "x rest")
    (batch,) = Batches([Pair(X, {"y": Y, "names": "abc", "deep": [X, (Y,)]})])
    assert isinstance(batch, Pair)
    assert torch.equal(batch.rest["deep"][1][0], Y)
    assert batch.rest["names"] == "abc"


def test_a_weight_of_ones_own_is_taken():
    batches = Batches([A, B], weight=lambda batch: float(batch[1].sum()))
    assert batches.weights == [float(Y[:10].sum()), float(Y[10:].sum())]


@pytest.mark.parametrize(
    "other", [(X + 1, Y), (X, (Y + 1) % 3), (X.double(), Y), (X.reshape(20, 1, 2), Y)], ids=["x", "y", "type", "shape"]
)
def test_the_fingerprint_knows_the_data(other):
    assert Batches(other).fingerprint != Batches((X, Y)).fingerprint


def test_a_batch_is_described_by_its_shapes():
    assert describe({"a": X, "b": [Y]}) == "float32 (20, 2), int64 (20)"


# Batches cut anew


def joined(batches: list, part: int) -> torch.Tensor:
    return torch.cat([batch[part] for batch in batches])


@pytest.mark.parametrize("size", [1, 3, 7, 20, 1000])
@pytest.mark.parametrize("count", [None, 1, 10, 20, 500])
def test_batches_cut_anew_hold_the_same_examples_in_order(size, count):
    found = Batches((X, Y), batch_size=6).recut(size, count)
    assert torch.equal(joined(found, 0), X[:count])
    assert torch.equal(joined(found, 1), Y[:count])
    total = min(count or 20, 20)
    assert [len(batch[0]) for batch in found] == [min(size, total - i) for i in range(0, total, size)]


def test_unequal_batches_are_cut_anew_too():
    batches = list(zip(X.split([1, 15, 4]), Y.split([1, 15, 4]), strict=True))
    assert torch.equal(joined(Batches(batches).recut(6), 0), X)


def test_batches_cut_anew_keep_their_form():
    Pair = namedtuple("Pair", "x rest")
    batches = [Pair(x, {"y": y, "deep": [x + 1]}) for x, y in zip(X.split(7), Y.split(7), strict=True)]
    found = Batches(batches).recut(10)
    assert [type(batch) for batch in found] == [Pair, Pair]
    assert torch.equal(torch.cat([batch.rest["deep"][0] for batch in found]), X + 1)
    assert torch.equal(torch.cat([batch.rest["y"] for batch in found]), Y)


UNCUT = {
    "weights of one's own": lambda: Batches([A, B], weight=lambda batch: float(batch[1].sum())),
    "another length of sequence": lambda: Batches([(X, Y), (X[:, :1], Y)]),
    "another type": lambda: Batches([(X, Y), (X, Y.int())]),
    "a number for the batch": lambda: Batches([{"x": X, "factor": torch.tensor(2.0)}]),
    "a table next to the examples": lambda: Batches([{"x": X, "table": torch.ones(3)}]),
    "a key less": lambda: Batches([{"x": X, "y": Y}, {"x": X}]),
    "a key more": lambda: Batches([{"x": X}, {"x": X, "y": Y}]),
    "the keys exchanged": lambda: Batches([{"x": X, "z": X + 1}, {"z": X, "x": X + 1}]),
    "other keys": lambda: Batches([{"x": X}, {"z": X}]),
    "another number": lambda: Batches([{"x": X, "factor": 2.0}, {"x": X, "factor": 3.0}]),
    "a text an example": lambda: Batches([{"x": X, "texts": ["a"] * 20}, {"x": X, "texts": ["b"] * 20}]),
}


@pytest.mark.parametrize("name", UNCUT)
def test_batches_that_differ_in_more_than_their_examples_are_not_cut(name):
    batches = UNCUT[name]()
    assert batches.recut(4) is None
    assert batches.take(torch.tensor([0, 1]), 2) is None


def test_batches_that_are_not_kept_are_not_cut_and_have_no_labels(monkeypatch):
    monkeypatch.setattr("lossatlas.model.data.batches.KEEP_BYTES", 0)
    batches = Batches((X, Y))
    assert batches.kept() is None
    assert batches.recut(4) is None
    assert batches.take(torch.tensor([0]), 1) is None
    assert batches.labels() is None


@pytest.mark.parametrize("size", [1, 2, 100])
def test_chosen_examples_come_in_the_order_asked_for(size):
    chosen = torch.tensor([19, 0, 7, 7, 3])
    found = Batches((X, Y), batch_size=6).take(chosen, size)
    assert torch.equal(joined(found, 0), X[chosen])
    assert torch.equal(joined(found, 1), Y[chosen])
    assert max(len(batch[0]) for batch in found) <= size


def test_what_is_kept_are_the_batches_themselves():
    kept = Batches((X, Y), batch_size=6, dtype=torch.float64).kept()
    assert [len(batch[0]) for batch in kept] == [6, 6, 6, 2]
    assert torch.equal(joined(kept, 0), X.double())


@pytest.mark.parametrize("data", [lambda: (X, Y), lambda: [A, B], lambda: DataLoader(PAIRS, batch_size=7)])
def test_the_labels_of_all_examples_come_in_order(data):
    assert torch.equal(Batches(data(), batch_size=7).labels(), Y)


@pytest.mark.parametrize(
    "data",
    [
        lambda: (X, Y.float()),
        lambda: (X, torch.stack([Y, Y], 1)),
        lambda: (X, Y, Y),
        lambda: (X,),
        lambda: [{"x": X, "y": Y}],
        lambda: [A, {"x": X, "y": Y}],
        lambda: [(X, "text")],
        lambda: [(X, Y[:5])],
    ],
    ids=["numbers", "two each", "three tensors", "one tensor", "a dictionary", "mixed", "a text", "fewer"],
)
def test_data_without_one_class_an_example_have_no_labels(data):
    assert Batches(data()).labels() is None


# Data that are larger than memory, and data that do not end


class Endless(IterableDataset):
    def __iter__(self):
        while True:
            yield X[0], Y[0]


class Looping:
    """It states a length and gives more."""

    def __len__(self):
        return 2

    def __iter__(self):
        while True:
            yield from (A, B)


class Counting(Passes):
    """How many batches were read."""

    read = 0

    def __iter__(self):
        for batch in super().__iter__():
            self.read += 1
            yield batch


ENDLESS = {
    "a loader without a length": (lambda: DataLoader(Endless(), batch_size=2), {}, "10000 batches"),
    "a loader that gives more than its length": (Looping, {}, "2 batches, which is its length"),
    "more than is allowed": (Looping, {"max_batches": 7}, "7 batches, as max_batches= allows"),
    "more than is allowed, which would end": (lambda: Passes([A, B]), {"max_batches": 1}, "1 batches"),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_data_that_go_on_are_refused_after_a_stated_number_of_batches(name):
    make, options, amount = ENDLESS[name]
    with refused(DataError) as caught:
        Batches(make(), **options)
    assert amount in str(caught.value)
    assert "max_batches=" in str(caught.value)


def test_data_without_a_length_are_refused_after_a_stated_size(monkeypatch):
    monkeypatch.setattr("lossatlas.model.data.sources.MAX_BYTES", 1000)
    with pytest.raises(DataError, match="GiB"):
        Batches(Passes([A, B] * 10))
    assert len(Batches(Passes([A, B] * 10), max_batches=20)) == 20


@pytest.mark.parametrize("count", [0, -3])
def test_an_impossible_number_of_batches_is_refused(count):
    with pytest.raises(DataError, match="max_batches"):
        Batches(Passes([A, B]), max_batches=count)


def test_a_list_has_an_end_and_needs_no_limit():
    assert len(Batches([A, B], max_batches=1)) == 2


@pytest.fixture
def none_kept(monkeypatch):
    monkeypatch.setattr("lossatlas.model.data.batches.KEEP_BYTES", 0)


def test_data_larger_than_memory_are_read_once_for_the_fingerprint(none_kept):
    data = Counting([A, B])
    batches = Batches(data)
    assert data.read == 2
    assert batches.fingerprint == Batches([A, B]).fingerprint
    assert [len(list(batches)) for _ in range(2)] == [2, 2]


CHANGED = {
    "other batches": ([B, A], "batch 1 of 2 differs"),
    "another last batch": ([A, A], "batch 2 of 2 differs"),
    "fewer batches": ([A], "fewer batches"),
    "more batches": ([A, B, A], "more batches"),
}


@pytest.mark.parametrize("name", CHANGED)
def test_data_larger_than_memory_that_change_are_refused_at_the_next_pass(name, none_kept):
    second, difference = CHANGED[name]
    batches = Batches(Passes([A, B], second))
    with refused(DataError) as caught:
        list(batches)
    assert difference in str(caught.value)


def test_a_pass_that_ends_early_leaves_the_comparison_to_the_next(none_kept):
    batches = Batches(Passes([A, B], [A, B], [A, A]))
    next(iter(batches))
    with pytest.raises(DataError, match="batch 2 of 2 differs"):
        list(batches)


def test_a_loader_larger_than_memory_leaves_the_generators_as_they_were(none_kept):
    batches = Batches(DataLoader(PAIRS, batch_size=7))
    before = torch.get_rng_state()
    for _ in batches:
        assert torch.equal(torch.get_rng_state(), before)
