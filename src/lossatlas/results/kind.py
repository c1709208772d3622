"""What a kind of result is: how it is measured, what it holds, and how it is shown."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from lossatlas.results.blocks import Answer, FigureGroup, Number, Panel, Reference, Topic
from lossatlas.results.schema import Schema

if TYPE_CHECKING:
    import xarray as xr

    from lossatlas.results.claim import Claim

Datasets = Sequence["xr.Dataset"]
Catalogue = Any  # results.catalogue.Catalogue, which knows the kinds and so cannot be imported here
Figures = Callable[[Datasets, Catalogue], Iterable[FigureGroup]]
Claims = Callable[[Datasets, Catalogue], Iterable["Claim"]]


class Options(BaseModel):
    """What can be chosen when a kind is measured: the command's options, a study's settings, checked in one place.

    The names and defaults are those of the verb's keywords; a field's ``description`` is the command line's help.
    A study validates them with the context ``{"total_steps": ...}``, the length of a training, so that a validator
    can refuse what a training does not have before one is started.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Input:
    """Something that a verb is given besides its options, as the keyword ``name``.

    ``"objective"``: an Objective; ``"weights"``: a file of weights; ``"snapshots"``: the folder of a ``Recorder``;
    ``"training"``: ``spawn(k, order)`` as ``instability`` takes it; ``"catalogue"``: all results so far;
    ``"folder"``: where files can be kept; ``"keep"``: ``keep(name, compute)``, which computes a result once.
    Two inputs of type ``"weights"`` are those of two networks.
    """

    name: str
    type: Literal["objective", "weights", "snapshots", "training", "catalogue", "folder", "keep"]
    help: str = ""
    optional: bool = False
    aliases: tuple[str, ...] = ()  # further names of its flag on the command line


OBJECTIVE = Input(
    "objective", "objective", "path/to/file.py:function or package.module:function, which returns an Objective"
)


def function_at(address: str) -> Callable[..., Any]:
    """The function at ``"package.module:function"``, imported when it is first called.

    >>> function_at("math:sqrt")(9.0)
    3.0
    """

    def call(*args: Any, **kwargs: Any) -> Any:
        module, _, name = address.partition(":")
        return getattr(importlib.import_module(module), name)(*args, **kwargs)

    call.__qualname__ = call.__name__ = address
    call.address = address  # type: ignore[attr-defined]
    return call


def _none(*_: object) -> tuple[()]:
    return ()


@dataclass(frozen=True)
class Kind:
    """A kind of result. ``show.py`` of its subject defines it; it is found there (``results.discovery``).

    Parameters
    ----------
    name : ``attrs["kind"]`` of its Datasets.
    title : of its part of a chapter.
    chapter : the question of the report that it answers (``results.chapters``).
    schema : what its Datasets hold.
    figures : all its Datasets of a report, and the catalogue -> groups of pictures and tables.
    verb : called with the inputs, the options and ``progress`` by keyword; returns a Dataset. One with several results
        has an input of type ``"keep"``, to which it hands each. None: made by something else only.
    command, help : the verb's name on the command line (the kind's own by default), and what it says of itself.
    options, inputs : what the verb takes.
    numbers : Dataset -> its key numbers with their errors, the first the most telling; they judge nothing.
    claims : all its Datasets, and the catalogue -> claims, also on Datasets of lower kinds.
    answers : all its Datasets, and the catalogue -> what they say to the chapter's question, best first.
    panels : all its Datasets, and the catalogue -> panels of the figure that sums up a report.
    theory : topics that the report explains where it holds such Datasets.
    setup : its Datasets -> rows of the report's table of the set-up.
    shows_instead : its Datasets, and the catalogue -> Datasets of other kinds that its own figures show.
    references : works that only this kind cites.
    opens : whether it comes first in its chapter, before the kinds of other subjects, since it tells most.
    """

    name: str
    title: str
    chapter: str
    schema: Schema
    figures: Figures
    verb: Callable[..., Any] | None = None
    command: str = ""
    help: str = ""
    options: type[Options] = Options
    inputs: tuple[Input, ...] = (OBJECTIVE,)
    numbers: Callable[[xr.Dataset], Iterable[Number]] = _none
    claims: Claims = _none
    answers: Callable[[Datasets, Catalogue], Iterable[Answer]] = _none
    panels: Callable[[Datasets, Catalogue], Iterable[Panel]] = _none
    theory: Callable[[], Sequence[Topic]] = _none
    setup: Callable[[Datasets], Mapping[str, str]] = lambda datasets: {}
    shows_instead: Callable[[Datasets, Catalogue], Iterable[xr.Dataset]] = _none
    references: Mapping[str, Reference] = field(default_factory=dict)
    opens: bool = False

    @property
    def verb_name(self) -> str:
        """The verb's name on the command line and in a study."""
        return self.command or self.name
