"""Where the numbers of a Dataset come from, as the nouns that made it recorded it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr

# What an objective says of itself.
OBJECTIVE = (
    "data",
    "model",
    "n_parameters",
    "n_examples",
    "dtype",
    "batch_norm",
    "model_fingerprint",
    "data_fingerprint",
    "lossatlas",
    "torch",
)
_NOT_OF_IT = ("id", "name", "evaluation", "evaluation_fallback")  # what it is called, how fast it was computed
# What a Dataset of any kind may say besides: of the objective, where there is something to be said.
TOLD = ("batch_dependence", "random_numbers", "mode", "derivatives")
COMMON = ("kind", "id", "name", "network", "split", "stderr_over", "seconds", "seed", "note", *TOLD)


@dataclass(frozen=True)
class Provenance:
    """Which network, which data: what every Dataset of an objective says.

    ``network`` is the label of the network ("A"), None where none was given; ``name`` what the Dataset is called.
    """

    network: str | None
    name: str
    model: str
    data: str
    model_fingerprint: str
    data_fingerprint: str

    @classmethod
    def of(cls, dataset: xr.Dataset) -> Provenance:
        """What the Dataset's attributes record; empty text where they do not."""
        a = dataset.attrs
        network = str(a["network"]) if "network" in a else None
        keys = ("name", "model", "data", "model_fingerprint", "data_fingerprint")
        return cls(network, *(str(a.get(key, "")) for key in keys))

    @property
    def who(self) -> str:
        """Whose numbers: "network A", or "the network"."""
        return f"network {self.network}" if self.network else "the network"

    @property
    def label(self) -> str:
        """What tells its curve from others: "network A", else the Dataset's name, else its model."""
        return self.who if self.network else self.name.replace("_", " ") or self.model or "the network"

    @property
    def subject(self) -> str:
        """The label at the beginning of a sentence: "Network A"."""
        return self.label[0].upper() + self.label[1:]

    @property
    def data_label(self) -> str:
        """What the data are called: "fashion-mnist test, 2,000 examples"."""
        return self.data or "the data given"

    @property
    def short_data(self) -> str:
        """The data's label without its count: "fashion-mnist test"."""
        return (self.data or "data").split(",")[0]


def identity(dataset: xr.Dataset) -> str:
    """16 hexadecimal digits of the SHA-256 over all numbers and attributes, times of computing apart.

    The same measurement has the same id in another process, and after a round trip through a file.
    """
    import numpy as np

    sha = hashlib.sha256()
    for name in sorted(name for name in map(str, dataset.variables) if "seconds" not in name):
        variable = dataset.variables[name]
        values = np.ascontiguousarray(variable.to_numpy())
        sha.update(f"{name}{variable.dims}{values.shape}".encode())
        sha.update(repr(values.tolist()).encode() if values.dtype.kind in "OUS" else values.astype("<f8").tobytes())
    # As lists of plain numbers: a file hands lists back as arrays, and one of length 1 as a number.
    attrs = {k: np.ravel(v).tolist() for k, v in dataset.attrs.items() if k not in _NOT_OF_IT and "seconds" not in k}
    sha.update(repr(sorted(attrs.items())).encode())
    return sha.hexdigest()[:16]
