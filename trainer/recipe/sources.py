"""Knobs: where the rows come from. `kind` says which source, the other keys are that source's."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

_Count = Annotated[int, msgspec.Meta(ge=1)]


class _Settings(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"
):
    """What all have in common: an unknown key is an error."""


class BfclSettings(_Settings, frozen=True, kw_only=True, tag="bfcl"):
    """The installed package `bfcl-eval`."""

    categories: list[str]
    """BFCL categories, e.g. `live_multiple`; irrelevance categories give the negatives."""
    tools: tuple[str, ...] = ("*",)
    """Globs over tool names; a row is taken when one of its tools matches."""
    without: tuple[str, ...] = ()
    """Globs; a row is left out when one of its tools matches."""


class ExchangesSettings(_Settings, frozen=True, kw_only=True, tag="exchanges"):
    """What the proxy recorded: its segments and its archive. Needs the extra `record`."""

    directory: str
    """The record's directory, `record.directory` of routes.yaml."""
    archive: str | None = None
    """Directory or bucket of the Parquet files, `record.archive.url`. Default: `archive` in the
    directory. A bucket's credentials come from the environment (AWS_…, GOOGLE_…, AZURE_…)."""
    options: dict[str, str] = {}
    """Options of the bucket that are no secrets, as obstore names them: `endpoint`, `region`."""
    keys: dict[str, str] = {}
    """Of an encrypted record: key id → file that holds the key. Files, since a recipe is kept in
    each bundle that it makes."""
    license: str = "proprietary"
    """Of what users and clouds said."""
    domains: tuple[str, ...] = ("*",)
    """Globs over domains."""
    tenants: tuple[str, ...] = ("*",)
    """Globs over tenants. A recipe without `domains` and `tenants` takes all that was recorded."""
    per_conversation: _Count = 6
    """Rows of one conversation, evenly spread; long agents would dominate otherwise."""


class JsonlSettings(_Settings, frozen=True, kw_only=True, tag="jsonl"):
    """Files of rows: JSON lines or one JSON array, plain, `.gz` or `.zst`."""

    paths: Annotated[list[str], msgspec.Meta(min_length=1)]
    """Files, or globs (`**` for folders)."""
    format: Literal["openai", "alpaca", "sharegpt", "xlam", "hermes", "headrace"] = "openai"
    """What a line looks like: docs/data.md."""
    license: str
    """Of the rows; an SPDX id where there is one. No file tells."""
    tenant: str = ""
    """Whose rows these are. Default: `default`."""
    per_conversation: _Count = 6
    """Rows of one conversation, evenly spread."""


Lesson: TypeAlias = Literal["meaning", "parameters", "examples", "chapters", "tasks"]


class PythonDocsSettings(_Settings, frozen=True, kw_only=True, tag="python_docs"):
    """Documentation of Python libraries. Needs the extra `docs`."""

    sites: list[str] = []
    """Folders of HTML that Sphinx made, such as those of Debian's packages python3-doc,
    python-pandas-doc and python-requests-doc."""
    packages: list[str] = []
    """Installed packages whose docstrings are read. Compiled modules have to be imported for it."""
    license: str
    """Of the documentation."""
    lessons: Annotated[tuple[Lesson, ...], msgspec.Meta(min_length=1)] = (
        "meaning",
        "parameters",
        "examples",
        "chapters",
    )
    """What becomes a row: what a thing is, with its signature; its parameters; each example; each
    chapter; `tasks`, questions that code answers which stands alone. The default leaves tasks out:
    they say nothing that the others do not, and an adapter should learn the one or the other."""
    leave_out: tuple[str, ...] = ()
    """Globs of names, such as `pandas.core.*`: what is documented there again, or is internal."""
    phrasings: Annotated[int, msgspec.Meta(ge=1, le=4)] = 1
    """Ways in which each task is asked, 1 to 4, a row each."""


class StackExchangeSettings(_Settings, frozen=True, kw_only=True, tag="stackexchange"):
    """Posts.xml of a Stack Exchange data dump: questions and their accepted answers. Needs the
    extra `docs`."""

    paths: Annotated[list[str], msgspec.Meta(min_length=1)]
    """Posts.xml, plain, `.gz` or `.zst`, or globs."""
    site: str
    """The site's host, for the links: `stackoverflow.com`."""
    tags: tuple[str, ...] = ("*",)
    """Globs; a question is taken when one of its tags matches."""
    min_score: int = 1
    """Score that question and answer must have. Default 1: somebody found them useful."""


class GithubSettings(_Settings, frozen=True, kw_only=True, tag="github"):
    """Issues and discussions from a JSON export: problems and their solutions."""

    paths: Annotated[list[str], msgspec.Meta(min_length=1)]
    """JSON arrays or lines, as GitHub's API and `gh issue list --json` write them, or globs."""
    license: str
    """Of what was written there."""


SourceSettings: TypeAlias = (
    BfclSettings
    | ExchangesSettings
    | JsonlSettings
    | PythonDocsSettings
    | StackExchangeSettings
    | GithubSettings
)
"""Any one of them."""
