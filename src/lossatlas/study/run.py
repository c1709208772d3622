"""Run a study: every step once, in order, resumable, then the report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import xarray as xr

from lossatlas import zoo
from lossatlas.report import Report, report
from lossatlas.results.files import replacing
from lossatlas.study.config import StudyConfig
from lossatlas.study.folder import StudyFolder
from lossatlas.study.material import Material
from lossatlas.study.steps import Results, steps

Say = Callable[[str], None]
Work = Callable[[Results], Results]


def run(config: StudyConfig, out: Path, *, progress: bool = True, say: Say = lambda line: None) -> Report:
    """Train, measure and report as ``config`` says, in the folder ``out``.

    A result that is in the folder is not computed again, and training goes on after its last finished epoch, so a
    run that was interrupted or killed continues where it was. Raises ``DataError`` when the data cannot be had,
    ``ConfigError`` for an impossible configuration and ``OutputError`` for a folder of another study, in all three
    cases before anything is written.
    """
    data = zoo.load(config.dataset, root=config.data_root, progress=progress)
    zoo.network(config.train.network, shape=data.shape, **config.train.options)
    folder = StudyFolder(out, config)
    with folder.locked():
        results: Results = {}
        work = dict(_work(config, Material(config, data, folder.path, progress), folder))
        for index, (name, step) in enumerate(work.items(), start=1):
            started, computed = time.perf_counter(), folder.computed
            results |= step(results)
            spent = f"{time.perf_counter() - started:.1f} s" if folder.computed > computed else "done before"
            say(f"[{index:2d}/{len(work)}] {name:22s} {spent}")
        return _finish(config, folder.path, results)


def _work(config: StudyConfig, material: Material, folder: StudyFolder) -> Iterator[tuple[str, Work]]:
    """Name -> what is done: the networks first, since all else needs them."""
    for label in config.labels:
        name = f"training_{label.lower()}"
        yield name, lambda _, n=name, of=label: {n: folder.once(n, lambda: material.train(of))}  # type: ignore[misc]
    for step in steps(config):
        yield step.label, lambda before, each=step: each.run(material, folder, before)  # type: ignore[misc]


def _finish(config: StudyConfig, out: Path, results: Results) -> Report:
    tree = xr.DataTree.from_dict({f"/{name}": dataset for name, dataset in results.items()})
    with replacing(out / "study.nc") as temporary:
        tree.to_netcdf(temporary, engine="netcdf4")
    title = f"The loss landscape of {config.train.network} on {config.dataset}"
    return report(list(results.values()), out, title=title, setup=_setup(config))


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
