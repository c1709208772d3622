"""What a Dataset of a kind holds: its variables with their dimensions, and its attributes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from lossatlas.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

Dims = tuple[str, ...] | None  # None: any


@dataclass(frozen=True)
class Schema:
    """Required and optional variables, name -> dimensions, and attributes. Coordinates count as variables.

    The name of an optional variable may be a pattern (``"*_stderr"``), where metrics have names of the user's own.
    Dimensions are compared as sets; ``None`` allows any.
    """

    variables: Mapping[str, Dims]
    optional: Mapping[str, Dims] = field(default_factory=dict)
    attrs: tuple[str, ...] = ()
    optional_attrs: tuple[str, ...] = ()

    def problems(self, dataset: xr.Dataset) -> list[str]:
        """What is missing or of other dimensions; empty where the Dataset is as it should be."""
        missing = [f"variable {name!r}" for name in self.variables if name not in dataset.variables]
        missing += [f"attribute {name!r}" for name in self.attrs if name not in dataset.attrs]
        found = [f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"] if missing else []
        for name, variable in dataset.variables.items():
            dims = self.dims_of(str(name))
            if dims is not None and set(variable.dims) != set(dims):
                found.append(f"{name!r} is over {tuple(variable.dims)}, not {dims}")
        return found

    def check(self, dataset: xr.Dataset, name: str) -> xr.Dataset:
        """``dataset``, or ``InputError`` that lists what is wrong."""
        if problems := self.problems(dataset):
            raise InputError(
                f"The Dataset is no complete result of kind {name!r}: {'; '.join(problems)}. "
                "Give one as its function returned it, or as lossatlas.load read it."
            )
        return dataset

    def dims_of(self, name: str) -> Dims:
        """The dimensions of a variable; None where any will do, or where it is not declared."""
        if name in self.variables:
            return self.variables[name]
        return next((dims for pattern, dims in self.optional.items() if fnmatchcase(name, pattern)), None)

    def declares(self, name: str) -> bool:
        """Whether a variable of this name belongs to the kind."""
        return name in self.variables or any(fnmatchcase(name, pattern) for pattern in self.optional)
