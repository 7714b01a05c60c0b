"""Two answers to one request, of which the record says which was right."""

from __future__ import annotations

import msgspec
import pytest

pytest.importorskip("gguf", reason="needs the train extra")

from proxy.protocol.base_model import BaseModel
from proxy.protocol.exchange import Answer, Attempt, Exchange, ToolResult
from proxy.protocol.feedback import Feedback
from proxy.protocol.formats.base import template
from proxy.protocol.openai import FunctionCall, ToolCall
from trainer.preferences import judged, pairs, trainable
from trainer.tokens import Encoder

REQUEST = msgspec.json.encode(
    {
        "model": "headrace",
        "messages": [{"role": "user", "content": "Rain in Oslo?"}],
        "tools": [{"type": "function", "function": {"name": "weather", "parameters": {}}}],
    }
)


def call(city: str, id: str = "call_1", tool: str = "weather") -> Answer:
    return Answer(
        tool_calls=[ToolCall(id=id, function=FunctionCall(tool, f'{{"city": "{city}"}}'))]
    )


def attempt(answer: Answer, **changes: object) -> Attempt:
    plain = Attempt(
        kind="primary", backend="local", outcome="completed", answer=answer, started_at=0, total_s=1
    )
    return msgspec.structs.replace(plain, **changes)


def exchange(id: str, *attempts: Attempt, at: float = 0.0, **changes: object) -> Exchange:
    plain = Exchange(
        id=id,
        request_id=f"req-{id}",
        started_at=at,
        total_s=1,
        tenant="t",
        caller="c",
        domain="api",
        route="api",
        model="headrace",
        stream=False,
        conversation="conv-1",
        request=msgspec.Raw(REQUEST),
        attempts=list(attempts),
        outcome="completed",
        status=200,
    )
    return msgspec.structs.replace(plain, **changes)


def said(exchange: str, value: object, kind: str = "demonstration", at: float = 1.0) -> Feedback:
    return msgspec.convert(
        {
            "id": f"feedback-{at}",
            "given_at": at,
            "tenant": "t",
            "caller": "ada",
            "exchange": exchange,
            "kind": kind,
            "value": value,
        },
        Feedback,
    )


def shown(found: object) -> list[tuple[str, str, str]]:
    """(why, chosen, rejected) of each pair."""
    return [
        (p.why, p.chosen.calls[0].arguments, p.rejected.calls[0].arguments)
        for p in found  # type: ignore[attr-defined]
    ]


# ---------------------------------------------------------------- pairs


def test_what_a_person_put_right_is_preferred_to_what_was_answered():
    wrong = exchange("a", attempt(call("Olso")))

    found = list(pairs([wrong], [said("a", call("Oslo"))]))

    assert shown(found) == [("correction", '{"city": "Oslo"}', '{"city": "Olso"}')]
    assert (found[0].chosen.label.kind, found[0].chosen.label.by) == ("human", "ada")
    assert found[0].chosen.messages == found[0].rejected.messages


def test_a_correction_may_name_the_request():
    wrong = exchange("a", attempt(call("Olso")))

    found = pairs([wrong], [said("a", call("Rome"), at=3), said("req-a", call("Oslo"), at=9)])

    assert [chosen for _, chosen, _ in shown(found)] == ['{"city": "Oslo"}']


def test_of_several_corrections_the_last_counts():
    wrong = exchange("a", attempt(call("Olso")))

    found = pairs([wrong], [said("a", call("Oslo"), at=9), said("a", call("Rome"), at=3)])

    assert [chosen for _, chosen, _ in shown(found)] == ['{"city": "Oslo"}']


def test_another_tenants_correction_is_none():
    wrong = exchange("a", attempt(call("Olso")), tenant="other")

    assert list(pairs([wrong], [said("a", call("Oslo"))])) == []


def test_a_call_that_was_mended_in_the_same_conversation_is_preferred_to_the_one_that_failed():
    failed = exchange("a", attempt(call("Olso", "call_1")), at=1)
    error = ToolResult(tool_call_id="call_1", outcome="error")
    again = exchange("b", attempt(call("Oslo", "call_2")), at=2, tool_results=[error])
    fine = ToolResult(tool_call_id="call_2", outcome="ok")
    last = exchange("c", attempt(Answer(text="No rain.")), at=3, tool_results=[fine])

    found = pairs([last, again, failed], [])

    assert shown(found) == [("mended", '{"city": "Oslo"}', '{"city": "Olso"}')]


@pytest.mark.parametrize(
    "changes", [{"conversation": "conv-2"}, {"tenant": "other"}, {"tool": "hotel"}]
)
def test_what_happens_elsewhere_mends_nothing(changes):
    tool = changes.pop("tool", "weather")
    failed = exchange("a", attempt(call("Olso", "call_1")), at=1)
    error = ToolResult(tool_call_id="call_1", outcome="error")
    told = exchange("b", attempt(Answer(text="Hm.")), at=2, tool_results=[error])
    again = exchange("c", attempt(call("Oslo", "call_2", tool)), at=3, **changes)
    fine = ToolResult(tool_call_id="call_2", outcome="ok")
    last = exchange("d", attempt(Answer(text="No.")), at=4, tool_results=[fine], **changes)

    assert list(pairs([failed, told, again, last], [])) == []


def test_a_clouds_sound_answer_is_preferred_to_the_local_one_that_broke_its_schema():
    local = attempt(call("Olso"), adapter="api-v1", outcome="invalid", reason="invalid_call")
    cloud = attempt(call("Oslo"), kind="fallback", backend="cloud")

    found = pairs([exchange("a", local, cloud)], [])

    assert shown(found) == [("invalid_local", '{"city": "Oslo"}', '{"city": "Olso"}')]


def test_a_local_answer_that_ended_the_request_is_no_pair():
    local = attempt(call("Olso"), adapter="api-v1", outcome="invalid")
    repaired = attempt(call("Oslo"), adapter="api-v1", kind="repair")

    assert list(pairs([exchange("a", local, repaired)], [])) == []


def test_equal_answers_are_no_pair():
    assert list(pairs([exchange("a", attempt(call("Oslo")))], [said("a", call("Oslo"))])) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"outcome": "failed"},
        {"level": "metadata", "request": msgspec.Raw(b"{}")},
        {"endpoint": "/embeddings"},
        {"request": msgspec.Raw(b'{"messages": 7}')},
    ],
)
def test_what_was_not_kept_whole_is_no_pair(changes):
    kept = exchange("a", attempt(call("Olso")), **changes)

    assert list(pairs([kept], [said("a", call("Oslo"))])) == []


# ---------------------------------------------------------------- thumbs and use


def test_the_last_thumb_judges_an_answer():
    one = exchange("a", attempt(call("Oslo")))

    (found,) = judged([one], [said("a", True, "boolean", 2), said("a", False, "boolean", 5)])

    assert (found.row.calls[0].name, found.good) == ("weather", False)


def test_what_the_format_cannot_say_is_not_trained_on():
    base = BaseModel.find("smollm2-135m-instruct")
    encoder = Encoder(base, template("structured"), "structured")
    (pair,) = pairs([exchange("a", attempt(call("Olso")))], [said("a", call("Oslo"))])
    twice = msgspec.structs.replace(pair.chosen, calls=pair.chosen.calls * 2)

    assert trainable([pair.chosen, pair.rejected], encoder, 512)
    assert not trainable([twice], encoder, 512)
    assert not trainable([pair.chosen], encoder, 20)
