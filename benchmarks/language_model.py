"""A language model of GPT-2-small's shape: seconds and peak memory of lossatlas beside the plain loop, on a CPU.

124 million parameters, random weights, 4 sequences of 256 tokens, float32. Run by ``make bench``, or ``python
benchmarks/language_model.py --threads 1``.
"""

from __future__ import annotations

import argparse
import datetime
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from common.machine import header
from common.tables import Page
from torch import Tensor
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

import lossatlas as la

BATCH, LENGTH = 4, 256
TOLERANCE = 1e-2
VECTORS = 4  # of a search, the fewest with which it restarts: 2 GB
GRAPHS = 2**29  # bytes of graphs: batches that take more are cut into pieces


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    if arguments.measure:
        MEASURES[arguments.measure]()
        return
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        print(f"Skipped: {error}. To install: pip install 'lossatlas[transformers]'")
        return
    page = Page(arguments.out)
    page.add(*header("A language model of GPT-2-small's shape", ["torch", "transformers", "lossatlas"]))
    page.add(f"data       {BATCH} sequences of {LENGTH} random tokens, float32")
    page.add("columns    seconds: of the processor, over all threads; peak: of the whole process, until then")
    page.add(f"{'':34}{'seconds':>9}{'peak GB':>9}  found")
    for name in MEASURES:
        _run(page, name, arguments.threads)


def _run(page: Page, name: str, threads: int) -> None:
    command = [sys.executable, __file__, "--measure", name, "--threads", str(threads)]
    # Blocks of 1 MiB and more go back to the system when they are freed: the peak is what is used, not what is kept.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            page.add(line.rstrip())
        failure = process.stderr.read().strip().splitlines()
    if process.returncode:
        page.add(f"{name}: failed, {failure[-1]}")


# What is measured, each in a process of its own


def model() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config()).eval()


def tokens() -> Tensor:
    return torch.randint(0, 50_257, (BATCH, LENGTH), generator=torch.Generator().manual_seed(1))


def vector(n: int) -> Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(2))


@contextmanager
def line(name: str) -> Iterator[list[str]]:
    """Prints the seconds and the peak of what happens inside, and what was found."""
    started, found = time.process_time(), list[str]()
    yield found
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9
    print(f"{name:34}{time.process_time() - started:9.1f}{peak:9.2f}  {'; '.join(found)}", flush=True)


# lossatlas: one process, in which the peak grows


def ours() -> None:
    with line("lossatlas: the objective, checked") as found:
        o = la.Objective.from_hf(model(), {"input_ids": tokens()}, batch_size=BATCH)
        found.append(f"{o.n_parameters:,} parameters")
    with line("lossatlas: a value") as found:
        found.append(f"L = {o.value():.6f}")


def unchecked() -> la.Objective:
    """Without the self-check of derivatives: it takes half of the memory that is free, and with 8 GB it is left out."""
    return la.Objective.from_hf(model(), {"input_ids": tokens()}, batch_size=BATCH, check=False)


def ours_gauss_newton() -> None:
    _products("Gauss-Newton", la.gauss_newton(unchecked(), max_memory=GRAPHS))


def ours_hessian() -> None:
    operator = la.hessian(unchecked(), max_memory=GRAPHS)
    _products("Hessian", operator)
    with line(f"lossatlas: lambda_max to {TOLERANCE:g}") as found:
        top = la.top_eigenpairs(operator, tol=TOLERANCE, max_memory=VECTORS * operator.n * operator.dtype.itemsize)
        value, residual = float(top.values), float(top.residuals)
        found.append(f"{value:.5g} with a residual of {residual:.2g}, {top.products} products, {bool(top.converged)}")


def _products(name: str, operator: la.Operator) -> None:
    v = vector(operator.n)
    for what in ("first product", "next product"):
        with line(f"lossatlas: {name}, {what}") as found:
            product = operator @ v
            found.append(f"|A v| = {float(product.norm()):.6g}, v'A v = {float(product @ v):.6g}")
    print(f"{'':54}{operator.explain()}", flush=True)


# The plain loop: a process each


def plain_value() -> None:
    loss, tensors = _plain()
    with line("plain: a value") as found, torch.no_grad():
        found.append(f"L = {float(loss(tensors)):.6f}")


def plain_product() -> None:
    """Double backward on the whole batch."""
    loss, tensors = _plain()
    each = list(tensors.values())
    parts = vector(sum(t.numel() for t in each)).split([t.numel() for t in each])
    with line("plain: a product H v") as found, sdpa_kernel(SDPBackend.MATH):
        slopes = torch.autograd.grad(loss(tensors), each, create_graph=True)
        slope = torch.stack([(g * v.view_as(g)).sum() for g, v in zip(slopes, parts, strict=True)]).sum()
        products = torch.cat([p.flatten() for p in torch.autograd.grad(slope, each)])
        found.append(f"|H v| = {float(products.norm()):.6g}, v'H v = {float(torch.cat(parts) @ products):.6g}")


def _plain() -> tuple[Callable[[dict[str, Tensor]], Tensor], dict[str, Tensor]]:
    own, ids = model(), tokens()

    def loss(at: dict[str, Tensor]) -> Tensor:
        result: Tensor = functional_call(own, at, (), {"input_ids": ids, "labels": ids, "use_cache": False}).loss
        return result

    return loss, {name: p.detach().requires_grad_() for name, p in own.named_parameters()}


MEASURES: dict[str, Callable[[], None]] = {"plain value": plain_value, "plain product": plain_product}
MEASURES |= {"ours": ours, "Gauss-Newton": ours_gauss_newton, "Hessian": ours_hessian}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", choices=MEASURES)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / _today())
    return parser.parse_args()


def _today() -> str:
    return f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}-language-model.txt"


if __name__ == "__main__":
    main()
