"""What a study does: a validated configuration, its presets, and how a file and ``--set`` change them."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lossatlas.errors import ConfigError

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Train(_Part):
    """How the two networks are trained; they differ in their seed alone (initial weights and order of the data)."""

    network: str = "simple_cnn"
    options: dict[str, Any] = {}
    seeds: tuple[int, int] = (1, 2)
    epochs: Count = 20
    optimizer: Literal["sgd", "adam", "adamw", "sam"] = "sgd"
    learning_rate: Positive = 0.05
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: NotNegative = 0.0
    batch_size: Count = 64
    schedule: Literal["cosine", "step"] | None = None
    examples: Count | None = None
    snapshot_every: Count = 10


class Slices(_Part):
    """Random slices through each trained network, on ``examples`` of the test set."""

    norm: Literal["filter", "layer", "model"] = "filter"
    seed: int = 0
    line_span: Positive = 1.0
    line_steps: Annotated[int, Field(ge=3)] = 51
    plane_span: Positive = 1.0
    plane_steps: Annotated[int, Field(ge=3)] = 21
    examples: Count | None = None


class Road(_Part):
    """The trajectory of the first network, on ``examples`` of the training set."""

    steps: Annotated[int, Field(ge=3)] = 25
    components: Annotated[int, Field(ge=2)] = 10
    examples: Count | None = None


class Curvature(_Part):
    """Eigenvalues of the Hessian of the loss on ``examples`` of the training set, and the seeds' power iterations."""

    k: Count = 3
    tol: Positive = 1e-3
    examples: Count | None = 1000
    batch_size: Count = 50
    max_products: Count = 300
    power_steps: Count = 15
    power_batch: Count = 256
    seed: int = 0


class Bridge(_Part):
    """The straight line between the two networks, on ``examples`` of the training and of the test set."""

    definition: Literal["entezari", "frankle", "draxler"] = "entezari"
    steps: Annotated[int, Field(ge=3)] = 41
    examples: Count | None = None


class Connectivity(_Part):
    """What connects the two networks beside the straight line; its barriers are measured on the examples of ``bridge``.

    ``align`` permutes the second network's units (null: not). ``curve`` is trained between the two (null: none) on the
    data that they were trained on. The plane that shows either is measured on ``examples`` of the training set.
    ``instability`` lists after how many shared steps two runs part: two more trainings for each, times ``pairs``.
    """

    align: Literal["weights", "activations"] | None = "weights"
    curve: Literal["bezier", "chain"] | None = "bezier"
    bends: Count = 1
    epochs: Count = 50
    learning_rate: Positive = 0.003
    batch_size: Count = 128
    plane_steps: Annotated[int, Field(ge=3)] = 21
    examples: Count | None = None
    instability: tuple[Annotated[int, Field(ge=0)], ...] = ()
    pairs: Count = 1


class Noise(_Part):
    """Weight noise, absolute (``sigmas``) and relative to the filters' norms, on ``examples`` of the test set."""

    sigmas: tuple[NotNegative, ...] = (0.0, 0.01, 0.02, 0.05, 0.1)
    relative_sigmas: tuple[NotNegative, ...] = (0.0, 0.1, 0.2, 0.5, 1.0)
    draws: Annotated[int, Field(ge=2)] = 10
    seed: int = 0
    examples: Count | None = None


class StudyConfig(_Part):
    """Everything that decides a study's numbers. ``examples`` is a limit: null, or more than there are, means all."""

    preset: str = "digits"
    dataset: str = "digits"
    data_root: str | None = None
    train: Train = Train()
    slices: Slices = Slices()
    road: Road = Road()
    curvature: Curvature = Curvature()
    bridge: Bridge = Bridge()
    connectivity: Connectivity = Connectivity()
    noise: Noise = Noise()


PRESETS: dict[str, dict[str, Any]] = {
    # scikit-learn's embedded digits: needs nothing but the package, done in a minute or two.
    "digits": {},
    # The second seed: Fashion-MNIST, its network, optimiser, epochs, batch size, seeds and sigmas.
    "fashion": {
        "dataset": "fashion-mnist",
        "train": {
            "network": "simple_cnn",
            "epochs": 6,
            "learning_rate": 0.01,
            "batch_size": 128,
            "snapshot_every": 50,
        },
        "slices": {"line_steps": 41, "plane_steps": 21, "examples": 2000},
        "road": {"steps": 21, "examples": 2000},
        "curvature": {"k": 5, "examples": 2000},
        "bridge": {"examples": 10000},
        "connectivity": {"epochs": 6, "examples": 2000},
    },
    # The first seed: MNIST, the wide CNN without pooling, three epochs at 0.05, a snapshot every 100 steps, 15
    # power iterations; its slices used one batch of 128 images, ours 1,000.
    "mnist": {
        "dataset": "mnist",
        "train": {
            "network": "simple_cnn_wide",
            "epochs": 3,
            "learning_rate": 0.05,
            "batch_size": 128,
            "snapshot_every": 100,
        },
        "slices": {"line_steps": 51, "plane_steps": 21, "examples": 1000},
        "road": {"steps": 15, "examples": 1000},
        "curvature": {"examples": 500, "power_batch": 128, "max_products": 150},
        "bridge": {"steps": 21, "examples": 5000},
        "connectivity": {"curve": None, "examples": 1000},
        "noise": {"examples": 2000, "draws": 5},
    },
}


def presets() -> tuple[str, ...]:
    """The names of the presets."""
    return tuple(PRESETS)


def resolve(preset: str = "digits", file: Path | None = None, settings: Iterable[str] = ()) -> StudyConfig:
    """A preset, changed by a YAML file, changed by ``key=value`` settings (dots lead inside: ``train.epochs=3``).

    A file may name its own ``preset``. Raises ``ConfigError`` for an unknown preset or key, or a value of a wrong type.

    >>> resolve("fashion", settings=["train.epochs=2"]).train.epochs
    2
    """
    given = _read(file) if file is not None else {}
    name = str(given.get("preset", preset))
    if name not in PRESETS:
        raise ConfigError(f"There is no preset {name!r}{_meant(name, PRESETS)}: choose one of {', '.join(PRESETS)}.")
    merged = _merge(_merge(PRESETS[name], given), {"preset": name})
    for setting in settings:
        merged = _merge(merged, _setting(setting))
    try:
        return StudyConfig.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(_explain(error)) from None


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


def _explain(error: ValidationError) -> str:
    """One line: the first mistake, where it is, and what would be right."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    more = f" ({error.error_count() - 1} more mistakes)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        fields = _fields_at(first["loc"][:-1])
        return f"Unknown key {where!r}{_meant_key(where, fields)}: choose one of {', '.join(fields)}{more}."
    return f"{where} = {first['input']!r} is wrong: {first['msg'][0].lower()}{first['msg'][1:]}{more}."


def _fields_at(place: tuple[int | str, ...]) -> list[str]:
    model: Any = StudyConfig
    for part in place:
        model = model.model_fields[part].annotation
    return list(getattr(model, "model_fields", ()))


def _meant_key(where: str, fields: list[str]) -> str:
    """A field of the same part that is spelt alike, or one of that very name in another part."""
    parts = {f"{part}.{field}": field for part in StudyConfig.model_fields for field in _fields_at((part,))}
    elsewhere = [key for key, field in parts.items() if field == where.rpartition(".")[2]]
    return f" (did you mean {elsewhere[0]!r}?)" if elsewhere else _meant(where.rpartition(".")[2], fields)


def _meant(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
