"""TF32 is off while a GPU evaluates, and as it was afterwards; what the switches are needs no GPU."""

from __future__ import annotations

import pytest
import torch

from lossatlas.model.arithmetic import full_precision


def switches():
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, torch.get_float32_matmul_precision()


@pytest.mark.parametrize("precision", ["highest", "high"])
def test_tf32_is_off_inside_and_as_before_outside(precision):
    torch.set_float32_matmul_precision(precision)
    try:
        before = switches()
        with full_precision(torch.device("cuda")):
            assert switches() == (False, False, "highest")
        assert switches() == before
        with full_precision(torch.device("cpu")):
            assert switches() == before
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="these names are newer")
def test_the_newer_names_are_not_mixed_with_the_older_ones():
    names = [torch.backends.cudnn.conv, torch.backends.cudnn.rnn, torch.backends.cuda.matmul]
    before = [one.fp32_precision for one in names]
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # rnn is not: the older name has no one value now
    try:
        with full_precision(torch.device("cuda")):
            assert {one.fp32_precision for one in names} == {"ieee"}
        assert [one.fp32_precision for one in names] == ["ieee", *before[1:]]
        torch.backends.cuda.matmul.allow_tf32 = True  # as most code sets it
        with full_precision(torch.device("cuda")):
            assert {one.fp32_precision for one in names} == {"ieee"}
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        for one, value in zip(names, before, strict=True):
            one.fp32_precision = value
