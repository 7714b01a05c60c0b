"""OpenAI's own description of its API, where there is one: OPENAI_SCHEMAS names the file."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

SCHEMAS = os.environ.get("OPENAI_SCHEMAS", "")
"""Path of OpenAI's API description as JSON."""
has_schemas = pytest.mark.skipif(not SCHEMAS, reason="OPENAI_SCHEMAS names no file")


def api_errors(value: Any, schema: str) -> list[str]:
    """What OpenAI's schema of this name finds wrong with a value; nothing without the file."""
    if not SCHEMAS:
        return []
    return [f"{e.instance_path}: {e.message}" for e in _validator(schema).iter_errors(value)]


@functools.cache
def _validator(schema: str) -> jsonschema_rs.Validator:
    described = json.loads(Path(SCHEMAS).read_text())
    rule = {"$ref": f"#/components/schemas/{schema}", "components": described["components"]}
    return jsonschema_rs.Draft202012Validator(rule, validate_formats=False)
