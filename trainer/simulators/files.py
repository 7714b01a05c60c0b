"""A folder of text files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from trainer.simulators.base import Json, Tool, ToolError, tool

_MOST = 100_000
"""Letters of a file: what a model writes has a bound."""


class Files:
    """Files by name; no folders within."""

    name: ClassVar[str] = "files"

    def __init__(self, files: Mapping[str, str]) -> None:
        self.files = dict(files)

    def tools(self) -> dict[str, Tool]:
        made = (
            tool(self.list_files, "Names of all files."),
            tool(self.read_file, "The text of a file.", name="string"),
            tool(self.write_file, "Make or replace a file.", name="string", text="string"),
            tool(self.move_file, "Rename a file.", name="string", to="string"),
            tool(self.delete_file, "Delete a file.", name="string"),
        )
        return {one.function.name: one for one in made}

    def state(self) -> Json:
        return dict(sorted(self.files.items()))

    def list_files(self) -> Json:
        return sorted(self.files)

    def read_file(self, name: str) -> Json:
        return self._existing(name)

    def write_file(self, name: str, text: str) -> Json:
        if len(text) > _MOST:
            raise ToolError("the text is too long")
        self.files[name] = text
        return "written"

    def move_file(self, name: str, to: str) -> Json:
        text = self._existing(name)
        if to in self.files:
            raise ToolError(f"there is a file {to} already")
        del self.files[name]
        self.files[to] = text
        return "moved"

    def delete_file(self, name: str) -> Json:
        self._existing(name)
        del self.files[name]
        return "deleted"

    def _existing(self, name: str) -> str:
        if name not in self.files:
            raise ToolError(f"there is no file {name}")
        return self.files[name]
