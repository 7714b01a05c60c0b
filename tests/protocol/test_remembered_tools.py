"""Tools that came before are not read again, and say what they said before."""

from __future__ import annotations

import pytest

from proxy.protocol.openai import MalformedRequest, parse_request

TOOLS = b'[{"type":"function","function":{"name":"ping","parameters":{"type":"object"}}}]'
START = b'{"model":"m","messages":[{"role":"user","content":"hi"}],'


def test_the_second_request_has_the_first_one_s_tools() -> None:
    first, second = (parse_request(START + b'"tools":' + TOOLS + b"}") for _ in range(2))

    assert first.tools is second.tools
    assert first.tools_json == TOOLS
    assert [function.name for function in second.offered] == ["ping"]


def test_a_long_list_of_tools_is_read_once() -> None:
    described = TOOLS.replace(b'"ping"', b'"ping","description":"%s"' % (b"x" * 100_000))

    first, second = (parse_request(START + b'"tools":' + described + b"}") for _ in range(2))

    assert first.tools is second.tools
    assert first.tools_json == b""


def test_the_same_bytes_elsewhere_stay_what_they_are() -> None:
    body = START + b'"metadata":' + TOOLS + b',"tools":' + TOOLS + b"}"

    request = parse_request(body)

    assert bytes(request.metadata) == TOOLS
    assert [function.name for function in request.offered] == ["ping"]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (START + b'"tools":' + TOOLS + b',"tools":' + TOOLS + b"}", "$.tools"),
        (START + b'"tools":' + TOOLS + b',"tools":[]}', "$.tools"),
        (START + b'"tools":' + TOOLS + b',"n":0}', "$.n"),
        (START + b'"tools":' + TOOLS.replace(b'"type":"object"', b'"a":1,"a":2') + b"}", "a"),
    ],
)
def test_what_is_wrong_is_told_of_the_whole_body(body: bytes, path: str) -> None:
    parse_request(START + b'"tools":' + TOOLS + b"}")

    with pytest.raises(MalformedRequest) as raised:
        parse_request(body)

    assert path in (raised.value.param or "")
