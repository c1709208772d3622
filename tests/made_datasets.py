"""Synthetic Datasets of every kind, from seeded numpy: what the measuring code returns, untrained."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

SHARED: dict[str, Any] = {
    "data": "fashion-mnist test, 10,000 examples",
    "model": "SimpleCNN",
    "n_parameters": 809_034,
    "n_examples": 10_000,
    "dtype": "float32",
    "batch_norm": "none in the model",
    "lossatlas": "0.1.0",
    "torch": "2.13.0",
    "model_fingerprint": "5f0c9a7be1d2",
    "data_fingerprint": "91be44a0c3aa",
    "stderr_over": "examples",
    "seconds": 12.5,
}


def attributes(kind: str, **own: Any) -> dict[str, Any]:
    return SHARED | {"kind": kind} | own


def without(dataset: xr.Dataset, *metrics: str) -> xr.Dataset:
    """The same Dataset without these variables and their errors."""
    gone = [str(name) for name in dataset.data_vars if str(name).startswith(metrics)]
    return dataset.drop_vars(gone)


def history(network: str = "A", seed: int = 1, epochs: int = 6, steps_per_epoch: int = 469) -> xr.Dataset:
    generator = np.random.default_rng(seed)
    step = np.arange(0, epochs * steps_per_epoch, 10)
    progress = step / steps_per_epoch
    epoch = np.arange(1, epochs + 1)
    train = 0.19 + 0.47 * np.exp(-0.75 * (epoch - 1)) + generator.normal(0, 0.004, epochs)
    test = 0.262 + 0.14 * np.exp(-0.8 * (epoch - 1)) + generator.normal(0, 0.004, epochs)
    train_accuracy, test_accuracy = 1 - 0.36 * train, 1 - 0.37 * test
    return xr.Dataset(
        {
            "loss": ("step", (0.2 + 1.9 * np.exp(-3 * progress)) * generator.gamma(12, 1 / 12, len(step))),
            "gradient_norm": ("step", (0.8 + np.exp(-2 * progress)) * generator.gamma(8, 1 / 8, len(step))),
            "learning_rate": ("step", np.full(len(step), 0.01)),
            "train_loss": ("epoch", train),
            "train_loss_stderr": ("epoch", np.full(epochs, 0.0019)),
            "train_accuracy": ("epoch", train_accuracy),
            "train_accuracy_stderr": ("epoch", np.sqrt(train_accuracy * (1 - train_accuracy) / 60_000)),
            "test_loss": ("epoch", test),
            "test_loss_stderr": ("epoch", np.full(epochs, 0.0052)),
            "test_accuracy": ("epoch", test_accuracy),
            "test_accuracy_stderr": ("epoch", np.sqrt(test_accuracy * (1 - test_accuracy) / 10_000)),
        },
        coords={"step": step, "epoch": epoch},
        attrs=attributes(
            "history",
            network=network,
            name=f"history_{network.lower()}",
            seed=seed,
            optimizer="SGD, lr 0.01, momentum 0.9",
            batch_size=128,
            epochs=epochs,
        ),
    )


def _bowl(network: str, *coordinates: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A loss surface with a minimum near the origin and a plateau with a ripple far from it."""
    stretch = 9.0 if network == "A" else 13.0
    skew = sum(c * (1 + 0.3 * k) for k, c in enumerate(coordinates))
    radius = sum(c**2 * (1 + 0.9 * k) for k, c in enumerate(coordinates))
    bowl: np.ndarray[Any, Any] = 0.27 + stretch * radius**1.3 * (1 + 0.25 * np.sin(3 * skew)) + 0.02 * skew**2
    return bowl


def _measured(loss: np.ndarray[Any, Any], n: int = 10_000) -> dict[str, np.ndarray[Any, Any]]:
    accuracy = np.clip(0.9 * np.exp(-0.35 * np.maximum(loss - 0.27, 0)) + 0.002, 0.1, 1)
    return {
        "loss": loss,
        "loss_stderr": 0.02 * loss**0.9,
        "accuracy": accuracy,
        "accuracy_stderr": np.sqrt(accuracy * (1 - accuracy) / n),
    }


def _slice(network: str, region: str, **own: Any) -> dict[str, Any]:
    return attributes(
        "surface",
        network=network,
        name=f"{region}_{network.lower()}",
        region=region,
        seed=0,
        normalisation="filter",
        one_d="zero",
        n_nonfinite=0,
        **own,
    )


def line(network: str = "A", steps: int = 51) -> xr.Dataset:
    alpha = np.linspace(-1, 1, steps)
    return xr.Dataset(
        {name: ("alpha", values) for name, values in _measured(_bowl(network, alpha)).items()},
        coords={"alpha": alpha},
        attrs=_slice(
            network,
            "line",
            direction_norms=[21.4],
            relative_norms=[0.998],
            n_evaluations=steps,
            directions="random",
        ),
    )


def plane(network: str = "A", steps: int = 25, nonfinite: bool = False) -> xr.Dataset:
    alpha, beta = np.linspace(-1, 1, steps), np.linspace(-1, 1, steps)
    loss = _bowl(network, *np.meshgrid(alpha, beta, indexing="ij"))
    if nonfinite:
        loss[-4:, -3:], loss[0, 0] = np.nan, np.inf
    dataset = xr.Dataset(
        {name: (("alpha", "beta"), values) for name, values in _measured(loss).items()},
        coords={"alpha": alpha, "beta": beta},
        attrs=_slice(
            network,
            "plane",
            direction_norms=[21.4, 21.4],
            relative_norms=[0.998, 0.998],
            cosine=1.2e-9,
            n_evaluations=steps**2,
            directions="random",
        ),
    )
    dataset.attrs["n_nonfinite"] = int((~np.isfinite(loss)).sum())
    return dataset


def principal_plane(network: str = "A", steps: int = 25) -> xr.Dataset:
    """The plane of the two principal components; `trajectory` ends at its origin."""
    alpha, beta = np.linspace(-3, 12, steps), np.linspace(-4.5, 3, steps - 4)
    a, b = np.meshgrid(alpha, beta, indexing="ij")
    loss = 0.27 + 0.012 * a**2 + 0.05 * b**2 + 0.002 * np.abs(a) ** 3 / 12
    dataset = xr.Dataset(
        {name: (("alpha", "beta"), values) for name, values in _measured(loss).items()},
        coords={"alpha": alpha, "beta": beta},
        attrs=_slice(
            network,
            "plane",
            direction_norms=[1.0, 1.0],
            relative_norms=[0.047, 0.047],
            cosine=0.0,
            n_evaluations=loss.size,
            directions="principal components",
        ),
    )
    dataset.attrs |= {"normalisation": "none", "name": f"principal_plane_{network.lower()}"}
    return dataset


def with_tolerance(dataset: xr.Dataset, tolerance: float = 0.01, every: int = 5, beyond: int = 1) -> xr.Dataset:
    """The same picture as if interpolated: nodes on every fifth pixel, 59 held-out pixels of which some surprise.

    The error map is 0 at the nodes and the held-out pixels, and 0.4 tolerances half-way between the nodes, times 6 in
    the corner where all coordinates are greatest.
    """
    dims = dataset["loss"].dims
    places = np.stack([index.ravel() for index in np.indices(dataset["loss"].shape)])
    node = (places % every == 0).all(axis=0)
    spread = np.prod([np.abs(np.sin(np.pi * axis / every)) + (axis % every == 0) for axis in places], axis=0)
    corner = (places > 0.8 * np.array(dataset["loss"].shape)[:, None]).all(axis=0)
    generator = np.random.default_rng(5)
    held_out = generator.choice(np.flatnonzero(~node), 59, replace=False)
    error = np.where(node, 0.0, 0.4 * tolerance * spread * np.where(corner, 6, 1))
    error[held_out] = 0
    chosen = np.concatenate([np.flatnonzero(node), held_out])
    surprise = np.concatenate([np.full(node.sum(), np.nan), np.linspace(0, 0.9, 59) * tolerance])
    surprise[len(surprise) - beyond :] = 1.5 * tolerance
    flat = {name: dataset[name].to_numpy().ravel()[chosen] for name in ("loss", "loss_stderr")}
    points = {f"evaluation_{dim}": dataset[dim].to_numpy()[places[k][chosen]] for k, dim in enumerate(dims)}
    points |= {f"evaluation_{name}": values for name, values in flat.items()}
    points |= {"evaluation_surprise": surprise, "evaluation_role": np.repeat(["node", "held-out"], [node.sum(), 59])}
    return dataset.assign(
        {"loss_error": (dims, error.reshape(dataset["loss"].shape))}
        | {name: ("evaluation", values) for name, values in points.items()}
    ).assign_attrs(
        method="polyharmonic spline of log loss",
        tolerance=tolerance,
        coverage=0.95,
        confidence=0.95,
        coverage_bound=0.9222 if beyond == 1 else 0.9505,
        held_out=59,
        held_out_beyond=beyond,
        error_estimate=float(error.max()),
        data_error=0.031,
        n_evaluations=len(chosen),
        note="The tolerance of 1 % is below the data's own error of 3.1 %.",
    )


def volume(network: str = "A", steps: int = 15, nonfinite: bool = False) -> xr.Dataset:
    axes = {name: np.linspace(-1, 1, steps + 2 * k) for k, name in enumerate(("alpha", "beta", "gamma"))}
    loss = _bowl(network, *np.meshgrid(*axes.values(), indexing="ij"))
    if nonfinite:
        loss[-4:, -3:, -3:], loss[steps // 2, 0, 0] = np.nan, np.inf
    return xr.Dataset(
        {name: (tuple(axes), values) for name, values in _measured(loss).items()},
        coords=axes,
        attrs=_slice(
            network,
            "volume",
            direction_norms=[21.4] * 3,
            relative_norms=[0.998] * 3,
            n_evaluations=loss.size,
            directions="random",
        ),
    )


def polar(network: str = "A", rings: int = 21, spokes: int = 48) -> xr.Dataset:
    """The plane of `plane` in polar coordinates; the angle stops short of a whole turn."""
    radius, angle = np.linspace(0, 1, rings), np.linspace(0, 2 * np.pi, spokes, endpoint=False)
    loss = _bowl(network, np.outer(radius, np.cos(angle)), np.outer(radius, np.sin(angle)))
    return xr.Dataset(
        {name: (("radius", "angle"), values) for name, values in _measured(loss).items()},
        coords={"radius": radius, "angle": angle},
        attrs=_slice(
            network,
            "polar",
            direction_norms=[21.4, 21.4],
            relative_norms=[0.998, 0.998],
            cosine=0.0,
            n_evaluations=loss.size,
            directions="random",
        ),
    )


def several(dataset: xr.Dataset, planes: int = 5) -> xr.Dataset:
    """This region several times over: at its centre all agree, elsewhere plane k has (1 + 0.2 k r) times the loss."""
    radius = np.sqrt(sum(dataset[dim] ** 2 for dim in dataset["loss"].dims))
    each = [dataset.map(lambda v, f=1 + 0.2 * k * radius: v * f, keep_attrs=True) for k in range(planes)]
    stacked = xr.concat(each, dim=xr.DataArray(np.arange(planes), dims="plane", name="plane"))
    if "accuracy" in stacked:
        stacked["accuracy"] = stacked["accuracy"].clip(0, 0.9)
    loss = stacked["loss"].where(np.isfinite(stacked["loss"]))
    mean, spread = loss.mean("plane", skipna=False), loss.std("plane", ddof=min(1, planes - 1), skipna=False)
    own = dataset.attrs | {"n_evaluations": loss.size}
    return stacked.assign(loss_mean=mean, loss_spread=spread).assign_attrs(own)


def with_quadratic(dataset: xr.Dataset) -> xr.Dataset:
    """With the quadratic model 0.27 + 6 alpha^2 + 3 beta^2 + 2 gamma^2, on axes named as the Hessian's."""
    weights = {"alpha": 6, "beta": 3, "gamma": 2}
    model = sum(weights[str(dim)] * dataset[dim] ** 2 for dim in dataset["loss"].dims) + 0.27
    return dataset.assign(quadratic=model).assign_attrs(directions="eigenvectors of the Hessian", normalisation="none")


def log_spaced(network: str = "A", decades: int = 3, per_decade: int = 6) -> xr.Dataset:
    """A plane with alpha logarithmic on both sides of 0 and beta logarithmic above it."""
    positive = np.geomspace(10.0**-decades, 1, per_decade * decades + 1)
    alpha, beta = np.concatenate([-positive[::-1], [0], positive]), positive
    loss = _bowl(network, *np.meshgrid(alpha, beta, indexing="ij"))
    return xr.Dataset(
        {name: (("alpha", "beta"), values) for name, values in _measured(loss).items()},
        coords={"alpha": alpha, "beta": beta},
        attrs=_slice(network, "plane", n_evaluations=loss.size, directions="random", cosine=0.0),
    )


def with_classes(dataset: xr.Dataset, classes: int = 10) -> xr.Dataset:
    """The loss of class k is (0.55 + 0.1 k) times the loss, so that the mean over ten classes is the loss."""
    factor = xr.DataArray(0.55 + 0.1 * np.arange(classes), dims="class", coords={"class": np.arange(classes)})
    return dataset.assign(class_loss=dataset["loss"] * factor)


def trajectory(network: str = "A", snapshots: int = 29, losses: bool = True) -> xr.Dataset:
    generator = np.random.default_rng(3)
    rest = np.linspace(1, 0, snapshots)
    alpha, beta = 10.5 * rest**1.6, -3.9 * np.sin(np.pi * rest) * rest**0.3
    off_plane = 2.4 * np.sin(2 * np.pi * rest) ** 2 * (0.4 + rest)
    plane_loss = 0.27 + 0.012 * alpha**2 + 0.05 * beta**2 + 0.002 * np.abs(alpha) ** 3 / 12
    k = np.arange(1, 11)
    walk = 1 / np.sin(np.pi * k / (2 * snapshots)) ** 2
    everything = (1 / np.sin(np.pi * np.arange(1, snapshots) / (2 * snapshots)) ** 2).sum()
    explained = np.array([0.831, 0.094, 0.031, 0.014, 0.008, 0.005, 0.004, 0.003, 0.002, 0.002])
    variables = {
        "explained_variance_ratio": ("component", explained),
        "random_walk_ratio": ("component", walk / everything),
        "step": ("snapshot", np.arange(snapshots) * 100),
        "alpha": ("snapshot", alpha),
        "beta": ("snapshot", beta),
        "off_plane_distance": ("snapshot", off_plane),
        "distance": ("snapshot", np.sqrt(alpha**2 + beta**2 + off_plane**2)),
        "sign_flip_two": ("draw", generator.normal(0.76, 0.035, 200).clip(0.5, 0.95)),
    }
    if losses:
        variables["plane_loss"] = ("snapshot", plane_loss)
        variables["loss"] = ("snapshot", plane_loss * (1 - 0.04 * off_plane))
    return xr.Dataset(
        variables,
        coords={"component": k},
        attrs=attributes(
            "trajectory",
            network=network,
            name=f"trajectory_{network.lower()}",
            n_snapshots=snapshots,
            center="last",
        ),
    )


def spectrum(network: str = "A", negative: bool = True, stderr: bool = True) -> xr.Dataset:
    generator = np.random.default_rng(11 if network == "A" else 12)
    largest = 13.1 if network == "A" else 15.8
    top = largest * np.array([1, 0.71, 0.58, 0.46, 0.39, 0.33, 0.27, 0.24, 0.2, 0.17])
    bottom = np.array([-0.41, -0.33, -0.27, -0.22, -0.2, -0.17, -0.15, -0.13, -0.12, -0.11])
    values = np.stack([top, bottom if negative else np.linspace(1e-3, 2e-3, 10)])
    dataset = xr.Dataset(
        {
            "eigenvalue": (("end", "rank"), values),
            "residual": (("end", "rank"), np.abs(values) * generator.uniform(1e-4, 9e-4, values.shape)),
            "eigenvalue_stderr": (("end", "rank"), 0.046 * np.abs(values)),
        },
        coords={"end": ["top", "bottom"], "rank": np.arange(1, 11)},
        attrs=attributes(
            "spectrum",
            network=network,
            name=f"spectrum_{network.lower()}",
            products=57,
            tol=1e-3,
            converged=1,
        ),
    )
    return dataset if stderr else dataset.drop_vars("eigenvalue_stderr")


STEPS, PROBES, N = 40, 4, 809_034


def _bulk(network: str, size: int = 1500) -> np.ndarray[Any, Any]:
    """Eigenvalues between the ends: both signs over seven decades, a third of them exactly 0."""
    generator = np.random.default_rng(31 if network == "A" else 32)
    magnitude = 0.1 * 10 ** -np.abs(generator.normal(0, 2.2, size))
    return magnitude * generator.choice([-1.0, 0.0, 1.0], size, p=[0.25, 0.33, 0.42])


def _quadrature(eigenvalues: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Nodes and weights (probe, step) of Gauss quadrature, from Lanczos on the diagonal matrix of these eigenvalues."""
    nodes, weights = np.empty((PROBES, STEPS)), np.empty((PROBES, STEPS))
    for probe in range(PROBES):
        basis = [np.random.default_rng(probe).normal(size=len(eigenvalues))]
        basis[0] /= np.linalg.norm(basis[0])
        for _ in range(STEPS - 1):
            rest = eigenvalues * basis[-1]
            for _ in range(2):
                rest -= np.array(basis).T @ (np.array(basis) @ rest)
            basis.append(rest / np.linalg.norm(rest))
        krylov = np.array(basis)
        nodes[probe], vectors = np.linalg.eigh(krylov @ (eigenvalues[:, None] * krylov.T))
        weights[probe] = vectors[0] ** 2
    return nodes, weights


def _over_probes(draws: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    return draws.mean(0), draws.std(0, ddof=1) / np.sqrt(len(draws))


def density(network: str = "A", atoms: np.ndarray[Any, Any] | None = None) -> xr.Dataset:
    """A spectral density by stochastic Lanczos quadrature; `atoms` are the eigenvalues known beside it."""
    known = np.array([]) if atoms is None else atoms
    node, weight = _quadrature(_bulk(network))
    smoothing = 0.02
    grid = np.linspace(min(node.min(), *known, 0) - 0.2, max(node.max(), *known, 0) + 0.2, 1001)

    def smoothed(at: np.ndarray[Any, Any], mass: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        kernel = np.exp(-((grid[:, None] - at) ** 2) / (2 * smoothing**2)) / (smoothing * np.sqrt(2 * np.pi))
        total: np.ndarray[Any, Any] = kernel @ mass
        return total / np.trapezoid(total, grid)

    every = [
        (np.concatenate([n, known]), np.concatenate([w, np.full(len(known), 1 / N)]))
        for n, w in zip(node, weight, strict=True)
    ]
    inner, reach = np.sort(np.abs(node), axis=1)[:, :2].mean(), np.abs([*node.ravel(), *known]).max() * 1.001
    magnitudes = np.geomspace(inner, reach, 2 + int(5 * np.log10(reach / inner)))
    edges = np.concatenate([-magnitudes[::-1], magnitudes])
    curve, curve_stderr = _over_probes(np.array([smoothed(*pair) for pair in every]))
    shares, shares_stderr = _over_probes(np.array([np.histogram(at, edges, weights=mass)[0] for at, mass in every]))
    negative, negative_stderr = _over_probes((weight * (node < 0)).sum(1))
    trace, trace_stderr = _over_probes(N * (weight * node).sum(1))
    return xr.Dataset(
        {
            "density": ("lambda", curve),
            "density_stderr": ("lambda", curve_stderr),
            "histogram": ("bin", shares),
            "histogram_stderr": ("bin", shares_stderr),
            "histogram_low": ("bin", np.clip(shares - 3.2 * shares_stderr, 0, 1)),
            "histogram_high": ("bin", shares + 3.2 * shares_stderr),
            "bin_left": ("bin", edges[:-1]),
            "bin_right": ("bin", edges[1:]),
            "node": (("probe", "step"), node),
            "weight": (("probe", "step"), weight),
            "negative_mass": negative,
            "negative_mass_low": negative - 3.2 * negative_stderr,
            "negative_mass_high": negative + 3.2 * negative_stderr,
            "trace": trace,
            "trace_stderr": trace_stderr,
            "frobenius_norm": 21.4,
            "frobenius_norm_stderr": 0.3,
        },
        coords={"lambda": grid, "probe": np.arange(PROBES), "step": np.arange(1, STEPS + 1)},
        attrs=attributes(
            "spectral_density",
            network=network,
            name=f"spectral_density_{network.lower()}",
            steps=STEPS,
            probes=PROBES,
            smoothing=smoothing,
            products=STEPS * PROBES,
            trace_method="estimate: Hutch++",
            route="linearised gradient",
            seed=0,
        ),
    )


def whole_spectrum(network: str = "A", *, trend: bool = True, layers: bool = False, outliers: int = 9) -> xr.Dataset:
    """Both ends, the density, the scalars; where asked for the subsets' largest eigenvalue and the layers."""
    ends = spectrum(network)
    for name in ("eigenvalue", "eigenvalue_stderr"):
        ends[name][0, outliers:] *= 0.3
    eigenvalues = ends["eigenvalue"].to_numpy()
    gaps = -np.diff(eigenvalues[0])
    whole = ends.merge(density(network, eigenvalues.ravel()), combine_attrs="override").assign(
        trace=131.5,
        trace_stderr=0.0,
        effective_rank=38.2,
        effective_rank_stderr=1.3,
        largest_gap=gaps.max(),
        largest_gap_rank=int(gaps.argmax()) + 1,
    )
    whole = whole if not trend else whole.assign(_trend(eigenvalues[0, 0])).assign_coords(n_examples=SUBSETS)
    whole = whole if not layers else _with_layers(whole)
    return whole.assign_attrs(
        products=57 + 320 + 10 + 120,
        products_eigenpairs=57,
        products_density=320,
        products_trace=10,
        products_errors=0,
        products_trend=120,
        steps=STEPS,
        probes=PROBES,
        smoothing=0.02,
        seed=0,
        trace_method="exact: trace of the Gauss-Newton matrix of a piecewise linear network",
        route="linearised gradient",
        stderr_over="batches",
    )


SUBSETS = np.array([64, 256, 1024, 4096])


def _trend(limit: float) -> dict[str, Any]:
    """Eight subsets of 64 to two of 4,096 examples: biased by 9 / sqrt(n), scattered by 2.5 / sqrt(n)."""
    scatter = np.random.default_rng(41).normal(0, 2.5, (len(SUBSETS), 8))
    values = limit * (1 + (9 + scatter) / np.sqrt(SUBSETS)[:, None])
    values[np.arange(8) >= np.array([8, 8, 4, 2])[:, None]] = np.nan
    stderr = 0.046 * values * np.sqrt(N_EXAMPLES / SUBSETS)[:, None]
    dims = ("n_examples", "replicate")
    return {"trend_eigenvalue": (dims, values), "trend_eigenvalue_stderr": (dims, stderr)}


N_EXAMPLES = 10_000
LAYERS = {"conv1": 320, "conv2": 18_496, "features.block.3.downsample": 1_179_776, "fc1": 802_944, "fc2": 1_290}


def _with_layers(whole: xr.Dataset) -> xr.Dataset:
    largest = np.array([9.6, 5.2, 1.1, 3.0, 7.8])[:, None] * np.array([1.0, 0.6, 0.4])
    smallest = np.array([-0.3, -0.2, -0.01, -0.1, 0.001])[:, None] * np.array([1.0, 0.7, 0.5])
    values = np.stack([largest, smallest], axis=1)
    dims = ("layer", "end", "rank")
    padded = np.pad(values, ((0, 0), (0, 0), (0, whole.sizes["rank"] - 3)), constant_values=np.nan)
    return whole.assign(
        layer_eigenvalue=(dims, padded),
        layer_residual=(dims, 4e-4 * np.abs(padded)),
        layer_trace=("layer", np.array([31.0, 40.2, 8.1, 22.9, 29.3])),
        layer_trace_stderr=("layer", np.array([0.0, 0.6, 0.9, 0.5, 0.2])),
        layer_size=("layer", np.array(list(LAYERS.values()))),
    ).assign_coords(layer=list(LAYERS))


def gabdullin(network: str = "A") -> xr.Dataset:
    """The criteria from 5 to 40 steps: the one with exponent 1 settles, the one with 0.5 goes on growing."""
    step = np.arange(5, STEPS + 1)
    larger = 1.0 if network == "A" else 1.3
    settled = larger * (0.031 + 0.02 * np.exp(-step / 6))
    return xr.Dataset(
        {
            "k_h1": ("step", settled),
            "k_h1_stderr": ("step", 0.1 * settled),
            "k_h05": ("step", 0.02 * larger * step**0.45),
            "k_h05_stderr": ("step", 0.002 * step**0.45),
            "r_e": ("step", 0.0313 / larger * (1 - np.exp(-step / 5))),
            "r_e_stderr": ("step", 0.002 * np.exp(-step / 10)),
        },
        coords={"step": step},
        attrs=attributes(
            "gabdullin", network=network, name=f"gabdullin_{network.lower()}", steps=STEPS, probes=PROBES, seed=0
        ),
    )


def gauss_newton_split(network: str = "A") -> xr.Dataset:
    hessian = spectrum(network)["eigenvalue"].to_numpy()[0]
    return xr.Dataset(
        {
            "trace_hessian": 131.5,
            "trace_hessian_stderr": 0.0,
            "trace_gauss_newton": 131.5,
            "trace_gauss_newton_stderr": 0.0,
            "trace_residual": 0.02,
            "trace_residual_stderr": 0.4,
            "frobenius_hessian": 21.4,
            "frobenius_hessian_stderr": 0.3,
            "frobenius_gauss_newton": 20.9,
            "frobenius_gauss_newton_stderr": 0.3,
            "frobenius_residual": 4.8,
            "frobenius_residual_stderr": 0.2,
            "cosine": 0.974,
            "cosine_stderr": 0.004,
            "curvature_hessian": ("rank", hessian),
            "curvature_gauss_newton": ("rank", hessian * np.linspace(0.99, 0.9, len(hessian))),
        },
        coords={"rank": np.arange(1, len(hessian) + 1)},
        attrs=attributes(
            "gauss_newton_split",
            network=network,
            name=f"gauss_newton_split_{network.lower()}",
            products=96,
            probes=32,
            seed=0,
        ),
    )


def power_iteration(network: str = "A", batches: str = "changing") -> xr.Dataset:
    generator = np.random.default_rng(7)
    iteration = np.arange(1, 16)
    limit = 13.1 if network == "A" else 15.8
    values = limit * (1 - 0.35 * np.exp(-0.9 * iteration))
    if batches == "changing":
        values = values * 1.17 * generator.lognormal(0, 0.13, len(iteration))
    return xr.Dataset(
        {"eigenvalue": ("iteration", values)},
        coords={"iteration": iteration},
        attrs=attributes(
            "power_iteration",
            network=network,
            name=f"power_{batches}_{network.lower()}",
            batches=batches,
            batch_size=256,
        ),
    )


def barrier(split: str = "test", height: float = 1.5) -> xr.Dataset:
    t = np.linspace(0, 1, 21)
    n, low = (10_000, 0.27) if split == "test" else (60_000, 0.19)
    loss = low + 0.01 * t + height * np.sin(np.pi * t) ** 2
    accuracy = 0.9 - 0.45 * np.sin(np.pi * t) ** 2 * min(height, 1.5) / 1.5
    accuracy_stderr = np.sqrt(accuracy * (1 - accuracy) / n)
    top = int((loss - (loss[0] + t * (loss[-1] - loss[0]))).argmax())
    return xr.Dataset(
        {
            "loss": ("t", loss),
            "loss_stderr": ("t", 1.1 * loss / np.sqrt(n)),
            "accuracy": ("t", accuracy),
            "accuracy_stderr": ("t", accuracy_stderr),
            "error": ("t", 1 - accuracy),
            "barrier": loss[top] - (low + 0.01 * t[top]),
            "barrier_stderr": 1.2 * loss[top] / np.sqrt(n),
            "t_max": t[top],
            "barrier_error": 0.9 - accuracy[top],
            "barrier_error_stderr": accuracy_stderr[top],
            "t_max_error": t[top],
        },
        coords={"t": t},
        attrs=attributes(
            "barrier",
            name=f"barrier_{split}",
            definition="entezari",
            curve="Segment",
            data=f"fashion-mnist {split}, {n:,} examples",
            n_examples=n,
        ),
    )


def robustness(network: str = "A", relative: str = "none", draws: int = 5, fall: float = 1.0) -> xr.Dataset:
    generator = np.random.default_rng(21 if network == "A" else 22)
    sigma = np.array([0, 0.01, 0.02, 0.05, 0.1])
    steepness = fall * (1.0 if network == "A" else 1.3)
    loss = 0.2708 + steepness * (60 * sigma**2 + 3.5e4 * sigma**4)
    accuracy = np.clip(0.8996 - steepness * (8 * sigma**1.6 + 300 * sigma**3), 0.1, 1)
    spread = sigma[:, None] * generator.normal(0, 1, (len(sigma), draws))
    loss_draws, accuracy_draws = (
        loss[:, None] * np.exp(2.5 * spread),
        np.clip(accuracy[:, None] - 0.8 * spread, 0.05, 1),
    )
    return xr.Dataset(
        {
            "loss": ("sigma", loss_draws.mean(1)),
            "loss_stderr": ("sigma", np.hypot(loss_draws.std(1, ddof=1) / np.sqrt(draws), 0.005)),
            "accuracy": ("sigma", accuracy_draws.mean(1)),
            "accuracy_stderr": ("sigma", np.hypot(accuracy_draws.std(1, ddof=1) / np.sqrt(draws), 0.003)),
            "loss_draws": (("sigma", "draw"), loss_draws),
            "accuracy_draws": (("sigma", "draw"), accuracy_draws),
        },
        coords={"sigma": sigma, "draw": np.arange(draws)},
        attrs=attributes(
            "robustness",
            network=network,
            name=f"robustness_{relative}_{network.lower()}",
            relative=relative,
            draws=draws,
            seed=0,
        ),
    )


def comparison() -> xr.Dataset:
    rows = [
        ("test accuracy, network A", 0.8996, 0.9012, 0.003, "another seed of the random numbers"),
        (
            "largest Hessian eigenvalue, network A",
            13.0,
            13.1,
            0.6,
            "15 power iterations, changing batches there",
        ),
        ("barrier of the test loss", 1.6, 1.5, 0.02, "5 batches there, all examples here"),
        ("accuracy at weight noise 0.1", 0.38, 0.399, float("nan"), "one draw there; no error was given"),
    ]
    quantity, published, ours, stderr, reason = zip(*rows, strict=True)
    return xr.Dataset(
        {
            "published": ("quantity", list(published)),
            "ours": ("quantity", list(ours)),
            "ours_stderr": ("quantity", list(stderr)),
            "reason": ("quantity", list(reason)),
        },
        coords={"quantity": list(quantity)},
        attrs=attributes("comparison", source="a published report", title="Published numbers beside ours"),
    )


def study() -> list[xr.Dataset]:
    """What a whole study of two networks hands over."""
    both = [
        make(network)
        for network in "AB"
        for make in (line, plane, principal_plane, trajectory, whole_spectrum, power_iteration, robustness)
    ]
    return [
        history("A", 1),
        history("B", 2),
        *both,
        power_iteration("A", "fixed"),
        robustness("A", "filter"),
        robustness("B", "filter"),
        barrier("train"),
        barrier("test"),
        *(make(network) for network in "AB" for make in (density, gabdullin, gauss_newton_split)),
        comparison(),
    ]


WAYS = {  # name on plots: type of the curve, height of the loss and of the error, place, length ratio
    "line": ("Segment", 1.52, 0.46, 0.47, 1.0),
    "line after alignment": ("Segment", 0.071, 0.021, 0.55, 1.0),
    "Bezier curve": ("Bezier", 0.012, 0.003, 0.31, 1.24),
}
DEFINITIONS = ["entezari", "frankle", "draxler"]


def way(name: str = "line", split: str = "test") -> xr.Dataset:
    """A profile refined about its maximum, with bootstrap intervals: t is not equally spaced."""
    curve, height, error_height, place, length_ratio = WAYS[name]
    n, first, last, error = (10_000, 0.272, 0.281, 0.101) if split == "test" else (60_000, 0.190, 0.197, 0.068)
    t = np.unique(np.concatenate([np.linspace(0, 1, 25), place + np.array([-0.02, -0.01, -0.005, 0, 0.005, 0.01])]))
    shape = np.where(t < place, np.sin(np.pi / 2 * t / place), np.sin(np.pi / 2 * (1 - t) / (1 - place))) ** 2
    loss = first + (last - first) * t + height * shape
    errors = error + error_height * shape
    stderr, error_stderr = 1.1 * loss / np.sqrt(n), np.sqrt(errors * (1 - errors) / n)
    ends = {"entezari": first + (last - first) * place, "frankle": (first + last) / 2, "draxler": max(first, last)}
    heights = np.array([loss.max() - end for end in ends.values()])
    half, error_half = 1.96 * 1.2 * loss.max() / np.sqrt(n), 1.96 * float(error_stderr.max())
    interval = {"low": -1.0, "high": 1.0}
    variables: dict[str, Any] = {
        "loss": ("t", loss),
        "loss_stderr": ("t", stderr),
        "accuracy": ("t", 1 - errors),
        "accuracy_stderr": ("t", error_stderr),
        "error": ("t", errors),
        "error_stderr": ("t", error_stderr),
        "barrier": heights[0],
        "barrier_stderr": half / 1.96,
        "t_max": place,
        "barrier_error": error_height,
        "barrier_error_stderr": error_half / 1.96,
        "t_max_error": place,
        "height": ("definition", heights),
        "height_error": ("definition", np.full(3, error_height)),
        "highest_loss": loss.max(),
        "highest_loss_stderr": float(stderr.max()),
        "length_ratio": length_ratio,
    }
    for end, sign in interval.items():
        variables |= {
            f"barrier_{end}": heights[0] + sign * half,
            f"barrier_error_{end}": error_height + sign * error_half,
            f"t_max_{end}": place + sign * 0.012,
            f"t_max_error_{end}": place + sign * 0.015,
            f"height_{end}": ("definition", heights + sign * half),
            f"height_error_{end}": ("definition", np.full(3, error_height + sign * error_half)),
        }
    connected = error_height + error_half < 0.02
    found = "linearly connected" if curve == "Segment" else "connected by a curve"
    bounds = f"[{error_height - error_half:.4f}, {error_height + error_half:.4f}]"
    return xr.Dataset(
        variables,
        coords={"t": t, "definition": DEFINITIONS},
        attrs=attributes(
            "barrier",
            name=f"barrier_{name.replace(' ', '_').lower()}_{split}",
            definition="entezari",
            curve=curve,
            way=name,
            draws=1000,
            seed=0,
            tol=0.01,
            t_tol=0.01,
            height_resolution=0.004,
            t_resolution=0.005,
            refined="yes",
            verdict=found if connected else "not shown connected",
            verdict_statistic=f"error barrier of Frankle et al. {error_height:.4f}, 95 % interval {bounds}, "
            "threshold 0.02",
            threshold=0.02,
            data=f"fashion-mnist {split}, {n:,} examples",
            n_examples=n,
        ),
    )


def ways(*splits: str) -> list[xr.Dataset]:
    """The line, the line after alignment and the curve, each on the training and on the test data."""
    return [way(name, split) for split in splits or ("train", "test") for name in WAYS]


def connection(epochs: int = 8, steps_per_epoch: int = 469) -> xr.Dataset:
    """The training of a Bezier curve; near its middle the loss stays a little higher."""
    generator = np.random.default_rng(51)
    n = epochs * steps_per_epoch
    progress, t = np.arange(n) / steps_per_epoch, generator.uniform(0, 1, n)
    hill = 0.02 + 0.9 * np.exp(-1.2 * progress)
    loss = (0.2 + hill * 4 * t * (1 - t)) * generator.gamma(25, 1 / 25, n)
    return xr.Dataset(
        {
            "loss": ("step", loss),
            "t_drawn": ("step", t),
            "learning_rate": ("step", 0.015 * (1 + np.cos(np.pi * np.arange(n) / n))),
            "epoch_loss": ("epoch", loss.reshape(epochs, steps_per_epoch).mean(1)),
        },
        coords={"step": np.arange(n), "epoch": np.arange(1, epochs + 1)},
        attrs=attributes(
            "connection",
            name="connection",
            curve="Bezier",
            way="Bezier curve",
            bends=1,
            epochs=epochs,
            batch_size=128,
            learning_rate=0.03,
            momentum=0.9,
            optimizer="SGD",
            seed=0,
            data="fashion-mnist train, 60,000 examples",
            n_examples=60_000,
        ),
    )


def alignment(groups: int = 4) -> xr.Dataset:
    """Four groups of units of a small CNN, or the many of a deep residual network."""
    named = {"conv1": 32, "conv2": 64, "fc1": 128, "fc2": 64}
    if groups != 4:
        named = {f"layer{1 + k // 12}.{k % 12}.conv{1 + k % 2}": 16 * 2 ** (k // 12) for k in range(groups)}
    generator = np.random.default_rng(61)
    before = generator.normal(0.05, 0.02, groups)
    return xr.Dataset(
        {
            "size": ("group", list(named.values())),
            "moved": ("group", np.clip(generator.normal(0.96, 0.04, groups), 0, 1)),
            "cosine_before": ("group", before),
            "cosine_after": ("group", before + generator.uniform(0.15, 0.55, groups)),
            "deviation": 3.1e-7,
            "similarity_before": 0.061,
            "similarity_after": 0.402,
            "distance_before": 32.7,
            "distance_after": 25.9,
        },
        coords={"group": list(named)},
        attrs=attributes(
            "alignment",
            name="alignment",
            method="weights",
            start="activations",
            starts="identity 0.371; activations 0.402; random 0.388",
            sweeps=7,
            assignments=28,
            seconds=1.4,
            seconds_assignment=0.6,
            pinned="",
            seed=0,
        ),
    )


def instability(pairs: int = 2, error: bool = True) -> xr.Dataset:
    """Two pairs of runs from each of five shared prefixes: the later the split, the lower the barrier."""
    k = np.array([0, 20, 100, 500, 1000])
    fall = np.exp(-k / 130)[:, None] * (1 + 0.15 * np.arange(pairs))
    dims, variables = ("k", "pair"), {"barrier": 0.004 + 1.3 * fall, "barrier_error": 0.002 + 0.4 * fall}
    if not error:
        del variables["barrier_error"]
    low = {f"{name}_low": 0.9 * value - 0.002 for name, value in variables.items()}
    high = {f"{name}_high": 1.1 * value + 0.004 for name, value in variables.items()}
    every = variables | low | high | ({"end_error": np.full(fall.shape, 0.112)} if error else {})
    return xr.Dataset(
        {name: (dims, value) for name, value in every.items()},
        coords={"k": k, "pair": np.arange(pairs)},
        attrs=attributes(
            "instability", name="instability", total_steps=2345, definition="frankle", threshold=0.02, draws=1000
        ),
    )


def plane_of_ways(steps: int = 31, aligned: bool = True) -> xr.Dataset:
    """The plane through two networks and the bend of the curve between them, with the ways drawn on it."""
    alpha, beta = np.linspace(-6, 36, steps), np.linspace(-5, 24, steps - 6)
    a, b = np.meshgrid(alpha, beta, indexing="ij")
    valley = 0.012 * (b - 20 * np.sin(np.pi * np.clip(a, 0, 30) / 30) * 0.55) ** 2
    loss = 0.19 + valley + 0.01 * np.maximum(np.abs(a - 15) - 15, 0) ** 2
    t = np.linspace(0, 1, 51)
    roads = {"line": (30 * t, 0 * t, 0 * t), "Bezier curve": (30 * t, 44 * t * (1 - t), 0 * t)}
    marks = {"first network": (0, 0), "second network": (30, 0), "bend": (15, 22)}
    if aligned:
        roads["line after alignment"] = (21 * t, 3.0 * t, 12.5 * t)
        marks["second network, aligned"] = (21, 3)
    table = np.array(list(roads.values())).transpose(1, 0, 2)
    return xr.Dataset(
        {name: (("alpha", "beta"), values) for name, values in _measured(loss, 60_000).items()}
        | {f"way_{quantity}": (("way", "t_way"), table[k]) for k, quantity in enumerate(("alpha", "beta", "off_plane"))}
        | {
            f"mark_{axis}": ("mark", [float(at[k]) for at in marks.values()])
            for k, axis in enumerate(("alpha", "beta"))
        },
        coords={"alpha": alpha, "beta": beta, "way": list(roads), "t_way": t, "mark": list(marks)},
        attrs=_slice(
            "A",
            "plane",
            direction_norms=[1.0, 1.0],
            cosine=0.0,
            n_evaluations=loss.size,
            directions="through three points",
        )
        | {"normalisation": "none", "name": "connectivity_plane", "data": "fashion-mnist train, 60,000 examples"},
    )


def connectivity() -> list[xr.Dataset]:
    """What a study of the way between two networks hands over."""
    return [alignment(), connection(), *ways(), plane_of_ways(), instability()]
