"""Templates that would run for ever or fill the memory are stopped, each in its own way."""

from __future__ import annotations

import msgspec
import pytest

from proxy.protocol.formats import sandbox
from proxy.protocol.formats.base import Unrenderable, decoded, render, template
from proxy.protocol.openai import Function, Message

HI = [Message(role="user", content="x")]
_BIG = "{% set big %}{% for i in range(90000) %}aaaaaaaaaaaaaaaaaaaa{% endfor %}{% endset %}"
_DOUBLED = (
    "{%% set n = namespace(s='a', t='a') %%}{%% for i in range(40) %%}{%% set n.s = %s %%}"
    "{%% set n.t = %s %%}{%% endfor %%}"
)


def doubled(step: str) -> str:
    return _DOUBLED % (step, step.replace("n.s", "n.t"))


HOSTILE = {
    "loops": "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
    "recursive loop": "{% for x in [[1]] recursive %}{{ loop([[1], [1]]) }}{% endfor %}",
    "macros": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
    "{{ f(40) }}",
    "text times number": "{{ 'a' * 10**9 }}",
    "list times number": "{{ messages * 10**9 }}",
    "power": "{{ (10**9)**(10**6) }}",
    "growing number": "{% set n = namespace(s=10) %}{% for i in range(9999) %}"
    "{% set n.s = n.s * n.s %}{% endfor %}",
    "constant": "{{ 'a' | replace('a', 'b' * 10**9) }}",
    "text added": doubled("n.s + n.s"),
    "text joined": doubled("n.s ~ n.s"),
    "text replaced": doubled("n.s | replace('a', 'aa')"),
    "text's own replace": doubled("n.s.replace('a', 'aa')"),
    "lists of lists": doubled("[n.s, n.s]"),
    "mappings of mappings": doubled("{'a': n.s, 'b': n.s}"),
    "pairs of pairs": doubled("(n.s, n.s)"),
    "dict of dicts": doubled("dict(a=n.s, b=n.s)"),
    "lists compared": doubled("[n.s, n.s]") + "{{ n.s == n.t }}",
    "join": _BIG + "{{ [big, big, big, big, big, big] | join }}",
    "join's separator": _BIG + "{{ range(99) | join(big) }}",
    "text's own join": _BIG + "{{ big.join([big, big, big, big]) }}",
    "captured text": _BIG + "{% set c %}{% for i in range(999) %}{{ big }}{% endfor %}{% endset %}",
    "printed text": _BIG + "{% for i in range(999) %}{{ big }}{% endfor %}",
    "center": "{{ 'a'.center(10**9) }}",
    "center as a filter": "{{ 'a' | center(10**9) }}",
    "zfill": "{{ 'a'.zfill(10**9) }}",
    "indent": "{{ 'a\n' | indent(10**9) }}",
    "format": "{{ '%1000000000d' | format(1) }}",
    "format by %": "{{ '%1000000000d' % 1 }}",
    "text's own format": "{{ '{:1000000000}'.format(1) }}",
    "format_map": "{{ '{a:1000000000}'.format_map({'a': 1}) }}",
    "tojson's indent": "{{ [1] | tojson(indent=10**9) }}",
    "lipsum": "{{ lipsum(10**6) }}",
    "another file": "{% include '/etc/passwd' %}",
    "imported file": "{% import '/etc/passwd' as x %}",
    "parent": "{% extends '/etc/passwd' %}",
    "brackets": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "division": "{{ 1 // 0 }}",
    "broken": "{% for %}",
    "long": "x" * (sandbox.MAX_SOURCE + 1),
}


@pytest.mark.parametrize("hostile", HOSTILE)
def test_what_would_not_end_or_would_not_fit_is_stopped(monkeypatch, hostile):
    # A fiftieth of the budget: the laws are the same, and the test takes a fiftieth of the time.
    monkeypatch.setattr(sandbox, "MAX_STEPS", 20_000)

    with pytest.raises(Unrenderable):
        render(HOSTILE[hostile], HI)


def test_a_step_that_is_dear_is_stopped_by_the_clock(monkeypatch):
    monkeypatch.setattr(sandbox, "MAX_SECONDS", 0.0)

    with pytest.raises(Unrenderable) as stopped:
        render("{% for i in range(1000) %}{% endfor %}", HI)

    assert isinstance(stopped.value.__cause__, sandbox.TooCostly)


def test_a_budget_is_for_one_rendering(monkeypatch):
    monkeypatch.setattr(sandbox, "MAX_STEPS", 1500)
    source = "{% for i in range(1000) %}.{% endfor %}"

    assert [len(render(source, HI)) for _ in range(5)] == [1000] * 5


def test_a_thousand_tools_are_shown_with_the_budget():
    parameters = {f"p{n}": {"type": "string", "description": "d" * 40} for n in range(20)}
    schema = msgspec.Raw(msgspec.json.encode({"type": "object", "properties": parameters}))
    tools = [Function(f"f{n}", "d" * 100, schema) for n in range(1000)]

    assert "f999" in render(template("structured"), HI, tools)
    assert "f999" in render(template("hermes"), HI, tools)


def test_what_stops_a_template_repeats_nothing_of_the_request():
    with pytest.raises(Unrenderable) as stopped:
        render("{{ messages[0].content / 2 }}", [Message(role="user", content="SECRET")])

    assert "SECRET" not in str(stopped.value)


def test_arguments_without_a_bottom_are_a_text():
    deep = "[" * 100_000

    assert decoded(deep) == deep
