"""``python -m lossatlas`` is the command line."""

from __future__ import annotations

from lossatlas.cli import main

main()
