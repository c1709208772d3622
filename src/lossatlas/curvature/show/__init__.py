"""Curvature, as kinds of results: spectra, densities, the Gauss-Newton part, criteria, power iteration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lossatlas.results import chapters
from lossatlas.results.kind import Kind, Options, function_at
from lossatlas.results.provenance import COMMON, OBJECTIVE
from lossatlas.results.schema import Schema

_SHOW = "lossatlas.curvature.show"
Tolerance = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class SpectrumOptions(Options):
    """The keywords of ``spectrum``."""

    k: int = Field(10, ge=1, description="eigenvalues at each end")
    tol: Tolerance = Field(1e-3, description="relative residual to reach")
    trace: bool = Field(True, description="the trace and the Frobenius norm too")
    trace_tol: Tolerance = Field(0.01, description="relative standard error of the trace to reach")
    density: bool = Field(True, description="the density of the spectrum too")
    density_tol: Tolerance = Field(0.01, description="Wasserstein-1 error of the density to reach, of the width")
    steps: int = Field(10, ge=2, description="Lanczos steps of a probe of the density, at least")
    probes: int = Field(1, ge=1, description="random vectors of the density, at least")
    trend: bool = Field(True, description="the largest eigenvalue on subsets of the data too")
    layers: bool = Field(False, description="the spectrum of each layer's block too")
    vectors: bool = Field(False, description="keep the eigenvectors")
    parameters: str | None = Field(None, description="a glob: only these parameters vary")
    max_products: int | None = Field(None, ge=1, description="Hessian-vector products to spend at most, on all of it")
    max_seconds: float | None = Field(None, gt=0, description="seconds to spend at most, on all of it")
    max_memory: int | None = Field(None, ge=0, description="bytes beside model, data and parameters, on all of it")
    route: Literal["exact", "differences"] | None = Field(None, description="of products; exact where there is one")
    seed: int = Field(0, ge=0, description="of the random vectors")


class SplitOptions(Options):
    """The keywords of ``gauss_newton_split``."""

    k: int = Field(5, ge=1, description="leading eigenvectors of the Hessian")
    probes: int = Field(16, ge=2, description="random vectors for the norms")
    tol: Tolerance = Field(1e-2, description="relative error of eigenpairs and traces")
    seed: int = Field(0, ge=0, description="of the random vectors")


class PowerOptions(Options):
    """The keywords of ``power_baseline``."""

    batch: int | None = Field(None, ge=1, description="another random batch of so many examples at each product")
    steps: int = Field(15, ge=1, description="iterations")
    seed: int = Field(0, ge=0, description="of the first vector and of the batches")


_DENSITY: dict[str, tuple[str, ...] | None] = {
    "lambda": ("lambda",),
    "density": ("lambda",),
    "density_stderr": ("lambda",),
    "histogram": ("bin",),
    "histogram_*": ("bin",),
    "bin_*": ("bin",),
    "probe": ("probe",),
    "step": ("step",),
    "node": ("probe", "step"),
    "weight": ("probe", "step"),
    "diagonal": ("probe", "step"),
    "off_diagonal": ("probe", "step"),
    "negative_mass": (),
    "negative_mass_*": (),
    "undecided_mass": (),
    "negative_share": (),
    "negative_share_stderr": (),
    "effective_rank": (),
    "effective_rank_stderr": (),
    "frobenius_norm": (),
    "frobenius_norm_*": (),
    "density_error": (),
}

SPECTRUM = Kind(
    name="spectrum",
    title="Spectrum of the Hessian",
    chapter=chapters.CURVATURE,
    verb=function_at("lossatlas.curvature.spectrum:spectrum"),
    help="The Hessian's spectrum: both ends with residuals and standard errors, trace, density.",
    options=SpectrumOptions,
    schema=Schema(
        variables={
            "end": ("end",),
            "rank": ("rank",),
            "eigenvalue": ("end", "rank"),
            "residual": ("end", "rank"),
            "eigenvalue_stderr": ("end", "rank"),
        },
        optional=_DENSITY
        | {
            "trace": (),
            "trace_*": (),
            "largest_gap": (),
            "largest_gap_rank": (),
            "n_examples": ("n_examples",),
            "replicate": ("replicate",),
            "trend_eigenvalue": ("n_examples", "replicate"),
            "trend_eigenvalue_stderr": ("n_examples", "replicate"),
            "layer": ("layer",),
            "layer_eigenvalue": ("layer", "end", "rank"),
            "layer_residual": ("layer", "end", "rank"),
            "layer_*": ("layer",),
            "eigenvector": ("end", "rank", "parameter"),
            "slope": ("end", "rank"),
            "point": ("parameter",),
        },
        attrs=(*OBJECTIVE, "tol", "converged", "products", "products_eigenpairs", "seed"),
        optional_attrs=(
            *COMMON,
            *("steps", "probes", "smoothing", "density_tol", "loss", "parameters", "route", "asymmetry"),
            "product_error",
            *("trace_method", "trace_reason", "trace_probes", "max_memory", "memory"),
            *("products_density", "products_trace", "products_trend", "products_layers"),
        ),
    ),
    figures=function_at(f"{_SHOW}.groups:spectra"),
    answers=function_at(f"{_SHOW}.answers:of_spectra"),
    panels=function_at(f"{_SHOW}.panels:panels"),
    numbers=function_at(f"{_SHOW}.numbers:spectrum"),
    claims=function_at(f"{_SHOW}.claims:of_spectra"),
    theory=function_at(f"{_SHOW}.theory:of_spectra"),
)

SPECTRAL_DENSITY = Kind(
    name="spectral_density",
    title="Density of the spectrum",
    chapter=chapters.CURVATURE,
    schema=Schema(
        variables={
            **{name: _DENSITY[name] for name in ("lambda", "density", "density_stderr", "histogram", "node", "weight")},
            "bin_left": ("bin",),
            "bin_right": ("bin",),
            **dict.fromkeys(("negative_mass", "negative_mass_low", "negative_mass_high", "undecided_mass"), ()),
            **dict.fromkeys(("trace", "trace_stderr", "effective_rank", "effective_rank_stderr"), ()),
        },
        optional=_DENSITY,
        attrs=("n_parameters", "steps", "probes", "smoothing", "atoms", "products", "seed"),
        optional_attrs=(*OBJECTIVE, *COMMON, "matrix"),
    ),
    figures=function_at(f"{_SHOW}.groups:densities"),
    answers=function_at(f"{_SHOW}.further_answers:of_densities"),
    numbers=function_at(f"{_SHOW}.numbers:spectral_density"),
    claims=function_at(f"{_SHOW}.claims:of_densities"),
    theory=function_at(f"{_SHOW}.theory:of_densities"),
)

_PARTS = ("hessian", "gauss_newton", "residual")
_SPLIT = ("cosine", *(f"{quantity}_{part}" for quantity in ("trace", "frobenius") for part in _PARTS))

GAUSS_NEWTON_SPLIT = Kind(
    name="gauss_newton_split",
    title="Hessian and Gauss-Newton matrix",
    chapter=chapters.CURVATURE,
    verb=function_at("lossatlas.curvature.split:gauss_newton_split"),
    help="How much of the Hessian is its Gauss-Newton part: traces, norms, cosine.",
    options=SplitOptions,
    schema=Schema(
        variables={
            "rank": ("rank",),
            "curvature_hessian": ("rank",),
            "curvature_gauss_newton": ("rank",),
            **{name: () for part in _SPLIT for name in (part, f"{part}_stderr")},
        },
        attrs=(*OBJECTIVE, "probes", "products", "trace_method", "trace_method_gauss_newton", "seed"),
        optional_attrs=(*COMMON, "trace_reason", "trace_reason_gauss_newton"),
    ),
    figures=function_at(f"{_SHOW}.groups:splits"),
    answers=function_at(f"{_SHOW}.further_answers:of_splits"),
    numbers=function_at(f"{_SHOW}.numbers:gauss_newton_split"),
    claims=function_at(f"{_SHOW}.claims:of_splits"),
    theory=function_at(f"{_SHOW}.theory:of_splits"),
)

GABDULLIN = Kind(
    name="gabdullin",
    title="Criteria on the spectrum",
    chapter=chapters.CURVATURE,
    schema=Schema(
        variables={
            "step": ("step",),
            **{name: ("step",) for part in ("k_h1", "k_h05", "r_e") for name in (part, f"{part}_stderr")},
        },
        attrs=("n_parameters", "steps", "probes", "seed"),
        optional_attrs=(*OBJECTIVE, *COMMON, "matrix"),
    ),
    figures=function_at(f"{_SHOW}.groups:criteria"),
    answers=function_at(f"{_SHOW}.further_answers:of_criteria"),
    numbers=function_at(f"{_SHOW}.numbers:gabdullin"),
    theory=function_at(f"{_SHOW}.theory:of_criteria"),
)

POWER_ITERATION = Kind(
    name="power_iteration",
    title="Power iteration, the baseline",
    chapter=chapters.CURVATURE,
    verb=function_at("lossatlas.curvature.power:power_baseline"),
    help="Power iteration on the Hessian, on all examples or on another batch at each product: a baseline.",
    command="power",
    options=PowerOptions,
    schema=Schema(
        variables={"iteration": ("iteration",), "eigenvalue": ("iteration",)},
        attrs=("batches", "seed"),
        optional_attrs=(*OBJECTIVE, *COMMON, "matrix", "batch_size"),
    ),
    figures=function_at(f"{_SHOW}.groups:power"),
    answers=function_at(f"{_SHOW}.further_answers:of_power"),
    numbers=function_at(f"{_SHOW}.numbers:power_iteration"),
    theory=function_at(f"{_SHOW}.theory:of_power"),
)


class BatchOptions(Options):
    """The keywords of ``batch_eigenvalues``."""

    k: int = Field(1, ge=1, description="eigenvalues of each batch")
    which: Literal["largest", "smallest"] = Field("largest", description="the end of the spectrum")
    batch_size: int | None = Field(None, ge=1, description="cut the data anew, into batches of so many examples")
    batches: int | None = Field(None, ge=1, description="batches to take at most, drawn at random")
    tol: Tolerance = Field(1e-2, description="relative residual to reach")
    max_products: int | None = Field(None, ge=1, description="Hessian-vector products a search at most")
    max_memory: int | None = Field(None, ge=0, description="bytes to keep between products at most")
    seed: int = Field(0, ge=0, description="of the batches and the random vectors")


_MEANS = ("eigenvalue_mean", *(f"eigenvalue_mean_{part}" for part in ("stderr", "low", "high")))

BATCH_EIGENVALUES = Kind(
    name="batch_eigenvalues",
    title="Eigenvalues of batches",
    chapter=chapters.CURVATURE,
    verb=function_at("lossatlas.curvature.batches:batch_eigenvalues"),
    help="The extreme eigenvalues of each batch's own Hessian, beside those of all the data.",
    options=BatchOptions,
    schema=Schema(
        variables={
            "eigenvalue": ("batch", "rank"),
            "residual": ("batch", "rank"),
            "batch_examples": ("batch",),
            **dict.fromkeys(("rank", "eigenvalue_all", "residual_all", *_MEANS), ("rank",)),
            "eigenvalue_quantile": ("quantile", "rank"),
            "batch": ("batch",),
            "quantile": ("quantile",),
        },
        attrs=(*OBJECTIVE, "which", "batches", "batches_available", "tol", "converged", "products", "seed"),
        optional_attrs=(*COMMON, "batch_size"),
    ),
    figures=function_at(f"{_SHOW}.batches:figures"),
    numbers=function_at(f"{_SHOW}.batches:numbers"),
    claims=function_at(f"{_SHOW}.batches:claims"),
    answers=function_at(f"{_SHOW}.batches:answers"),
    theory=function_at(f"{_SHOW}.batches:theory"),
)

# The one that answers the chapter's question best comes first.
KINDS = (SPECTRUM, SPECTRAL_DENSITY, GAUSS_NEWTON_SPLIT, BATCH_EIGENVALUES, GABDULLIN, POWER_ITERATION)
