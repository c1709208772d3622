"""Run a study: every step once, in order, resumable, then the report."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import xarray as xr

from lossatlas import zoo
from lossatlas.errors import ConfigError, LossAtlasError
from lossatlas.report import Report, report
from lossatlas.results.files import replacing
from lossatlas.study.config import StudyConfig, complete
from lossatlas.study.folder import StudyFolder
from lossatlas.study.material import Material
from lossatlas.study.steps import Results, steps

Say = Callable[[str], None]


def run(config: StudyConfig, out: Path, *, progress: bool = True, say: Say = lambda line: None) -> Report:
    """Train, measure and report as ``config`` says, in the folder ``out``.

    A result that is in the folder is not computed again, and training goes on after its last finished epoch, so a
    run that was interrupted or killed continues where it was. Raises ``OutputError`` for a folder of another study,
    ``DataError`` when the data cannot be had, and ``ConfigError`` for an impossible configuration, in all three
    cases before anything is written.
    """
    folder = StudyFolder(out, config)
    data = zoo.load(config.dataset, root=config.data_root, progress=progress)
    material = Material(config, data, out, progress)
    _check(config, material)
    with folder.locked():
        return _finish(config, out, _results(config, material, folder, say), progress)


def _check(config: StudyConfig, material: Material) -> None:
    """What cannot be known without the data."""
    try:
        material.fresh(config.labels[0])
    except LossAtlasError:
        raise
    except Exception as error:  # whatever a network says of arguments that it cannot use
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"train.options = {config.train.options} make no {config.train.network}: {reason}."
        ) from error
    complete(config, total_steps=material.total_steps)


def _results(config: StudyConfig, material: Material, folder: StudyFolder, say: Say) -> Results:
    """Every step's results, with a line about each step."""
    results, work = Results(), steps(config)
    for index, step in enumerate(work, start=1):
        started, computed = time.perf_counter(), folder.computed
        results |= step.run(material, folder, results)
        spent = f"{time.perf_counter() - started:.1f} s" if folder.computed > computed else "done before"
        say(f"[{index:2d}/{len(work)}] {step.label:22s} {spent}")
    return results


def _finish(config: StudyConfig, out: Path, results: Results, progress: bool) -> Report:
    tree = xr.DataTree.from_dict({f"/{name}": dataset for name, dataset in results.items()})
    with replacing(out / "study.nc") as temporary:
        tree.to_netcdf(temporary, engine="netcdf4")
    title = f"The loss landscape of {config.train.network} on {config.dataset}"
    return report(list(results.values()), out, title=title, setup=_setup(config), progress=progress)


def _setup(config: StudyConfig) -> dict[str, str]:
    """What the results themselves do not record, for the report's set-up table."""
    t = config.train
    return {
        "preset": config.preset,
        "data set": config.dataset,
        "network": t.network,
        "training": f"learning rate {t.learning_rate:g}, momentum {t.momentum:g}, weight decay {t.weight_decay:g}, "
        f"schedule {t.schedule or 'constant'}",
        "snapshots": f"every {t.snapshot_every} steps",
    }
