"""What an adapter was trained on is known again, however it is worded."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from proxy.protocol.fingerprints import fingerprint, fingerprint_offered, fingerprint_tools
from proxy.protocol.openai import (
    Function,
    MalformedRequest,
)
from tests.protocol.offers import WEATHER, described, function, request


def test_a_fingerprint_does_not_depend_on_wording_or_key_order() -> None:
    polished = {
        "required": ["a"],
        "properties": {"a": {"description": "The city.", "type": "string"}},
        "type": "object",
        "title": "Weather",
    }
    plain = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}

    assert fingerprint(described(parameters=polished, description="Tells the weather.")) == (
        fingerprint(described(parameters=plain))
    )


@pytest.mark.parametrize("where", ["items", "anyOf", "additionalProperties"])
def test_a_fingerprint_does_not_depend_on_wording_in_lists_and_alternatives(where: str) -> None:
    def whole(**inner: object) -> Function:
        part = {"type": "string"} | inner
        return described(parameters={where: [part] if where == "anyOf" else part})

    assert fingerprint(whole(description="The city.")) == fingerprint(whole())
    assert fingerprint(whole(minLength=1)) != fingerprint(whole())


@pytest.mark.parametrize(
    "other",
    [
        described("forecast", parameters=WEATHER),
        described(parameters=WEATHER | {"required": []}),
        described(parameters=WEATHER | {"properties": {"title": {"type": "string"}}}),
        described(parameters=WEATHER | {"properties": {"description": {"type": "string"}}}),
        described(),
    ],
)
def test_a_fingerprint_depends_on_the_name_and_on_what_is_allowed(other: Function) -> None:
    assert fingerprint(other) != fingerprint(described(parameters=WEATHER))


def test_a_fingerprint_has_a_fixed_form() -> None:
    # Written into adapter bundles: a change of form takes every adapter out of service.
    canonical = b'{"name":"weather","parameters":{"additionalProperties":false,"type":"object"}}'

    assert fingerprint(described()) == f"sha256:{hashlib.sha256(canonical).hexdigest()}"


def test_parameters_that_are_no_schema_have_no_fingerprint() -> None:
    with pytest.raises(MalformedRequest, match="'weather'"):
        fingerprint(described(parameters=[]))


def test_the_fingerprint_of_tools_does_not_depend_on_their_order() -> None:
    one, two = described("a"), described("b")

    assert fingerprint_tools([one, two]) == fingerprint_tools([two, one])
    assert fingerprint_tools([one, two]) != fingerprint_tools([one])


CUSTOM = {"type": "custom", "custom": {"name": "shell"}}


@pytest.mark.parametrize("remembered", [True, False])
def test_the_fingerprint_of_an_offer_is_that_of_its_functions(remembered: bool) -> None:
    offer = request(function("a"), CUSTOM, function("b"))
    known = offer if remembered else msgspec.structs.replace(offer, tools_json=b"")

    assert bool(known.tools_json) == remembered
    assert fingerprint_offered(known) == fingerprint_tools([described("b"), described("a")])


@pytest.mark.parametrize("remembered", [True, False])
def test_an_offer_without_functions_has_no_fingerprint(remembered: bool) -> None:
    offer = request(CUSTOM)
    known = offer if remembered else msgspec.structs.replace(offer, tools_json=b"")

    assert bool(known.tools_json) == remembered
    assert fingerprint_offered(known) is None
