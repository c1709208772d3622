"""Small networks, real data and a training loop for the examples and the study; the rest of lossatlas needs none."""

from lossatlas.zoo.datasets import LabelledData, find, load, subset
from lossatlas.zoo.history import History
from lossatlas.zoo.networks import lenet5, mlp, network, resnet20, simple_cnn, simple_cnn_wide, vit
from lossatlas.zoo.training import fit

__all__ = [
    "History",
    "LabelledData",
    "find",
    "fit",
    "lenet5",
    "load",
    "mlp",
    "network",
    "resnet20",
    "simple_cnn",
    "simple_cnn_wide",
    "subset",
    "vit",
]
