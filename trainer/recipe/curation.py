"""Knobs: which rows are kept, on which side, and what else they offer.

A filter is switched off by `~` in the recipe, and on by its settings, `{}` for the defaults.
docs/curation.md has them in a table.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from trainer.recipe.sources import SourceSettings

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class _Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all have in common: an unknown key is an error."""


# ---------------------------------------------------------------- where it comes from


class Rename(_Settings, frozen=True, kw_only=True):
    """A tool that was called otherwise once, or whose parameters were."""

    tool: str
    """The name in old rows."""
    to: str = ""
    """The name now; empty: the same."""
    parameters: dict[str, str] = {}
    """Old name → new name, of top-level parameters."""
    fingerprints: tuple[str, ...] = ()
    """Only where the tool's schema has one of these (`sha256:…`, or how it begins); empty: any."""


class DriftSettings(_Settings, frozen=True, kw_only=True):
    """Old names of tools and parameters become today's, in schemas, calls and history."""

    rules: tuple[Rename, ...]


class OutcomeSettings(_Settings, frozen=True, kw_only=True):
    """Drops steps of workflows that ended in an error."""


class ToolResultSettings(_Settings, frozen=True, kw_only=True):
    """Drops calls to which the tool answered with an error."""

    must_be_known: bool = False
    """Drop calls of which nothing is known, too. Off: imported rows never know."""


class StudentSettings(_Settings, frozen=True, kw_only=True):
    """Drops answers of our own adapters: a model that learns from itself forgets the rest.

    One is kept whose tool said ok, and with which a person, or most of a committee, agreed.
    """


class FeedbackSettings(_Settings, frozen=True, kw_only=True):
    """Drops what people disliked; a demonstration in its place stays."""


class AgreementSettings(_Settings, frozen=True, kw_only=True):
    """Drops answers that a committee of teachers did not agree upon."""

    least: Share = 0.6
    """Share of the committee's samples that must give this answer. Chosen: two of three."""
    decided: bool = True
    """Drop disputed answers on which no committee was asked, too."""


# ---------------------------------------------------------------- what it says


class InstructionSettings(_Settings, frozen=True, kw_only=True):
    """Drops rows in which the user says nothing, or more than a person would write."""

    least: int = 1
    """Characters."""
    most: int = 20_000
    """Characters. Chosen: far above questions, below pasted files."""


class LanguageSettings(_Settings, frozen=True, kw_only=True):
    """Drops questions in other languages (by py3langid)."""

    only: tuple[str, ...]
    """ISO 639-1 codes, `en`."""
    certainty: Share = 0.95
    """How sure the detector must be that it is another language. Chosen high: it is often wrong
    about a few words."""
    letters: int = 40
    """Shorter questions are not judged. Chosen: below it, names of places decide."""


class PrivacySettings(_Settings, frozen=True, kw_only=True):
    """Secrets and personal data, found by the recognisers that guard the record."""

    secrets: Literal["drop", "redact", "keep"] = "drop"
    personal: Literal["drop", "redact", "keep"] = "redact"
    """`redact`: `<email:00000001>` in place of the value, the same one all through a row."""
    kinds: tuple[str, ...] = ("email", "iban", "card", "national_id", "phone")


class SchemaSettings(_Settings, frozen=True, kw_only=True):
    """Drops calls that the row's own tools do not allow, and tools that nothing could satisfy."""

    most_calls: Count = 1
    """Calls in one answer; Llama 3.1's template allows one."""


class LengthSettings(_Settings, frozen=True, kw_only=True):
    """Drops rows that are too long once rendered; none is ever cut."""

    max_tokens: Count | None = None
    """Prompt and answer, in tokens of the base model; `~`: what `training.max_tokens` says."""


class CompleteSettings(_Settings, frozen=True, kw_only=True):
    """Drops texts that stop in the middle, and ones too short or too long to be an answer."""

    least: int = 50
    """Characters of the answer, exclusive."""
    most: int = 2000
    """Characters of the answer, exclusive."""


# ---------------------------------------------------------------- whether its code works


class CodeBlockSettings(_Settings, frozen=True, kw_only=True):
    """Drops answers without a ```python block, or with nothing but signatures in it."""

    signatures: bool = False
    """Whether functions that do nothing, `def f(a): ...`, are code enough. Off: an adapter that
    learnt from them answered with them (docs/LOG.md, 2026-11-22)."""


class CodeSyntaxSettings(_Settings, frozen=True, kw_only=True):
    """Drops answers whose Python does not compile."""


class CodeImportsSettings(_Settings, frozen=True, kw_only=True):
    """Drops answers whose imports are not installed here."""


class CodeRunsSettings(_Settings, frozen=True, kw_only=True):
    """Drops answers whose Python fails when it is run, in the sandbox."""

    seconds: Annotated[float, msgspec.Meta(gt=0, le=300)] = 5.0
    """Of the processor, for one snippet; of the clock six times as many."""
    memory_mb: Annotated[int, msgspec.Meta(ge=16)] = 512
    """Beyond what the interpreter and the preloaded packages take. MiB."""
    preload: tuple[str, ...] = ()
    """Packages that are imported once, before the snippets, to save the time."""
    deprecated: bool = True
    """Drop code that a package warns of (DeprecationWarning, FutureWarning)."""


class CodeDeprecatedSettings(_Settings, frozen=True, kw_only=True):
    """Drops code that uses what is deprecated, by ruff's rules."""

    rules: tuple[str, ...] = ("NPY001", "NPY003", "NPY201", "UP005", "UP019", "UP026", "UP035")
    """What NumPy 2 took out, and what the standard library has a newer name for."""
    target: str = "py311"
    """The Python that the code is for."""


# ---------------------------------------------------------------- what else there is


class DecontaminateSettings(_Settings, frozen=True, kw_only=True):
    """Drops what would give away an evaluation."""

    sets: tuple[SourceSettings, ...] = ()
    """Every registered evaluation set, as a source."""
    words: Count = 13
    """Length of the run of words that no training row may share with a question or an answer of an
    evaluation; shorter texts are compared whole. 13: Brown et al., "Language Models are Few-Shot
    Learners" (2020), appendix C."""
    near: bool = True
    """Near duplicates too, by the settings of `near`."""
    calls: bool = True
    """The same tool with the same arguments, too, where it has arguments."""
    own: bool = True
    """Compare the questions of training rows with this dataset's own held-out rows, too."""


class ExactSettings(_Settings, frozen=True, kw_only=True):
    """Keeps one of rows that say the same, but for case, white space and the order of keys."""


class NearSettings(_Settings, frozen=True, kw_only=True):
    """Keeps one of rows that say nearly the same (MinHash)."""

    threshold: Annotated[float, msgspec.Meta(ge=0.5, le=1)] = 0.85
    """Jaccard similarity of the sets of shingles. Chosen: one word in forty, no less."""
    words: Count = 3
    """In a shingle."""


class BalanceSettings(_Settings, frozen=True, kw_only=True):
    """Caps: no tool, library or template may outnumber the others. Who stays is drawn by hash."""

    tool: Count | None = None
    """Rows that call one tool, at most."""
    library: Count | None = None
    """Rows about one library, at most: the first that the code imports."""
    template: Count | None = None
    """Rows whose question differs in names and numbers only, at most."""


class FilterSettings(_Settings, frozen=True, kw_only=True):
    """The filters, in the order in which a row passes them."""

    drift: DriftSettings | None = None
    outcome: OutcomeSettings | None = OutcomeSettings()
    tool_result: ToolResultSettings | None = ToolResultSettings()
    student: StudentSettings | None = StudentSettings()
    feedback: FeedbackSettings | None = FeedbackSettings()
    agreement: AgreementSettings | None = None
    instruction: InstructionSettings | None = InstructionSettings()
    language: LanguageSettings | None = None
    privacy: PrivacySettings | None = PrivacySettings()
    schema: SchemaSettings | None = SchemaSettings()
    complete: CompleteSettings | None = None
    code_block: CodeBlockSettings | None = None
    code_syntax: CodeSyntaxSettings | None = None
    code_imports: CodeImportsSettings | None = None
    code_deprecated: CodeDeprecatedSettings | None = None
    code_runs: CodeRunsSettings | None = None
    length: LengthSettings | None = LengthSettings()
    decontaminate: DecontaminateSettings | None = DecontaminateSettings()
    exact: ExactSettings | None = ExactSettings()
    near: NearSettings | None = NearSettings()
    balance: BalanceSettings | None = None


# ---------------------------------------------------------------- which side it is on


class SplitSettings(_Settings, frozen=True, kw_only=True):
    """What is held out, by group: a conversation and all that nearly repeats it."""

    unseen_tools: Share = 0.2
    """Share of tool names that training never shows, not even as a tool not to choose."""
    seen: Share = 0.15
    """Share of the other groups that are kept for testing on tools that training does show."""
    sealed: Share = 0.0
    """Share that nobody looks at but the gate, once for each candidate."""
    validation: int = 24
    """Rows of the training side on which progress is watched: whole clusters, as many as fit."""
    newest: bool = False
    """Test on the newest of the groups that are new, where rows have a time, in place of a draw by
    hash. Needs a ledger."""
    ledger: str = ""
    """File that remembers each group's side. Empty: the hash decides alone."""


class VarietySettings(_Settings, frozen=True, kw_only=True):
    """How one row becomes several examples that differ in what else is on offer."""

    copies: int = 2
    """Examples made of a row, each with its own distractors and order. The run passes once over
    all of them, so that this is also the number of epochs. Chosen: usual for 1–5 k rows."""
    distractors: int | None = 4
    """At most so many tools beside the right one. Real requests offer several; an adapter that saw
    one tool a row did not learn to choose (docs/LOG.md). `~`: those that the row offers, no more
    and no less: for rows of the record, which came with what requests of the domain offer."""
    unrelated: float = 0.05
    """Share of extra examples in which the right tool is gone and only unrelated ones are left."""
    negative_distractors: int = 0
    """At most so many unrelated tools are added where nothing must be called. Source rows of that
    kind often offer a single tool: left so, the model learns that a single tool never fits."""
    negatives: float = 0.3
    """At most this share of the examples, the unrelated ones aside, are ones where nothing must be
    called. More of them make a model that calls too rarely (docs/LOG.md)."""
    hard: Share = 0.1
    """Share of extra examples, of those that call a tool, that look as if they should call one and
    must not. Chosen: they teach more than unrelated ones, and too many cost recall."""
    hard_kinds: tuple[Literal["similar_tool", "missing_parameter", "unsupported_value"], ...] = (
        "similar_tool",
        "missing_parameter",
        "unsupported_value",
    )
    """In turns, as far as rows allow."""
    chat: Share | None = None
    """At most this share of the examples offer no tool at all; `~`: as many as there are."""
