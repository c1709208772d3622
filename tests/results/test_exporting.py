"""A result as a table of text."""

from __future__ import annotations

import io

import measured
import numpy as np
import pandas as pd
import pytest

from lossatlas.results.exporting import csv_text

RESULTS = measured.results()


@pytest.mark.parametrize("name", sorted(RESULTS))
def test_every_number_of_every_result_is_read_back_from_its_table(name):
    dataset = RESULTS[name]
    table = pd.read_csv(io.StringIO(csv_text(dataset)), keep_default_na=False, dtype=str)
    assert list(table.columns[: len(dataset.sizes)]) == list(dataset.sizes)
    for variable in dataset.variables:
        read = table.loc[table[variable] != "", variable].to_numpy()
        if variable in dataset.sizes:
            assert set(read) == set(dataset[variable].to_numpy().astype(str))
            continue
        dims = [dim for dim in dataset.sizes if dim in dataset[variable].dims]
        expected = dataset[variable].transpose(*dims).to_numpy().ravel()
        if expected.dtype.kind in "fiu":
            np.testing.assert_array_equal(read.astype(expected.dtype), expected)
        else:
            assert [text for text in expected.astype(str) if text] == list(read)


def test_a_row_has_the_coordinates_of_its_numbers():
    plane = RESULTS["plane"]
    table = pd.read_csv(io.StringIO(csv_text(plane)))
    for _, row in table.iterrows():
        assert row["loss"] == pytest.approx(float(plane["loss"].sel(alpha=row["alpha"], beta=row["beta"])), rel=1e-15)
