"""Text as Python."""

from __future__ import annotations

import ast
import warnings


def parsed(code: str) -> ast.Module | None:
    """The code's tree; None where it is no Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
