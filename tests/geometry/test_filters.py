"""A filter is what feeds one output unit: checked by zeroing it, for every way in which a weight is used."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import lossatlas as la
from lossatlas.errors import InputError, ZeroNormWarning
from lossatlas.objective import Objective
from lossatlas.results.catalogue import Catalogue
from lossatlas.results.discovery import kind_of


class Raw(nn.Module):
    """One weight, used as it is told."""

    def __init__(self, *shape: int, use: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.weight, self.use = nn.Parameter(torch.randn(shape) + 0.1), use

    def forward(self, x: Tensor) -> Tensor:
        return self.use(x, self.weight)


class Step(nn.Module):
    """One step of a recurrent layer, from a state that is not zero."""

    def __init__(self, cells: nn.RNNBase) -> None:
        super().__init__()
        self.cells = cells

    def forward(self, x: Tensor) -> Tensor:
        state = torch.linspace(-1, 1, len(x) * self.cells.hidden_size).view(1, len(x), -1)
        return self.cells(x[None], (state, state) if isinstance(self.cells, nn.LSTM) else state)[0][0]


class Two(nn.Module):
    """nn.Bilinear of the two halves of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Bilinear(3, 2, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x[:, :3], x[:, 3:])


def in_thirds(x: Tensor, weight: Tensor) -> Tensor:
    """q, k and v by a packed matrix that is cut in three."""
    return torch.cat([F.linear(x, part) for part in weight.chunk(3)], -1)


def in_halves(x: Tensor, weight: Tensor) -> Tensor:
    """The inputs in two parts that are added."""
    return x[:, :3] @ weight[:, :3].T + x[:, 3:] @ weight[:, 3:].T


def each_expert(x: Tensor, weight: Tensor) -> Tensor:
    return torch.stack([F.linear(x, one) for one in weight], 1)


def by_heads(x: Tensor, weight: Tensor) -> Tensor:
    """A block of rows for each head, whose inputs are its own: rows are summed over within a head."""
    return torch.einsum("bhk,hkd->bhd", x.view(len(x), 2, 3), weight.view(2, 3, 4))


def with_gradient(x: Tensor, weight: Tensor) -> Tensor:
    """The derivative of the output by the input first: in its backward pass products go the other way."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        torch.autograd.grad((x @ weight).square().sum(), x)
    return x @ weight


def complex_linear(x: Tensor, weight: Tensor) -> Tensor:
    return torch.view_as_real(x.to(torch.complex64) @ torch.view_as_complex(weight))


@dataclass(frozen=True)
class Case:
    """A layer, its input, the axes of its output that count units, and how many filters of a tensor feed one."""

    build: Callable[[], nn.Module]
    inputs: tuple[int, ...]
    units: tuple[int, ...] = (1,)
    each: int = 1
    name: str = "weight"

    def make(self) -> tuple[nn.Module, Tensor]:
        torch.manual_seed(3)
        return self.build().requires_grad_(), torch.rand(self.inputs) + 0.5


def raw(*shape: int, use: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], nn.Module]:
    return lambda: Raw(*shape, use=use)


CASES = {
    "linear": Case(lambda: nn.Linear(6, 4), (5, 6)),
    "linear of positions": Case(lambda: nn.Linear(6, 4), (5, 3, 6), (2,)),
    "linear with one input": Case(lambda: nn.Linear(1, 4), (5, 1)),
    "linear with one output": Case(lambda: nn.Linear(6, 1), (5, 6)),
    "conv1d": Case(lambda: nn.Conv1d(3, 4, 2), (2, 3, 5)),
    "conv2d": Case(lambda: nn.Conv2d(3, 4, (2, 3)), (2, 3, 5, 5)),
    "conv3d": Case(lambda: nn.Conv3d(2, 3, 2), (2, 2, 3, 3, 3)),
    "grouped": Case(lambda: nn.Conv2d(4, 6, 2, groups=2), (2, 4, 5, 5)),
    "depthwise": Case(lambda: nn.Conv2d(4, 4, 3, groups=4), (2, 4, 5, 5)),
    "transposed": Case(lambda: nn.ConvTranspose2d(3, 4, 2), (2, 3, 3, 3)),
    "transposed and grouped": Case(lambda: nn.ConvTranspose2d(4, 6, 2, groups=2), (2, 4, 3, 3)),
    "transposed and depthwise": Case(lambda: nn.ConvTranspose1d(4, 4, 3, groups=4), (2, 4, 5)),
    "embedding": Case(lambda: nn.Embedding(7, 3), (7,), (0,)),
    "embedding bag": Case(lambda: nn.EmbeddingBag(7, 3, mode="sum"), (7, 1), (0,)),
    "rows by index": Case(raw(7, 3, use=lambda x, w: w[torch.arange(7)] * x.sum()), (7,), (0,)),
    "bilinear": Case(Two, (5, 5), name="layer.weight"),
    "lstm": Case(lambda: Step(nn.LSTM(3, 4)), (5, 3), each=4, name="cells.weight_ih_l0"),
    "lstm, recurrent": Case(lambda: Step(nn.LSTM(3, 4)), (5, 3), each=4, name="cells.weight_hh_l0"),
    "gru": Case(lambda: Step(nn.GRU(3, 4)), (5, 3), each=3, name="cells.weight_ih_l0"),
    "rnn, recurrent": Case(lambda: Step(nn.RNN(3, 4)), (5, 3), name="cells.weight_hh_l0"),
    "GPT-2's Conv1D": Case(raw(6, 4, use=lambda x, w: torch.addmm(torch.ones(4), x, w)), (5, 6)),
    "x @ W": Case(raw(6, 4, use=lambda x, w: x @ w), (5, 3, 6), (2,)),
    "one x @ W": Case(raw(6, 4, use=lambda x, w: torch.stack([one @ w for one in x])), (5, 6)),
    "W @ x": Case(raw(4, 6, use=lambda x, w: w @ x), (6, 5), (0,)),
    "F.linear": Case(raw(4, 6, use=F.linear), (5, 6)),
    "einsum": Case(raw(6, 4, use=lambda x, w: torch.einsum("bi,io->bo", x, w)), (5, 6)),
    "einsum, (out, in)": Case(raw(4, 6, use=lambda x, w: torch.einsum("...i,oi->...o", x, w)), (5, 3, 6), (2,)),
    "heads": Case(raw(2, 6, 4, use=lambda x, w: torch.einsum("btd,hdk->bhtk", x, w)), (5, 3, 6), (1, 3)),
    "heads, inputs first": Case(raw(6, 2, 4, use=lambda x, w: torch.einsum("btd,dhk->bthk", x, w)), (5, 3, 6), (2, 3)),
    "heads with inputs of their own": Case(raw(6, 4, use=by_heads), (5, 6), (1, 2)),
    "heads, joined": Case(raw(2, 3, 4, use=lambda x, w: torch.einsum("bhk,hko->bo", x, w)), (5, 2, 3)),
    "experts": Case(raw(3, 6, 4, use=lambda x, w: torch.bmm(x, w)), (3, 5, 6), (0, 2)),
    "experts, one by one": Case(raw(3, 4, 6, use=each_expert), (5, 6), (1, 2)),
    "packed": Case(raw(12, 6, use=in_thirds), (5, 6)),
    "inputs in parts": Case(raw(4, 6, use=in_halves), (5, 6)),
    "copied": Case(raw(6, 4, use=lambda x, w: F.linear(x, w.T.contiguous())), (5, 6)),
    "reshaped": Case(raw(2, 6, 2, use=lambda x, w: x @ w.transpose(0, 1).reshape(6, 4)), (5, 6)),
    "cast": Case(raw(6, 4, use=lambda x, w: (x.double() @ w.double()).to(x)), (5, 6)),
    "scaled": Case(raw(6, 4, use=lambda x, w: x @ (w * torch.tensor(0.5) / 3)), (5, 6)),
    "standardised": Case(raw(4, 6, use=lambda x, w: F.linear(x, w / w.norm(dim=1, keepdim=True).detach())), (5, 6)),
    "differentiated": Case(raw(6, 4, use=with_gradient), (5, 6)),
    "complex": Case(raw(6, 4, 2, use=complex_linear), (5, 6)),
    "vmap": Case(raw(6, 4, use=lambda x, w: torch.func.vmap(lambda one: one @ w)(x)), (5, 6)),
    "pruned": Case(lambda: prune.random_unstructured(nn.Linear(6, 4), "weight", 0.2), (5, 6), name="weight_orig"),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))


def numbers(model: nn.Module, x: Tensor) -> Tensor:
    """Embeddings take indices: each of them once."""
    embeds = isinstance(model, nn.Embedding | nn.EmbeddingBag)
    return torch.arange(x.numel()).view(x.shape) if embeds else x


def of(model: nn.Module, x: Tensor) -> Objective:
    def step(model: nn.Module, batch: Tensor) -> Tensor:
        return model(numbers(model, batch)).tanh().square().mean()

    return Objective.from_step(model, step, [x])


def masks(o: Objective, name: str) -> list[Tensor]:
    """Each filter of a tensor as 1 at its entries."""
    found, shape = o.filters()[name], next(entry.shape for entry in o.space if entry.name == name)
    masks = []
    for index in itertools.product(*(range(found.shape[axis]) for axis in found.axes)):
        mask = torch.zeros(found.shape)
        place: list[Any] = [slice(None)] * mask.ndim
        for axis, i in zip(found.axes, index, strict=True):
            place[axis] = i
        mask[tuple(place)] = 1
        masks.append(mask.view(shape))
    return masks


def fed_by(model: nn.Module, x: Tensor, case: Case, mask: Tensor) -> list[tuple[int, ...]]:
    """The units of the output that change where these entries are zero."""
    weight = model.get_parameter(case.name)
    with torch.no_grad():
        before, own = model(numbers(model, x)), weight.clone()
        moved = (weight.mul_(1 - mask), model(numbers(model, x)))[1] != before
        weight.copy_(own)
    others = [axis for axis in range(moved.ndim) if axis not in case.units]
    units = moved.permute(*case.units, *others).reshape(*(moved.shape[a] for a in case.units), -1).any(-1)
    return [tuple(map(int, unit)) for unit in units.nonzero()]


@every_case
def test_zeroing_a_filter_changes_one_unit_and_every_unit_has_its_own_filters(case):
    model, x = case.make()
    o = of(model, x)
    assert o.filters()[case.name].reason == ""
    units = [fed_by(model, x, case, mask) for mask in masks(o, case.name)]
    assert [len(fed) for fed in units] == [1] * len(units)
    with torch.no_grad():
        shape = [model(numbers(model, x)).shape[axis] for axis in case.units]
    expected = sorted(itertools.product(*map(range, shape)))
    assert sorted(fed for (fed,) in units) == sorted(expected * case.each)


@every_case
def test_every_filter_of_a_direction_has_the_norm_of_the_models(case):
    model, x = case.make()
    o = of(model, x)
    weights = o.space.unflatten(o.point)[case.name].double()
    for direction in la.random_directions(o, 2, seed=0):
        own = o.space.unflatten(direction)[case.name].double()
        for mask in masks(o, case.name):
            assert float((own * mask).norm()) == pytest.approx(float((weights * mask).norm()), rel=1e-6)


def test_a_weight_stored_as_in_out_has_directions_with_the_norms_of_its_transpose():
    torch.manual_seed(0)
    weight = torch.randn(8, 12) * torch.logspace(-2, 1, 12)
    x, stored, twin = torch.randn(20, 8), Raw(8, 12, use=torch.matmul), nn.Linear(8, 12, bias=False)
    with torch.no_grad():
        stored.weight.copy_(weight)
        twin.weight.copy_(weight.T)
    own, other = (la.random_directions(of(model, x), 2, seed=0) for model in (stored, twin))
    torch.testing.assert_close(own.view(2, 8, 12).norm(dim=1), other.view(2, 12, 8).norm(dim=2), rtol=1e-6, atol=0)


class Block(nn.Module):
    """GPT-2's attention with matrices of the form (in, out), and an embedding that is the head as well."""

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.wpe, self.head = nn.Embedding(11, 4), nn.Embedding(6, 4), nn.Linear(4, 11, bias=False)
        self.h = nn.ModuleList(nn.ModuleDict({"qkv": Raw(4, 12, use=torch.matmul)}) for _ in range(2))
        self.shift, self.norm = nn.Parameter(torch.randn(1, 6, 4)), nn.LayerNorm(4)
        self.head.weight = self.wte.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.wte(tokens) + self.wpe(torch.arange(6)) + self.shift
        for layer in self.h:
            x = x + F.scaled_dot_product_attention(*layer["qkv"](self.norm(x))[:, None].chunk(3, -1))[:, 0]
        return self.head(x)


def language(model: nn.Module) -> Objective:
    tokens = torch.randint(11, (5, 6), generator=torch.Generator().manual_seed(0))
    return Objective.from_step(
        model, lambda m, batch: F.cross_entropy(m(batch).flatten(0, 1), batch.flatten()), [tokens]
    )


def test_the_result_lists_the_axis_of_every_tensor_and_what_was_assumed():
    torch.manual_seed(0)
    o = language(Block())
    region = la.plane(o.point, *la.random_directions(o, 2, seed=0), steps=2)
    expected = {
        "filters": "axis 0: shift, wte.weight, wpe.weight; axis 1: h.*.qkv.weight",
        "filters_assumed": "axis 0 (enters add): shift",
    }
    found = la.surface(o, region, progress=False)
    assert expected.items() <= region.provenance().items()
    assert expected.items() <= found.attrs.items()
    assert found.attrs["normalisation"] == "filter"
    noisy = la.robustness(o, [0.1], relative="filter", draws=2, progress=False)
    assert expected.items() <= noisy.attrs.items()
    assert "filters" not in la.robustness(o, [0.1], draws=2, progress=False).attrs
    given = la.surface(o, la.line(o.point, torch.randn(o.n_parameters), steps=2), progress=False)
    assert "filters" not in given.attrs
    for result, told in ((found, True), (noisy, True), (given, False)):
        (group,) = kind_of(result).figures([result], Catalogue([result]))
        method = " ".join(group.pictures[0].method)
        assert ("Filters: axis 0: shift" in method, "Assumed, not seen in the model: axis 0" in method) == (told, told)


def test_a_matrix_that_is_used_both_ways_is_cut_by_its_first_use_which_is_said():
    found = of(Raw(6, 4, use=lambda x, w: (x @ w).tanh() @ w.T), torch.rand(5, 6)).filters()["weight"]
    assert (found.axes, found.reason) == ((1,), "first of its uses; also axis 0")


def test_an_expert_without_examples_has_the_filters_of_another():
    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.each = nn.ModuleList(Raw(4, 4, use=torch.matmul) for _ in range(2))
            self.idle = nn.Linear(3, 2)

        def forward(self, x):
            return self.each[int(x.sum() < 0)](x)

    found = of(Experts(), torch.rand(5, 4)).filters()
    assert [found[f"each.{i}.weight"].axes for i in (0, 1)] == [(1,), (1,)]
    assert found["each.1.weight"].reason == "not used on the first batch: as others of its kind"
    assert (found["idle.weight"].axes, found["idle.weight"].reason) == ((0,), "not used on the first batch")


def test_a_product_of_two_parameters_tells_no_units():
    class Merged(nn.Module):
        def __init__(self):
            super().__init__()
            self.base, self.a, self.b = (nn.Parameter(torch.randn(shape)) for shape in ((3, 6), (2, 6), (3, 2)))

        def forward(self, x):
            return F.linear(x, self.base + self.b @ self.a)

    found = of(Merged(), torch.rand(5, 6)).filters()
    assert {name: (one.axes, one.reason) for name, one in found.items()} == {
        "base": ((0,), ""),
        "a": ((0,), "enters mm"),
        "b": ((0,), "enters mm"),
    }


def test_a_normalised_weight_is_followed_and_its_length_is_not_a_filter():
    torch.manual_seed(0)
    found = of(parametrizations.weight_norm(nn.Linear(6, 4)), torch.rand(5, 6)).filters()
    direction = found["parametrizations.weight.original1"]
    assert (direction.axes, direction.reason) == ((0,), "")
    assert found["parametrizations.weight.original0"].reason == "enters _weight_norm_interface"


def test_what_a_spectral_norm_multiplies_a_weight_by_is_no_use_of_it():
    torch.manual_seed(0)
    found = of(parametrizations.spectral_norm(Raw(6, 4, use=torch.matmul)), torch.rand(5, 6)).filters()
    own = found["parametrizations.weight.original"]
    assert (own.axes, own.reason) == ((1,), "")


def test_packed_queries_keys_and_values_are_cut_by_rows():
    class Attending(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x):
            return self.layer(x, x.flip(1), x, need_weights=False)[0]

    torch.manual_seed(0)
    o = of(Attending(), torch.rand(5, 3, 4))
    (direction,) = la.random_directions(o, 1, seed=0)
    for name, rows in (("layer.in_proj_weight", 12), ("layer.out_proj.weight", 4)):
        own, weights = (o.space.unflatten(v)[name] for v in (direction, o.point))
        torch.testing.assert_close(own.view(rows, 4).norm(dim=1), weights.view(rows, 4).norm(dim=1))


def test_a_model_that_cannot_be_watched_has_its_reason_in_the_result():
    class Watched(nn.Linear):
        def forward(self, x):
            if torch.utils._python_dispatch._get_current_dispatch_mode() is not None:
                raise RuntimeError("no modes")
            return super().forward(x)

    o = of(Watched(3, 2), torch.rand(5, 3))
    assert o.filters()["weight"].reason == "not seen, since the model cannot be watched (InputError)"
    found = la.surface(o, la.line(o.point, la.random_directions(o, 1, seed=0), steps=2), progress=False)
    assert found.attrs["filters_assumed"].startswith("axis 0 (not seen")


def test_filters_that_are_given_are_those_of_the_direction_and_of_the_result():
    torch.manual_seed(0)
    o = of(nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3)), torch.rand(5, 6))
    made = la.random_directions(o, 2, seed=0, filters={"*.weight": 1, "2.weight": None})
    first, second = (o.space.unflatten(made[0]), o.space.unflatten(o.point))
    torch.testing.assert_close(first["0.weight"].norm(dim=0), second["0.weight"].norm(dim=0))
    torch.testing.assert_close(first["2.weight"].norm(), second["2.weight"].norm())
    found = la.surface(o, la.plane(o.point, made, steps=2), progress=False)
    assert (found.attrs["normalisation"], found.attrs["filters"]) == (
        "filter",
        "axis 1: 0.weight; whole tensor: 2.weight",
    )
    several = la.random_directions(o, 1, seed=0, filters={"0.weight": (-1, 0)})
    torch.testing.assert_close(o.space.unflatten(several[0])["0.weight"].abs(), second["0.weight"].abs())


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"filters": {"3.*": 0}}, "names '3.\\*'"),
        ({"filters": {"weight": 2}}, r"\(2, 3\)"),
        ({"filters": {"weight": "rows"}}, r"\(2, 3\)"),
        ({"filters": {"weight": 0}, "norm": "layer"}, "norm='layer'"),
    ],
)
def test_filters_of_no_tensor_or_axis_are_refused(options, match):
    with pytest.raises(InputError, match=match):
        la.random_directions(of(nn.Linear(3, 2), torch.rand(5, 3)), 1, seed=0, **options)


# What stands still


class Adapted(nn.Module):
    """A frozen layer and an adapter at its start: the second factor is zero."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(6, 3).requires_grad_(False)
        self.a, self.b = nn.Parameter(torch.randn(2, 6)), nn.Parameter(torch.zeros(3, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ self.a.T @ self.b.T


def test_a_tensor_that_is_zero_stays_zero_which_is_told_and_listed():
    torch.manual_seed(0)
    o = of(Adapted(), torch.rand(5, 6))
    with pytest.warns(ZeroNormWarning, match=r"1 of the 2 weights .* \(b\)"):
        directions = la.random_directions(o, 2, seed=0)
    found = la.surface(o, la.plane(o.point, directions, steps=3), progress=False)
    assert found.attrs["at_rest"] == "all filters: b"
    (group,) = kind_of(found).figures([found], Catalogue([found]))
    assert "The directions do not vary: all filters: b." in " ".join(group.pictures[0].method)
    moving = la.surface(o, la.plane(o.point, la.random_directions(o, 2, seed=0, norm="model"), steps=3), progress=False)
    assert "at_rest" not in moving.attrs
    assert float(moving["loss"].std()) > 0


def test_single_filters_that_are_zero_are_listed_without_a_warning():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3))
    with torch.no_grad():
        model[0].weight[1] = 0
    o = of(model, torch.rand(5, 6))
    found = la.surface(o, la.plane(o.point, la.random_directions(o, 2, seed=0), steps=2), progress=False)
    assert found.attrs["at_rest"] == "1 of 4 filters: 0.weight"


def test_noise_relative_to_filters_is_by_the_same_axes():
    """L = mean (x W)^2 with x = diag(c): E L rises by sigma^2 mean_i c_i^2 mean_o s_o^2, s_o^2 that of column o."""
    torch.manual_seed(0)
    scales, model = torch.logspace(0, 2, 6), Raw(6, 4, use=torch.matmul)
    with torch.no_grad():
        model.weight.mul_(scales[:, None])
    weights = model.weight.detach().double()
    o = Objective(model, F.mse_loss, (torch.diag(scales), torch.zeros(6, 4)))
    found = la.robustness(o, [0.0, 1.0], relative="filter", draws=400, progress=False)
    rise = found["loss_draws"][1] - found["loss_draws"][0]
    expected = float((scales.double() ** 2).mean() * (weights**2).mean(0).mean())
    by_rows = float((scales.double()[:, None] ** 2 * (weights**2).mean(1, keepdim=True)).mean())
    error = float(rise.std()) / 20
    assert float(rise.mean()) == pytest.approx(expected, abs=4 * error)
    assert abs(by_rows - expected) > 10 * error
