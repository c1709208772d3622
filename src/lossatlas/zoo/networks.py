"""The networks of the MNIST and Fashion-MNIST studies and four classics, each with its number of parameters."""

from __future__ import annotations

import difflib
import inspect
import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from lossatlas.errors import ConfigError, InputError


class SimpleCNN(nn.Sequential):
    """Two 3 x 3 convolutions and two linear layers; made by `simple_cnn` and `simple_cnn_wide`."""


class MLP(nn.Sequential):
    """Linear layers with an activation between them; made by `mlp`."""


class LeNet5(nn.Sequential):
    """LeCun et al.'s two convolutions and three linear layers; made by `lenet5`."""


def simple_cnn(in_channels: int = 1, size: int = 28, classes: int = 10, seed: int | None = None) -> SimpleCNN:
    """conv(16, 3x3, pad 1)-relu-conv(32, 3x3, pad 1)-relu-maxpool(2)-flatten-linear(128)-relu-linear(classes).

    Input (N, in_channels, size, size). 809,034 parameters at the defaults: the network of the Fashion-MNIST study.
    ``seed`` draws the initial weights from a stream of their own and leaves the global one where it was;
    without it they come from the global stream, as in any PyTorch module.

    Examples
    --------
    >>> sum(parameter.numel() for parameter in simple_cnn().parameters())
    809034
    """
    with _weights_from(seed):
        return SimpleCNN(
            OrderedDict(
                conv1=nn.Conv2d(in_channels, 16, 3, padding=1),
                relu1=nn.ReLU(),
                conv2=nn.Conv2d(16, 32, 3, padding=1),
                relu2=nn.ReLU(),
                pool=nn.MaxPool2d(2),
                flatten=nn.Flatten(),
                fc1=nn.Linear(32 * _side(size // 2, size) ** 2, 128),
                relu3=nn.ReLU(),
                fc2=nn.Linear(128, classes),
            )
        )


def simple_cnn_wide(in_channels: int = 1, size: int = 28, classes: int = 10, seed: int | None = None) -> SimpleCNN:
    """conv(32, 3x3, pad 1)-relu-conv(64, 3x3, pad 1)-relu-flatten-linear(128)-relu-linear(classes), no pooling.

    Input (N, in_channels, size, size). 6,442,762 parameters at the defaults: the network of the MNIST study.
    ``seed`` as in `simple_cnn`.

    Examples
    --------
    >>> sum(parameter.numel() for parameter in simple_cnn_wide().parameters())
    6442762
    """
    with _weights_from(seed):
        return SimpleCNN(
            OrderedDict(
                conv1=nn.Conv2d(in_channels, 32, 3, padding=1),
                relu1=nn.ReLU(),
                conv2=nn.Conv2d(32, 64, 3, padding=1),
                relu2=nn.ReLU(),
                flatten=nn.Flatten(),
                fc1=nn.Linear(64 * _side(size, size) ** 2, 128),
                relu3=nn.ReLU(),
                fc2=nn.Linear(128, classes),
            )
        )


_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
}


def mlp(
    in_features: int = 64,
    widths: Sequence[int] = (12,),
    classes: int = 10,
    activation: str = "relu",
    seed: int | None = None,
) -> MLP:
    """flatten-linear(widths[0])-activation- ... -linear(classes), for an input of in_features numbers in any shape.

    At the defaults it is the smallest useful network on the digits, with 910 parameters.
    ``activation`` is relu, tanh, gelu, silu or sigmoid; ``seed`` as in `simple_cnn`.

    Raises
    ------
    InputError : an unknown activation.

    Examples
    --------
    >>> sum(parameter.numel() for parameter in mlp(64, widths=(12,)).parameters())
    910
    """
    if activation not in _ACTIVATIONS:
        raise InputError(f"There is no activation {activation!r}: choose one of {', '.join(_ACTIVATIONS)}.")
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    sizes = [in_features, *widths]
    with _weights_from(seed):
        for number, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes), start=1):
            layers[f"fc{number}"] = nn.Linear(fan_in, fan_out)
            layers[f"{activation}{number}"] = _ACTIVATIONS[activation]()
        layers[f"fc{len(sizes)}"] = nn.Linear(sizes[-1], classes)
    return MLP(layers)


def lenet5(in_channels: int = 1, size: int = 28, classes: int = 10, seed: int | None = None) -> LeNet5:
    """conv(6, 5x5)-tanh-avgpool(2)-conv(16, 5x5)-tanh-avgpool(2)-120-tanh-84-tanh-classes.

    LeCun et al. 1998 with the full connection table, plain average pooling and a linear output in place of radial
    basis functions: 61,706 parameters for 28 x 28 inputs (padded by 2, as there) and for 32 x 32 (not padded).
    ``seed`` as in `simple_cnn`.

    Examples
    --------
    >>> sum(parameter.numel() for parameter in lenet5().parameters())
    61706
    """
    padding = 2 if size == 28 else 0
    side = _side(((size + 2 * padding - 4) // 2 - 4) // 2, size)
    with _weights_from(seed):
        return LeNet5(
            OrderedDict(
                conv1=nn.Conv2d(in_channels, 6, 5, padding=padding),
                tanh1=nn.Tanh(),
                pool1=nn.AvgPool2d(2),
                conv2=nn.Conv2d(6, 16, 5),
                tanh2=nn.Tanh(),
                pool2=nn.AvgPool2d(2),
                flatten=nn.Flatten(),
                fc1=nn.Linear(16 * side**2, 120),
                tanh3=nn.Tanh(),
                fc2=nn.Linear(120, 84),
                tanh4=nn.Tanh(),
                fc3=nn.Linear(84, classes),
            )
        )


class _Subsample(nn.Module):
    """Shortcut A: every second pixel, with the new channels zero. It has no parameters."""

    def __init__(self, new_channels: int) -> None:
        super().__init__()
        self.new_channels = new_channels

    def forward(self, inputs: Tensor) -> Tensor:
        return nn.functional.pad(inputs[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.new_channels))


class _Block(nn.Module):
    """relu(bn(conv(relu(bn(conv(x))))) + shortcut(x)), both convolutions 3 x 3."""

    def __init__(self, fan_in: int, fan_out: int, stride: int, shortcut: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(fan_in, fan_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(fan_out)
        self.conv2 = nn.Conv2d(fan_out, fan_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(fan_out)
        self.shortcut = shortcut

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = nn.functional.relu(self.bn1(self.conv1(inputs)))
        return nn.functional.relu(self.bn2(self.conv2(hidden)) + self.shortcut(inputs))


class ResNet20(nn.Sequential):
    """He et al.'s residual network of 20 layers for CIFAR-10; made by `resnet20`."""


def resnet20(
    in_channels: int = 3, classes: int = 10, shortcut: Literal["A", "B"] = "A", seed: int | None = None
) -> ResNet20:
    """conv(16)-bn-relu, three stages of three residual blocks (16, 32, 64 channels), global mean, linear(classes).

    Input (N, in_channels, any height and width from 4 up). Where the channels double, shortcut ``"A"`` (He et al.
    2016, section 4.2) takes every second pixel and pads the channels with zeros: 269,722 parameters at the
    defaults. ``"B"`` projects by a 1 x 1 convolution with batch norm: 272,474. Convolutions start from He's
    normal initialisation (fan out); ``seed`` as in `simple_cnn`.

    Raises
    ------
    InputError : a shortcut that is neither A nor B.

    Examples
    --------
    >>> [sum(parameter.numel() for parameter in resnet20(shortcut=kind).parameters()) for kind in "AB"]
    [269722, 272474]
    """
    if shortcut not in ("A", "B"):
        raise InputError(f"There is no shortcut {shortcut!r}: choose A (zero padding) or B (projection).")
    with _weights_from(seed):
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            conv=nn.Conv2d(in_channels, 16, 3, padding=1, bias=False), bn=nn.BatchNorm2d(16), relu=nn.ReLU()
        )
        channels = 16
        for stage, width in enumerate((16, 32, 64), start=1):
            blocks = [_first_block(channels, width, shortcut), _plain_block(width), _plain_block(width)]
            layers[f"stage{stage}"] = nn.Sequential(*blocks)
            channels = width
        layers |= OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(64, classes))
        network = ResNet20(layers)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network


def _plain_block(width: int) -> _Block:
    return _Block(width, width, 1, nn.Identity())


def _first_block(fan_in: int, fan_out: int, shortcut: str) -> _Block:
    if fan_in == fan_out:
        return _plain_block(fan_out)
    if shortcut == "A":
        return _Block(fan_in, fan_out, 2, _Subsample(fan_out - fan_in))
    projection = nn.Sequential(nn.Conv2d(fan_in, fan_out, 1, stride=2, bias=False), nn.BatchNorm2d(fan_out))
    return _Block(fan_in, fan_out, 2, projection)


class _Attention(nn.Module):
    """Multi-head self-attention: softmax(Q K' / sqrt(width / heads)) V, the heads joined by a linear layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        examples, length, width = tokens.shape
        split = self.qkv(tokens).reshape(examples, length, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(examples, length, width))
        return out


class _TransformerBlock(nn.Module):
    """y = x + attention(norm(x)), then y + fc2(gelu(fc1(norm(y)))): the pre-norm block."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = _Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.norm1(tokens))
        hidden = nn.functional.gelu(self.fc1(self.norm2(tokens)))
        out: Tensor = tokens + self.fc2(hidden)
        return out


class ViT(nn.Module):
    """Dosovitskiy et al.'s vision transformer with a mean-pooled head; made by `vit`."""

    def __init__(
        self, in_channels: int, size: int, classes: int, patch: int, width: int, depth: int, heads: int
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(in_channels, width, patch, stride=patch)
        self.positions = nn.Parameter(0.02 * torch.randn((size // patch) ** 2, width))
        self.blocks = nn.Sequential(*(_TransformerBlock(width, heads, 2 * width) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        tokens = self.patches(inputs).flatten(2).transpose(1, 2) + self.positions
        out: Tensor = self.head(self.norm(self.blocks(tokens)).mean(1))
        return out


def vit(
    in_channels: int = 1,
    size: int = 28,
    classes: int = 10,
    patch: int = 4,
    width: int = 64,
    depth: int = 4,
    heads: int = 4,
    seed: int | None = None,
) -> ViT:
    """conv(width, patch x patch, stride patch) + positions, depth pre-norm blocks, norm, mean, linear(classes).

    Input (N, in_channels, size, size): (size / patch)^2 tokens, with learned positions. A block is multi-head
    attention and linear(2 width)-gelu-linear(width), each after a layer norm and added to its input. Dosovitskiy et
    al. 2021, with the mean of the tokens in place of a class token, as in Beyer et al. 2022. 138,890 parameters at
    the defaults. ``seed`` as in `simple_cnn`.

    Raises
    ------
    InputError : a size that is no multiple of patch, or a width that is no multiple of heads.

    Examples
    --------
    >>> sum(parameter.numel() for parameter in vit().parameters())
    138890
    """
    if size < patch or size % patch:
        raise InputError(f"An input of {size} x {size} is not cut by patches of {patch} x {patch}: give a divisor.")
    if width % heads:
        raise InputError(f"A width of {width} is not shared by {heads} heads: give a multiple of {heads}.")
    with _weights_from(seed):
        return ViT(in_channels, size, classes, patch, width, depth, heads)


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "simple_cnn": simple_cnn,
    "simple_cnn_wide": simple_cnn_wide,
    "mlp": mlp,
    "lenet5": lenet5,
    "resnet20": resnet20,
    "vit": vit,
}


def network(name: str, shape: tuple[int, int, int] | None = None, **options: object) -> nn.Module:
    """A network by name: ``simple_cnn``, ``simple_cnn_wide``, ``mlp``, ``lenet5``, ``resnet20`` or ``vit``.

    ``shape`` (C, H, W) of one input fills in what the network has to know of it (in_features, in_channels, size);
    ``options`` are the arguments of the function of that name.

    Raises
    ------
    ConfigError : an unknown name, or an option that this network does not have.

    Examples
    --------
    >>> network("mlp", shape=(1, 8, 8), widths=(12,)).fc1
    Linear(in_features=64, out_features=12, bias=True)
    """
    if name not in NETWORKS:
        close = difflib.get_close_matches(name, NETWORKS, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ConfigError(f"There is no network {name!r}{hint}: choose one of {', '.join(NETWORKS)}.")
    known = inspect.signature(NETWORKS[name]).parameters
    unknown = [option for option in options if option not in known]
    if unknown:
        raise ConfigError(f"{name} has no option {unknown[0]!r}: it has {', '.join(known)}.")
    if shape is not None:
        channels, height, width = shape
        sizes = {"in_features": channels * height * width, "in_channels": channels, "size": height}
        options = {key: value for key, value in sizes.items() if key in known} | options
    return NETWORKS[name](**options)


def _side(side: int, size: int) -> int:
    if side < 1:
        raise InputError(f"Nothing is left of an input of {size} x {size} after pooling: give larger images.")
    return side


@contextmanager
def _weights_from(seed: int | None) -> Iterator[None]:
    """Draw from a stream of ``seed``'s own, and put the global (CPU) one back after; ``None`` uses the global one."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
