"""Files of rows, whoever made them: what is broken is named, what is not is read."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pytest
import zstandard

from trainer.errors import SourceError
from trainer.recipe.sources import JsonlSettings
from trainer.rows import Row
from trainer.sources import files
from trainer.sources.base import Skips
from trainer.sources.jsonl import JsonlSource

PING = {"type": "function", "function": {"name": "ping", "parameters": {"type": "object"}}}


def line(question: str = "Up?", answer: str = "Yes.", **more: object) -> bytes:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": messages} | more).encode() + b"\n"


def rows(*paths: Path, **settings: object) -> tuple[list[Row], Skips]:
    skips = Skips()
    given = {"license": "CC0-1.0"} | settings
    source = JsonlSource(JsonlSettings(paths=list(map(str, paths)), **given), skips)
    return list(source.rows()), skips


def texts(path: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """Answers of the rows in a file, and (place, reason) of its skips."""
    made, skips = rows(path)
    told = [(skip.place, skip.reason) for of in skips.told.values() for skip in of]
    return [row.text for row in made], told


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


# ---------------------------------------------------------------- files


PACKED = {
    "a.jsonl": lambda content: content,
    "a.jsonl.gz": gzip.compress,
    "a.jsonl.zst": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("name", PACKED)
def test_a_row_says_where_it_stands_and_what_the_recipe_says_of_it(tmp_path, name):
    path = written(tmp_path / name, PACKED[name](line(answer="One.") + b"\n" + line(answer="Two.")))

    (first, second), skips = rows(path, tenant="acme")

    assert (first.text, second.text) == ("One.", "Two.")
    assert (first.source, second.source) == (f"jsonl:{path}:1", f"jsonl:{path}:3")
    assert (first.license, first.tenant, len(skips)) == ("CC0-1.0", "acme", 0)


def test_array_of_more_values_than_memory_has_room_for_is_not_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_COMMAS", 1000)
    bomb, good = tmp_path / "bomb.json.gz", tmp_path / "good.json.gz"
    bomb.write_bytes(gzip.compress(b"[" + b"0," * 1001 + b"0]"))
    good.write_bytes(gzip.compress(b"[" + b",".join([line().strip()] * 10) + b"]"))

    assert texts(bomb) == ([], [(str(bomb), "file_too_long")])
    assert texts(good) == (["Yes."] * 10, [])


def test_an_array_is_read_item_by_item(tmp_path):
    items = b",".join([line(), b'{"x": 1}', line(answer="No.")])
    path = written(tmp_path / "a.json", b"\xef\xbb\xbf [" + items + b"]")

    assert texts(path) == (["Yes.", "No."], [(f"{path}[1]", "missing_or_wrong_field")])


def test_files_are_read_by_name_and_several_frames_of_zstd_as_one(tmp_path):
    pack = zstandard.ZstdCompressor().compress
    written(tmp_path / "b.jsonl.zst", pack(line(answer="2")) + pack(line(answer="3")))
    written(tmp_path / "a.jsonl", line(answer="1"))

    made, _ = rows(tmp_path / "*")

    assert [row.text for row in made] == ["1", "2", "3"]


def test_a_path_without_a_file_is_told(tmp_path):
    with pytest.raises(SourceError, match=r"none\.jsonl: there is no such file"):
        rows(tmp_path / "none.jsonl")


# ---------------------------------------------------------------- broken ones


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst"])
def test_of_a_packed_file_that_is_cut_short_the_lines_before_are_read(tmp_path, name, monkeypatch):
    monkeypatch.setattr(files, "_BLOCK", 1000)
    many = b"".join(line(random.Random(n).randbytes(100).hex()) for n in range(2000))
    packed = PACKED[name](many)
    path = written(tmp_path / name, packed[: len(packed) * 2 // 3])
    other = written(tmp_path / "b.jsonl", line(answer="Last."))

    made, skips = rows(path, other)

    assert made[-1].text == "Last."
    (skip,) = skips.told["file_cut_short"]
    assert skip.place == f"{path}:{len(made)}"
    assert 600 < len(made) < 1500


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst"])
def test_a_damaged_file_is_named_and_the_next_one_read(tmp_path, name):
    packed = bytearray(PACKED[name](b"".join(line(f"{n}") for n in range(500))))
    packed[10:60] = bytes(50)
    written(tmp_path / name, bytes(packed))
    written(tmp_path / "b.jsonl", line(answer="Last."))

    made, skips = rows(tmp_path / "*")

    assert made[-1].text == "Last."
    assert set(skips.counts) <= {"file_damaged", "file_cut_short", "not_json", "not_utf8"}
    assert len(skips) > 0


def test_a_file_that_is_not_packed_at_all_is_damaged(tmp_path):
    path = written(tmp_path / "a.jsonl.gz", line())

    assert texts(path) == ([], [(f"{path}:1", "file_damaged")])


def test_a_line_of_fifty_megabytes_is_named_and_never_kept(tmp_path):
    path = written(tmp_path / "a.jsonl", line("x" * 50_000_000) + line(answer="Next."))

    assert texts(path) == (["Next."], [(f"{path}:1", "line_too_long")])


def test_a_bomb_is_a_line_too_long(tmp_path):
    path = written(
        tmp_path / "a.jsonl.zst", zstandard.ZstdCompressor().compress(bytes(200_000_000))
    )

    assert texts(path) == ([], [(f"{path}:1", "line_too_long")])


LOOP = {"type": "object", "properties": {"a": {"$ref": "#/$defs/b"}}}
BROKEN = {
    "not_utf8": line("Größe?").replace(b"Gr\\u00f6\\u00dfe", "Größe".encode("latin-1")),
    "not_json": b"{",
    "missing_or_wrong_field": b'{"prompt": "a"}',
    "no_answer": b'{"messages": [{"role": "user", "content": "a"}]}',
    "no_user": b'{"messages": [{"role": "assistant", "content": "a"}]}',
    "not_plain_text": line([{"type": "image_url"}]),
    "schema_loops": line(
        tools=[
            {
                "type": "function",
                "function": {
                    "name": "f",
                    "parameters": LOOP
                    | {"$defs": {"b": {"$ref": "#/$defs/c"}, "c": {"$ref": "#/$defs/b"}}},
                },
            }
        ]
    ),
    "schema_unusable": line(
        tools=[{"type": "function", "function": {"name": "f", "parameters": LOOP}}]
    ),
    "result_answers_no_call": json.dumps(
        {
            "messages": [
                {"role": "user", "content": "a"},
                {"role": "tool", "tool_call_id": "x", "content": "b"},
                {"role": "assistant", "content": "c"},
            ]
        }
    ).encode(),
}


@pytest.mark.parametrize("reason", BROKEN)
def test_a_broken_row_is_named_and_the_run_goes_on(tmp_path, reason):
    path = written(tmp_path / "a.jsonl", line() + BROKEN[reason].rstrip() + b"\n" + line())

    assert texts(path) == (["Yes.", "Yes."], [(f"{path}:2", reason)])


def test_a_schema_that_contains_itself_as_a_tree_does_is_fine(tmp_path):
    tree = {"type": "object", "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": tree}}
    path = written(tmp_path / "a.jsonl", line(tools=[tool]))

    assert texts(path) == (["Yes."], [])


def test_utf_16_is_no_line_of_json(tmp_path):
    path = written(tmp_path / "a.jsonl", line().decode().encode("utf-16"))

    made, told = texts(path)

    assert made == []
    assert {reason for _, reason in told} <= {"not_json", "not_utf8"}


# ---------------------------------------------------------------- conversations


def conversation(steps: int) -> bytes:
    messages: list[object] = []
    for step in range(steps):
        call = {"id": f"c{step}", "type": "function", "function": {"name": "ping"}}
        messages += [
            {"role": "user", "content": f"Is {step} up?"},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"c{step}", "content": "up"},
            {"role": "assistant", "content": f"{step} is up."},
        ]
    return json.dumps({"messages": messages, "tools": [PING]}).encode()


def test_a_conversation_gives_a_row_for_each_answer_in_one_group(tmp_path):
    made, _ = rows(written(tmp_path / "a.jsonl", conversation(2)))

    assert [len(row.messages) for row in made] == [1, 3, 5, 7]
    assert [bool(row.calls) for row in made] == [True, False, True, False]
    assert [row.cep.step if row.cep else 0 for row in made] == [0, 1, 0, 1]
    assert {row.group for row in made} == {"is 0 up?"}


def test_a_long_conversation_gives_a_few_rows_evenly_spread(tmp_path):
    made, _ = rows(written(tmp_path / "a.jsonl", conversation(9)), per_conversation=3)

    assert [len(row.messages) for row in made] == [11, 23, 35]


def test_our_own_rows_keep_what_they_say_of_themselves(tmp_path):
    (row,), _ = rows(written(tmp_path / "a.jsonl", line()), tenant="acme")
    from trainer.rows import write

    write(tmp_path / "b.jsonl", [row])

    (again,), _ = rows(tmp_path / "b.jsonl", format="headrace", license="other")
    assert again == row
