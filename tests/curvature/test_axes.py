"""The plane of the extreme eigenvectors: undistorted, through the point, its quadratic model exact for a quadratic."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import xarray as xr
from oracles.quadratic import quadratic, symmetric

import lossatlas as la
from lossatlas.curvature.axes import eigen_plane
from lossatlas.errors import InputError

EIGENVALUES = [8.0, 3.0, 1.0, 0.25, -0.5]


@pytest.fixture(scope="module")
def saddle():
    """A quadratic saddle seen from a point with a slope."""
    matrix, q = symmetric(EIGENVALUES)
    w = torch.linspace(-1, 1, 5, dtype=torch.float64)
    o = quadratic(matrix, torch.zeros(3, 5, dtype=torch.float64), w)
    return o, q, la.spectrum(o, 2, tol=1e-10, vectors=True)


def test_the_axes_are_the_extreme_eigenvectors_at_the_point(saddle):
    o, q, spectrum = saddle
    region = eigen_plane(spectrum, steps=(7, 4))
    assert region.shape == (7, 4)
    assert torch.equal(region.center, o.point)
    torch.testing.assert_close((region.directions @ q[:, [0, 4]]).abs(), torch.eye(2).double(), rtol=0, atol=1e-6)
    assert region.curvatures == pytest.approx((8.0, -0.5), rel=1e-9)


def test_an_axis_reaches_to_where_the_curvature_has_changed_the_loss_by_the_rise(saddle):
    for rise in (1.0, 0.04):
        region = eigen_plane(saddle[2], rise=rise)
        for axis, value in zip(region.coordinates, (8.0, -0.5), strict=True):
            assert abs(value) * axis[-1] ** 2 / 2 == pytest.approx(rise, rel=1e-9)
            assert axis[0] == -axis[-1]
            assert axis[25] == 0
    given = eigen_plane(saddle[2], span=(-1.0, 2.0), steps=2)
    np.testing.assert_array_equal(given.coordinates, [[-1, 2], [-1, 2]])


def test_the_quadratic_model_of_a_quadratic_is_the_loss(saddle):
    o, _, spectrum = saddle
    region = eigen_plane(spectrum, rise=2.0, steps=(5, 4))
    assert max(map(abs, region.slopes)) > 0.1
    for index in region.indices():
        coordinates = [axis[i] for axis, i in zip(region.coordinates, index, strict=True)]
        model = spectrum.attrs["loss"] + region.quadratic_rise(*coordinates)
        assert model == pytest.approx(o.value(region.point(*index)), abs=1e-5)


def test_the_error_of_the_quadratic_model_of_a_network_shrinks_with_the_cube_of_the_distance():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).double()
        data = torch.randn(20, 4).double(), torch.randint(3, (20,))
    o = la.Objective(model, F.cross_entropy, data)
    spectrum = la.spectrum(o, 1, tol=1e-10, vectors=True)
    region = eigen_plane(spectrum, rise=1.0)
    errors = []
    for distance in (0.1, 0.05):
        along = (0.6 * distance, 0.8 * distance)
        errors.append(abs(spectrum.attrs["loss"] + region.quadratic_rise(*along) - o.value(region.at(*along))))
    assert errors[0] / errors[1] == pytest.approx(8, rel=0.2)


def test_a_spectrum_read_from_a_file_gives_the_same_plane(saddle, tmp_path):
    _, _, spectrum = saddle
    spectrum.to_netcdf(tmp_path / "spectrum.nc", engine="netcdf4")
    with xr.open_dataset(tmp_path / "spectrum.nc", engine="netcdf4") as back:
        assert eigen_plane(back).fingerprint() == eigen_plane(spectrum).fingerprint()
        assert eigen_plane(back).curvatures == eigen_plane(spectrum).curvatures


def test_the_plane_names_its_spectrum_and_network(saddle):
    _, _, spectrum = saddle
    named = spectrum.assign_attrs(id="0123456789abcdef", network="A")
    found = eigen_plane(named, steps=3).zoom(0.1).provenance()
    assert {"directions": "Hessian axes", "spectrum_id": "0123456789abcdef", "network": "A"}.items() <= found.items()
    bare = spectrum.drop_attrs()
    assert eigen_plane(bare).fingerprint() == found["region_fingerprint"]
    assert {"spectrum", "network"}.isdisjoint(eigen_plane(bare).provenance())


def test_what_has_no_axes_is_refused(saddle):
    o, _, spectrum = saddle
    for lacking in (la.spectrum(o, 1), spectrum.sel(end="top"), spectrum.sel(end=["top"]), xr.Dataset()):
        with pytest.raises(InputError, match="vectors=True"):
            eigen_plane(lacking)
    for rise in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="rise="):
            eigen_plane(spectrum, rise=rise)


def test_an_eigenvalue_of_zero_sets_no_scale():
    matrix, _ = symmetric([2.0, 1.0, 0.0])
    o = quadratic(matrix, torch.zeros(3, 3, dtype=torch.float64), torch.ones(3, dtype=torch.float64))
    spectrum = la.spectrum(o, 1, vectors=True)
    with pytest.raises(InputError, match="span="):
        eigen_plane(spectrum)
    assert eigen_plane(spectrum, span=0.5).coordinates[1][-1] == 0.5
