"""The record as rows: whose answer is learnt, and what else is known of it."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("obstore", reason="needs the record extra")

from proxy.protocol.exchange import Answer, Attempt, Exchange
from proxy.protocol.openai import FunctionCall, ToolCall
from proxy.protocol.sealing import Keyring
from proxy.protocol.tombstones import Tombstone, encode
from proxy.record.compact import Retention, compact
from scripts.drive_traffic import drive
from tests.record.buckets import bucket
from tests.record.examples import (
    DAY,
    NOW,
    archived,
    exchange,
    feedback,
    result,
    shadowed,
    shelf,
    spoil,
    write,
)
from trainer.errors import SourceError
from trainer.recipe.sources import ExchangesSettings
from trainer.rows import Label, Row
from trainer.sources.base import Skips
from trainer.sources.exchanges import ExchangesSource

TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    for name in ("ping", "trace")
]
QUESTION = {"role": "user", "content": "Is a up?"}
NO_NEED = Answer(text="No need.", finish_reason="stop")


def rows(directory: Path, **settings: object) -> tuple[list[Row], Skips]:
    skips = Skips()
    source = ExchangesSource(ExchangesSettings(directory=str(directory), **settings), skips)
    return list(source.rows()), skips


def row(directory: Path, **settings: object) -> Row:
    (one,), _ = rows(directory, **settings)
    return one


def called(host: str = "a", id: str = "call-1", name: str = "ping") -> Answer:
    call = ToolCall(id, FunctionCall(name, f'{{"host":"{host}"}}'))
    return Answer(tool_calls=[call], finish_reason="tool_calls")


def attempt(answer: Answer, **fields: object) -> Attempt:
    """The cloud's, unless it names a format."""
    whole = {"kind": "primary", "backend": "azure", "outcome": "completed", "answer": answer}
    about = {"model": None if "format" in fields else "gpt-4o-2024-08-06"}
    return Attempt(**(whole | about | {"started_at": NOW, "total_s": 0.1} | fields))


def student(answer: Answer, **fields: object) -> Attempt:
    return attempt(answer, **({"adapter": "api-v1", "format": "structured"} | fields))


def chat(
    *attempts: Attempt, id: str = "e", said: list[object] | None = None, **more: object
) -> Exchange:
    body = {"model": "m", "messages": said or [QUESTION], "tools": TOOLS} | more.pop("body", {})
    request = msgspec.Raw(msgspec.json.encode(body))
    return exchange(id, request=request, attempts=list(attempts), **more)


# ---------------------------------------------------------------- whose answer


def test_the_clouds_answer_is_the_label_with_its_snapshot(tmp_path):
    write(tmp_path, chat(attempt(called())))

    made = row(tmp_path)

    assert made.label == Label(kind="log", by="gpt-4o-2024-08-06")
    assert [made.calls, made.text] == [[FunctionCall("ping", '{"host":"a"}')], ""]
    assert [f.name for f in made.functions] == ["ping", "trace"]
    assert (made.domain, made.tenant, made.exchange, made.at) == ("api", "t", "e", NOW)
    assert (made.source, made.license, made.group) == ("exchange:e", "proprietary", "t:conv-1")


def test_a_demonstration_wins_over_the_cloud_and_the_latest_over_earlier_ones(tmp_path):
    told = {"kind": "demonstration", "caller": "ann"}
    write(
        tmp_path,
        chat(attempt(called())),
        feedback("f3", "req-e", given_at=NOW + 9, value=called("c"), **told),
        feedback("f2", "req-e", value=called("b"), **told),
        feedback("f1", "e", given_at=NOW + 5, value=called("d"), **told),
    )

    made = row(tmp_path)

    assert made.label == Label(kind="human", by="ann")
    assert made.calls == [FunctionCall("ping", '{"host":"c"}')]


def test_another_tenants_demonstration_is_nobodys(tmp_path):
    said = feedback("f", "e", tenant="u", kind="demonstration", value=called("b"))
    write(tmp_path, chat(attempt(called())), said)

    assert row(tmp_path).label.kind == "log"


def test_our_students_answer_is_told_as_such_and_not_trusted(tmp_path):
    write(tmp_path, chat(student(called())))

    label = row(tmp_path).label

    assert (label.student, label.by, label.is_trusted) == (True, "api-v1", False)


def test_the_base_models_answer_is_no_clouds(tmp_path):
    """Where a domain has no champion, the base model answers without adapter and format."""
    write(tmp_path, chat(attempt(called(), backend="local", model=None)))

    label = row(tmp_path).label

    assert (label.student, label.by, label.is_trusted) == (True, "local", False)


@pytest.mark.parametrize(
    ("outcome", "thumb", "trusted"),
    [("ok", True, True), ("ok", None, False), ("error", True, False), ("ok", False, False)],
)
def test_a_students_answer_counts_where_the_tool_worked_and_a_person_agrees(
    tmp_path, outcome, thumb, trusted
):
    later = chat(attempt(NO_NEED), id="later", tool_results=[result("call-1", outcome)])
    given = [feedback("f", "e", value=thumb)] if thumb is not None else []
    write(tmp_path, chat(student(called())), later, *given)

    (made, _), _ = rows(tmp_path)

    assert (made.label.tool_outcome, made.label.approved) == (outcome, thumb)
    assert made.label.is_trusted is trusted


def test_the_clouds_shadow_of_a_students_answer_is_the_label_and_they_dispute(tmp_path):
    write(tmp_path, chat(student(called())), shadowed("s", "e"))

    made = row(tmp_path)

    assert (made.text, made.calls) == ("No need.", [])
    assert (made.label.by, made.label.student, made.label.disputed) == ("gpt-4o", False, True)


def test_a_students_shadow_does_not_replace_the_cloud_but_may_dispute_it(tmp_path):
    other = shadowed("s", "e", attempt=student(called("b"), kind="shadow"))
    write(tmp_path, chat(attempt(called())), other)

    made = row(tmp_path)

    assert (made.label.by, made.label.disputed) == ("gpt-4o-2024-08-06", True)
    assert made.calls == [FunctionCall("ping", '{"host":"a"}')]


def test_equal_answers_do_not_dispute_however_they_are_spelt(tmp_path):
    spelt = ToolCall("x", FunctionCall("ping", '{ "host" : "a" }'))
    same = shadowed("s", "e", attempt=student(Answer(tool_calls=[spelt]), kind="shadow"))
    write(tmp_path, chat(attempt(called())), same)

    assert row(tmp_path).label.disputed is False


def test_a_call_that_failed_is_told_if_any_of_them_did(tmp_path):
    both = Answer(tool_calls=[*called().tool_calls, *called(id="call-2").tool_calls])
    results = [result("call-1", "ok"), result("call-2", "error")]
    write(tmp_path, chat(attempt(both)), chat(attempt(NO_NEED), id="f", tool_results=results))

    (made, _), _ = rows(tmp_path)

    assert made.label.tool_outcome == "error"
    assert len(made.calls) == 2


# ---------------------------------------------------------------- which exchanges


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"outcome": "failed"}, "outcome_failed"),
        ({"level": "metadata", "body": {}}, "not_kept_in_full"),
        ({"endpoint": "/embeddings"}, "no_chat"),
        ({"body": {"tool_choice": "none"}}, "tools_forbidden"),
        ({"said": [{"role": "user", "content": [{"type": "image_url"}]}]}, "not_plain_text"),
        ({"body": {"tools": [{"type": "custom", "custom": {"name": "x"}}]}}, "custom_tools"),
    ],
)
def test_what_can_be_no_row_is_left_out_and_counted(tmp_path, fields, reason):
    write(tmp_path, chat(attempt(called()), **fields))

    made, skips = rows(tmp_path)

    assert (made, dict(skips.left_out), len(skips)) == ([], {reason: 1}, 0)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(text="It is", finish_reason="length"), "answer_cut_off"),
        (Answer(refusal="I cannot."), "answer_refused"),
        (Answer(), "answer_empty"),
    ],
)
def test_an_answer_that_is_none_is_left_out(tmp_path, answer, reason):
    write(tmp_path, chat(attempt(answer)))

    assert dict(rows(tmp_path)[1].left_out) == {reason: 1}


def test_a_request_that_cannot_be_read_is_a_skip_with_its_id(tmp_path):
    write(
        tmp_path,
        exchange("e", request=msgspec.Raw(b'{"model": 1}')),
        chat(attempt(called()), id="f"),
    )

    made, skips = rows(tmp_path)

    assert [one.exchange for one in made] == ["f"]
    assert [skip.place for skip in skips.told["no_chat_request"]] == ["exchange:e"]


def test_only_the_wanted_tenants_and_domains_are_read(tmp_path):
    write(
        tmp_path,
        chat(attempt(called()), id="a", tenant="x"),
        chat(attempt(called()), id="b", domain="chat"),
        chat(attempt(called()), id="c"),
    )

    made, _ = rows(tmp_path, tenants=["t"], domains=["ap*"])

    assert [one.exchange for one in made] == ["c"]


def test_a_long_conversation_gives_a_few_rows_evenly_spread(tmp_path):
    write(tmp_path, *(chat(attempt(called()), id=f"e{n}") for n in range(10)))

    made, skips = rows(tmp_path, per_conversation=3)

    assert [one.exchange for one in made] == ["e2", "e5", "e9"]
    assert skips.left_out["beyond_the_conversations_cap"] == 7


def test_functions_of_before_there_were_tools_are_tools(tmp_path):
    function = {"name": "ping", "parameters": {"type": "object"}}
    body = {"model": "m", "messages": [QUESTION], "functions": [function]}
    asked = exchange(
        "e", request=msgspec.Raw(msgspec.json.encode(body)), attempts=[attempt(called())]
    )
    write(tmp_path, asked)

    assert [f.name for f in row(tmp_path).functions] == ["ping"]


def test_a_later_step_knows_its_place_in_the_workflow(tmp_path):
    past = {"id": "c", "type": "function", "function": {"name": "ping", "arguments": "{}"}}
    said = [
        QUESTION,
        {"role": "assistant", "tool_calls": [past]},
        {"role": "tool", "tool_call_id": "c", "content": "up"},
    ]
    write(tmp_path, chat(attempt(Answer(text="It is up.")), said=said))

    cep = row(tmp_path).cep

    assert (cep.id, cep.step, cep.goal) == ("conv-1#1", 1, "Is a up?")


# ---------------------------------------------------------------- where they lie


def test_segments_and_parquet_are_read_once_each_without_what_was_erased(tmp_path):
    write(tmp_path, chat(attempt(called()), id="old"), chat(attempt(called()), id="gone"))
    compact(shelf(tmp_path), Retention())
    write(tmp_path, chat(attempt(called()), id="new"))
    stone = Tombstone(id="gone", tenant="t", erased_at=NOW, reasons=["caller"])
    (tmp_path / "tombstones").mkdir()
    (tmp_path / "tombstones" / "a.jsonl").write_bytes(encode([stone]))

    made, _ = rows(tmp_path)

    assert [one.exchange for one in made] == ["old", "new"]


def test_what_lies_in_a_bucket_is_read(tmp_path, monkeypatch):
    with bucket() as s3:
        write(tmp_path, chat(attempt(called())), feedback("f", "e", value=False))
        compact(shelf(tmp_path, s3.archive), Retention())
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        options = {"endpoint": s3.options["endpoint"], "region": "us-east-1"}

        made = row(tmp_path, archive=s3.url, options=options)

    assert (made.exchange, made.label.approved) == ("e", False)


def test_an_encrypted_record_is_read_with_its_key_only(tmp_path):
    key = b"k" * 32
    (tmp_path / "key").write_bytes(base64.b64encode(key))
    write(tmp_path / "record", chat(attempt(called())), keyring=Keyring({"k1": key}, "k1"))

    assert row(tmp_path / "record", keys={"k1": str(tmp_path / "key")}).exchange == "e"
    with pytest.raises(SourceError, match="encrypted"):
        rows(tmp_path / "record")


def test_a_damaged_segment_is_named_and_the_rest_is_read(tmp_path):
    path = write(tmp_path, chat(attempt(called())))
    path.write_bytes(b"torn" + path.read_bytes())

    made, skips = rows(tmp_path)

    assert len(made) == 1
    assert skips.told["segment_damaged"][0].place == f"{path}@0"


def test_a_record_that_is_not_there_is_told(tmp_path):
    with pytest.raises(SourceError, match=r"nowhere: there is no such record"):
        rows(tmp_path / "nowhere")


def test_what_a_proxy_recorded_is_read_back_as_rows(tmp_path):
    pytest.importorskip("bfcl_eval", reason="needs the package bfcl-eval")

    made = asyncio.run(drive(tmp_path / "record", 60))

    read, skips = rows(tmp_path / "record")
    assert (len(read), len(skips)) == (made, 0) == (60, 0)
    assert {one.label.by for one in read if one.label.kind == "log"} == {"gpt-4o-2024-08-06"}
    assert {"ok"} <= {one.label.tool_outcome for one in read if one.calls}
    assert any(one.cep for one in read)


def test_what_is_heard_since_a_day_leaves_the_days_before_unread(tmp_path: Path):
    late = {"started_at": NOW + 5 * DAY}
    write(tmp_path, chat(student(called()), id="old"), feedback("f", "old"), shadowed("s", "old"))
    write(tmp_path, chat(student(called()), id="new", **late))
    write(tmp_path, feedback("g", "new", value=False, given_at=NOW + 5 * DAY))
    compact(shelf(tmp_path), Retention())
    for kind in ("exchanges", "shadows", "feedback"):
        spoil(archived(tmp_path, kind))

    source = ExchangesSource(ExchangesSettings(directory=str(tmp_path)), Skips())
    (heard,) = source.heard(NOW + 3 * DAY)

    assert (heard.exchange.id, heard.thumb) == ("new", False)
