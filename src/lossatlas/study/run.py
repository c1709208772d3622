"""Run a study: every step once, in order, resumable, then the report."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import xarray as xr

from lossatlas import zoo
from lossatlas.errors import ConfigError
from lossatlas.model.checkpoints import replacing
from lossatlas.report import Report, report
from lossatlas.study.config import StudyConfig
from lossatlas.study.folder import StudyFolder
from lossatlas.study.material import Material, total_steps
from lossatlas.study.published import comparison
from lossatlas.study.steps import steps


def run(
    config: StudyConfig, out: Path, *, progress: bool = True, say: Callable[[str], None] = lambda line: None
) -> Report:
    """Train, measure and report as ``config`` says, in the folder ``out``.

    A step whose result is in the folder is not done again, and training goes on after its last finished epoch, so a
    run that was interrupted or killed continues where it was. Raises ``DataError`` when the data cannot be had,
    ``ConfigError`` for an impossible configuration and ``OutputError`` for a folder of another study, in all three
    cases before anything is written.
    """
    data = zoo.load(config.dataset, root=config.data_root, progress=progress)
    zoo.network(config.train.network, shape=data.shape, **config.train.options)
    _check_prefixes(config, data)
    folder, wanted = StudyFolder(out, config), steps(config)
    with folder.locked():
        material = Material(config, data, folder.path, progress)
        results = {}
        for index, (name, step) in enumerate(wanted.items(), start=1):
            started, known = time.perf_counter(), folder.has(name)
            results[name] = folder.once(name, lambda step=step: step(material))  # type: ignore[misc]
            spent = "done before" if known else f"{time.perf_counter() - started:.1f} s"
            say(f"[{index:2d}/{len(wanted)}] {name:22s} {spent}")
        table = comparison(config.preset, results)
        return _finish(config, folder.path, results | ({"comparison": table} if table is not None else {}))


def _check_prefixes(config: StudyConfig, data: zoo.LabelledData) -> None:
    ks, total = config.connectivity.instability, total_steps(config, data)
    if len(set(ks)) < len(ks) or max(ks, default=0) > total:
        raise ConfigError(
            f"connectivity.instability = {list(ks)}, and a training has {total:,} steps: give numbers of shared steps "
            "up to that, none twice."
        )


def _finish(config: StudyConfig, out: Path, results: dict[str, xr.Dataset]) -> Report:
    tree = xr.DataTree.from_dict({f"/{name}": dataset for name, dataset in results.items()})
    with replacing(out / "study.nc") as temporary:
        tree.to_netcdf(temporary, engine="netcdf4")
    return report(list(results.values()), out, title=_title(config), setup=_setup(config))


def _title(config: StudyConfig) -> str:
    return f"The loss landscape of {config.train.network} on {config.dataset}"


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
