"""Benchmarks that ship with the trainer, frozen by the hash of their file."""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import Literal, TypeAlias

import msgspec
import yaml

from trainer.errors import DatasetError

PYTHON_DOCS = "python_docs_100.yaml"
SHA256 = "a08c567023d664b430229584596657c3270d04835293064f548c2927e48342b1"
"""Of PYTHON_DOCS. Another file is another benchmark: give it another name, and keep this one."""

Category: TypeAlias = Literal["basic", "error_handling", "advanced", "performance", "best_practice"]


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A question, its reference answer, and how any answer to it is checked."""

    id: str
    category: Category
    library: Literal["python", "pandas", "requests", "numpy"]
    needs: list[str]
    """What a complete answer mentions, in its text or its code."""
    question: str
    says: str
    """The reference's explanation."""
    code: str
    """The reference's code."""
    check: str
    """Code that runs after an answer's own, and raises where that is wrong."""

    @property
    def reference(self) -> str:
        return f"{self.says}\n\n```python\n{self.code}```\n"


def python_docs() -> list[Question]:
    """The hundred questions; raises DatasetError when the file is not the frozen one."""
    content = resources.files(__package__).joinpath(PYTHON_DOCS).read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise DatasetError(f"{PYTHON_DOCS} was changed: it is frozen, so that figures compare")
    return msgspec.convert(yaml.safe_load(content), list[Question])
