"""How a refusal must look: the class of the error, one line, and words that tell what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lossatlas.errors import LossAtlasError


@contextmanager
def refused(kind: type[Exception], match: str | None = None) -> Iterator[pytest.ExceptionInfo[Any]]:
    """The block raises ``kind``, in the one line that the command line prints, and ``match`` is found in it."""
    with pytest.raises(kind, match=match) as caught:
        yield caught
    assert "\n" not in str(caught.value), str(caught.value)


def assert_refused(kind: type[LossAtlasError], ask: Callable[[], object], *words: str) -> None:
    """``ask()`` is refused, as bad input with exit code 2, and the message holds these words."""
    with refused(kind) as caught:
        ask()
    assert caught.value.exit_code == 2
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)
