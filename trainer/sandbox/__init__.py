"""Runs Python that nobody vouches for: see `zygote.py` for what holds it."""

from __future__ import annotations

from trainer.sandbox.client import Limits, Run, Sandbox

__all__ = ["Limits", "Run", "Sandbox"]
