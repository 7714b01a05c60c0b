"""Whether a tool's result says that its call failed: rules from routes.yaml.

A tool's message has no status of its own; what an error looks like differs from tool to tool. The
message may be anybody's: no pattern takes longer on it than its length allows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

import jsonschema_rs
import msgspec

from proxy.protocol.exchange import ToolOutcome
from proxy.protocol.schemas import PATTERNS

_STEP = re.compile(r"\.([A-Za-z_][A-Za-z0-9_-]*)|\[(\d+)\]")
_PATH = re.compile(rf"\$(?:{_STEP.pattern})+")
_MAX_TEXT = 16 * 1024
"""Characters of a result that a regular expression is tried on. Chosen: an error is short."""


def _searching(regex: str) -> jsonschema_rs.Draft202012Validator:
    """Finds the expression anywhere in a text; raises ValidationError for what is none.

    Python's own patterns would hold the whole process while they go back and forth.
    """
    return jsonschema_rs.Draft202012Validator({"pattern": regex}, pattern_options=PATTERNS)


class ErrorRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a failed call's result looks like; give `regex` or `path`."""

    tools: str = "*"
    """Glob of the tools that this is about. Default all."""
    regex: str | None = None
    """Found anywhere in the first 16 Ki characters of the result's text; a regular expression as
    Rust's `regex` has them, which for what is commonly written are Python's."""
    path: str | None = None
    """Place in a result that is JSON, `$.error` or `$.items[0].status`: an error is what is there
    and is not null, false, 0 or empty."""
    equals: bool | int | str | None = None
    """With `path`: an error is exactly this value."""

    def __post_init__(self) -> None:
        if (self.regex is None) == (self.path is None):
            raise ValueError("a rule has either `regex` or `path`")
        if self.path is not None and not _PATH.fullmatch(self.path):
            raise ValueError(f"{self.path!r} is no path: write it as $.name or $.name[0].other")
        try:
            _searching(self.regex or "")
        except jsonschema_rs.ValidationError:
            raise ValueError(f"{self.regex!r} is no regular expression as Rust has them") from None


DEFAULT_RULES = (
    ErrorRule(path="$.error"),
    ErrorRule(path="$.isError"),
)
"""An `error` at the top of a JSON result, and MCP's own mark (tools/call, `isError`)."""


class OutcomeRules:
    """Judges results of tools."""

    def __init__(self, rules: Sequence[ErrorRule] = DEFAULT_RULES) -> None:
        self._rules = [(rule, _searching(rule.regex or "")) for rule in rules]

    def judge(self, tool: str | None, said: str) -> ToolOutcome:
        """`error` when a rule for this tool finds one in what it said."""
        try:
            parsed: object = msgspec.json.decode(said)
        except (ValueError, RecursionError):
            parsed = None
        for rule, pattern in self._rules:
            if fnmatchcase(tool or "", rule.tools) and _finds(rule, pattern, said, parsed):
                return "error"
        return "ok"


def _finds(
    rule: ErrorRule, pattern: jsonschema_rs.Draft202012Validator, said: str, parsed: object
) -> bool:
    if rule.path is None:
        return pattern.is_valid(said[:_MAX_TEXT])
    found = _at(parsed, rule.path)
    if rule.equals is None:
        return bool(found)
    return type(found) is type(rule.equals) and found == rule.equals


def _at(value: object, path: str) -> object:
    for name, index in _STEP.findall(path):
        match value:
            case dict() if name:
                value = value.get(name)
            case list() if index and int(index) < len(value):
                value = value[int(index)]
            case _:
                return None
    return value
