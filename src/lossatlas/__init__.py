"""The geometry of neural-network loss landscapes.

One noun, ``Objective(model, loss, data)``: the loss as a function of the flat parameters. Everything else says where
to look and what to measure there; numbers leave as ``xarray.Dataset``. Names are loaded when first used.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lossatlas import errors as errors
    from lossatlas import plot as plot
    from lossatlas import zoo as zoo
    from lossatlas.connectivity.alignment import Aligned as Aligned
    from lossatlas.connectivity.alignment import align as align
    from lossatlas.connectivity.barrier import barrier as barrier
    from lossatlas.connectivity.connect import Connection as Connection
    from lossatlas.connectivity.connect import connect as connect
    from lossatlas.connectivity.connectivity import connectivity as connectivity
    from lossatlas.connectivity.instability import instability as instability
    from lossatlas.connectivity.merging import Merged as Merged
    from lossatlas.connectivity.merging import merge_many as merge_many
    from lossatlas.connectivity.plane import connectivity_plane as connectivity_plane
    from lossatlas.connectivity.repair import Repaired as Repaired
    from lossatlas.connectivity.repair import repair as repair
    from lossatlas.connectivity.symmetry.discovery import symmetries as symmetries
    from lossatlas.connectivity.symmetry.symmetries import Symmetries as Symmetries
    from lossatlas.curvature.activations import activation_hessian as activation_hessian
    from lossatlas.curvature.axes import eigen_plane as eigen_plane
    from lossatlas.curvature.batches import batch_eigenvalues as batch_eigenvalues
    from lossatlas.curvature.density import spectral_density as spectral_density
    from lossatlas.curvature.gabdullin import gabdullin as gabdullin
    from lossatlas.curvature.kfac import kfac as kfac
    from lossatlas.curvature.lanczos import Eigenpairs as Eigenpairs
    from lossatlas.curvature.lanczos import top_eigenpairs as top_eigenpairs
    from lossatlas.curvature.operators import Operator as Operator
    from lossatlas.curvature.operators import fisher as fisher
    from lossatlas.curvature.operators import gauss_newton as gauss_newton
    from lossatlas.curvature.operators import gradient_covariance as gradient_covariance
    from lossatlas.curvature.operators import hessian as hessian
    from lossatlas.curvature.power import power_iteration as power_iteration
    from lossatlas.curvature.spectrum import spectrum as spectrum
    from lossatlas.curvature.split import gauss_newton_split as gauss_newton_split
    from lossatlas.curvature.trace import DiagonalEstimate as DiagonalEstimate
    from lossatlas.curvature.trace import TraceEstimate as TraceEstimate
    from lossatlas.curvature.trace import diagonal as diagonal
    from lossatlas.curvature.trace import trace as trace
    from lossatlas.drawing.exports import export as export
    from lossatlas.errors import LossAtlasError as LossAtlasError
    from lossatlas.geometry.curves import Bezier as Bezier
    from lossatlas.geometry.curves import PolygonalChain as PolygonalChain
    from lossatlas.geometry.curves import Segment as Segment
    from lossatlas.geometry.directions import Directions as Directions
    from lossatlas.geometry.directions import between as between
    from lossatlas.geometry.directions import orthonormalise as orthonormalise
    from lossatlas.geometry.draws import random_directions as random_directions
    from lossatlas.geometry.region import Region as Region
    from lossatlas.geometry.regions import line as line
    from lossatlas.geometry.regions import plane as plane
    from lossatlas.geometry.regions import plane_through as plane_through
    from lossatlas.geometry.regions import polar as polar
    from lossatlas.geometry.regions import volume as volume
    from lossatlas.objective import Evaluation as Evaluation
    from lossatlas.objective import Objective as Objective
    from lossatlas.report import Report as Report
    from lossatlas.report import report as report
    from lossatlas.results.claim import Claim as Claim
    from lossatlas.results.claim import Verdict as Verdict
    from lossatlas.results.files import load as load
    from lossatlas.results.files import save as save
    from lossatlas.robustness.basin import basin as basin
    from lossatlas.robustness.robustness import robustness as robustness
    from lossatlas.sharpness.invariance import invariance as invariance
    from lossatlas.sharpness.sharpness import sharpness as sharpness
    from lossatlas.surfaces.surface import refine as refine
    from lossatlas.surfaces.surface import surface as surface
    from lossatlas.trajectory.recorder import Recorder as Recorder
    from lossatlas.trajectory.trajectory import Trajectory as Trajectory

_HOME = {
    "Objective": "objective",
    "Evaluation": "objective",
    "line": "geometry.regions",
    "plane": "geometry.regions",
    "volume": "geometry.regions",
    "polar": "geometry.regions",
    "plane_through": "geometry.regions",
    "Region": "geometry.region",
    "Segment": "geometry.curves",
    "Bezier": "geometry.curves",
    "PolygonalChain": "geometry.curves",
    "Directions": "geometry.directions",
    "random_directions": "geometry.draws",
    "between": "geometry.directions",
    "orthonormalise": "geometry.directions",
    "Recorder": "trajectory.recorder",
    "Trajectory": "trajectory.trajectory",
    "surface": "surfaces.surface",
    "refine": "surfaces.surface",
    "Operator": "curvature.operators",
    "hessian": "curvature.operators",
    "gauss_newton": "curvature.operators",
    "fisher": "curvature.operators",
    "gradient_covariance": "curvature.operators",
    "Eigenpairs": "curvature.lanczos",
    "top_eigenpairs": "curvature.lanczos",
    "TraceEstimate": "curvature.trace",
    "DiagonalEstimate": "curvature.trace",
    "trace": "curvature.trace",
    "diagonal": "curvature.trace",
    "spectral_density": "curvature.density",
    "gabdullin": "curvature.gabdullin",
    "gauss_newton_split": "curvature.split",
    "activation_hessian": "curvature.activations",
    "batch_eigenvalues": "curvature.batches",
    "kfac": "curvature.kfac",
    "power_iteration": "curvature.power",
    "spectrum": "curvature.spectrum",
    "eigen_plane": "curvature.axes",
    "barrier": "connectivity.barrier",
    "connect": "connectivity.connect",
    "Connection": "connectivity.connect",
    "connectivity": "connectivity.connectivity",
    "align": "connectivity.alignment",
    "Aligned": "connectivity.alignment",
    "symmetries": "connectivity.symmetry.discovery",
    "Symmetries": "connectivity.symmetry.symmetries",
    "merge_many": "connectivity.merging",
    "Merged": "connectivity.merging",
    "Repaired": "connectivity.repair",
    "repair": "connectivity.repair",
    "instability": "connectivity.instability",
    "connectivity_plane": "connectivity.plane",
    "robustness": "robustness.robustness",
    "sharpness": "sharpness.sharpness",
    "invariance": "sharpness.invariance",
    "basin": "robustness.basin",
    "Claim": "results.claim",
    "Verdict": "results.claim",
    "save": "results.files",
    "load": "results.files",
    "export": "drawing.exports",
    "report": "report",
    "Report": "report",
    "LossAtlasError": "errors",
}
_MODULES = ("errors", "plot", "zoo")

__all__ = [*_HOME, *_MODULES]  # noqa: PLE0604
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(f"lossatlas.{_HOME[name]}"), name)
    elif name in _MODULES:
        value = importlib.import_module(f"lossatlas.{name}")
    else:
        raise AttributeError(f"module 'lossatlas' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """Importing the module ``lossatlas.surface`` would bind it as ``lossatlas.surface`` and hide the function."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
