"""The machine: what a result's header says of it, and the fastest float32 arithmetic that PyTorch gets out of it."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import torch
import torch.nn.functional as F

REPETITIONS = 5


def header(title: str, packages: list[str]) -> list[str]:
    """Title, date, hardware, threads and versions, a line each."""
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return [
        f"{title}, {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        f"processor  {_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}",
        f"threads    {torch.get_num_threads()} of PyTorch; load average at the start {load}",
        f"versions   Python {platform.python_version()}, {versions}; commit {_commit()}",
    ]


def peak() -> tuple[float, str]:
    """The most float32 GFLOP/s reached by matrix products and convolutions of several sizes, and by which of them."""
    return max(_rates())


def _rates() -> Iterator[tuple[float, str]]:
    for n in (512, 1024, 2048):
        a, b = torch.randn(n, n), torch.randn(n, n)
        yield _rate(lambda a=a, b=b: a @ b, 2 * n**3), f"a matrix product of {n} x {n}"
    for n, channels, side in ((64, 32, 28), (64, 64, 56), (16, 256, 28)):
        x = torch.randn(n, channels, side, side).contiguous(memory_format=torch.channels_last)
        w = torch.randn(channels, channels, 3, 3).contiguous(memory_format=torch.channels_last)
        work = 2 * 9 * n * channels**2 * side**2
        named = f"a 3 x 3 convolution, {channels} channels, {n} images of {side} x {side}"
        yield _rate(lambda x=x, w=w: F.conv2d(x, w, padding=1), work), named


def _rate(work: Callable[[], object], flops: float) -> float:
    with torch.inference_mode():
        work()
        return flops / min(_seconds(work) for _ in range(REPETITIONS)) / 1e9


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or "unknown"


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
