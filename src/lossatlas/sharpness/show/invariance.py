"""How far measures of sharpness move with the weights of one function: figure, table, claims, answer, theory."""

from __future__ import annotations
