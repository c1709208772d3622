"""What a study does: a validated configuration, its presets, and how a file and ``--set`` change them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from functools import partial, reduce
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from lossatlas.errors import ConfigError
from lossatlas.results.discovery import verb_of, verbs
from lossatlas.results.kind import Kind, Options
from lossatlas.results.mistakes import Place, dotted, explained, suggestion

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[a-z]\w*$")]  # begins the names of files
Split = Literal["train", "test"]

PRESETS = Path(__file__).parent / "presets"
TRAINING = "training"  # begins the names of the histories of the networks
OF_ONE_NETWORK = ("objective", "snapshots", "training")  # inputs of verbs


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

    @field_validator("seeds")
    @classmethod
    def _different(cls, given: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(given)) < len(given):
            raise ValueError(f"{list(given)} has a seed twice, which is the same network twice: give different ones")
        return given


class Data(_Part):
    """Which data an objective is on. ``examples`` is a limit: null, or more than there are, means all."""

    split: Split = "test"
    examples: Count | None = None
    batch_size: Count = 128


def _data_names(verb: str) -> dict[str, bool]:
    """The objectives that the verb takes -> whether it can do without."""
    return {each.name: each.optional for each in verb_of(verb).inputs if each.type == "objective"}


class Measurement(_Part):
    """A verb on each network (or pair of networks), on which data, with which options.

    ``verb`` is a command of the command line, the measurement's own name by default. ``data`` is the objective's, by
    its split ("train"), or one for each objective that the verb takes; null for an optional one that is left out. The
    test set by default.
    ``options`` are those of the command.
    """

    verb: str
    networks: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    data: dict[str, Data | None] = {}
    options: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _on_the_test_set(cls, given: Any) -> Any:
        """Without ``data`` the first objective that the verb takes is on the test set."""
        if not isinstance(given, Mapping) or "data" in given or given.get("verb") not in verbs():
            return given
        return {**given, "data": dict.fromkeys(list(_data_names(given["verb"]))[:1], "test")}

    @field_validator("verb")
    @classmethod
    def _known_verb(cls, given: str) -> str:
        verb_of(given)
        return given

    @field_validator("data", mode="before")
    @classmethod
    def _known_data(cls, given: Any, before: ValidationInfo) -> Any:
        given, verb = _spelt_out(given), before.data.get("verb")
        if verb is None or not isinstance(given, Mapping):
            return given
        known = _data_names(verb)
        for name, one in given.items():
            if name not in known:
                close = suggestion(str(name), [*known, *Data.model_fields])
                raise ValueError(f"{verb} has no data {name!r}{close}; its data are: {', '.join(known) or 'none'}")
            if one is None and not known[name]:
                raise ValueError(f"{verb} needs its data {name!r}: give train or test")
        return given

    @model_validator(mode="after")
    def _enough_networks(self) -> Self:
        if self.networks is None:
            return self
        if len(set(self.networks)) < len(self.networks):
            raise ValueError(f"networks = {list(self.networks)} has one twice: give different ones")
        if len(self.networks) < self.together:
            raise ValueError(f"{self.verb} is on {self.together} networks: give as many, not {list(self.networks)}")
        return self

    @property
    def kind(self) -> Kind:
        """The kind that the verb belongs to."""
        return verb_of(self.verb)

    @property
    def together(self) -> int:
        """How many networks it is on at a time: 2 where its verb takes the weights of two, 0 where it takes none."""
        types = [given.type for given in self.kind.inputs]
        return types.count("weights") or int(any(each in OF_ONE_NETWORK for each in types))

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
    measure: dict[Name, Measurement | None] = {}

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
    def _possible_measurements(self) -> Self:
        for name, one in self.measure.items():
            if name == TRAINING:
                raise ValueError(f"measure.{name} has the name of the networks' training: choose another")
            if one is not None and (unknown := sorted(set(one.networks or ()) - set(self.labels))):
                raise ValueError(f"measure.{name} names a network {unknown[0]!r}; there are {', '.join(self.labels)}")
        return self


def presets() -> tuple[str, ...]:
    """The names of the presets."""
    return tuple(sorted(file.stem for file in PRESETS.glob("*.yaml")))


def resolve(preset: str = "digits", file: Path | None = None, settings: Iterable[str] = ()) -> StudyConfig:
    """A preset, changed by a YAML file, changed by ``key=value`` settings (dots lead inside: ``train.epochs=3``).

    A file or a setting may name its own ``preset``. Raises ``ConfigError`` for an unknown preset or key, or a value of
    a wrong type.

    >>> resolve("fashion", settings=["train.epochs=2"]).train.epochs
    2
    """
    given: dict[str, Any] = reduce(_merge, map(_setting, settings), {} if file is None else read_yaml(file))
    name = str(given.get("preset", preset))
    if name not in presets():
        raise ConfigError(
            f"There is no preset {name!r}{suggestion(name, presets())}: choose one of {', '.join(presets())}."
        )
    merged = _merge(_merge(read_yaml(PRESETS / f"{name}.yaml"), given), {"preset": name})
    try:
        config = StudyConfig.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(explained(error, StudyConfig, _without_keys)) from None
    return complete(config)


def complete(config: StudyConfig, **facts: int) -> StudyConfig:
    """The configuration with every option of every verb, checked also against ``facts`` of the study, once known.

    Raises ``ConfigError``.
    """
    measure = {name: one and _complete(name, one, facts) for name, one in config.measure.items()}
    return config.model_copy(update={"measure": measure})


def _complete(name: str, one: Measurement, facts: Mapping[str, int]) -> Measurement:
    options = one.kind.options
    try:
        chosen = options.model_validate(one.options, context=dict(facts))
    except ValidationError as error:
        raise ConfigError(explained(error, options, partial(_in_options, name))) from None
    return one.model_copy(update={"options": chosen.model_dump(mode="json")})


def _in_options(measurement: str, place: Place) -> str:
    return dotted(("measure", measurement, "options", *place))


def _without_keys(place: Place) -> str:
    """As it is written in a file; pydantic marks the keys of a dictionary themselves by ``[key]``."""
    return dotted(tuple(part for part in place if part != "[key]"))


def read_yaml(file: Path) -> dict[str, Any]:
    """The keys and values of a YAML file, or ``ConfigError``."""
    try:
        loaded = yaml.safe_load(file.read_text())
    except OSError as error:
        raise ConfigError(f"The configuration {file} cannot be read ({error.strerror}): give a YAML file.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration {file} is no valid YAML ({' '.join(str(error).split())}).") from None
    if loaded is not None and not isinstance(loaded, dict):
        raise ConfigError(f"The configuration {file} holds a {type(loaded).__name__}: give keys and values.")
    return loaded or {}


def _setting(setting: str) -> dict[str, Any]:
    key, equals, text = setting.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"--set {setting!r}: give key=value, for example train.epochs=3.")
    try:
        nested: Any = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"--set {setting!r}: the value is no valid YAML; quote it if it is text.") from None
    for part in reversed(parts):
        nested = {part: nested}
    return dict(nested)


def _merge(base: Mapping[str, Any], over: Mapping[str, Any], place: Place = ()) -> dict[str, Any]:
    """``base`` with what ``over`` says instead. Data of measurements are spelt out, so that a part can be changed."""
    merged = copy.deepcopy(dict(base))
    for key, value in over.items():
        here, old = (*place, key), merged.get(key)
        if len(here) == 3 and here[0] == "measure" and key == "data":
            old, value = _spelt_out(old), _spelt_out(value)
        merged[key] = _merge(old, value, here) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _spelt_out(data: Any) -> Any:
    """``{"objective": {"split": "train"}}`` for ``"train"``: the data of each objective, by keys and values."""
    if isinstance(data, str) or (isinstance(data, Mapping) and data.keys() & Data.model_fields.keys()):
        data = {"objective": data}
    if not isinstance(data, Mapping):
        return data
    return {name: {"split": part} if isinstance(part, str) else part for name, part in data.items()}
