from __future__ import annotations

from pathlib import Path

import jsonschema
import msgspec
import pytest
import yaml

from proxy.config_schema import schema
from tests.test_broken_configs import BROKEN, GOOD

ROOT = Path(__file__).parent.parent
PUBLISHED = ROOT / "docs" / "routes.schema.json"


def test_published_schema_is_the_one_of_this_version():
    """`headrace check --schema > docs/routes.schema.json` makes it anew."""
    now = msgspec.json.decode(msgspec.json.encode(schema()))

    assert msgspec.json.decode(PUBLISHED.read_bytes()) == now


def test_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("path", ["routes.yaml"])
def test_shipped_settings_are_valid(path: str):
    text = (ROOT / path).read_text()
    validator = jsonschema.Draft202012Validator(schema())

    assert list(validator.iter_errors(yaml.safe_load(text))) == []
    assert list(validator.iter_errors(yaml.safe_load(GOOD))) == []


@pytest.mark.parametrize("wrong", [row[1] for row in BROKEN if "did you mean `" in row[4]])
def test_unknown_keys_are_found_by_editors_too(wrong: str):
    right = next(row[0] for row in BROKEN if row[1] == wrong)
    validator = jsonschema.Draft202012Validator(schema())

    assert list(validator.iter_errors(yaml.safe_load(GOOD.replace(right, wrong, 1))))


def test_settings_are_described_as_in_the_code():
    properties = schema()["$defs"]["Quota"]["properties"]

    assert properties["requests_per_minute"]["description"].startswith("Requests in any minute.")
    assert "default" in properties["per"]
