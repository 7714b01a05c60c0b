"""The filters of single rows: each drops what it is for, by its reason, and nothing else."""

from __future__ import annotations

import sys

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.protocol.openai import Function, FunctionCall, Message, PastCall
from tests.trainer.curate.test_build import RECIPE
from tests.trainer.examples import WEATHER, function, row, weather
from trainer.curate import code, drift, length, privacy, provenance, schema, texts
from trainer.curate.chain import FILTERS, Judge, Plan
from trainer.curate.filter import Drop
from trainer.recipe import FilterSettings
from trainer.recipe import curation as knobs
from trainer.rows import Label, Row, Workflow
from trainer.sandbox import landlock


def labelled(**label: object) -> Row:
    return msgspec.structs.replace(row(weather()), label=Label(**{"kind": "log", **label}))


def said(text: str, question: str = "How do I do that in Python?") -> Row:
    return row(question=question, functions=(), text=text)


def python(text: str) -> Row:
    return said(f"Like this:\n\n```python\n{text}\n```")


def raw(schema: str) -> Function:
    return Function("weather", parameters=msgspec.Raw(schema.encode()))


def with_schema(text: str) -> Row:
    return row(functions=(WEATHER, Function("tides", parameters=msgspec.Raw(text.encode()))))


ENDED = Workflow(id="w", step=0, outcome="error")
BY_NAME = {
    "outcome": (provenance.Outcome, knobs.OutcomeSettings()),
    "tool_result": (provenance.ToolResult, knobs.ToolResultSettings()),
    "known": (provenance.ToolResult, knobs.ToolResultSettings(must_be_known=True)),
    "student": (provenance.Student, knobs.StudentSettings()),
    "feedback": (provenance.Feedback, knobs.FeedbackSettings()),
    "agreement": (provenance.Agreement, knobs.AgreementSettings()),
    "instruction": (texts.Instruction, knobs.InstructionSettings(least=3, most=100)),
    "language": (texts.Language, knobs.LanguageSettings(only=("en",))),
    "complete": (texts.Complete, knobs.CompleteSettings(least=5, most=300)),
    "schema": (schema.Schema, knobs.SchemaSettings()),
    "code_block": (code.CodeBlock, knobs.CodeBlockSettings()),
    "signatures": (code.CodeBlock, knobs.CodeBlockSettings(signatures=True)),
    "code_syntax": (code.CodeSyntax, knobs.CodeSyntaxSettings()),
    "code_imports": (code.CodeImports, knobs.CodeImportsSettings()),
    "code_deprecated": (code.CodeDeprecated, knobs.CodeDeprecatedSettings()),
}
DROPPED = [
    ("outcome", msgspec.structs.replace(row(weather()), cep=ENDED), "workflow_failed"),
    ("tool_result", labelled(tool_outcome="error"), "tool_said_error"),
    ("known", labelled(), "tool_result_unknown"),
    ("student", labelled(student=True), "our_own_answer"),
    ("student", labelled(student=True, tool_outcome="ok"), "our_own_answer"),
    ("feedback", labelled(approved=False), "disliked"),
    ("agreement", labelled(agreement=0.5), "teachers_disagree"),
    ("agreement", labelled(disputed=True), "disputed"),
    ("instruction", row(weather(), question=" "), "no_instruction"),
    ("instruction", row(weather(), question="no"), "instruction_too_short"),
    ("instruction", row(weather(), question="why " * 99), "instruction_too_long"),
    ("instruction", row(weather(), question="Why so?", text="x") and said(" "), "no_answer"),
    (
        "language",
        said("x", "Wie wird das Wetter morgen in Berlin, und brauche ich einen Schirm?"),
        "other_language",
    ),
    ("complete", said("Yes."), "answer_too_short"),
    ("complete", said("Yes. " * 99), "answer_too_long"),
    ("complete", said("It is done by"), "ends_in_the_middle"),
    ("complete", said("It goes on and on..."), "ends_in_the_middle"),
    ("complete", said("```python\nprint(1)."), "code_block_left_open"),
    ("schema", row(weather(), weather("Bergen")), "several_calls"),
    ("schema", row(weather(), functions=(WEATHER, WEATHER)), "tool_offered_twice"),
    ("schema", row(weather(), functions=(function("tides"),)), "unknown_tool"),
    ("schema", row(FunctionCall("weather", '{"city": 7}')), "schema_violation"),
    ("schema", row(FunctionCall("weather", "no JSON")), "arguments_not_json"),
    ("schema", with_schema('{"type": "dictionary"}'), "schema_broken"),
    ("schema", with_schema('{"$ref": "https://example.com/a"}'), "schema_broken"),
    ("schema", with_schema('{"enum": []}'), "schema_unsatisfiable"),
    (
        "schema",
        with_schema('{"properties": {"a": {"minimum": 3, "maximum": 1}}, "required": ["a"]}'),
        "schema_unsatisfiable",
    ),
    (
        "schema",
        with_schema('{"additionalProperties": false, "required": ["a"]}'),
        "schema_unsatisfiable",
    ),
    ("code_block", said("Call print(1)."), "no_python_block"),
    ("code_block", python("def area(width): ...\n\nasync def b():\n    pass"), "only_signatures"),
    ("code_block", python('class A:\n    """It."""\n    def b(self): ...'), "only_signatures"),
    ("code_syntax", python("print 1"), "syntax_error"),
    ("code_imports", python("import no_such_package.inner"), "import_missing"),
    ("code_deprecated", python("import numpy as np\nnp.product([1])"), "deprecated_api"),
]
KEPT = [
    ("outcome", row(weather())),
    ("tool_result", labelled()),
    ("known", labelled(tool_outcome="ok")),
    ("student", labelled(student=True, tool_outcome="ok", approved=True)),
    ("student", labelled(by="gpt-6")),
    ("feedback", labelled(kind="human", approved=False)),
    ("feedback", labelled(approved=True)),
    ("agreement", labelled(agreement=0.7, disputed=True)),
    ("instruction", row(weather())),
    ("language", said("x", "What will the weather be in Berlin tomorrow, and do I need a coat?")),
    ("language", said("x", "Wetter?")),
    ("complete", said("It is done.")),
    ("complete", row(weather())),
    ("schema", row(weather())),
    ("schema", with_schema('{"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#"}]}}}')),
    ("code_block", python("print(1)")),
    ("code_block", python("def area(width): ...\n\narea(1)")),
    ("code_block", python("class A:\n    b = 1")),
    ("code_block", python("print 1")),
    ("signatures", python("def area(width): ...")),
    ("code_syntax", python(">>> print(1)\n1")),
    ("code_imports", python("import os.path, msgspec")),
    ("code_deprecated", python("import numpy as np\nnp.prod([1])")),
]


@pytest.mark.parametrize(("name", "given_row", "reason"), DROPPED)
def test_what_a_filter_is_for_is_dropped_by_its_reason(name, given_row, reason):
    make, settings = BY_NAME[name]

    became = make(settings, RECIPE)(given_row)

    assert isinstance(became, Drop)
    assert became.reason == reason


@pytest.mark.parametrize(("name", "given_row"), KEPT)
def test_all_else_is_kept_as_it_is(name, given_row):
    make, settings = BY_NAME[name]

    assert make(settings, RECIPE)(given_row) is given_row


def test_every_filter_of_single_rows_is_a_knob_in_the_order_of_the_knobs():
    knobs_in_order = [name for name in FilterSettings.__struct_fields__ if name in FILTERS]

    assert knobs_in_order == list(FILTERS)


def test_a_filter_that_fails_costs_a_row_and_no_run(monkeypatch):
    monkeypatch.setattr(texts.Instruction, "__call__", lambda self, row: 1 / 0)
    settings = FilterSettings(length=None, near=None, decontaminate=None)
    recipe = msgspec.structs.replace(RECIPE, filters=settings)

    (judged,) = Judge(Plan(recipe, None))([row(weather())])

    assert (judged.step, judged.reason, judged.detail) == (
        *("instruction", "filter_failed", "ZeroDivisionError"),
    )


# ---------------------------------------------------------------- privacy

MAIL = "ann@example.org"
CALLED = msgspec.structs.replace(
    row(FunctionCall("mail", f'{{"to": "{MAIL}"}}'), question=f"Write to {MAIL}, please"),
    functions=[function("mail", to="string")],
    accepted=[{"to": msgspec.Raw(f'["{MAIL}"]'.encode())}],
)
REDACT = privacy.Privacy(knobs.PrivacySettings(secrets="redact"), RECIPE)


def test_personal_data_get_one_name_all_through_a_row():
    became = REDACT(CALLED)

    assert became.question == "Write to <email:00000001>, please"
    assert became.calls[0].arguments == '{"to":"<email:00000001>"}'
    assert bytes(became.accepted[0]["to"]) == b'["<email:00000001>"]'


@pytest.mark.parametrize(
    ("settings", "question", "reason"),
    [
        (knobs.PrivacySettings(), "My key is sk-abcdefghij0123456789abcd", "secret"),
        (knobs.PrivacySettings(personal="drop"), f"I am {MAIL}", "personal_data"),
    ],
)
def test_what_must_not_be_trained_on_is_dropped(settings, question, reason):
    became = privacy.Privacy(settings, RECIPE)(row(weather(), question=question))

    assert became.reason == reason
    assert MAIL not in became.detail


def test_a_row_without_such_data_is_the_same_row():
    assert REDACT(row(weather())) == row(weather())


@settings(max_examples=60)
@given(
    st.lists(
        st.sampled_from(
            [MAIL, "DE89 3704 0044 0532 0130 00", "4111 1111 1111 1111", "+49 30 901820", "hello",
             "sk-abcdefghij0123456789abcd", "<email:00000001>", "password: hunter2hunter2"]
        )
        | st.text(max_size=20),
        max_size=6,
    )
)  # fmt: skip
def test_redacting_twice_is_redacting_once(parts):
    once = REDACT(row(weather(), question="Say " + " ".join(parts)))

    assert REDACT(once) == once


# ---------------------------------------------------------------- drift

RULE = knobs.Rename(tool="get_wx", to="weather", parameters={"town": "city"})


def old_row() -> Row:
    past = PastCall(id="1", function=FunctionCall("get_wx", '{"town":"Rome"}'))
    return msgspec.structs.replace(
        row(
            FunctionCall("get_wx", '{"town":"Oslo"}'),
            functions=(function("get_wx", town="string"),),
            accepted={"town": ["Oslo"]},
        ),
        messages=[
            Message(role="user", content="Rain?"),
            Message(role="assistant", tool_calls=[past]),
            Message(role="tool", tool_call_id="1", name="get_wx", content="no"),
        ],
    )


def test_old_names_become_todays_everywhere():
    became = drift.Drift(knobs.DriftSettings(rules=(RULE,)), RECIPE)(old_row())

    written = msgspec.json.encode(became).replace(b"Does get_wx", b"")
    assert b"get_wx" not in written
    assert b"town" not in written
    assert became.calls == [FunctionCall("weather", '{"city":"Oslo"}')]
    checked = schema.Schema(knobs.SchemaSettings(), RECIPE)(became)
    assert checked is became


def test_a_rule_for_another_version_of_the_tool_changes_nothing():
    other = msgspec.structs.replace(RULE, fingerprints=("sha256:0000",))

    became = drift.Drift(knobs.DriftSettings(rules=(other,)), RECIPE)(old_row())

    assert became == old_row()


def test_a_rename_onto_a_tool_that_is_there_is_dropped():
    both = msgspec.structs.replace(old_row(), functions=[*old_row().functions, WEATHER])

    became = drift.Drift(knobs.DriftSettings(rules=(RULE,)), RECIPE)(both)

    assert became == Drop("drift_makes_a_tool_twice", "weather")


# ---------------------------------------------------------------- length


def test_rows_that_are_too_long_are_dropped_and_never_cut():
    pytest.importorskip("gguf", reason="needs the train extra")
    short, long = row(weather()), row(weather(), question="Rain in Oslo? " * 200)

    measured = length.Length(knobs.LengthSettings(max_tokens=300), RECIPE)

    assert measured(short) is short
    assert measured(long).reason == "too_long"


@pytest.mark.parametrize(
    ("poisoned", "check"),
    [
        (row(weather(), question="A log:\x13"), "prompts decode to their text"),
        (row(text="bell\x13"), "labels decode to the answer"),
        (row(text="A turn ends with <|im_end|>."), "the last label ends the turn"),
        (row(weather("<|im_start|>")), "the last label ends the turn"),
    ],
)
def test_row_that_cannot_be_learnt_is_dropped_and_does_not_end_the_run(poisoned: Row, check: str):
    pytest.importorskip("gguf", reason="needs the train extra")

    became = length.Length(knobs.LengthSettings(), RECIPE)(poisoned)

    assert became == Drop("not_learnable", f"fails: {check}")


# ---------------------------------------------------------------- code that is run


@pytest.mark.skipif(sys.platform != "linux" or not landlock.version(), reason="no landlock")
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("print(1)", None),
        ("1 / 0", "code_error"),
        ("open('/etc/passwd')", "code_file"),
        ("import warnings\nwarnings.warn('old', FutureWarning)", "code_warns_of_deprecation"),
    ],
)
def test_code_is_run(text, reason):
    runs = code.CodeRuns(knobs.CodeRunsSettings(), RECIPE)

    became = runs(python(text))

    assert (became.reason if isinstance(became, Drop) else None) == reason
