"""How a result is made: its provenance from the nouns that know it, checked against its schema, with an id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lossatlas.results.discovery import kinds
from lossatlas.results.provenance import identity

if TYPE_CHECKING:
    import xarray as xr


def result(kind: str, dataset: xr.Dataset, *origins: Mapping[str, object], **attrs: object) -> xr.Dataset:
    """``dataset`` as a result of its kind: ``attrs`` from ``origins`` and keywords, checked, with its ``id``.

    ``origins`` are what nouns say of themselves (``objective.provenance()``, ``region.provenance()``). Attributes that
    are None are left out. Raises ``InputError`` where the kind's schema is not met.
    """
    merged = {key: value for origin in (*origins, attrs) for key, value in origin.items() if value is not None}
    found = dataset.copy()
    found.attrs = {"kind": kind} | dataset.attrs | merged
    kinds()[kind].schema.check(found, kind)
    return found.assign_attrs(id=identity(found))


def identified(dataset: xr.Dataset) -> xr.Dataset:
    """``dataset`` with an id, its own where it has one."""
    return dataset if "id" in dataset.attrs else dataset.assign_attrs(id=identity(dataset))
