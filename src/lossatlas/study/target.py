"""A user's own problem by name: ``file.py:function`` or ``package.module:function``, which returns an Objective."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from lossatlas.errors import InputError, LossAtlasError
from lossatlas.objective import Objective


def load_objective(target: str) -> Objective:
    """Import the file or module, call the function, and return its Objective.

    Raises ``InputError`` when there is no such file, module or function, when either fails, or when the function
    returns something else.
    """
    place, colon, name = target.rpartition(":")
    if not colon or not place or not name:
        raise InputError(f"The target {target!r} names no function: give path/to/file.py:function.")
    module = _module(place)
    function = getattr(module, name, None)
    if not callable(function):
        found = ", ".join(sorted(n for n, v in vars(module).items() if _is_own_function(v, module))) or "none"
        raise InputError(f"{place} has no function {name!r}; its functions are: {found}.")
    try:
        objective = function()
    except LossAtlasError:
        raise
    except Exception as error:
        raise InputError(f"{target} failed: {_line(error)}.") from error
    if not isinstance(objective, Objective):
        raise InputError(
            f"{target} returned a {type(objective).__name__}: return lossatlas.Objective(model, loss, data)."
        )
    return objective


def _module(place: str) -> ModuleType:
    try:
        return _file_module(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except LossAtlasError:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and place.startswith(error.name):
            raise InputError(
                f"There is no module {place!r}: give path/to/file.py:function or package.module:function."
            ) from None
        raise InputError(f"{place} cannot be imported: {_line(error)}.") from error
    except Exception as error:
        raise InputError(f"{place} cannot be imported: {_line(error)}.") from error


def _file_module(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f"There is no file {path}: give path/to/file.py:function.")
    # The file's own folder comes first, as when Python runs it, so that it can import its neighbours.
    sys.path.insert(0, str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} cannot be imported as Python: give a .py file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _is_own_function(value: object, module: ModuleType) -> bool:
    return callable(value) and getattr(value, "__module__", None) == module.__name__


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
