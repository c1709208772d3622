"""Makes every later import of torch fail, as where it is not installed."""

from __future__ import annotations

import sys


class NoTorch:
    """A finder that refuses torch."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        if name.partition(".")[0] == "torch":
            raise ImportError(f"{name} was imported where torch is not allowed")


def refuse() -> None:
    """From now on, in this process. For a process of its own: nothing takes it back."""
    sys.meta_path.insert(0, NoTorch())  # type: ignore[arg-type]
