"""Films of surfaces and trajectories."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import measured
import numpy as np
import pytest
from matplotlib.animation import FFMpegWriter
from PIL import Image

import lossatlas as la
from lossatlas.drawing.films import drawing_itself, turning

RESULTS = measured.results()
PLANE, TRAJECTORY = RESULTS["trajectory_plane"], RESULTS["trajectory"]


def frames(path: Path) -> list[Any]:
    with Image.open(path) as film:
        found = []
        for k in range(getattr(film, "n_frames", 1)):
            film.seek(k)
            found.append((np.asarray(film.convert("RGB")).astype(int), film.info["duration"]))
        return found


def test_a_surface_turns_once_around_with_the_trajectory_on_it(tmp_path):
    la.plot.animate(PLANE, tmp_path / "film.gif", trajectory=TRAJECTORY, seconds=0.4, fps=10)
    film = frames(tmp_path / "film.gif")
    assert [duration for _, duration in film] == [100] * 4
    assert all(np.abs(a[0] - b[0]).mean() > 1 for a, b in pairwise(film))
    figure = next(p.figure for p in la.plot.pictures(PLANE) if not p.vector)
    space = next(axes for axes in figure.axes if axes.name == "3d")
    start, show = space.azim, turning(figure)
    show(5, 20)
    assert space.azim == start + 90


@pytest.mark.parametrize("plane", [PLANE, None])
def test_a_trajectory_draws_itself_and_tells_the_step_and_the_loss(plane):
    figure, show = drawing_itself(TRAJECTORY, plane)
    (axes,) = figure.axes
    seen = []
    for picture in (0, 8, 19):
        show(picture, 20)
        line, head = axes.lines
        k = len(line.get_xdata()) - 1
        np.testing.assert_array_equal(line.get_xdata(), TRAJECTORY["alpha"].to_numpy()[: k + 1])
        assert head.get_ydata()[0] == TRAJECTORY["beta"].to_numpy()[k]
        text = axes.get_title(loc="left")
        assert f"step {TRAJECTORY['step'].to_numpy()[k]}," in text
        assert float(text.split("loss ")[1].split()[0]) == pytest.approx(float(TRAJECTORY["loss"][k]), rel=0.05)
        seen.append(k)
    assert seen == [0, *sorted(seen[1:-1]), TRAJECTORY.sizes["snapshot"] - 1]
    assert 0 < seen[1] < seen[2]


def test_what_moves_is_drawn_where_the_plane_has_it(tmp_path):
    """The marker's colour is found in the last picture at its place on the axes."""
    la.plot.animate(TRAJECTORY, tmp_path / "film.gif", surface=PLANE, seconds=0.3, fps=10)
    figure, _ = drawing_itself(TRAJECTORY, PLANE)
    (axes,) = figure.axes
    end = [float(TRAJECTORY[name][-1]) for name in ("alpha", "beta")]
    x, y = axes.transData.transform(end)
    pixels = frames(tmp_path / "film.gif")[-1][0]
    around = pixels[pixels.shape[0] - 1 - int(y) - 2 :][:5, int(x) - 2 :][:, :5].reshape(-1, 3)
    assert np.abs(around - np.array([0xD5, 0x5E, 0x00])).sum(axis=1).min() < 40


@pytest.mark.needs("ffmpeg")
def test_an_mp4_is_written_by_ffmpeg(tmp_path):
    la.plot.animate(TRAJECTORY, tmp_path / "film.mp4", surface=PLANE, seconds=0.2, fps=10)
    assert (tmp_path / "film.mp4").read_bytes()[4:8] == b"ftyp"


def test_an_mp4_without_ffmpeg_names_it(monkeypatch, tmp_path):
    monkeypatch.setattr(FFMpegWriter, "isAvailable", classmethod(lambda cls: False))
    with pytest.raises(la.LossAtlasError, match=r"ffmpeg, which writes \.mp4, is absent: install it"):
        la.plot.animate(TRAJECTORY, tmp_path / "film.mp4")


@pytest.mark.parametrize(
    ("name", "options", "remedy"),
    [
        ("spectrum A", {}, "give a surface over two axes"),
        ("line", {}, "give a surface over two axes"),
        ("trajectory_plane", {"surface": PLANE}, "give a surface over two axes"),
        ("trajectory", {"surface": RESULTS["plane"]}, r"trajectory\.plane\(\)"),
        ("plane", {"trajectory": TRAJECTORY}, r"trajectory\.plane\(\)"),
        ("plane", {"seconds": 0}, "at most 60 seconds"),
    ],
)
def test_what_is_no_film_is_refused_with_a_remedy(name, options, remedy, tmp_path):
    with pytest.raises(la.LossAtlasError, match=remedy):
        la.plot.animate(RESULTS[name], tmp_path / "film.gif", **options)
    with pytest.raises(la.LossAtlasError, match=r"\.gif or \.mp4"):
        la.plot.animate(RESULTS[name], tmp_path / "film.avi", **options)
    assert list(tmp_path.iterdir()) == []
