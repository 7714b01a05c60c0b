"""Lines of each format, any that it can say, as Hypothesis draws them."""

from __future__ import annotations

import json

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from trainer.formats.hermes import _WORDING

Line = dict[str, object]


def ordered(**fields: SearchStrategy[object]) -> SearchStrategy[Line]:
    """An object whose keys come in this order, as they do in a JSON text inside a string."""
    return st.tuples(*fields.values()).map(lambda drawn: dict(zip(fields, drawn, strict=True)))


name = st.from_regex(r"[a-z][a-z0-9_]{0,10}", fullmatch=True)
text = st.text(min_size=1, max_size=40).filter(lambda said: "<tool" not in said)
trimmed = text.map(str.strip).filter(bool)
number = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False, width=32)
value = st.recursive(
    st.none() | st.booleans() | number | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(name, inner, max_size=3),
    max_leaves=5,
)
arguments = st.dictionaries(name, value, max_size=3)
typed = st.sampled_from([{"type": "string"}, {"type": "array", "items": {"type": "integer"}}, {}])
schema = st.dictionaries(name, typed, max_size=3).map(
    lambda properties: {"type": "object", "properties": properties, "required": [*properties][:1]}
)
function = ordered(name=name, description=text, parameters=schema)
functions = st.lists(function, max_size=3)


def dumped(given: object) -> str:
    return json.dumps(given, ensure_ascii=False)


# ---------------------------------------------------------------- openai


call = st.builds(
    lambda name, arguments: {
        "type": "function",
        "function": {"name": name, "arguments": dumped(arguments)},
    },
    name,
    arguments,
)
calls = st.lists(call, min_size=1, max_size=2)


def numbered(calls: list[Line], turn: int = 0) -> list[Line]:
    """With ids, those of the last turn as the format writes them."""
    prefix = f"past_{turn}_" if turn else "call_"
    return [{"id": f"{prefix}{n}"} | call for n, call in enumerate(calls, start=1)]


def asking(text: str | None, calls: list[Line]) -> Line:
    said: Line = {"role": "assistant", "content": text}
    return said | ({"tool_calls": calls} if calls else {})


@st.composite
def openai_messages(draw: st.DrawFn) -> list[Line]:
    messages: list[Line] = []
    if draw(st.booleans()):
        messages.append(
            {"role": draw(st.sampled_from(["system", "developer"])), "content": draw(text)}
        )
    for turn in range(1, draw(st.integers(1, 3))):
        messages.append({"role": "user", "content": draw(text)})
        asked = numbered(draw(calls), turn)
        weight = draw(st.sampled_from([{}, {"weight": 0}]))
        messages.append(asking(draw(st.none() | text), asked) | weight)
        messages += [
            {"role": "tool", "tool_call_id": one["id"], "content": draw(text)} for one in asked
        ]
        messages.append({"role": "assistant", "content": draw(text)})
    messages.append({"role": "user", "content": draw(text), "name": draw(name)})
    answered = draw(st.none() | calls)
    messages.append(
        asking(draw(st.none() | text), numbered(answered)) if answered else asking(draw(text), [])
    )
    return messages


def tooled(functions: list[Line]) -> Line:
    return (
        {"tools": [{"type": "function", "function": one} for one in functions]} if functions else {}
    )


cep = st.builds(
    lambda step, goal: {"version": "1", "id": "w", "step": step, "goal": goal, "abandoned": ["c"]},
    st.integers(0, 9),
    text,
)
openai: SearchStrategy[Line] = st.builds(
    lambda messages, functions, cep: (
        {"messages": messages} | tooled(functions) | ({"cep": cep} if cep else {})
    ),
    openai_messages(),
    functions,
    st.none() | cep,
)


# ---------------------------------------------------------------- the others


alpaca: SearchStrategy[Line] = st.fixed_dictionaries(
    {"instruction": text, "input": st.just("") | text, "output": text},
    optional={"system": text, "history": st.lists(st.tuples(text, text).map(list), min_size=1)},
)

bare_call = ordered(name=name, arguments=arguments)


@st.composite
def sharegpt_turns(draw: st.DrawFn) -> list[Line]:
    turns: list[Line] = []
    for _ in range(draw(st.integers(0, 2))):
        asked = draw(st.lists(bare_call, min_size=1, max_size=2))
        turns.append({"from": "human", "value": draw(text)})
        turns.append(calling(asked))
        turns += [{"from": "observation", "value": draw(text)} for _ in asked]
        turns.append({"from": "gpt", "value": draw(text)})
    turns.append({"from": "human", "value": draw(text)})
    turns.append(draw(st.builds(calling, st.lists(bare_call, min_size=1)) | gpt))
    return turns


def calling(calls: list[Line]) -> Line:
    return {"from": "function_call", "value": dumped(calls[0] if len(calls) == 1 else calls)}


gpt = text.map(lambda said: {"from": "gpt", "value": said})


def compact(given: object) -> str:
    return json.dumps(given, ensure_ascii=False, separators=(",", ":"))


sharegpt: SearchStrategy[Line] = st.fixed_dictionaries(
    {"conversations": sharegpt_turns()},
    optional={"system": text, "tools": st.lists(function, min_size=1).map(compact)},
)

python_type = st.builds(
    str.__add__,
    st.sampled_from(["str", "int", "float", "List[str]", "list", "Callable[[float], float]"]),
    st.sampled_from(["", ", optional"]),
)
flat = ordered(type=python_type, description=text) | ordered(
    type=python_type, description=text, default=value
)
flat_tool = ordered(name=name, description=text, parameters=st.dictionaries(name, flat, max_size=3))
xlam: SearchStrategy[Line] = st.fixed_dictionaries(
    {
        "query": text,
        "tools": st.lists(flat_tool, max_size=3).map(dumped),
        "answers": st.lists(bare_call, max_size=3).map(dumped),
    }
)


@st.composite
def hermes_turns(draw: st.DrawFn) -> list[Line]:
    turns: list[Line] = []
    if system := draw(hermes_system):
        turns.append({"from": "system", "value": system})
    for _ in range(draw(st.integers(0, 2))):
        asked = draw(st.lists(bare_call, min_size=1, max_size=2))
        turns.append({"from": "human", "value": draw(text)})
        turns.append(tagged(draw(st.just("") | trimmed), asked))
        said = [f"<tool_response>\n{draw(trimmed)}\n</tool_response>" for _ in asked]
        turns.append({"from": "tool", "value": "\n".join(said)})
        turns.append({"from": "gpt", "value": draw(trimmed)})
    turns.append({"from": "human", "value": draw(text)})
    last = draw(st.lists(bare_call, max_size=2))
    turns.append(tagged("" if last else draw(trimmed), last))
    return turns


def tagged(text: str, calls: list[Line]) -> Line:
    written = [f"<tool_call>\n{dumped(call)}\n</tool_call>" for call in calls]
    return {"from": "gpt", "value": "\n".join([*([text] if text else []), *written])}


def listed(functions: list[Line]) -> str:
    return dumped([{"type": "function", "function": one} for one in functions])


some = st.lists(function, min_size=1, max_size=3).map(listed)
hermes_system = (
    st.just("")
    | trimmed
    | some.map(_WORDING.format)
    | st.builds(lambda own, tools: f"{own}\n\n{_WORDING.format(tools)}", trimmed, some)
    | st.builds(lambda own, tools: f"{own} <tools> {tools} </tools> {own}", trimmed, some)
)
hermes: SearchStrategy[Line] = st.fixed_dictionaries({"conversations": hermes_turns()})

LINES = {
    "openai": openai,
    "alpaca": alpaca,
    "sharegpt": sharegpt,
    "xlam": xlam,
    "hermes": hermes,
}
