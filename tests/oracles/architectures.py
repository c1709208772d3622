"""Small networks of many kinds, each with the symmetries that a person who knows the architecture writes down by hand.

A line of ``groups`` is a tensor and one entry an axis: ``.`` where the order is fixed, a group's letter, a product
(``h d@h``: heads, and in each head its dimensions) or a sum (``a + b``: one after the other). Tensors that are left out
keep their order on every axis.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lossatlas as la
from lossatlas.connectivity.symmetry.symmetries import Symmetries

N = 5  # examples: two batches, the last one ragged
BATCH = 3


class Written(nn.Module):
    """A module whose forward is the function that it is given: ``forward(parts, inputs)``."""

    def __init__(self, forward: Callable[[Any, Any], Tensor], **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self._forward = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, inputs: Any) -> Tensor:
        return self._forward(self, inputs)


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape))


def squares(outputs: Tensor, targets: Tensor) -> Tensor:
    """One value an example, whatever the shape of the outputs."""
    return (outputs.flatten(1) - targets[:, None]).square().mean(1)


def drawn(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in float64 with every parameter and every running statistic drawn anew: no bias 0, no scale 1."""
    generator = torch.Generator().manual_seed(seed)
    model = model.double()
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype))
            tensor /= math.sqrt(max(1, tensor[0].numel())) if tensor.ndim > 1 else 1.0
        for name, tensor in model.named_buffers():
            if name.endswith("running_mean"):
                tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype))
            if name.endswith("running_var"):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype))
    return model


def objective_of(model: nn.Module, *shape: int, numbers: int | None = None, seed: int = 0) -> la.Objective:
    """The model in float64 on N random inputs of this shape; ``numbers``: inputs are integers below it."""
    generator = torch.Generator().manual_seed(7)
    inputs = torch.randn(N, *shape, generator=generator, dtype=torch.float64)
    if numbers is not None:
        inputs = torch.randint(numbers, (N, *shape), generator=generator)
    data = (inputs, torch.zeros(N, dtype=torch.float64))
    return la.Objective(drawn(model, seed), squares, data, batch_size=BATCH, metrics=None)


@dataclass(frozen=True)
class Architecture:
    """A network, its input, and its symmetries as written by hand."""

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    groups: str
    numbers: int | None = None
    batch_norm: bool = False

    @functools.cache  # noqa: B019 - they live as long as the tests
    def objective(self, seed: int = 0) -> la.Objective:
        """Of the weights that this seed draws, made once: an objective is not changed by what is asked of it."""
        return objective_of(self.build(), *self.shape, numbers=self.numbers, seed=seed)

    @functools.cache  # noqa: B019 - they live as long as the tests
    def symmetries(self) -> Symmetries:
        """Those that are found, at the weights of seed 0."""
        return la.symmetries(self.objective())

    @property
    def spec(self) -> dict[str, tuple[str | None, ...]]:
        lines = [line.split(maxsplit=1) for line in self.groups.splitlines() if line.strip()]
        return {name: tuple(None if e == "." else e for e in axes.strip().split(", ")) for name, axes in lines}


def canonical(spec: Mapping[str, tuple[str | None, ...]]) -> dict[str, tuple[str | None, ...]]:
    """The same groups, without their sizes, under names by the order in which they appear."""
    names: dict[str, str] = {}

    def renamed(word: str) -> str:
        word = word.partition("=")[0]
        if word.isdigit() or word == "+":
            return word
        outer = word.partition("@")[2]
        around = f"@{renamed(outer)}" if outer else ""
        return names.setdefault(word, f"g{len(names)}") + around

    return {
        tensor: tuple(None if e is None else " ".join(map(renamed, e.split())) for e in spec[tensor])
        for tensor in sorted(spec)
    }


# Each head of attention written differently.


def _by_view(m: Any, x: Tensor) -> Tensor:
    """Three projections, heads by view and transpose."""
    split = [layer(x).view(*x.shape[:2], 2, 3).transpose(1, 2) for layer in (m.q, m.k, m.v)]
    weights = (split[0] @ split[1].transpose(-2, -1) / math.sqrt(3)).softmax(dim=-1)
    return m.head(m.out((weights @ split[2]).transpose(1, 2).reshape(*x.shape[:2], 6)))


def _by_chunk(m: Any, x: Tensor) -> Tensor:
    """One projection in three chunks, a causal mask."""
    split = [part.unflatten(-1, (2, 3)).permute(0, 2, 1, 3) for part in m.qkv(x).chunk(3, dim=-1)]
    scores = torch.einsum("bhid,bhjd->bhij", split[0], split[1])
    mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
    mixed = scores.masked_fill(~mask, -math.inf).softmax(-1) @ split[2]
    return m.out(mixed.permute(0, 2, 1, 3).flatten(2))


def _by_einsum(m: Any, x: Tensor) -> Tensor:
    """Heads are an axis of the weights."""
    query, key, value = (torch.einsum("bld,dhk->blhk", x, w) for w in (m.wq, m.wk, m.wv))
    weights = torch.einsum("bihk,bjhk->bhij", query, key).softmax(-1)
    return torch.einsum("bihk,hkd->bid", torch.einsum("bhij,bjhk->bihk", weights, value), m.wo)


def _by_unbind(m: Any, x: Tensor) -> Tensor:
    """One projection, reshaped to (3, heads, dimensions) and taken apart."""
    split = m.qkv(x).reshape(*x.shape[:2], 3, 2, 3).permute(2, 0, 3, 1, 4)
    query, key, value = split.unbind(0)
    return m.out(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


_THREE = """
q.weight    h k@h, {x}
q.bias      h k@h
k.weight    h k@h, {x}
k.bias      h k@h
v.weight    h v@h, {x}
v.bias      h v@h
"""
_PACKED = """
qkv.weight  h k@h + h k@h + h v@h, .
qkv.bias    h k@h + h k@h + h v@h
out.weight  ., h v@h
"""


def _encoder(norm_first: bool, batch_first: bool) -> nn.Module:
    layer = nn.TransformerEncoderLayer(
        6, 2, 4, dropout=0.3, batch_first=batch_first, norm_first=norm_first, activation="gelu"
    )

    def forward(m: Any, x: Tensor) -> Tensor:
        tokens = m.inward(x) if batch_first else m.inward(x).transpose(0, 1)
        encoded = m.layer(tokens)
        return m.head(encoded.mean(1 if batch_first else 0))

    return Written(forward, inward=nn.Linear(3, 6), layer=layer, head=nn.Linear(6, 3))


_ENCODER = """
inward.weight                   r, .
inward.bias                     r
layer.self_attn.in_proj_weight  h k@h + h k@h + h v@h, r
layer.self_attn.in_proj_bias    h k@h + h k@h + h v@h
layer.self_attn.out_proj.weight r, h v@h
layer.self_attn.out_proj.bias   r
layer.linear1.weight            f, r
layer.linear1.bias              f
layer.linear2.weight            r, f
layer.linear2.bias              r
layer.norm1.weight              r
layer.norm1.bias                r
layer.norm2.weight              r
layer.norm2.bias                r
head.weight                     ., r
"""


def _cross(m: Any, x: Tensor) -> Tensor:
    """Queries of one width attend to keys and values of two others."""
    return m.head(m.attention(m.q(x), m.k(x), m.v(x), need_weights=False)[0])


def _class_token(m: Any, x: Tensor) -> Tensor:
    """A vision transformer's beginning: patches, a class token before them, positions added."""
    tokens = m.patches(x).flatten(2).transpose(1, 2)
    tokens = torch.cat([m.token.expand(len(x), -1, -1), tokens], dim=1) + m.positions
    return m.head(m.norm(tokens)[:, 0])


def _norms(weights: str, kinds: str = "weight bias running_mean running_var") -> str:
    return "\n".join(f"{name}.{kind} {group}" for name, group in (w.split("=") for w in weights.split(";"))
                     for kind in kinds.split())  # fmt: skip


def _resnet20(shortcut: str) -> str:
    """Each stage one group for all that is added up, one for the inside of each block; shortcut A pads with zeros."""
    lines = ["conv.weight s1, ., ., .", _norms("bn=s1")]
    streams, entering = {1: "s1", 2: "s2", 3: "s3"}, "s1"
    if shortcut == "A":  # what was there before the channels double stays itself, then zeros are appended
        streams = {1: "s1", 2: "s1 + s2", 3: "s1 + s2 + s3"}
    for stage in (1, 2, 3):
        stream = streams[stage]
        for block in (0, 1, 2):
            base, inside = f"stage{stage}.{block}", f"i{stage}{block}"
            lines += [f"{base}.conv1.weight {inside}, {entering}, ., .", _norms(f"{base}.bn1={inside}")]
            lines += [f"{base}.conv2.weight {stream}, {inside}, ., .", _norms(f"{base}.bn2={stream}")]
            if block == 0 and stage > 1 and shortcut == "B":
                lines += [f"{base}.shortcut.0.weight {stream}, {entering}, ., .", _norms(f"{base}.shortcut.1={stream}")]
            entering = stream
    return "\n".join([*lines, f"fc.weight ., {streams[3]}"])


def _squeeze_excite(m: Any, x: Tensor) -> Tensor:
    h = F.relu(m.conv(x))
    gate = torch.sigmoid(m.up(F.relu(m.down(h.mean((2, 3))))))
    return m.head((h * gate[:, :, None, None]).mean((2, 3)))


def _mobile(m: Any, x: Tensor) -> Tensor:
    h = m.stem(x)
    inner = F.hardswish(m.depthwise(F.relu6(m.bn1(m.expand(h)))))
    return m.head((h + m.bn2(m.project(inner))).amax((2, 3)))


def _unet(m: Any, x: Tensor) -> Tensor:
    fine = F.relu(m.down1(x))
    coarse = F.relu(m.down2(F.max_pool2d(fine, 2)))
    return m.out(torch.cat([m.up(coarse), fine], dim=1))


def _inception(m: Any, x: Tensor) -> Tensor:
    branches = [m.one(x), m.two(x), F.avg_pool2d(m.three(x), 3, 1, 1)]
    return m.head(F.relu(torch.cat(branches, 1)))


def _dense(m: Any, x: Tensor) -> Tensor:
    first = torch.cat([x, F.relu(m.one(x))], 1)
    return m.head(torch.cat([first, F.relu(m.two(first))], 1))


def _pixel_shuffle(m: Any, x: Tensor) -> Tensor:
    """Three channels of 2 x 2 pixels each, put into place by view and permute."""
    h = torch.tanh(m.conv(x))
    n, _, height, width = h.shape
    h = h.view(n, 3, 2, 2, height, width).permute(0, 1, 4, 2, 5, 3).reshape(n, 3, 2 * height, 2 * width)
    return m.out(h)


def _gru_by_hand(m: Any, x: Tensor) -> Tensor:
    state = torch.zeros(x.shape[0], 4, dtype=x.dtype)
    for t in range(x.shape[1]):
        state = torch.tanh(m.inward(x[:, t]) + m.again(state))
    return m.head(state)


def _tied(m: Any, x: Tensor) -> Tensor:
    return F.linear(torch.tanh(m.inner(m.table(x))), m.table.weight)


def _autoencoder(m: Any, x: Tensor) -> Tensor:
    return torch.tanh(m.encoder(x)) @ m.encoder.weight + m.back


def _in_place(m: Any, x: Tensor) -> Tensor:
    h = m.fc1(x)
    h *= 2.0
    h.relu_()
    h += m.shift
    return m.fc2(F.relu(h, inplace=True))


def _axes(m: Any, x: Tensor) -> Tensor:
    """Axes of length 1 come and go, one is expanded."""
    h = torch.tanh(m.fc1(x)).unsqueeze(1)[:, None].squeeze(2)
    h = h.expand(-1, 3, -1) + m.rows
    return m.fc2(h.movedim(1, 2).swapaxes(1, 2).amax(1))


def _two_values(m: Any, x: Tensor) -> Tensor:
    h = torch.tanh(m.fc1(x))
    return m.fc2(torch.cat([h[:, :2] ** 2, h[:, 2:]], dim=-1))


def _weight_norm() -> nn.Module:
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(4, 5))
    return nn.Sequential(layer, nn.Tanh(), nn.Linear(5, 3))


def _recurrent(m: Any, x: Tensor) -> Tensor:
    return m.fc2(torch.relu(m.fc1(m.cells(torch.tanh(m.before(x)))[0][:, -1])))


def _cell(rows: str, entering: str, own: str, suffix: str = "l0") -> str:
    """The tensors of one cell: rows are a block for each gate."""
    weights = f"cells.weight_ih_{suffix} {rows}, {entering}\ncells.weight_hh_{suffix} {rows}, {own}"
    return f"{weights}\ncells.bias_ih_{suffix} {rows}\ncells.bias_hh_{suffix} {rows}"


def _packed(m: Any, x: Tensor) -> Tensor:
    """Sequences of lengths that the data decide, packed: the states at their ends, and the mean over their steps."""
    lengths = 1 + (x[:, 1:, 0] > 0).sum(1)
    given = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    out, last = m.cells(given)
    steps, lengths = nn.utils.rnn.pad_packed_sequence(out, batch_first=True)
    return m.head(steps.sum(1) / lengths[:, None]) + m.ends(torch.cat([last[-2], last[-1]], 1))


def _decoder(m: Any, x: Tensor) -> Tensor:
    """The first states are made by a layer."""
    first = torch.tanh(m.start(x[:, 0]))[None]
    out, (hidden, inner) = m.cells(x[:, 1:].transpose(0, 1), (first, torch.zeros_like(first)))
    return m.head(out[-1] + hidden.squeeze(0) * inner[0])


def _steps(m: Any, x: Tensor) -> Tensor:
    one = two = three = None
    for step in x.unbind(1):
        one = m.one(step, one)
        two = m.two(one[0], two)
        three = m.three(two, three)
    return m.head(three)


_MLP = """
fc1.weight  a, .
fc1.bias    a
fc2.weight  ., a
"""

ARCHITECTURES = [
    Architecture(
        "mlp",
        lambda: la.zoo.mlp(6, (5, 4), 3),
        (6,),
        """
        fc1.weight  a, .
        fc1.bias    a
        fc2.weight  b, a
        fc2.bias    b
        fc3.weight  ., b
        """,
    ),
    Architecture(
        "simple_cnn",
        lambda: la.zoo.simple_cnn(1, 4, 3),
        (1, 4, 4),
        """
        conv1.weight a, ., ., .
        conv1.bias   a
        conv2.weight b, a, ., .
        conv2.bias   b
        fc1.weight   c, b 4
        fc1.bias     c
        fc2.weight   ., c
        """,
    ),
    Architecture(
        "lenet5",
        lambda: la.zoo.lenet5(1, 20, 3),
        (1, 20, 20),
        """
        conv1.weight a, ., ., .
        conv1.bias   a
        conv2.weight b, a, ., .
        conv2.bias   b
        fc1.weight   c, b 4
        fc1.bias     c
        fc2.weight   d, c
        fc2.bias     d
        fc3.weight   ., d
        """,
    ),
    Architecture("resnet20-A", lambda: la.zoo.resnet20(1, 3), (1, 4, 4), _resnet20("A"), batch_norm=True),
    Architecture("resnet20-B", lambda: la.zoo.resnet20(1, 3, shortcut="B"), (1, 4, 4), _resnet20("B"), batch_norm=True),
    Architecture(
        "vit",
        lambda: la.zoo.vit(1, 4, 3, patch=2, width=6, depth=1, heads=2),
        (1, 4, 4),
        """
        patches.weight              r, ., ., .
        patches.bias                r
        positions                   ., r
        blocks.0.norm1.weight       r
        blocks.0.norm1.bias         r
        blocks.0.attention.qkv.weight h k@h + h k@h + h v@h, r
        blocks.0.attention.qkv.bias h k@h + h k@h + h v@h
        blocks.0.attention.out.weight r, h v@h
        blocks.0.attention.out.bias r
        blocks.0.norm2.weight       r
        blocks.0.norm2.bias         r
        blocks.0.fc1.weight         f, r
        blocks.0.fc1.bias           f
        blocks.0.fc2.weight         r, f
        blocks.0.fc2.bias           r
        norm.weight                 r
        norm.bias                   r
        head.weight                 ., r
        """,
    ),
    Architecture(
        "group-norm",
        lambda: Written(
            lambda m, x: m.head(F.relu(m.norm(m.conv(x))).mean((2, 3))),
            conv=nn.Conv2d(2, 6, 2),
            norm=nn.GroupNorm(3, 6),
            head=nn.Linear(6, 3),
        ),
        (2, 3, 3),
        """
        conv.weight g d@g, ., ., .
        conv.bias   g d@g
        norm.weight g d@g
        norm.bias   g d@g
        head.weight ., g d@g
        """,
    ),
    Architecture(
        "group-norm-of-one",
        lambda: Written(
            lambda m, x: m.head(F.relu(m.norm(m.conv(x))).mean((2, 3))),
            conv=nn.Conv2d(2, 4, 2),
            norm=nn.GroupNorm(1, 4),
            head=nn.Linear(4, 3),
        ),
        (2, 3, 3),
        "conv.weight a, ., ., .\nconv.bias a\nnorm.weight a\nnorm.bias a\nhead.weight ., a",
    ),
    Architecture(
        "instance-norm",
        lambda: Written(
            lambda m, x: m.head(F.relu(m.norm(m.conv(x))).mean((2, 3))),
            conv=nn.Conv2d(2, 4, 2),
            norm=nn.InstanceNorm2d(4, affine=True),
            head=nn.Linear(4, 3),
        ),
        (2, 3, 3),
        "conv.weight a, ., ., .\nconv.bias a\nnorm.weight a\nnorm.bias a\nhead.weight ., a",
    ),
    Architecture(
        "batch-norm-1d",
        lambda: nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.PReLU(5), nn.Linear(5, 3)),
        (4,),
        "0.weight a, .\n0.bias a\n" + _norms("1=a") + "\n2.weight a\n3.weight ., a",
        batch_norm=True,
    ),
    Architecture(
        "grouped-convolution",
        lambda: nn.Sequential(
            nn.Conv2d(2, 6, 2), nn.ReLU(), nn.Conv2d(6, 4, 2, groups=2), nn.Flatten(), nn.Linear(4, 3)
        ),
        (2, 3, 3),
        """
        0.weight g d@g, ., ., .
        0.bias   g d@g
        2.weight g e@g, d@g, ., .
        2.bias   g e@g
        4.weight ., g e@g
        """,
    ),
    Architecture(
        "depthwise-convolution",
        lambda: nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 2, groups=3), nn.Conv2d(3, 2, 1)),
        (2, 3, 3),
        "0.weight a, ., ., .\n0.bias a\n2.weight a, ., ., .\n2.bias a\n3.weight ., a, ., .",
    ),
    Architecture(
        "depthwise-with-multiplier",
        lambda: nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU(), nn.Conv2d(3, 6, 2, groups=3), nn.Conv2d(6, 2, 1)),
        (2, 3, 3),
        "0.weight a, ., ., .\n0.bias a\n2.weight a m@a, ., ., .\n2.bias a m@a\n3.weight ., a m@a, ., .",
    ),
    Architecture(
        "grouped-then-group-norm",  # two groups of the norm, each of two groups of the convolutions
        lambda: nn.Sequential(
            nn.Conv1d(2, 8, 1), nn.Conv1d(8, 8, 2, groups=4), nn.GroupNorm(2, 8), nn.Tanh(), nn.Conv1d(8, 2, 1)
        ),
        (2, 3),
        """
        0.weight g f@g d@f@g, ., .
        0.bias   g f@g d@f@g
        1.weight g f@g e@f@g, d@f@g, .
        1.bias   g f@g e@f@g
        2.weight g f@g e@f@g
        2.bias   g f@g e@f@g
        4.weight ., g f@g e@f@g, .
        """,
    ),
    Architecture(
        "transposed-convolution",
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 2), nn.Tanh(), nn.ConvTranspose2d(3, 4, 2), nn.Tanh(), nn.Conv2d(4, 2, 1)
        ),
        (2, 3, 3),
        "0.weight a, ., ., .\n0.bias a\n2.weight a, b, ., .\n2.bias b\n4.weight ., b, ., .",
    ),
    Architecture(
        "transposed-grouped-convolution",
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 2), nn.Tanh(), nn.ConvTranspose2d(4, 6, 2, groups=2), nn.Tanh(), nn.Conv2d(6, 2, 1)
        ),
        (2, 3, 3),
        "0.weight g a@g, ., ., .\n0.bias g a@g\n2.weight g a@g, b@g, ., .\n2.bias g b@g\n4.weight ., g b@g, ., .",
    ),
    Architecture(
        "convolution-1d",
        lambda: nn.Sequential(nn.Conv1d(2, 3, 2), nn.Tanh(), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(6, 2)),
        (2, 5),
        "0.weight a, ., .\n0.bias a\n4.weight ., a 2",
    ),
    Architecture(
        "convolution-3d",
        lambda: nn.Sequential(nn.Conv3d(1, 3, 2), nn.Tanh(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(3, 2)),
        (1, 3, 3, 3),
        "0.weight a, ., ., ., .\n0.bias a\n4.weight ., a",
    ),
    Architecture(
        "densenet",
        lambda: Written(_dense, one=nn.Conv2d(2, 3, 1), two=nn.Conv2d(5, 4, 1), head=nn.Conv2d(9, 2, 1)),
        (2, 2, 2),
        "one.weight a, ., ., .\none.bias a\ntwo.weight b, 2 + a, ., .\ntwo.bias b\nhead.weight ., 2 + a + b, ., .",
    ),
    Architecture(
        "inception",
        lambda: Written(
            _inception,
            one=nn.Conv2d(2, 3, 1),
            two=nn.Conv2d(2, 2, 3, padding=1),
            three=nn.Conv2d(2, 4, 1),
            head=nn.Conv2d(9, 2, 1),
        ),
        (2, 3, 3),
        """
        one.weight   a, ., ., .
        one.bias     a
        two.weight   b, ., ., .
        two.bias     b
        three.weight c, ., ., .
        three.bias   c
        head.weight  ., a + b + c, ., .
        """,
    ),
    Architecture(
        "unet",
        lambda: Written(
            _unet,
            down1=nn.Conv2d(1, 3, 3, padding=1),
            down2=nn.Conv2d(3, 4, 1),
            up=nn.ConvTranspose2d(4, 2, 2, stride=2),
            out=nn.Conv2d(5, 2, 1),
        ),
        (1, 4, 4),
        """
        down1.weight a, ., ., .
        down1.bias   a
        down2.weight b, a, ., .
        down2.bias   b
        up.weight    b, c, ., .
        up.bias      c
        out.weight   ., c + a, ., .
        """,
    ),
    Architecture(
        "squeeze-excite",
        lambda: Written(
            _squeeze_excite,
            conv=nn.Conv2d(2, 4, 1),
            down=nn.Linear(4, 2),
            up=nn.Linear(2, 4),
            head=nn.Linear(4, 3),
        ),
        (2, 3, 3),
        """
        conv.weight a, ., ., .
        conv.bias   a
        down.weight b, a
        down.bias   b
        up.weight   a, b
        up.bias     a
        head.weight ., a
        """,
    ),
    Architecture(
        "mobilenet-block",
        lambda: Written(
            _mobile,
            stem=nn.Conv2d(1, 3, 1),
            expand=nn.Conv2d(3, 5, 1, bias=False),
            bn1=nn.BatchNorm2d(5),
            depthwise=nn.Conv2d(5, 5, 3, padding=1, groups=5),
            project=nn.Conv2d(5, 3, 1),
            bn2=nn.BatchNorm2d(3),
            head=nn.Linear(3, 2),
        ),
        (1, 3, 3),
        """
        stem.weight       r, ., ., .
        stem.bias         r
        expand.weight     e, r, ., .
        depthwise.weight  e, ., ., .
        depthwise.bias    e
        project.weight    r, e, ., .
        project.bias      r
        head.weight       ., r
        """
        + _norms("bn1=e;bn2=r"),
        batch_norm=True,
    ),
    Architecture(
        "layer-norm",
        lambda: nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.GELU(), nn.Linear(5, 3)),
        (4,),
        "0.weight a, .\n0.bias a\n1.weight a\n1.bias a\n3.weight ., a",
    ),
    Architecture(
        "rms-norm",
        lambda: nn.Sequential(nn.Linear(4, 5), nn.RMSNorm(5), nn.SiLU(), nn.Linear(5, 3)),
        (4,),
        "0.weight a, .\n0.bias a\n1.weight a\n3.weight ., a",
    ),
    Architecture(
        "attention-by-view",
        lambda: Written(
            _by_view,
            q=nn.Linear(4, 6),
            k=nn.Linear(4, 6),
            v=nn.Linear(4, 6),
            out=nn.Linear(6, 5),
            head=nn.Linear(5, 2),
        ),
        (3, 4),
        _THREE.format(x=".") + "out.weight o, h v@h\nout.bias o\nhead.weight ., o",
    ),
    Architecture(
        "attention-by-chunk", lambda: Written(_by_chunk, qkv=nn.Linear(4, 18), out=nn.Linear(6, 2)), (3, 4), _PACKED
    ),
    Architecture(
        "attention-by-unbind", lambda: Written(_by_unbind, qkv=nn.Linear(4, 18), out=nn.Linear(6, 2)), (3, 4), _PACKED
    ),
    Architecture(
        "attention-by-einsum",
        lambda: Written(
            _by_einsum, wq=parameter(4, 2, 3), wk=parameter(4, 2, 3), wv=parameter(4, 2, 3), wo=parameter(2, 3, 4)
        ),
        (3, 4),
        # An axis of its own: one order of the dimensions for all heads, fewer permutations than there are.
        "wq ., h, k\nwk ., h, k\nwv ., h, v\nwo h, v, .",
    ),
    *(
        Architecture(
            f"encoder-{'pre' if first else 'post'}-norm-{'batch' if batch else 'sequence'}-first",
            lambda first=first, batch=batch: _encoder(first, batch),
            (3, 3),
            _ENCODER,
        )
        for first in (True, False)
        for batch in (True, False)
    ),
    Architecture(
        "cross-attention",
        lambda: Written(
            _cross,
            q=nn.Linear(3, 6),
            k=nn.Linear(3, 5),
            v=nn.Linear(3, 4),
            attention=nn.MultiheadAttention(6, 2, kdim=5, vdim=4, batch_first=True),
            head=nn.Linear(6, 2),
        ),
        (3, 3),
        """
        q.weight                    a, .
        q.bias                      a
        k.weight                    b, .
        k.bias                      b
        v.weight                    c, .
        v.bias                      c
        attention.q_proj_weight     h k@h, a
        attention.k_proj_weight     h k@h, b
        attention.v_proj_weight     h v@h, c
        attention.in_proj_bias      h k@h + h k@h + h v@h
        attention.out_proj.weight   o, h v@h
        attention.out_proj.bias     o
        head.weight                 ., o
        """,
    ),
    Architecture(
        "heads-of-one-dimension",
        lambda: Written(
            lambda m, x: m.head(m.attention(x, x, x, need_weights=False)[0]),
            attention=nn.MultiheadAttention(4, 4, batch_first=True),
            head=nn.Linear(4, 2),
        ),
        (3, 4),
        """
        attention.in_proj_weight    h + h + h, .
        attention.in_proj_bias      h + h + h
        attention.out_proj.weight   o, h
        attention.out_proj.bias     o
        head.weight                 ., o
        """,
    ),
    Architecture(
        "class-token",
        lambda: Written(
            _class_token,
            patches=nn.Conv2d(1, 4, 2, stride=2),
            token=parameter(1, 1, 4),
            positions=parameter(5, 4),
            norm=nn.LayerNorm(4),
            head=nn.Linear(4, 3),
        ),
        (1, 4, 4),
        """
        patches.weight r, ., ., .
        patches.bias   r
        token          ., ., r
        positions      ., r
        norm.weight    r
        norm.bias      r
        head.weight    ., r
        """,
    ),
    Architecture(
        "embedding",
        lambda: Written(
            lambda m, x: m.head(F.relu(m.inner(m.table(x).mean(1)))),
            table=nn.Embedding(7, 4),
            inner=nn.Linear(4, 5),
            head=nn.Linear(5, 2),
        ),
        (3,),
        "table.weight ., a\ninner.weight b, a\ninner.bias b\nhead.weight ., b",
        numbers=7,
    ),
    Architecture(
        "tied-embedding",
        lambda: Written(_tied, table=nn.Embedding(7, 4), inner=nn.Linear(4, 4)),
        (3,),
        "table.weight ., a\ninner.weight a, a\ninner.bias a",
        numbers=7,
    ),
    Architecture(
        "tied-autoencoder",
        lambda: Written(_autoencoder, encoder=nn.Linear(4, 5), back=parameter(4)),
        (4,),
        "encoder.weight a, .\nencoder.bias a",
    ),
    Architecture(
        "gated-linear-unit",
        lambda: Written(
            lambda m, x: m.fc2(m.fc1(x).chunk(2, -1)[0] * torch.sigmoid(m.fc1(x).chunk(2, -1)[1])),
            fc1=nn.Linear(4, 6),
            fc2=nn.Linear(3, 2),
        ),
        (4,),
        "fc1.weight a + a, .\nfc1.bias a + a\nfc2.weight ., a",
    ),
    Architecture(
        "gated-linear-unit-of-torch",
        lambda: nn.Sequential(nn.Linear(4, 6), nn.GLU(), nn.Linear(3, 2)),
        (4,),
        "0.weight a + a, .\n0.bias a + a\n2.weight ., a",
    ),
    Architecture(
        "swiglu",
        lambda: Written(
            lambda m, x: m.down(F.silu(m.gate(x)) * m.up(x)),
            gate=nn.Linear(4, 5, bias=False),
            up=nn.Linear(4, 5, bias=False),
            down=nn.Linear(5, 2, bias=False),
        ),
        (4,),
        "gate.weight a, .\nup.weight a, .\ndown.weight ., a",
    ),
    Architecture(
        "residual-mlp",
        lambda: Written(
            lambda m, x: m.head(_residual(m.square, torch.tanh(m.inward(x)))),
            inward=nn.Linear(3, 4),
            square=nn.Linear(4, 4),
            head=nn.Linear(4, 2),
        ),
        (3,),
        "inward.weight r, .\ninward.bias r\nsquare.weight r, r\nsquare.bias r\nhead.weight ., r",
    ),
    Architecture(
        "shared-layer",
        lambda: Written(
            lambda m, x: m.head(torch.tanh(m.again(torch.tanh(m.again(m.inward(x)))))),
            inward=nn.Linear(3, 4),
            again=nn.Linear(4, 4),
            head=nn.Linear(4, 2),
        ),
        (3,),
        "inward.weight r, .\ninward.bias r\nagain.weight r, r\nagain.bias r\nhead.weight ., r",
    ),
    Architecture(
        "recurrent-by-hand",
        lambda: Written(_gru_by_hand, inward=nn.Linear(3, 4), again=nn.Linear(4, 4), head=nn.Linear(4, 2)),
        (3, 3),
        "inward.weight r, .\ninward.bias r\nagain.weight r, r\nagain.bias r\nhead.weight ., r",
    ),
    Architecture(
        "lstm",
        lambda: Written(
            _recurrent,
            before=nn.Linear(3, 4),
            cells=nn.LSTM(4, 3, batch_first=True),
            fc1=nn.Linear(3, 5),
            fc2=nn.Linear(5, 2),
        ),
        (3, 3),
        "before.weight b, .\nbefore.bias b\n"
        + _cell("4 h", "b", "h")
        + "\nfc1.weight f, h\nfc1.bias f\nfc2.weight ., f",
    ),
    Architecture(
        "gru-both-ways-packed",
        lambda: Written(
            _packed,
            cells=nn.GRU(3, 4, num_layers=2, bidirectional=True, batch_first=True),
            head=nn.Linear(8, 2),
            ends=nn.Linear(8, 2),
        ),
        (4, 3),
        "\n".join(
            _cell(f"3 {own}", into, own, f"l{k // 2}{'_reverse' * (k % 2)}")
            for k, (own, into) in enumerate((("a", "."), ("b", "."), ("c", "a + b"), ("d", "a + b")))
        )
        + "\nhead.weight ., c + d\nends.weight ., c + d",
    ),
    Architecture(
        "lstm-projected",
        lambda: Written(
            lambda m, x: m.head(m.cells(x.transpose(0, 1))[0].mean(0)),
            cells=nn.LSTM(3, 4, proj_size=2, num_layers=2, bias=False),
            head=nn.Linear(2, 2),
        ),
        (4, 3),
        """
        cells.weight_ih_l0 4 h, .
        cells.weight_hh_l0 4 h, p
        cells.weight_hr_l0 p, h
        cells.weight_ih_l1 4 k, p
        cells.weight_hh_l1 4 k, q
        cells.weight_hr_l1 q, k
        head.weight        ., q
        """,
    ),
    Architecture(
        "rnn-states-of-all-layers",
        lambda: Written(
            lambda m, x: m.head(m.cells(x)[1].transpose(0, 1).flatten(1)),
            cells=nn.RNN(3, 4, num_layers=2, batch_first=True, nonlinearity="relu"),
            head=nn.Linear(8, 2),
        ),
        (4, 3),
        _cell("a", ".", "a") + "\n" + _cell("b", "a", "b", "l1") + "\nhead.weight ., a + b",
    ),
    Architecture(
        "gru-states-by-layer-and-direction",
        lambda: Written(
            lambda m, x: m.head(m.cells(x)[1].view(2, 2, len(x), 3)[-1].transpose(0, 1).flatten(1)),
            cells=nn.GRU(3, 3, num_layers=2, bidirectional=True, batch_first=True, bias=False),
            head=nn.Linear(6, 2),
        ),
        (4, 3),
        """
        cells.weight_ih_l0         3 a, .
        cells.weight_hh_l0         3 a, a
        cells.weight_ih_l0_reverse 3 b, .
        cells.weight_hh_l0_reverse 3 b, b
        cells.weight_ih_l1         3 c, a + b
        cells.weight_hh_l1         3 c, c
        cells.weight_ih_l1_reverse 3 d, a + b
        cells.weight_hh_l1_reverse 3 d, d
        head.weight                ., c + d
        """,
    ),
    Architecture(
        "lstm-states-from-a-layer",
        lambda: Written(_decoder, start=nn.Linear(3, 4), cells=nn.LSTM(3, 4), head=nn.Linear(4, 2)),
        (4, 3),
        "start.weight h, .\nstart.bias h\n" + _cell("4 h", ".", "h") + "\nhead.weight ., h",
    ),
    Architecture(
        "cells-one-step-at-a-time",
        lambda: Written(
            _steps,
            one=nn.LSTMCell(3, 4),
            two=nn.GRUCell(4, 3, bias=False),
            three=nn.RNNCell(3, 2),
            head=nn.Linear(2, 2),
        ),
        (3, 3),
        """
        one.weight_ih 4 a, .
        one.weight_hh 4 a, a
        one.bias_ih   4 a
        one.bias_hh   4 a
        two.weight_ih 3 b, a
        two.weight_hh 3 b, b
        three.weight_ih c, b
        three.weight_hh c, c
        three.bias_ih c
        three.bias_hh c
        head.weight   ., c
        """,
    ),
    Architecture(
        "weight-norm",
        _weight_norm,
        (4,),
        """
        0.parametrizations.weight.original0 a, .
        0.parametrizations.weight.original1 a, .
        0.bias   a
        2.weight ., a
        """,
    ),
    Architecture(
        "gate",
        lambda: Written(
            lambda m, x: m.fc2(torch.tanh(m.fc1(x)) * torch.sigmoid(m.gate)),
            fc1=nn.Linear(4, 5),
            gate=parameter(5),
            fc2=nn.Linear(5, 2),
        ),
        (4,),
        _MLP + "gate a",
    ),
    Architecture(
        "mean-over-tokens",
        lambda: Written(
            lambda m, x: m.fc2(F.normalize(torch.tanh(m.fc1(x)), dim=-1).mean(1)),
            fc1=nn.Linear(3, 4),
            fc2=nn.Linear(4, 2),
        ),
        (4, 3),
        _MLP,
    ),
    Architecture(
        "positions-of-sines",
        lambda: Written(
            lambda m, x: m.fc2((m.fc1(x) + torch.sin(torch.arange(3.0, dtype=x.dtype))[:, None]).relu().mean(1)),
            fc1=nn.Linear(3, 4),
            fc2=nn.Linear(4, 2),
        ),
        (3, 3),
        _MLP,
    ),
    Architecture(
        "axes-of-length-1",
        lambda: Written(_axes, fc1=nn.Linear(3, 4), rows=parameter(3, 1), fc2=nn.Linear(4, 2)),
        (3,),
        _MLP + "rows p, .",
    ),
    Architecture(
        "flatten-before-and-after",
        lambda: nn.Sequential(
            nn.Flatten(),
            nn.Linear(12, 12),
            nn.Tanh(),
            nn.Unflatten(1, (3, 2, 2)),
            nn.Conv2d(3, 4, 1),
            nn.Flatten(),
            nn.Linear(16, 2),
        ),
        (3, 2, 2),
        "1.weight a 4, .\n1.bias a 4\n4.weight b, a, ., .\n4.bias b\n6.weight ., b 4",
    ),
    Architecture(
        "pixel-shuffle",
        lambda: Written(_pixel_shuffle, conv=nn.Conv2d(2, 12, 1), out=nn.Conv2d(3, 2, 3)),
        (2, 3, 3),
        "conv.weight a 4, ., ., .\nconv.bias a 4\nout.weight ., a, ., .",
    ),
    Architecture(
        "two-parts",
        lambda: Written(_two_values, fc1=nn.Linear(3, 5), fc2=nn.Linear(5, 2)),
        (3,),
        "fc1.weight a + b, .\nfc1.bias a + b\nfc2.weight ., a + b",
    ),
    Architecture(
        "in-place",
        lambda: Written(_in_place, fc1=nn.Linear(3, 4), shift=parameter(4), fc2=nn.Linear(4, 2)),
        (3,),
        _MLP + "shift a",
    ),
    Architecture(
        "dropout",
        lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 2)),
        (3,),
        "0.weight a, .\n0.bias a\n3.weight ., a",
    ),
    Architecture(
        "width-1",
        lambda: la.zoo.mlp(3, (1, 2), 2),
        (3,),
        "fc2.weight a, .\nfc2.bias a\nfc3.weight ., a",
    ),
]
BY_NAME = {architecture.name: architecture for architecture in ARCHITECTURES}


def _residual(layer: nn.Module, x: Tensor) -> Tensor:
    return x + torch.relu(layer(x))
