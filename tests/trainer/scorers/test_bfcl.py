"""BFCL's rules: the verdicts of the installed checker, and what is said of a wrong call."""

from __future__ import annotations

from importlib.util import find_spec

import msgspec
import pytest

from proxy.protocol.openai import Function, FunctionCall
from tests.trainer.scorers import bfcl_rules
from trainer.scorers.bfcl import Right, fault

FORECAST = Function(
    "weather.forecast",
    "The weather.",
    msgspec.Raw(
        msgspec.json.encode(
            {
                "type": "object",
                "required": ["city"],
                "properties": {
                    "city": {"type": "string"},
                    "days": {"type": "integer"},
                    "hours": {"type": "array", "items": {"type": "integer"}},
                    "at": {"type": "object"},
                },
            }
        )
    ),
)
RIGHT = Right(
    "weather.forecast",
    {"city": ["Oslo", "Oslo, Norway"], "days": [3, ""], "hours": [[6, 18], ""], "at": [""]},
)


def told(arguments: str, tool: str = "weather_forecast") -> str | None:
    return fault([FORECAST], [FunctionCall(tool, arguments)], [RIGHT])


# ---------------------------------------------------------------- beside the installed checker


@pytest.mark.skipif(
    find_spec("bfcl_eval") is None, reason="bfcl-eval is not installed; run `make train-setup`"
)
@pytest.mark.parametrize("category", bfcl_rules.PYTHON)
def test_every_verdict_is_that_of_the_installed_checker(category):
    compared = [one for item in bfcl_rules.items(category) for one in bfcl_rules.compare(item)]

    assert [difference for _, _, difference in compared if difference] == []
    assert {"valid", "invalid"} == {verdict for _, verdict, _ in compared}


# ---------------------------------------------------------------- what is said of a wrong call


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"city": "oslo norway"}', None),
        ('{"city": "Oslo", "hours": [6, 18]}', None),
        ('{"city": "Bergen"}', "wrong_value"),
        ('{"city": "Oslo", "hours": [18, 6]}', "wrong_value"),
        ('{"city": 7}', "wrong_type"),
        ('{"city": "Oslo", "days": 3.0}', "wrong_type"),
        ('{"city": "Oslo", "days": true}', "wrong_type"),
        ('{"days": 3}', "missing_argument"),
        ('{"city": "Oslo", "wind": 1}', "unexpected_argument"),
        ("[]", "not_an_object"),
        ('{"city": ', "not_an_object"),
    ],
)
def test_a_wrong_call_is_told_by_its_fault(arguments, expected):
    assert told(arguments) == expected


def test_another_tool_is_told():
    assert told('{"city": "Oslo"}', tool="weather_report") == "wrong_tool"


@pytest.mark.parametrize("count", [0, 2])
def test_more_or_fewer_calls_are_told(count):
    calls = [FunctionCall("weather.forecast", '{"city": "Oslo"}')] * count

    assert fault([FORECAST], calls, [RIGHT]) == "wrong_count"


def test_several_calls_are_right_in_any_order():
    cities = ("Oslo", "Bergen", "Narvik")
    right = [Right("weather.forecast", {"city": [city]}) for city in cities]
    calls = [FunctionCall("weather_forecast", f'{{"city": "{city}"}}') for city in cities[::-1]]

    assert fault([FORECAST], calls, right) is None
    assert fault([FORECAST], [calls[0], calls[0], calls[2]], right) == "wrong_value"


def test_where_nothing_is_right_no_call_is():
    assert fault([FORECAST], [], []) is None
