from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import UnknownModel
from proxy.protocol.openai import ChatRequest, Function, Message, Tool, parse_request
from proxy.protocol.toolcheck import fingerprint
from proxy.routing import Defaults, Domain, Match, RouteTable

PING = Function("ping", parameters=msgspec.Raw(b'{"type":"object","properties":{"a":{}}}'))

TABLE = RouteTable(
    {
        "exact": Domain(plan=["a"], tools=["Hotels_1_Find", "ping_all"]),
        "glob": Domain(plan=["a"], tools=["*_[0-9]_*"], verify="observe", constrain=False),
        "print": Domain(plan=["b", "a"], tools=[fingerprint(PING)]),
        "tools": Domain(plan=["a"]),
        "chat": Domain(plan=["a"]),
    },
    Defaults(tools="tools", chat="chat"),
    ["gpt-4o"],
)


def request(*tools: str | Function, model: str = "gpt-4o") -> ChatRequest:
    functions = [tool if isinstance(tool, Function) else Function(tool) for tool in tools]
    return ChatRequest(
        model=model,
        messages=[Message(role="user", content="hi")],
        tools=[Tool("function", function) for function in functions],
    )


@pytest.mark.parametrize(
    ("tools", "domain", "reason"),
    [
        (["ping_all"], "exact", "exact"),
        (["Hotels_1_Find"], "exact", "exact"),
        (["Hotels_2_Find"], "glob", "glob"),
        (["Hotels_2_Find", "Buses_3_Buy"], "glob", "glob"),
        ([PING], "print", "fingerprint"),
        (["ping"], "tools", "unknown"),
        (["ping_all", "Hotels_2_Find"], "tools", "mixed"),
        (["ping_all", "weather"], "tools", "mixed"),
        (["weather", "ping_all"], "tools", "mixed"),
        (["weather", "time"], "tools", "unknown"),
        ([], "chat", "no_tools"),
    ],
)
def test_tools_name_the_domain_and_the_reason_says_how(tools, domain, reason):
    route = TABLE.match(request(*tools))

    assert (route.domain, route.reason) == (domain, reason)


def test_route_carries_what_its_domain_says():
    route = TABLE.match(request("Hotels_2_Find"))

    assert (route.plan, route.policy.verify, route.policy.constrain) == (["a"], "observe", False)


def test_custom_tools_are_unknown():
    custom = Tool("custom", custom=msgspec.Raw(b'{"name":"ping_all"}'))
    asked = msgspec.structs.replace(request(), tools=[custom])

    assert TABLE.match(asked).reason == "unknown"


def test_what_is_no_chat_goes_where_chats_without_tools_go():
    assert TABLE.without_tools == TABLE.match(request())


def test_model_that_nobody_serves_is_refused_by_name():
    with pytest.raises(UnknownModel, match="'gpt-5'"):
        TABLE.match(request(model="gpt-5"))


@given(
    st.lists(st.sampled_from(["ping_all", "Hotels_2_Find", "weather", "Hotels_1_Find"])),
    st.randoms(),
)
def test_domain_does_not_depend_on_the_order_of_the_tools(tools, random):
    shuffled = list(tools)
    random.shuffle(shuffled)

    assert TABLE.match(request(*tools)).domain == TABLE.match(request(*shuffled)).domain


# ---------------------------------------------------------------- requests without tools


def chat(model: str = "m", metadata: object = None) -> ChatRequest:
    said = {"model": model, "messages": [{"role": "user", "content": "x"}], "metadata": metadata}
    return parse_request(msgspec.json.encode(said))


@pytest.mark.parametrize(
    ("match", "asked", "headers", "domain"),
    [
        (Match(models=["docs"]), chat("docs"), {}, "docs"),
        (Match(models=["docs"]), chat("m"), {}, "chat"),
        (Match(headers={"X-Expert": "docs"}), chat(), {b"x-expert": b"docs"}, "docs"),
        (Match(headers={"X-Expert": "docs"}), chat(), {b"x-expert": b"other"}, "chat"),
        (Match(metadata={"team": "a"}), chat(metadata={"team": "a", "b": "c"}), {}, "docs"),
        (Match(metadata={"team": "a"}), chat(metadata={"team": "b"}), {}, "chat"),
        (Match(metadata={"team": "a"}), chat(metadata=None), {}, "chat"),
        (Match(models=["docs"], metadata={"team": "a"}), chat("docs"), {}, "chat"),
    ],
)
def test_question_without_tools_is_told_by_model_header_or_metadata(match, asked, headers, domain):
    domains = {"docs": Domain(plan=["a"], match=match), "chat": Domain(plan=["b"])}
    table = RouteTable(domains, Defaults("chat", "chat"), ["m", "docs"])

    route = table.match(asked, headers)

    assert route.domain == domain
    assert route.reason == ("matched" if domain == "docs" else "no_tools")


def test_match_that_asks_for_nothing_is_refused():
    with pytest.raises(ValueError, match=r"defaults\.chat"):
        Match()
