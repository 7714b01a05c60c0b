from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from proxy.catalog import BadAdapter, Base, Catalog, Champions, Proven
from proxy.domains import Domain
from proxy.errors import BackendUnavailable, BadRequest, Unsupported
from proxy.protocol import adapter
from proxy.protocol import champions as champion_file
from proxy.protocol.adapter import Canary, Manifest
from proxy.protocol.champions import Alias, Candidate, appoint
from proxy.protocol.fingerprints import fingerprint
from proxy.protocol.openai import ChatRequest, Message, parse_request
from proxy.routing import Route
from tests.serving import Engine

BASE = Base("tiny", "b" * 64, "t" * 64)
REQUEST = ChatRequest(model="m", messages=[Message(role="user", content="x")])
ROUTE = Route("api", Domain(plan=["local", "other"]), "unknown")


@pytest.fixture
def adapters(tmp_path: Path) -> Path:
    """A directory with one bundle, `api-v1`, the champion of `api`."""
    write_bundle(tmp_path / "api-v1")
    appoint(tmp_path, "api", "api-v1", "test")
    return tmp_path


def write_bundle(
    path: Path,
    base_sha256: str = "b" * 64,
    tokenizer_sha256: str = "t" * 64,
    tool_fingerprints: dict[str, str] | None = None,
) -> None:
    path.mkdir()
    (path / adapter.TEMPLATE).write_text("template")
    (path / adapter.CONFIG).write_text("{}")
    (path / adapter.WEIGHTS).write_bytes(b"weights")
    (path / adapter.CANARY).write_bytes(msgspec.json.encode(Canary([1], [2], [3])))
    manifest = Manifest(
        id=path.name,
        domain="api",
        format="hermes",
        base_model="tiny",
        base_sha256=base_sha256,
        tokenizer_sha256=tokenizer_sha256,
        template_sha256=adapter.sha256(b"template"),
        weights_sha256=adapter.sha256(b"weights"),
        dataset_fingerprint="",
        tool_fingerprints=tool_fingerprints or {},
    )
    (path / adapter.MANIFEST).write_bytes(msgspec.json.encode(manifest))


def test_champion_answers_for_its_domain_and_the_base_for_others(adapters: Path):
    champions = Champions.read(adapters, BASE, ["api", "chat"])
    catalog = Catalog({}, {"local": champions})

    assert catalog.champion("local", "api").id == "api-v1"
    assert catalog.champion("local", "chat") is None
    assert catalog.champion("cloud", "api") is None


def test_champion_of_two_domains_is_one_adapter(adapters: Path):
    appoint(adapters, "chat", "api-v1", "test")

    champions = Champions.read(adapters, BASE, ["api", "chat"])

    assert [one.id for one in champions.adapters] == ["api-v1"]


def test_champions_of_domains_that_are_not_served_are_left_alone(adapters: Path):
    appoint(adapters, "gone", "gone-v1", "test")

    assert set(Champions.read(adapters, BASE, ["api"]).by_domain) == {"api"}


def test_no_directory_is_no_champions(tmp_path: Path):
    assert Champions.read(tmp_path / "nothing", BASE, ["api"]).adapters == []


def test_corrupt_bundle_is_told_with_file_and_remedy(adapters: Path):
    (adapters / "api-v1" / adapter.WEIGHTS).write_bytes(b"other")

    with pytest.raises(BadAdapter, match=r"adapter_model\.safetensors is not the file .* again"):
        Champions.read(adapters, BASE, ["api"])


def test_champion_whose_bundle_is_missing_is_told(adapters: Path):
    appoint(adapters, "api", "api-v2", "test")

    with pytest.raises(BadAdapter, match=r"api-v2/manifest\.json: No such file"):
        Champions.read(adapters, BASE, ["api"])


def test_champion_file_cannot_name_a_path_outside(adapters: Path):
    (adapters / "champions.json").write_text('{"api": "../api-v1"}')

    with pytest.raises(BadAdapter, match="is no adapter id"):
        Champions.read(adapters, BASE, ["api"])


def test_adapter_for_other_weights_is_refused(adapters: Path):
    write_bundle(adapters / "api-v2", base_sha256="c" * 64)
    appoint(adapters, "api", "api-v2", "test")

    with pytest.raises(BadAdapter, match="made for other weights"):
        Champions.read(adapters, BASE, ["api"])


def test_adapter_for_another_tokenizer_is_refused(adapters: Path):
    write_bundle(adapters / "api-v2", tokenizer_sha256="u" * 64)
    appoint(adapters, "api", "api-v2", "test")

    with pytest.raises(BadAdapter, match="made with another tokenizer"):
        Champions.read(adapters, BASE, ["api"])


def test_plan_keeps_the_order_of_the_route(adapters: Path):
    local, other = Engine("local", []), Engine("other", [])
    champions = Champions.read(adapters, BASE, ["api"])

    plan = Catalog({"other": other, "local": local}, {"local": champions}).plan(ROUTE, REQUEST)

    assert [candidate.backend for candidate in plan.candidates] == [local, other]
    assert [c.adapter and c.adapter.id for c in plan.candidates] == ["api-v1", None]
    assert plan.passed_over is None


def test_backend_that_lacks_something_is_left_out_of_the_plan():
    asked = msgspec.structs.replace(REQUEST, n=2)
    able = Engine("other", [])
    able.lacks = lambda request: None

    plan = Catalog({"local": Engine("local", []), "other": able}, {}).plan(ROUTE, asked)

    assert [candidate.backend for candidate in plan.candidates] == [able]
    assert plan.passed_over == "unsupported_n"


def test_field_that_no_backend_can_serve_is_named():
    asked = msgspec.structs.replace(REQUEST, n=2)
    catalog = Catalog({"local": Engine("local", []), "other": Engine("other", [])}, {})

    with pytest.raises(Unsupported, match="local, other") as caught:
        catalog.plan(ROUTE, asked)

    assert caught.value.param == "n"


def test_route_without_backends_is_unavailable():
    with pytest.raises(BackendUnavailable):
        Catalog({}, {}).plan(ROUTE._replace(policy=Domain(plan=[])), REQUEST)


def test_candidate_can_be_pinned_before_it_serves_anybody(adapters: Path):
    write_bundle(adapters / "api-v2")
    champions = Champions.read(adapters, BASE, ["api"])
    catalog = Catalog({"local": Engine("local", [])}, {"local": champions})

    (candidate,) = catalog.pinned(ROUTE, "api-v2").candidates

    assert candidate.answers_as == "api-v2"


def test_pinned_base_is_asked_as_the_champion_would_be(adapters: Path):
    champions = Champions.read(adapters, BASE, ["api"])
    catalog = Catalog({"local": Engine("local", [])}, {"local": champions})

    (candidate,) = catalog.pinned(ROUTE, "base").candidates

    assert candidate.answers_as is None
    assert candidate.adapter.id == "api-v1"


def test_unknown_pin_is_told_what_there_is(adapters: Path):
    catalog = Catalog({"local": Engine("local", [])}, {"local": Champions.read(adapters, BASE, [])})

    with pytest.raises(BadRequest, match="no adapter 'geo-v1' here; known: api-v1"):
        catalog.pinned(ROUTE, "geo-v1")


def test_broken_candidate_serves_nobody_and_keeps_nothing_from_starting(adapters: Path):
    write_bundle(adapters / "api-v2")
    (adapters / "api-v2" / adapter.WEIGHTS).write_bytes(b"torn")

    with capture_logs() as logs:
        champions = Champions.read(adapters, BASE, ["api"])

    assert set(champions.by_id) == {"api-v1"}
    assert [entry["event"] for entry in logs] == ["adapter_skipped"]


# ---------------------------------------------------------------- schemas that changed


def request_with(parameters: str) -> ChatRequest:
    tool = f'{{"type":"function","function":{{"name":"ping","parameters":{parameters}}}}}'
    body = f'{{"model":"gpt-4o","messages":[{{"role":"user","content":"x"}}],"tools":[{tool}]}}'
    return parse_request(body.encode())


KNOWN = '{"type":"object","properties":{"host":{"type":"string"}}}'
RENAMED = '{"type":"object","properties":{"target":{"type":"string"}}}'


@pytest.mark.parametrize(
    ("drift", "schema", "first", "drifted"),
    [
        ("observe", KNOWN, "local", []),
        ("observe", RENAMED, "local", ["ping"]),
        ("serve", RENAMED, "local", []),
        ("fallback", KNOWN, "local", []),
        ("fallback", RENAMED, "other", ["ping"]),
    ],
)
def test_tool_with_another_schema_than_trained_is_noticed(
    adapters: Path, drift, schema, first, drifted
):
    trained = fingerprint(request_with(KNOWN).offered[0])
    write_bundle(adapters / "api-v2", tool_fingerprints={"ping": trained})
    appoint(adapters, "api", "api-v2", "test")
    backends = {name: Engine(name, []) for name in ("local", "other")}
    catalog = Catalog(backends, {"local": Champions.read(adapters, BASE, ["api"])})
    route = Route("api", Domain(plan=["local", "other"], drift=drift), "exact")

    plan = catalog.plan(route, request_with(schema))

    assert plan.candidates[0].backend.name == first
    assert list(plan.drifted) == drifted
    assert plan.passed_over == ("schema_drift" if first == "other" else None)


def test_tool_that_training_never_saw_has_not_drifted(adapters: Path):
    route = Route("api", Domain(plan=["local"], drift="fallback"), "exact")
    catalog = Catalog(
        {"local": Engine("local", [])}, {"local": Champions.read(adapters, BASE, ["api"])}
    )

    assert not catalog.plan(route, request_with(RENAMED)).drifted


# ---------------------------------------------------------------- split and canary


WHO = [f"tenant\0conv-{number}" for number in range(400)]
SPLIT = Domain(plan=["local", "other"], split={"local": 0.25, "other": 0.75})


def sides(catalog: Catalog, policy: Domain, request: ChatRequest = REQUEST) -> list[str]:
    """The side of each of WHO."""
    route = Route("api", policy, "unknown")
    return [catalog.plan(route, request, who).assigned for who in WHO]


def both() -> Catalog:
    return Catalog({"local": Engine("local", []), "other": Engine("other", [])}, {})


def test_split_puts_conversations_on_sides_and_leaves_them_there():
    catalog = both()

    told = sides(catalog, SPLIT)

    assert told == sides(catalog, SPLIT)
    assert 60 <= told.count("split:local") <= 140
    assert told.count("split:local") + told.count("split:other") == len(WHO)


def test_other_side_of_a_split_may_step_in():
    catalog = both()
    route = Route("api", SPLIT, "unknown")
    plans = [catalog.plan(route, REQUEST, who) for who in WHO]

    orders = {(p.assigned, tuple(c.backend.name for c in p.candidates)) for p in plans}

    assert orders == {("split:local", ("local", "other")), ("split:other", ("other", "local"))}


def test_request_that_one_side_cannot_answer_is_on_none():
    cloud = Engine("other", [])
    cloud.lacks = lambda request: None
    catalog = Catalog({"local": Engine("local", []), "other": cloud}, {})
    several = parse_request(b'{"model":"m","messages":[{"role":"user","content":"x"}],"n":2}')

    assert set(sides(catalog, SPLIT, several)) == {""}


def test_drift_that_one_side_would_not_answer_puts_the_request_on_none(tmp_path: Path):
    write_bundle(tmp_path / "api-v1", tool_fingerprints={"ping": "of another schema"})
    appoint(tmp_path, "api", "api-v1", "test")
    catalog = Catalog(both().backends, {"local": Champions.read(tmp_path, BASE, ["api"])})
    policy = Domain(plan=["local", "other"], drift="fallback", split={"local": 0.5, "other": 0.5})
    tool = b'{"type":"function","function":{"name":"ping","parameters":{"type":"object"}}}'
    request = parse_request(
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"tools":[' + tool + b"]}"
    )

    assert set(sides(catalog, policy, request)) == {""}


def test_canary_gets_its_share_once_it_is_proven(adapters: Path):
    write_bundle(adapters / "api-v2")
    champions = Champions.read(adapters, BASE, ["api"])
    catalog = Catalog({"local": Engine("local", [])}, {"local": champions})
    policy = Domain(plan=["local"])
    before = sides(catalog, policy)

    catalog.admit_canary("api", Proven("local", champions.by_id["api-v2"], 0.25))
    told = sides(catalog, policy)
    route = Route("api", policy, "unknown")
    plans = [catalog.plan(route, REQUEST, who) for who in WHO]
    catalog.withdraw_canary("api")

    assert set(before) == {""} == set(sides(catalog, policy))
    assert 60 <= told.count("canary:api-v2") <= 140
    assert {(p.assigned, p.candidates[0].answers_as) for p in plans} == {
        ("canary:api-v2", "api-v2"),
        ("champion:api-v1", "api-v1"),
    }


def test_canary_without_a_share_is_asked_by_nobody(adapters: Path):
    write_bundle(adapters / "api-v2")
    champions = Champions.read(adapters, BASE, ["api"])
    catalog = Catalog({"local": Engine("local", [])}, {"local": champions})

    catalog.admit_canary("api", Proven("local", champions.by_id["api-v2"], 0.0))

    assert set(sides(catalog, Domain(plan=["local"]))) == {""}


@pytest.mark.parametrize(
    ("plan", "others"),
    [(["local"], [("local", "api-v1")]), (["local", "other"], [("other", None)])],
)
def test_champion_steps_in_for_a_canary_where_nobody_else_is_left(adapters: Path, plan, others):
    write_bundle(adapters / "api-v2")
    champions = Champions.read(adapters, BASE, ["api"])
    catalog = Catalog(both().backends, {"local": champions})
    catalog.admit_canary("api", Proven("local", champions.by_id["api-v2"], 1.0))

    found = catalog.plan(Route("api", Domain(plan=plan), "unknown"), REQUEST, "who").candidates

    assert found[0].answers_as == "api-v2"
    assert [(one.backend.name, one.answers_as) for one in found[1:]] == others


# ---------------------------------------------------------------- domains without a champion


WAITING = Domain(plan=["local", "other"], without_champion="next")


def asked(catalog: Catalog, domain: str, policy: Domain = WAITING) -> list[tuple[str, str | None]]:
    plan = catalog.plan(Route(domain, policy, "unknown"), REQUEST, "who")
    return [(one.backend.name, one.answers_as) for one in plan.candidates]


def test_domain_that_waits_for_its_champion_is_answered_by_the_next_backend(adapters: Path):
    champions = Champions.read(adapters, BASE, ["api", "chat"])
    catalog = Catalog(both().backends, {"local": champions})

    plan = catalog.plan(Route("chat", WAITING, "unknown"), REQUEST)

    assert asked(catalog, "chat") == [("other", None)]
    assert plan.passed_over == "no_champion"
    assert asked(catalog, "api") == [("local", "api-v1"), ("other", None)]
    assert asked(catalog, "chat", Domain(plan=["local", "other"]))[0] == ("local", None)


def test_base_model_answers_where_there_is_no_next_backend(adapters: Path):
    catalog = Catalog(both().backends, {"local": Champions.read(adapters, BASE, ["api", "chat"])})

    assert asked(catalog, "chat", msgspec.structs.replace(WAITING, plan=["local"])) == [
        ("local", None)
    ]


def test_first_candidate_of_a_domain_that_waits_gets_its_share(adapters: Path):
    champions = Champions.read(adapters, BASE, ["api", "chat"])
    catalog = Catalog(both().backends, {"local": champions})
    catalog.admit_canary("chat", Proven("local", champions.by_id["api-v1"], 0.5))

    plans = [catalog.plan(Route("chat", WAITING, "unknown"), REQUEST, who) for who in WHO]

    found = {(p.assigned, p.candidates[0].backend.name, p.passed_over) for p in plans}
    assert found == {
        ("canary:api-v1", "local", None),
        ("champion:base", "other", "no_champion"),
    }
    assert all(p.candidates[-1].backend.name == "other" for p in plans)


def test_bundle_that_is_known_is_not_hashed_again_unless_it_is_another_one(adapters: Path):
    known = Champions.read(adapters, BASE, ["api"]).by_id
    (adapters / "api-v1" / adapter.WEIGHTS).write_bytes(b"torn")

    assert Champions.read(adapters, BASE, ["api"], known=known).by_id == known
    (adapters / "api-v1" / adapter.MANIFEST).unlink()
    shutil.rmtree(adapters / "api-v1")
    write_bundle(adapters / "api-v1", tool_fingerprints={"ping": "x"})
    assert Champions.read(adapters, BASE, ["api"], known=known).by_id != known


def test_what_stays_loaded_beside_the_champions(adapters: Path):
    for id in ("api-v2", "api-v3"):
        write_bundle(adapters / id)
    revision = champion_file.read(adapters).revision
    full = Candidate(adapter="api-v3", share=1.0, stage="full")
    watched = Alias(champion="api-v3", previous="api-v1", candidate=full)
    champion_file.change(adapters, "api", watched, revision, "test")
    while_watched = Champions.read(adapters, BASE, ["api"]).kept
    champion_file.change(
        adapters, "api", Alias(champion="api-v3", previous="api-v1"), revision + 1, "test"
    )

    assert {one.id for one in while_watched} == {"api-v3", "api-v1"}
    assert Champions.read(adapters, BASE, ["api"]).kept == []
