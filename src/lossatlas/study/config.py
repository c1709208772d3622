"""What a study does: a validated configuration, its presets, and how a file and ``--set`` change them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from lossatlas.errors import ConfigError
from lossatlas.results.discovery import verb_of
from lossatlas.results.kind import Kind, Options
from lossatlas.results.mistakes import explained, suggestion

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Split = Literal["train", "test"]

PRESETS = Path(__file__).parent / "presets"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Train(_Part):
    """How the networks are trained; they differ in their seed alone (initial weights and order of the data).

    One network for each seed, with the labels A, B, C, ...
    """

    network: str = "simple_cnn"
    options: dict[str, Any] = {}
    seeds: Annotated[tuple[int, ...], Field(min_length=1, max_length=26)] = (1, 2)
    epochs: Count = 20
    optimizer: Literal["sgd", "adam", "adamw", "sam"] = "sgd"
    learning_rate: Positive = 0.05
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: NotNegative = 0.0
    batch_size: Count = 64
    schedule: Literal["cosine", "step"] | None = None
    examples: Count | None = None
    snapshot_every: Count = 10


class Data(_Part):
    """Which data an objective is on. ``examples`` is a limit: null, or more than there are, means all."""

    split: Split = "test"
    examples: Count | None = None
    batch_size: Count = 128


class Measurement(_Part):
    """A verb on each network (or pair of networks), on which data, with which options.

    ``verb`` is a command of the command line, the measurement's own name by default. ``data`` is the objective's, by
    its split ("train"), or one for each objective that the verb takes. ``options`` are those of the command.
    """

    verb: str
    networks: tuple[str, ...] | None = None
    data: dict[str, Data] = {"objective": Data()}
    options: dict[str, Any] = {}

    @field_validator("verb")
    @classmethod
    def _known_verb(cls, given: str) -> str:
        verb_of(given)
        return given

    @field_validator("data", mode="before")
    @classmethod
    def _spelt_out(cls, given: Any) -> Any:
        if isinstance(given, str) or (isinstance(given, Mapping) and given.keys() & Data.model_fields.keys()):
            given = {"objective": given}
        if not isinstance(given, Mapping):
            return given
        return {name: {"split": part} if isinstance(part, str) else part for name, part in given.items()}

    @model_validator(mode="after")
    def _known_data(self) -> Self:
        known = [given.name for given in self.kind.inputs if given.type == "objective"]
        if unknown := sorted(self.data.keys() - set(known)):
            raise ValueError(f"{self.verb} has no data {unknown[0]!r}; its data are: {', '.join(known) or 'none'}")
        return self

    @property
    def kind(self) -> Kind:
        """The kind that the verb belongs to."""
        return verb_of(self.verb)

    @property
    def chosen(self) -> Options:
        """The verb's options, checked and complete."""
        return self.kind.options.model_validate(self.options)


class StudyConfig(_Part):
    """Everything that decides a study's numbers: networks x measurements."""

    preset: str = "digits"
    dataset: str = "digits"
    data_root: str | None = None
    train: Train = Train()
    measure: dict[str, Measurement | None] = {}

    @field_validator("measure", mode="before")
    @classmethod
    def _named_by_verb(cls, given: Any) -> Any:
        """A measurement without a ``verb`` has the one of its own name; one that is null is left out."""
        if not isinstance(given, Mapping):
            return given
        return {name: {"verb": name} | dict(one) if isinstance(one, Mapping) else one for name, one in given.items()}

    @property
    def labels(self) -> tuple[str, ...]:
        """A, B, C, ...: the networks."""
        return tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(self.train.seeds)])

    @model_validator(mode="after")
    def _known_networks(self) -> Self:
        for name, one in self.measure.items():
            if one is not None and (unknown := sorted(set(one.networks or ()) - set(self.labels))):
                raise ValueError(f"measure.{name} names a network {unknown[0]!r}; there are {', '.join(self.labels)}")
        return self


def presets() -> tuple[str, ...]:
    """The names of the presets."""
    return tuple(sorted(file.stem for file in PRESETS.glob("*.yaml")))


def resolve(preset: str = "digits", file: Path | None = None, settings: Iterable[str] = ()) -> StudyConfig:
    """A preset, changed by a YAML file, changed by ``key=value`` settings (dots lead inside: ``train.epochs=3``).

    A file may name its own ``preset``. Raises ``ConfigError`` for an unknown preset or key, or a value of a wrong type.

    >>> resolve("fashion", settings=["train.epochs=2"]).train.epochs
    2
    """
    given = _read(file) if file is not None else {}
    name = str(given.get("preset", preset))
    if name not in presets():
        raise ConfigError(
            f"There is no preset {name!r}{suggestion(name, presets())}: choose one of {', '.join(presets())}."
        )
    merged = _merge(_merge(_read(PRESETS / f"{name}.yaml"), given), {"preset": name})
    for setting in settings:
        merged = _merge(merged, _setting(setting))
    try:
        config = StudyConfig.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(explained(error, StudyConfig)) from None
    measure = {name: one and _complete(name, one) for name, one in config.measure.items()}
    return config.model_copy(update={"measure": measure})


def _complete(name: str, one: Measurement) -> Measurement:
    """The measurement with every option of its verb, checked."""
    try:
        return one.model_copy(update={"options": one.chosen.model_dump(mode="json")})
    except ValidationError as error:
        raise ConfigError(explained(error, one.kind.options, f"measure.{name}.options.")) from None


def _read(file: Path) -> dict[str, Any]:
    try:
        loaded = yaml.safe_load(file.read_text())
    except OSError as error:
        raise ConfigError(f"The configuration {file} cannot be read ({error.strerror}): give a YAML file.") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"The configuration {file} is no valid YAML ({' '.join(str(error).split())}).") from None
    if loaded is not None and not isinstance(loaded, dict):
        raise ConfigError(f"The configuration {file} holds a {type(loaded).__name__}: give keys and values.")
    return loaded or {}


def _setting(setting: str) -> dict[str, Any]:
    key, equals, text = setting.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {setting!r}: give key=value, for example train.epochs=3.")
    try:
        nested: Any = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"--set {setting!r}: the value is no valid YAML; quote it if it is text.") from None
    for part in reversed(key.strip().split(".")):
        nested = {part: nested}
    return dict(nested)


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = copy.deepcopy(dict(base))
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged
