from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from proxy.catalog import BadAdapter, Base, Catalog, Champions
from proxy.errors import BackendUnavailable, BadRequest, Unsupported
from proxy.protocol import adapter
from proxy.protocol.adapter import Canary, Manifest
from proxy.protocol.openai import ChatRequest, Message, parse_request
from proxy.protocol.toolcheck import fingerprint
from proxy.routing import Domain, Route
from tests.serving import Engine

BASE = Base("tiny", "b" * 64, "t" * 64)
REQUEST = ChatRequest(model="m", messages=[Message(role="user", content="x")])
ROUTE = Route("api", Domain(plan=["local", "other"]), "unknown")


@pytest.fixture
def adapters(tmp_path: Path) -> Path:
    """A directory with one bundle, `api-v1`, the champion of `api`."""
    write_bundle(tmp_path / "api-v1")
    adapter.write_champions(tmp_path, {"api": "api-v1"})
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
    adapter.write_champions(adapters, {"api": "api-v1", "chat": "api-v1"})

    champions = Champions.read(adapters, BASE, ["api", "chat"])

    assert [one.id for one in champions.adapters] == ["api-v1"]


def test_champions_of_domains_that_are_not_served_are_left_alone(adapters: Path):
    adapter.write_champions(adapters, {"api": "api-v1", "gone": "gone-v1"})

    assert set(Champions.read(adapters, BASE, ["api"]).by_domain) == {"api"}


def test_no_directory_is_no_champions(tmp_path: Path):
    assert Champions.read(tmp_path / "nothing", BASE, ["api"]).adapters == []


def test_corrupt_bundle_is_told_with_file_and_remedy(adapters: Path):
    (adapters / "api-v1" / adapter.WEIGHTS).write_bytes(b"other")

    with pytest.raises(BadAdapter, match=r"adapter_model\.safetensors is not the file .* again"):
        Champions.read(adapters, BASE, ["api"])


def test_champion_whose_bundle_is_missing_is_told(adapters: Path):
    adapter.write_champions(adapters, {"api": "api-v2"})

    with pytest.raises(BadAdapter, match=r"api-v2/manifest\.json: No such file"):
        Champions.read(adapters, BASE, ["api"])


def test_champion_file_cannot_name_a_path_outside(adapters: Path):
    adapter.write_champions(adapters, {"api": "../api-v1"})

    with pytest.raises(BadAdapter, match="is no adapter id"):
        Champions.read(adapters, BASE, ["api"])


def test_adapter_for_other_weights_is_refused(adapters: Path):
    write_bundle(adapters / "api-v2", base_sha256="c" * 64)
    adapter.write_champions(adapters, {"api": "api-v2"})

    with pytest.raises(BadAdapter, match="made for other weights"):
        Champions.read(adapters, BASE, ["api"])


def test_adapter_for_another_tokenizer_is_refused(adapters: Path):
    write_bundle(adapters / "api-v2", tokenizer_sha256="u" * 64)
    adapter.write_champions(adapters, {"api": "api-v2"})

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
    adapter.write_champions(adapters, {"api": "api-v2"})
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
