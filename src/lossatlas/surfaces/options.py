"""What is asked of a surface: its options, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import xarray as xr

from lossatlas.errors import InputError
from lossatlas.objective import Objective

_RESOLUTION = 100  # units in the last place: a relative tolerance below so many is rounding


@dataclass(frozen=True)
class SurfaceOptions:
    """The options of ``surface``, as they are documented there."""

    tol: float | None = None
    coverage: float = 0.95
    confidence: float = 0.95
    seed: int = 0
    also: Mapping[str, Objective] = field(default_factory=dict)
    subset: int | None = None
    by_class: bool = False
    reuse: xr.Dataset | None = None
    fast: bool | str = True
    progress: bool = True

    def identity(self) -> dict[str, object]:
        """What decides which points are evaluated, and how: another value makes another store."""
        names = ("tol", "coverage", "confidence", "seed", "subset", "fast")
        return {name: getattr(self, name) for name in names}

    def check(self, dtype: torch.dtype) -> None:
        """Raises ``InputError`` for an impossible value, or a tolerance that ``dtype`` does not resolve."""
        for name, share in (("coverage", self.coverage), ("confidence", self.confidence)):
            if not 0 < share < 1:
                raise InputError(f"{name}={share}: give a number between 0 and 1, such as 0.95.")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise InputError(f"seed={self.seed!r}: give a whole number that is not negative.")
        if self.tol is not None:
            _check_tolerance(self.tol, dtype)


def _check_tolerance(tol: float, dtype: torch.dtype) -> None:
    if not isinstance(tol, int | float) or not 0 < tol < 1:
        raise InputError(
            f"tol={tol!r}: give a relative error between 0 and 1, such as 0.01, or None for the exact grid."
        )
    least = _RESOLUTION * torch.finfo(dtype).eps
    if tol < least:
        raise InputError(
            f"tol={tol:g} is below what {str(dtype).removeprefix('torch.')} resolves: give at least "
            f"{least:.1g}, an objective with dtype=torch.float64, or tol=None for the exact grid."
        )
