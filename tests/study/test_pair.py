"""What is said of two networks when all ways between them are measured."""

from __future__ import annotations

import xarray as xr

from lossatlas.study.pair import verdicts


def way(verdict: str, name: str, data: str = "digits train") -> xr.Dataset:
    attrs = {"verdict": verdict, "verdict_statistic": f"statistic of the {name}", "way": name, "data": data}
    return xr.Dataset(attrs=attrs)


def test_the_simplest_way_that_is_connected_is_named_with_its_statistic() -> None:
    results = {
        "barrier": way("not shown connected", "line"),
        "barrier_aligned": way("linearly connected", "line after alignment"),
        "barrier_curve": way("connected by a curve", "Bezier curve"),
    }
    (sentence,) = verdicts(results)
    assert sentence == (
        "On digits train the two networks are linearly connected after alignment "
        "(line after alignment: statistic of the line after alignment)."
    )


def test_where_none_is_every_way_that_was_tried_is_named_for_each_data_set() -> None:
    results = {
        "barrier": way("not shown connected", "line"),
        "barrier_curve": way("connected by a curve", "Bezier curve"),
        "barrier_test": way("not shown connected", "line", "digits test"),
        "barrier_curve_test": way("not shown connected", "Bezier curve", "digits test"),
    }
    train, test = verdicts(results)
    assert "connected by a curve" in train
    assert test.startswith("On digits test the two networks are not shown to be connected (line: ")
    assert "Bezier curve: statistic of the Bezier curve" in test
