"""The table of a tenant is that of the domains that it sees, whoever else has domains."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from proxy.domains import Defaults, Domain, Match
from proxy.protocol.fingerprints import fingerprint
from proxy.protocol.openai import ChatRequest, Function, parse_request
from proxy.routing import Routes, RouteTable

NAMES = ["a_1", "a_2", "b_1", "b_22"]
SOME = fingerprint(Function("a_1", parameters=msgspec.Raw(b"{}")))
DEFAULTS = Defaults(tools="default", chat="default")
DEFAULT = {"default": Domain(plan=["cloud"])}

tools = st.lists(st.sampled_from(["a_*", "*_1", "?_2", "b_*", "*"]), max_size=2)
owners = st.lists(st.sampled_from(["ann", "ben"]), max_size=2, unique=True)
matches = st.none() | st.builds(Match, models=st.just(["m"]))
domain = st.builds(Domain, plan=st.just(["cloud"]), tools=tools, tenants=owners, match=matches)
exact = st.sampled_from([*NAMES, SOME])


def request(name: str | None) -> ChatRequest:
    tools = [{"type": "function", "function": {"name": name, "parameters": {}}}] if name else []
    body = {"model": "m", "messages": [{"role": "user", "content": "?"}], "tools": tools}
    return parse_request(msgspec.json.encode(body))


@given(
    given=st.lists(domain, max_size=6),
    own=st.dictionaries(exact, owners, max_size=3),
    tenant=st.sampled_from(["ann", "ben", "nobody"]),
    name=st.sampled_from([*NAMES, None]),
)
def test_others_domains_make_no_difference(
    given: list[Domain], own: dict[str, list[str]], tenant: str, name: str | None
):
    globs = {f"g{number}": one for number, one in enumerate(given)}
    named = {
        f"n{tool}": Domain(plan=["cloud"], tools=[tool], tenants=to) for tool, to in own.items()
    }
    domains = globs | named | DEFAULT
    seen = {n: one for n, one in domains.items() if not one.tenants or tenant in one.tenants}

    found = Routes(domains, DEFAULTS, ["m"]).of(tenant).match(request(name))

    assert found == RouteTable(seen, DEFAULTS, ["m"]).match(request(name))


def test_what_is_everybodys_is_there_once():
    mine = {f"d{n}": Domain(plan=["cloud"], tools=[f"t{n}"], tenants=[f"t{n}"]) for n in range(9)}
    routes = Routes(DEFAULT | mine, DEFAULTS, ["m"])

    layers = [routes.of(f"t{n}")._layers for n in range(9)]

    assert {id(shared) for _, shared in layers} == {id(routes.of("nobody")._layers[0])}
    assert [list(own.domains) for own, _ in layers] == [[name] for name in mine]
