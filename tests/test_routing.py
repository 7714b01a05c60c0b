from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domains import Defaults, Domain, Match, RouterSettings, clashes
from proxy.errors import UnknownModel
from proxy.protocol.fingerprints import fingerprint
from proxy.protocol.openai import ChatRequest, Function, Message, Tool, parse_request
from proxy.routing import Routes, RouteTable

PING = Function("ping", parameters=msgspec.Raw(b'{"type":"object","properties":{"a":{}}}'))

DOMAINS = {
    "exact": Domain(plan=["a"], tools=["Hotels_1_Find", "ping_all"]),
    "glob": Domain(plan=["a"], tools=["*_[0-9]_*"], verify="observe", constrain=False),
    "print": Domain(plan=["b", "a"], tools=[fingerprint(PING)]),
    "tools": Domain(plan=["a"]),
    "chat": Domain(plan=["a"]),
}
TABLE = RouteTable(DOMAINS, Defaults(tools="tools", chat="chat"), ["gpt-4o"])


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
    table = RouteTable(DOMAINS, Defaults(tools="tools", chat="chat"), ["gpt-4o", "a"])

    with pytest.raises(UnknownModel) as refused:
        table.match(request(model="gpt-5" + "x" * 100))

    assert refused.value.param == "model"
    assert str(refused.value) == (
        f"The model 'gpt-5{'x' * 59}' does not exist here; this server answers: a, gpt-4o"
    )


def test_model_is_checked_before_the_tools():
    with pytest.raises(UnknownModel):
        TABLE.match(request("ping_all", model="gpt-5"))


def test_most_precise_statement_wins():
    domains = {
        "wild": Domain(plan=["a"], tools=["p*"]),
        "wilder": Domain(plan=["a"], tools=["*"]),
        "named": Domain(plan=["a"], tools=["ping"]),
        "exact": Domain(plan=["a"], tools=[fingerprint(PING)]),
        "tools": Domain(plan=["a"]),
    }
    table = RouteTable(domains, Defaults(tools="tools", chat="tools"), ["gpt-4o"])

    found = [table.match(request(tool)) for tool in (PING, Function("ping"), "pong", "x")]

    assert [(route.domain, route.reason) for route in found] == [
        ("exact", "fingerprint"),
        ("named", "exact"),
        ("wild", "glob"),
        ("wilder", "glob"),
    ]


def test_tools_of_one_domain_stay_there_whatever_says_so():
    table = RouteTable(
        {"all": Domain(plan=["a"], tools=["ping", "b*"])}, Defaults("all", "all"), ["gpt-4o"]
    )

    assert table.match(request("ping", "bat")).reason == "exact"
    assert table.match(request("bat", "ping")).reason == "glob"


def test_each_tool_is_placed_by_itself():
    custom = Tool("custom", custom=msgspec.Raw(b'{"name":"ping_all"}'))
    asked = request("ping_all", "Hotels_2_Find", PING, "weather")
    asked = msgspec.structs.replace(asked, tools=[custom, *(asked.tools or ())])

    assert TABLE.places(asked) == [
        ("ping_all", "exact", "exact"),
        ("Hotels_2_Find", "glob", "glob"),
        ("ping", "print", "fingerprint"),
        ("weather", None, None),
    ]
    assert TABLE.places(msgspec.structs.replace(asked, tools=None)) == []


def test_fingerprint_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"'sha256:12' is no fingerprint: .* 64 hexadecimal"):
        Domain(plan=["a"], tools=["ping", "sha256:12"])


def test_tool_of_two_domains_is_told_and_globs_may_overlap():
    print_ = fingerprint(PING)
    domains = {
        "a": Domain(plan=["x"], tools=["ping", "ping", "p*", print_]),
        "b": Domain(plan=["x"], tools=["ping", "p*", "pong", print_]),
    }

    assert list(clashes(domains)) == [
        "the tool 'ping' belongs to both 'a' and 'b'",
        f"the tool {print_!r} belongs to both 'a' and 'b'",
    ]


def test_domain_of_some_tenants_does_not_exist_for_others():
    domains = {
        "own": Domain(plan=["a"], tools=["ping"], tenants=["acme", "bolt"]),
        "all": Domain(plan=["a"]),
    }
    routes = Routes(domains, Defaults("all", "all"), iter(["gpt-4o"]))

    found = [routes.of(tenant).match(request("ping")).domain for tenant in ("acme", "bolt", "x")]

    assert found == ["own", "own", "all"]


@given(
    st.lists(st.sampled_from(["ping_all", "Hotels_2_Find", "weather", "Hotels_1_Find"])),
    st.randoms(),
)
def test_domain_does_not_depend_on_the_order_of_the_tools(tools, random):
    shuffled = list(tools)
    random.shuffle(shuffled)

    assert TABLE.match(request(*tools)).domain == TABLE.match(request(*shuffled)).domain


# ---------------------------------------------------------------- tools of several domains

MIXED = request("Hotels_1_Find", "Buses_3_Buy")


class Guess:
    """A model that guesses this domain, where it is asked about it."""

    def __init__(self, domain: str) -> None:
        self.domain = domain
        self.among: set[str] = set()

    def predict(
        self, messages: Sequence[Message], among: Collection[str]
    ) -> tuple[str, float] | None:
        self.among = set(among)
        return (self.domain, 0.9) if self.domain in among else None


def guessing(guess: Guess | None, mixed: str | None, without_tools: bool = False) -> RouteTable:
    router = RouterSettings(Path("model"), without_tools=without_tools)
    defaults = Defaults(tools="tools", chat="chat", mixed=mixed, router=router)
    return RouteTable(DOMAINS, defaults, ["gpt-4o"], guess)


@pytest.mark.parametrize(
    ("mixed", "guess", "domain", "reason"),
    [
        (None, Guess("glob"), "tools", "mixed"),
        ("print", Guess("glob"), "print", "mixed"),
        ("predict", Guess("glob"), "glob", "predicted"),
        ("predict", Guess("print"), "tools", "mixed"),
        ("predict", None, "tools", "mixed"),
    ],
)
def test_tools_of_several_domains_follow_the_rule(mixed, guess, domain, reason):
    route = guessing(guess, mixed).match(MIXED)

    assert (route.domain, route.reason) == (domain, reason)
    assert route.probability == (0.9 if reason == "predicted" else None)


@pytest.mark.parametrize(
    ("tools", "among"),
    [
        (["Hotels_1_Find", "Buses_3_Buy"], {"exact", "glob"}),
        (["Hotels_1_Find", "weather"], {"exact", "tools"}),
        (["weather"], set()),
        (["Hotels_1_Find"], set()),
    ],
)
def test_guess_is_among_the_domains_of_the_tools(tools: list[str], among: set[str]):
    guess = Guess("nothing")

    guessing(guess, "predict").match(request(*tools))

    assert guess.among == among


@pytest.mark.parametrize(
    ("without_tools", "guess", "domain", "reason"),
    [
        (True, Guess("glob"), "glob", "predicted"),
        (True, Guess("unheard of"), "chat", "no_tools"),
        (True, None, "chat", "no_tools"),
        (False, Guess("glob"), "chat", "no_tools"),
    ],
)
def test_requests_without_tools_are_guessed_where_asked_for(without_tools, guess, domain, reason):
    route = guessing(guess, None, without_tools).match(request())

    assert (route.domain, route.reason) == (domain, reason)


def test_guess_without_tools_is_among_all_domains():
    guess = Guess("nothing")

    guessing(guess, None, without_tools=True).match(request())

    assert guess.among == set(DOMAINS)


def test_without_a_router_nothing_is_guessed():
    table = RouteTable(DOMAINS, Defaults("tools", "chat"), ["gpt-4o"], Guess("glob"))

    assert table.match(request()).reason == "no_tools"


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
        (Match(metadata={"team": "a"}), chat(metadata={"team": "a"}), {}, "docs"),
        (Match(metadata={"team": "a"}), chat(metadata={"team": "b"}), {}, "chat"),
        (Match(metadata={"team": "a"}), chat(metadata=None), {}, "chat"),
        (Match(models=["docs"], metadata={"team": "a"}), chat("docs"), {}, "chat"),
        (Match(headers={"x-a": "1"}, models=["docs"]), chat(), {b"x-a": b"1"}, "chat"),
        (Match(headers={"x-a": "1", "x-b": "2"}), chat(), {b"x-a": b"1"}, "chat"),
        (Match(headers={"x-a": "ä"}), chat(), {b"x-a": "ä".encode()}, "docs"),
        (Match(metadata={"team": "a", "b": "c"}), chat(metadata={"team": "a"}), {}, "chat"),
        (Match(metadata={"team": "a"}), chat(metadata={"team": 1}), {}, "chat"),
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


def test_first_match_in_the_file_wins_and_headers_may_be_left_out():
    domains = {
        "by header": Domain(plan=["a"], match=Match(headers={"x-a": "1"})),
        "first": Domain(plan=["a"], match=Match(models=["m"])),
        "second": Domain(plan=["a"], match=Match(models=["m"])),
        "chat": Domain(plan=["a"]),
    }
    table = RouteTable(domains, Defaults("chat", "chat"), ["m"])

    assert table.match(chat()).domain == "first"
    assert table.match(chat(), {b"x-a": b"1"}).domain == "by header"
