"""Whatever was written whole is read back, wherever a file was torn or spoilt."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.protocol import segments
from proxy.protocol.exchange import Answer, Attempt, Exchange, NewerRecord
from proxy.protocol.feedback import Feedback
from proxy.protocol.openai import FunctionCall, ToolCall, Usage
from proxy.protocol.sealing import Keyring, SealError, Spoilt
from proxy.protocol.segments import MAGIC, SUFFIX, Encoder, Segment, read
from proxy.protocol.shadowed import Shadowed

BODY = b'{"model": "m",  "messages":[{"role":"user","content":"hi"}], "unknown": 1e2}'


FEEDBACK = Feedback(
    id="feedback-1",
    given_at=2.5,
    tenant="t",
    caller="c",
    exchange="chatcmpl-1",
    kind="demonstration",
    value=Answer(text="better"),
)


SHADOW = Shadowed(
    id="shadow-1",
    exchange="chatcmpl-1",
    tenant="t",
    caller="c",
    conversation="conv-1",
    domain="d",
    attempt=Attempt(
        kind="shadow",
        backend="azure",
        outcome="invalid",
        reason="schema",
        started_at=2.5,
        total_s=0.25,
    ),
)


def exchange(id: str = "chatcmpl-1", text: str = "hello") -> Exchange:
    attempt = Attempt(
        kind="primary",
        backend="local",
        adapter="api-v1",
        outcome="completed",
        answer=Answer(
            text=text,
            tool_calls=[ToolCall("call_1", FunctionCall("add", '{"a":1}'))],
            finish_reason="tool_calls",
        ),
        usage=Usage.of(3, 2),
        started_at=1.5,
        total_s=0.25,
    )
    return Exchange(
        id=id,
        request_id="req-1",
        started_at=1.5,
        total_s=0.5,
        tenant="t",
        caller="c",
        domain="d",
        route="r",
        model="m",
        stream=False,
        request=msgspec.Raw(BODY),
        attempts=[attempt],
        outcome="completed",
        status=200,
    )


def written(directory: Path, *exchanges: Exchange) -> Path:
    segment = Segment(directory)
    segment.append(Encoder().encode(exchanges))
    segment.close()
    return segment.path


def ids(directory: Path) -> list[str]:
    return [exchange.id for exchange in read(directory)]


def test_an_exchange_comes_back_as_it_was(tmp_path: Path) -> None:
    kept = exchange()

    written(tmp_path, kept)

    (found,) = read(tmp_path)
    assert msgspec.json.encode(found) == msgspec.json.encode(kept)
    assert bytes(found.request) == BODY


@given(texts=st.lists(st.text(), max_size=6), cut=st.integers(min_value=0))
def test_any_truncation_leaves_the_first_exchanges(texts: list[str], cut: int) -> None:
    exchanges = [exchange(str(number), text) for number, text in enumerate(texts)]
    frames = [Encoder().encode([one]) for one in exchanges]
    wire = b"".join(frames)
    cut %= len(wire) + 1
    whole = sum(sum(map(len, frames[: n + 1])) <= cut for n in range(len(frames)))

    with TemporaryDirectory() as directory:
        Path(directory, f"x{SUFFIX}").write_bytes(wire[:cut])
        found = ids(Path(directory))

    assert found == [one.id for one in exchanges[:whole]]


@given(at=st.integers(min_value=0), flip=st.integers(min_value=1, max_value=255))
def test_a_spoilt_byte_costs_one_exchange(at: int, flip: int) -> None:
    frames = [Encoder().encode([exchange(str(n))]) for n in range(5)]
    wire = bytearray(b"".join(frames))
    at %= len(wire)
    wire[at] ^= flip
    hit = sum(sum(map(len, frames[: n + 1])) <= at for n in range(5))

    with TemporaryDirectory() as directory:
        Path(directory, f"x{SUFFIX}").write_bytes(wire)
        found = ids(Path(directory))

    assert found == [str(n) for n in range(5) if n != hit]


@pytest.mark.parametrize("kind", [b"2", b"3", b"7", b"z"])
def test_a_spoilt_kind_costs_one_exchange(tmp_path: Path, kind: bytes) -> None:
    path = written(tmp_path, exchange("a"), exchange("b"))
    wire = path.read_bytes()
    path.write_bytes(wire[: len(MAGIC)] + kind + wire[len(MAGIC) + 1 :])

    assert ids(tmp_path) == ["b"]


def test_damage_is_told_with_its_place(tmp_path: Path) -> None:
    path = written(tmp_path, exchange("a"))
    size = path.stat().st_size
    with path.open("ab") as file:
        file.write(MAGIC + b"torn")
    damages: list[tuple[Path, int]] = []

    list(read(tmp_path, lambda *damage: damages.append(damage)))

    assert damages == [(path, size)]


def test_version_1_stays_readable() -> None:
    (old, older) = read(Path(__file__).parent / "fixtures")

    assert (old.id, old.version, older.attempts[0].answer.text) == ("chatcmpl-old", 1, "hi")
    assert (old.level, old.conversation, old.cost_usd) == ("full", "", None)


def test_feedback_lies_beside_exchanges(tmp_path: Path) -> None:
    written(tmp_path, exchange("a"), FEEDBACK, exchange("b"))

    assert ids(tmp_path) == ["a", "b"]
    (path,) = segments.segments(tmp_path)
    assert list(segments.read_segment(path))[1] == FEEDBACK


@pytest.mark.parametrize("keyring", [None, Keyring({"1": b"a" * 32}, "1")])
def test_shadow_lies_beside_exchanges_and_feedback(tmp_path: Path, keyring: Keyring | None) -> None:
    segment = Segment(tmp_path)
    segment.append(Encoder(keyring).encode([exchange("a"), SHADOW, FEEDBACK]))
    segment.close()

    found = list(segments.read_segment(segment.path, keyring=keyring))

    assert found == [exchange("a"), SHADOW, FEEDBACK]
    assert [one.id for one in read(tmp_path, keyring=keyring)] == ["a"]


def test_version_2_stays_readable() -> None:
    (old,) = read(Path(__file__).parent / "fixtures" / "version-2")

    assert (old.version, old.attempts[0].answer.text, old.assigned) == (2, "hello", "")


def test_what_is_written_is_not_complete_until_it_is_closed(tmp_path: Path) -> None:
    segment = Segment(tmp_path)
    segment.append(Encoder().encode([exchange("a")]))

    with segments.completed(segment.path) as is_complete:
        assert not is_complete
    segment.close()
    with segments.completed(segment.path) as is_complete:
        assert is_complete
    with segments.completed(tmp_path / "gone") as is_complete:
        assert not is_complete


def test_what_is_encrypted_is_read_with_its_key_only(tmp_path: Path) -> None:
    old, new = Keyring({"1": b"a" * 32}, "1"), Keyring({"1": b"a" * 32, "2": b"b" * 32}, "2")
    for keyring, id in ((old, "a"), (new, "b")):
        segment = Segment(tmp_path)
        segment.append(Encoder(keyring).encode([exchange(id, "plain words")]))
        segment.close()

    assert [one.id for one in read(tmp_path, keyring=new)] == ["a", "b"]
    assert b"plain words" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    with pytest.raises(SealError, match="key '2'"):
        list(read(tmp_path, keyring=old))
    with pytest.raises(SealError, match="there is no key"):
        list(read(tmp_path))


def test_what_was_changed_after_it_was_encrypted_is_damage(tmp_path: Path) -> None:
    keyring = Keyring({"1": b"a" * 32}, "1")
    sealed = keyring.seal(b"content", b"label")

    assert keyring.open(sealed, b"label") == b"content"
    with pytest.raises(Spoilt):
        keyring.open(sealed, b"another label")
    with pytest.raises(Spoilt):
        keyring.open(sealed[:-1] + bytes([sealed[-1] ^ 1]), b"label")
    with pytest.raises(Spoilt):
        keyring.open(sealed[:5], b"label")


def test_a_text_cannot_pass_for_a_frame() -> None:
    with pytest.raises(UnicodeDecodeError):
        MAGIC.decode()


def test_a_frame_of_something_else_is_damage(tmp_path: Path) -> None:
    frame = Encoder().encode([msgspec.Raw(b"no JSON")])  # type: ignore[list-item]
    Path(tmp_path, f"a{SUFFIX}").write_bytes(frame + Encoder().encode([exchange("b")]))

    assert ids(tmp_path) == ["b"]


def test_a_frame_of_another_form_is_refused(tmp_path: Path) -> None:
    newer = {"id": "x", "attempts": "these were renamed"}
    frame = Encoder().encode([msgspec.convert(newer, type=_Other)])  # type: ignore[list-item]
    Path(tmp_path, f"a{SUFFIX}").write_bytes(Encoder().encode([exchange("b")]) + frame)

    with pytest.raises(NewerRecord, match="upgrade Headrace"):
        ids(tmp_path)


class _Other(msgspec.Struct):
    id: str
    attempts: str


def test_unknown_fields_are_ignored(tmp_path: Path) -> None:
    newer = _Newer(mood="good", **msgspec.structs.asdict(exchange("b")))
    Path(tmp_path, f"a{SUFFIX}").write_bytes(Encoder().encode([newer]))

    assert ids(tmp_path) == ["b"]


class _Newer(Exchange, frozen=True, kw_only=True):
    mood: str


def test_segments_are_read_in_the_order_in_which_they_were_begun(tmp_path: Path) -> None:
    written(tmp_path, exchange("a"), exchange("b"))
    written(tmp_path, exchange("c"))

    assert ids(tmp_path) == ["a", "b", "c"]


def test_a_segment_may_be_read_while_it_is_written(tmp_path: Path) -> None:
    segment = Segment(tmp_path)
    segment.append(Encoder().encode([exchange("a")]))

    assert ids(tmp_path) == ["a"]
    segment.append(Encoder().encode([exchange("b")]))
    assert ids(tmp_path) == ["a", "b"]


def test_no_directory_is_no_exchanges(tmp_path: Path) -> None:
    assert ids(tmp_path / "gone") == []


def test_only_the_owner_may_read(tmp_path: Path) -> None:
    path = written(tmp_path / "record", exchange())

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_write_that_fails_halfway_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = Segment(tmp_path)
    segment.append(Encoder().encode([exchange("a")]))
    real = os.write

    def full(file: int, content: bytes) -> int:
        monkeypatch.setattr(os, "write", _fails)
        return real(file, content[:-10])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        segment.append(Encoder().encode([exchange("b"), exchange("c")]))

    damages: list[tuple[Path, int]] = []
    assert [one.id for one in read(tmp_path, lambda *at: damages.append(at))] == ["a"]
    assert damages == []


def _fails(file: int, content: bytes) -> int:
    raise OSError(28, "No space left on device")


def test_a_segment_never_goes_on_in_another_s_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "_new_name", lambda: f"same{SUFFIX}")
    written(tmp_path, exchange("a"))

    with pytest.raises(FileExistsError):
        Segment(tmp_path)


def test_an_empty_segment_is_removed(tmp_path: Path) -> None:
    Segment(tmp_path).close()

    assert list(tmp_path.iterdir()) == []
