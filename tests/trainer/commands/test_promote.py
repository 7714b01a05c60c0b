"""`promote` and `rollback`, as they are typed."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("gguf", reason="needs the train extra")

from proxy.protocol import champions
from tests.trainer.answers import calls, none, report
from tests.trainer.promotion.traffic import called, tried
from tests.trainer.promotion.traffic import site as sited
from trainer import gate
from trainer.__main__ import main
from trainer.gate_rules import Evidence
from trainer.recipe import GateSettings

FORCED = ("--force", "--reason", "I know better")


def promote(adapters: Path, *more: str, id: str = "api-v1") -> int:
    return main(["promote", id, "--adapters", str(adapters), *more])


def told(capsys: pytest.CaptureFixture[str], adapters: Path, *more: str, id: str = "api-v1") -> str:
    """The one line on stderr of a promotion that is refused; nothing was changed."""
    before = champions.read(adapters)
    assert promote(adapters, *more, id=id) == 1
    assert champions.read(adapters) == before
    (line,) = capsys.readouterr().err.splitlines()
    return line


def judged(directory: Path, right: int) -> Path:
    """The file of a verdict on `api-v1`, right in so many of 400 beside a cloud that always is."""
    silent = none([True] * 60)
    evidence = Evidence(
        candidate=[report("api-v1", [*calls([True] * right + [False] * (400 - right)), *silent])],
        cloud=[report("cloud", [*calls([True] * 400), *silent])],
    )
    path = directory / "verdict.json"
    gate.write(gate.decide(evidence, GateSettings(parity=False)), path)
    return path


def test_without_a_verdict_nothing_is_promoted(capsys, adapters):
    line = told(capsys, adapters, "--at-once")

    assert line.startswith("headrace-trainer: api-v1 needs the gate's verdict: --verdict FILE")


def test_verdict_to_promote_lets_it_serve(capsys, adapters, tmp_path):
    verdict = judged(tmp_path, 400)

    code = promote(adapters, "--verdict", str(verdict), "--at-once")

    assert (code, champions.read(adapters).serving) == (0, {"api": "api-v1"})


def test_adapter_may_serve_another_domain_than_its_own(adapters, tmp_path):
    verdict = judged(tmp_path, 400)

    code = promote(adapters, "--verdict", str(verdict), "--at-once", "--domain", "geo")

    assert (code, champions.read(adapters).serving) == (0, {"geo": "api-v1"})


def test_verdict_to_refuse_is_told_and_can_be_overruled_with_a_reason(capsys, adapters, tmp_path):
    verdict = judged(tmp_path, 200)

    line = told(capsys, adapters, "--verdict", str(verdict), "--at-once")
    unreasoned = told(capsys, adapters, "--at-once", "--force")
    code = promote(adapters, "--at-once", *FORCED)

    assert "Refuse api-v1" in line
    assert "--force goes with a --reason" in unreasoned
    assert (code, champions.read(adapters).last.reason) == (0, "I know better")


def test_verdict_on_another_adapter_is_none(capsys, adapters, tmp_path):
    verdict = judged(tmp_path, 400)

    line = told(capsys, adapters, "--verdict", str(verdict), "--at-once", id="api-v2")

    assert "is the verdict on api-v1, and not on api-v2" in line


def test_bundle_that_is_not_there_is_not_promoted(capsys, adapters):
    line = told(capsys, adapters, "--at-once", *FORCED, id="api-v7")

    assert "api-v7/manifest.json: No such file" in line


def test_torn_bundle_is_not_promoted(capsys, adapters):
    (adapters / "api-v1" / "adapter_model.safetensors").write_bytes(b"")

    assert "adapter_model.safetensors" in told(capsys, adapters, "--at-once", *FORCED)


def test_bundle_in_a_directory_of_another_name_is_not_promoted(capsys, adapters):
    (adapters / "api-v1").rename(adapters / "api-v7")

    assert "api-v1" in told(capsys, adapters, "--at-once", *FORCED, id="api-v7")


def test_trial_needs_traffic_to_look_at(capsys, adapters):
    assert "--record DIR" in told(capsys, adapters, *FORCED)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("alpha: 2", "alpha"),
        ("stage: []", "stage"),
        ("stages: [{share: 0.5}, {share: 0.1}]", "shares that grow"),
        ("[", "settings.yaml"),
    ],
)
def test_broken_settings_are_told_with_their_place(capsys, adapters, tmp_path, content, what):
    (tmp_path / "settings.yaml").write_text(content)

    line = told(
        capsys, adapters, *FORCED, "--record", "x", "--settings", str(tmp_path / "settings.yaml")
    )

    assert "settings.yaml: " in line and what in line


def test_candidate_is_followed_to_its_end_and_told_as_json(capsys, adapters, tmp_path):
    pytest.importorskip("obstore", reason="needs the record extra")
    at = sited(tmp_path)
    (tmp_path / "settings.yaml").write_text(
        "{stages: [{share: 0.5}], settle_s: 0, shadow_pairs: 0}"
    )
    where = ("--record", str(tmp_path / "record"), "--settings", str(tmp_path / "settings.yaml"))
    begun = promote(adapters, *FORCED, *where, "--once", id="api-v2")
    at.now = time.time() + 1
    at.served("champion:api-v1", 20)
    at.served("canary:api-v2", 20, tried("api-v2", "invalid"), tried(None))
    capsys.readouterr()

    ended = promote(adapters, *FORCED, *where, "--json", id="api-v2")

    lines = [msgspec.json.decode(line) for line in capsys.readouterr().out.splitlines()]
    assert (begun, ended) == (10, 20)
    assert [line["word"] for line in lines] == ["rolled back"]
    assert "invalid in 20 of 20 conversations" in lines[0]["reason"]
    assert champions.read(adapters).serving == {"api": "api-v1"}


def test_what_the_gate_allows_is_the_limit_of_a_first_adapter(capsys, adapters, tmp_path):
    pytest.importorskip("obstore", reason="needs the record extra")
    at = sited(tmp_path, champion="")
    (tmp_path / "settings.yaml").write_text(
        "{stages: [{share: 0.5}], settle_s: 0, shadow_pairs: 0}"
    )
    where = ("--record", str(tmp_path / "record"), "--settings", str(tmp_path / "settings.yaml"))
    verdict = ("--verdict", str(judged(tmp_path, 400)))
    promote(adapters, *verdict, *where, "--once")
    at.now = time.time() + 1
    at.served("canary:api-v1", 6, tried("api-v1", "invalid", answer=called("b")), tried(None))
    capsys.readouterr()

    ended = promote(adapters, *verdict, *where, "--json")

    (line,) = capsys.readouterr().out.splitlines()
    assert ended == 20
    assert "disagreed in 6 of 6 conversations, 3% of them are allowed" in line


def test_a_record_that_is_not_there_is_told_and_waited_for(capsys, adapters, tmp_path):
    pytest.importorskip("obstore", reason="needs the record extra")
    nowhere = tmp_path / "nowhere"

    code = promote(adapters, *FORCED, "--record", str(nowhere), "--once")

    said = capsys.readouterr()
    assert code == 10
    assert f"{nowhere} is not there: no traffic is known until" in said.err


def test_rollback_goes_back_and_says_where_to(capsys, adapters):
    for id in ("api-v1", "api-v2"):
        promote(adapters, "--at-once", *FORCED, id=id)

    code = main(["rollback", "api", "--adapters", str(adapters), "--reason", "worse"])

    there = champions.read(adapters)
    assert (code, there.serving, there.last.reason) == (0, {"api": "api-v1"}, "worse")
    assert "api: api-v2 → api-v1" in capsys.readouterr().out


def test_a_first_champion_is_taken_out_by_name_of_the_act_alone(capsys, adapters):
    promote(adapters, "--at-once", *FORCED)

    refused = main(["rollback", "api", "--adapters", str(adapters)])
    told = capsys.readouterr().err
    code = main(["rollback", "api", "--adapters", str(adapters), "--vacate"])
    again = main(["rollback", "api", "--adapters", str(adapters), "--vacate"])

    assert (refused, code, again) == (1, 0, 1)
    assert "rollback api --vacate" in told
    assert champions.read(adapters).serving == {}
    assert champions.read(adapters).domains["api"].cooldown_until is not None
    assert "api: api-v1 → none" in capsys.readouterr().out


def test_rollback_to_nothing_is_told(capsys, adapters):
    assert main(["rollback", "api", "--adapters", str(adapters)]) == 1
    assert "no former champion is known" in capsys.readouterr().err
